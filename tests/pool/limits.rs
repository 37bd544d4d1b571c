//! Limits that are reached, and what the client is told.

use bookend::{
    config::pool::{Database, Pool},
    health::drain::Phase,
};
use tokio_postgres::error::SqlState;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_that_is_too_long_ends_with_words_that_help() {
    let cluster = postgres::shared();
    let limit = Some(SECOND / 4);
    let pooled = start(Pool { default_pool_size: 1, query_wait_timeout: limit, ..config(&cluster) }).await;
    let (holder, waits) = (pooled.client().await, pooled.client().await);
    holder.batch_execute("BEGIN").await.unwrap();
    let (code, message) = told(&waits.batch_execute("SELECT 1").await.unwrap_err());
    assert_eq!(code, "53300");
    assert!(message.contains("query_wait_timeout"), "{message}");
    holder.batch_execute("COMMIT").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_clients_are_told_the_setting_and_the_console_still_lets_in() {
    let cluster = postgres::shared();
    let pooled = start(Pool { max_client_conn: 2, ..config(&cluster) }).await;
    let _clients = (pooled.client().await, pooled.client().await);
    let (code, message) = told(&pooled.client_with("").await.err().unwrap());
    assert_eq!(code, "53300");
    assert!(message.contains("max_client_conn"), "{message}");
    let console = postgres::connect(pooled.port, "pgbouncer", "").await.unwrap();
    assert!(!console.simple_query("SHOW POOLS").await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_said_about_databases_before_the_password_is_right() {
    let cluster = postgres::shared();
    let pooled = start(config(&cluster)).await;
    let wrong = format!("host=127.0.0.1 port={} user={USER} password=wrong dbname=nowhere", pooled.port);
    let error = tokio_postgres::connect(&wrong, tokio_postgres::NoTls).await.err().unwrap();
    assert_eq!(error.code(), Some(&SqlState::INVALID_PASSWORD));
    let error = postgres::connect(pooled.port, "nowhere", "").await.err().unwrap();
    assert_eq!(told(&error).0, "3D000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_other_database_is_the_fallbacks() {
    let cluster = postgres::shared();
    let any = Database { dbname: None, ..database(&cluster, "*") };
    let pooled = start(Pool { databases: vec![any], ..config(&cluster) }).await;
    let client = postgres::connect(pooled.port, "template1", "").await.unwrap();
    assert_eq!(ask(&client, "SELECT current_database()").await.unwrap(), "template1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_clients_are_told_when_their_time_is_over() {
    let cluster = postgres::shared();
    let pooled = start(Pool { client_idle_timeout: Some(SECOND / 5), ..config(&cluster) }).await;
    let client = pooled.client().await;
    eventually("it is gone", || client.is_closed()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_sends_idle_clients_away_and_lets_transactions_finish() {
    let cluster = postgres::shared();
    let pooled = start(config(&cluster)).await;
    let (idle, busy) = (pooled.client().await, pooled.client().await);
    busy.batch_execute("BEGIN").await.unwrap();
    pooled.drain.advance(Phase::Draining { deadline: tokio::time::Instant::now() + 30 * SECOND });
    eventually("the idle one is gone", || idle.is_closed()).await;
    assert_eq!(ask(&busy, "SELECT 1").await.unwrap(), "1");
    busy.batch_execute("COMMIT").await.unwrap();
    eventually("the busy one is gone", || busy.is_closed()).await;
    assert_eq!(pooled.pooler.drain().in_flight(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_ends_transactions() {
    let cluster = postgres::shared();
    let pooled = start(config(&cluster)).await;
    let busy = pooled.client().await;
    busy.batch_execute("BEGIN").await.unwrap();
    pooled.drain.advance(Phase::Cut);
    eventually("it is gone", || busy.is_closed()).await;
}
