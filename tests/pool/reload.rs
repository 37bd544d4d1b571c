//! A changed configuration, with clients on it.

use std::sync::Arc;

use bookend::config::pool::Pool;

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
