//! What is run on a server when a client gives it back, when a session ends before its client wants it to, and what a client
//! is told about itself.

use bookend::config::pool::{Pool, PoolMode, Sessions};
use bookend::pool::wire::{frontend, tag::backend as tag};
use tokio::io::AsyncWriteExt;

use crate::support::*;

fn one(cluster: &Cluster, pool_mode: PoolMode, sessions: Sessions) -> Pool {
    Pool { default_pool_size: 1, pool_mode, sessions, ..config(cluster) }
}

const TABLE: &str = "CREATE TEMP TABLE IF NOT EXISTS left_here (id int)";
const IS_GONE: &str = "SELECT to_regclass('pg_temp.left_here') IS NULL";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_query_of_ones_own_is_what_is_run_after_a_session() {
    let cluster = postgres::shared();
    for (query, gone) in [("SELECT 1; DEALLOCATE ALL", "f"), ("DISCARD TEMP", "t"), ("", "f")] {
        let sessions = Sessions { reset_query: query.into(), ..Sessions::default() };
        let pooled = start(one(&cluster, PoolMode::Session, sessions)).await;
        let first = pooled.client().await;
        let pid = ask(&first, "SELECT pg_backend_pid()").await.unwrap();
        first.batch_execute(TABLE).await.unwrap();
        first.batch_execute("SET work_mem = '3MB'; PREPARE mine AS SELECT 1").await.unwrap();
        drop(first);
        let second = pooled.client().await;
        assert_eq!(ask(&second, "SELECT pg_backend_pid()").await.unwrap(), pid, "{query}: the server is kept");
        assert_eq!(ask(&second, IS_GONE).await.unwrap(), gone, "{query}");
        assert_ne!(ask(&second, "SHOW work_mem").await.unwrap(), "3MB", "{query}: settings are undone whatever is run");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_query_that_fails_closes_the_server() {
    let cluster = postgres::shared();
    let sessions = Sessions { reset_query: "SELECT 1 / 0".into(), ..Sessions::default() };
    let pooled = start(one(&cluster, PoolMode::Session, sessions)).await;
    let first = pooled.client().await;
    let pid = ask(&first, "SELECT pg_backend_pid()").await.unwrap();
    drop(first);
    let second = pooled.client().await;
    assert_ne!(ask(&second, "SELECT pg_backend_pid()").await.unwrap(), pid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_query_is_run_after_each_transaction_when_that_is_asked_for() {
    let cluster = postgres::shared();
    let sessions = Sessions { reset_query_always: true, ..Sessions::default() };
    let pooled = start(one(&cluster, PoolMode::Transaction, sessions)).await;
    let client = pooled.client().await;
    client.batch_execute("SET TIME ZONE 'Asia/Tokyo'").await.unwrap();
    let plus = client.prepare("SELECT $1::int4 + 1").await.unwrap();
    let pid = ask(&client, "SELECT pg_backend_pid()").await.unwrap();
    client.batch_execute("CREATE SEQUENCE counted; SELECT nextval('counted')").await.unwrap();
    let forgotten = told(&client.batch_execute("SELECT lastval()").await.unwrap_err());
    assert_eq!(forgotten.0, "55000", "{forgotten:?}");
    // What remains by the server's word keeps the server instead, until it is gone.
    client.batch_execute(TABLE).await.unwrap();
    assert_eq!(ask(&client, IS_GONE).await.unwrap(), "f");
    client.batch_execute("DROP TABLE left_here; DROP SEQUENCE counted").await.unwrap();
    // What the pool keeps for its client outlives even that.
    assert_eq!(ask(&client, "SHOW TIME ZONE").await.unwrap(), "Asia/Tokyo");
    assert_eq!(client.query_one(&plus, &[&1]).await.unwrap().get::<_, i32>(0), 2);
    assert_eq!(ask(&client, "SELECT pg_backend_pid()").await.unwrap(), pid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_server_is_to_be_replaced_ends_at_its_transactions_end_when_that_is_asked_for() {
    let cluster = postgres::shared();
    let sessions = Sessions { fast_close: true, ..Sessions::default() };
    let pooled = start(one(&cluster, PoolMode::Session, sessions)).await;
    let client = pooled.client().await;
    client.batch_execute("BEGIN").await.unwrap();
    pooled.pooler.reconnect(None).unwrap();
    assert_eq!(ask(&client, "SELECT 1").await.unwrap(), "1", "a transaction is not cut");
    client.batch_execute("COMMIT").await.unwrap();
    eventually("it is told to connect again", || client.is_closed()).await;
    eventually("the server is replaced", || pooled.servers() == 0).await;

    let pooled = start(one(&cluster, PoolMode::Session, Sessions::default())).await;
    let client = pooled.client().await;
    let pid = ask(&client, "SELECT pg_backend_pid()").await.unwrap();
    pooled.pooler.reconnect(None).unwrap();
    assert_eq!(ask(&client, "SELECT pg_backend_pid()").await.unwrap(), pid, "a session keeps its server otherwise");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_client_is_stands_behind_its_name_when_that_is_asked_for() {
    let cluster = postgres::shared();
    let sessions = Sessions { application_name_add_host: true, ..Sessions::default() };
    let pooled = start(one(&cluster, PoolMode::Transaction, sessions)).await;
    let (web, nameless) = (pooled.client_with("application_name=web").await.unwrap(), pooled.client().await);
    for (client, name) in [(&web, "web"), (&nameless, "app")] {
        let shown = ask(client, "SHOW application_name").await.unwrap();
        assert!(shown.starts_with(&format!("{name} - 127.0.0.1:")), "{shown}");
    }
    web.batch_execute("SET application_name = 'other'").await.unwrap();
    assert_eq!(ask(&web, "SHOW application_name").await.unwrap(), "other");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_waits_for_long_is_told_so_once() {
    let cluster = postgres::shared();
    let sessions = Sessions { query_wait_notify: Some(SECOND / 5), ..Sessions::default() };
    let config = one(&cluster, PoolMode::Transaction, sessions);
    let pooled = start(Pool { auth_type: bookend::config::pool::AuthType::Trust, ..config }).await;
    let holder = pooled.client().await;
    holder.batch_execute("BEGIN").await.unwrap();
    let mut stream = raw(pooled.port).await;
    for _ in 0..2 {
        let mut query = Vec::new();
        frontend::query(&mut query, b"SELECT 42");
        stream.write_all(&query).await.unwrap();
        let (told, body) = message(&mut stream).await;
        assert_eq!(told, tag::NOTICE_RESPONSE);
        assert!(String::from_utf8_lossy(&body).contains("client being queued"));
        tokio::time::sleep(SECOND / 2).await;
        holder.batch_execute("COMMIT").await.unwrap();
        let mut tags = Vec::new();
        while tags.last() != Some(&tag::READY_FOR_QUERY) {
            tags.push(message(&mut stream).await.0);
        }
        assert_eq!(tags, *b"TDCZ", "nothing but the answer");
        holder.batch_execute("BEGIN").await.unwrap();
    }
}
