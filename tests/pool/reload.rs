//! A changed configuration, with clients on it.

use std::sync::Arc;

use bookend::config::{
    pool::{AuthType, Pool, User, UserSecret},
    secret::Secret,
};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_did_not_change_keeps_its_connections() {
    let cluster = postgres::shared();
    let pooled = start(config(&cluster)).await;
    let client = pooled.client().await;
    let before = ask(&client, "SELECT pg_backend_pid()").await.unwrap();
    pooled.pooler.reload(&Arc::new(Pool { default_pool_size: 7, ..config(&cluster) }));
    assert_eq!(ask(&client, "SELECT pg_backend_pid()").await.unwrap(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_server_takes_over_at_each_transaction_boundary() {
    let (old, new) = (postgres::Cluster::start(), postgres::shared());
    let pooled = start(config(&old)).await;
    let (idle, busy) = (pooled.client().await, pooled.client().await);
    let port = "SELECT inet_server_port()";
    assert_eq!(ask(&idle, port).await.unwrap(), old.port.to_string());
    busy.batch_execute("BEGIN").await.unwrap();
    pooled.pooler.reload(&Arc::new(config(&new)));
    assert_eq!(ask(&idle, port).await.unwrap(), new.port.to_string());
    assert_eq!(ask(&busy, port).await.unwrap(), old.port.to_string());
    busy.batch_execute("COMMIT").await.unwrap();
    assert_eq!(ask(&busy, port).await.unwrap(), new.port.to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_removed_database_finish_their_transactions() {
    let cluster = postgres::shared();
    let pooled = start(config(&cluster)).await;
    let (idle, busy) = (pooled.client().await, pooled.client().await);
    busy.batch_execute("BEGIN").await.unwrap();
    let other = database(&cluster, "other");
    pooled.pooler.reload(&Arc::new(Pool { databases: vec![other], ..config(&cluster) }));
    eventually("the idle one is gone", || idle.is_closed()).await;
    assert_eq!(ask(&busy, "SELECT 1").await.unwrap(), "1");
    busy.batch_execute("COMMIT").await.unwrap();
    eventually("the busy one is gone", || busy.is_closed()).await;
    assert_eq!(told(&pooled.client_with("").await.err().unwrap()).0, "3D000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_larger_pool_serves_those_who_wait() {
    let cluster = postgres::shared();
    let pooled = start(Pool { default_pool_size: 1, ..config(&cluster) }).await;
    let (holder, waits) = (pooled.client().await, pooled.client().await);
    holder.batch_execute("BEGIN").await.unwrap();
    let waiting = tokio::spawn(async move { ask(&waits, "SELECT 1").await });
    tokio::time::sleep(SECOND / 10).await;
    assert!(!waiting.is_finished());
    pooled.pooler.reload(&Arc::new(Pool { default_pool_size: 2, ..config(&cluster) }));
    assert_eq!(waiting.await.unwrap().unwrap(), "1");
}

/// It connected before the reload and says who it is after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_of_before_a_reload_logs_in_by_what_is_in_force() {
    let (old, new) = (postgres::Cluster::start(), postgres::shared());
    let trusting = |cluster: &Cluster| Pool { auth_type: AuthType::Trust, ..config(cluster) };
    let pooled = start(trusting(&old)).await;
    let client = pooled.client().await;
    let port = "SELECT inet_server_port()";
    assert_eq!(ask(&client, port).await.unwrap(), old.port.to_string());
    let (mut late, mut removed) = (
        TcpStream::connect(("127.0.0.1", pooled.port)).await.unwrap(),
        TcpStream::connect(("127.0.0.1", pooled.port)).await.unwrap(),
    );
    eventually("both are there", || pooled.pooler.registry().client_count() == 3).await;
    pooled.pooler.reload(&Arc::new(trusting(&new)));
    late.write_all(&startup()).await.unwrap();
    assert!(answer(&mut late).await.ends_with(&[(b'Z', b"I".to_vec())]));
    assert_eq!(ask(&client, port).await.unwrap(), new.port.to_string(), "it has not led the pool back");
    let others = vec![User::new("somebody_else", UserSecret::Plain(Secret::new("x")))];
    pooled.pooler.reload(&Arc::new(Pool { users: others, ..trusting(&new) }));
    removed.write_all(&startup()).await.unwrap();
    assert_eq!(message(&mut removed).await.0, b'E', "there is no such user any more");
}

fn startup() -> Vec<u8> {
    let parameters = format!("\0\x03\0\0user\0{USER}\0database\0{DATABASE}\0\0");
    let length = u32::try_from(parameters.len() + 4).unwrap();
    [&length.to_be_bytes()[..], parameters.as_bytes()].concat()
}
