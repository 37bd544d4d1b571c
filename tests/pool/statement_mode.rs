//! `pool_mode: statement`, and the protocol that `disable_pqexec` leaves.

use bookend::config::pool::{Pool, PoolMode, Sessions};

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_block_is_refused_and_leaves_nothing_behind() {
    let cluster = postgres::shared();
    let config = Pool { pool_mode: PoolMode::Statement, default_pool_size: 1, ..config(&cluster) };
    let pooled = start(config).await;
    let (other, begins) = (pooled.client().await, pooled.client().await);
    let before = ask(&other, "SELECT pg_backend_pid()").await.unwrap();
    let (code, message) = told(&begins.batch_execute("BEGIN").await.unwrap_err());
    assert_eq!((&*code, &*message), ("08P01", "transaction blocks not allowed in statement pooling mode"));
    eventually("it is disconnected", || begins.is_closed()).await;
    let after = ask(&other, "SELECT pg_backend_pid()").await.unwrap();
    assert_ne!(before, after, "the server that was in a transaction is closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_of_one_request_passes_and_prepared_statements_are_kept() {
    let cluster = postgres::shared();
    let config = Pool { pool_mode: PoolMode::Statement, default_pool_size: 1, ..config(&cluster) };
    let pooled = start(config).await;
    let (first, second) = (pooled.client().await, pooled.client().await);
    first.batch_execute("BEGIN; SELECT 1; COMMIT").await.unwrap();
    let plus = first.prepare("SELECT $1::int4 + 1").await.unwrap();
    let times = second.prepare("SELECT $1::int4 * 2").await.unwrap();
    for turn in 0..5i32 {
        assert_eq!(first.query_one(&plus, &[&turn]).await.unwrap().get::<_, i32>(0), turn + 1);
        assert_eq!(second.query_one(&times, &[&turn]).await.unwrap().get::<_, i32>(0), turn * 2);
    }
    assert_eq!(pooled.servers(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn simple_queries_can_be_refused() {
    let cluster = postgres::shared();
    let pooled =
        start(Pool { sessions: Sessions { disable_pqexec: true, ..Sessions::default() }, ..config(&cluster) }).await;
    let client = pooled.client().await;
    assert_eq!(client.query_one("SELECT 6 * $1::int4", &[&7]).await.unwrap().get::<_, i32>(0), 42);
    let (code, message) = told(&client.batch_execute("SELECT 1").await.unwrap_err());
    assert_eq!((&*code, &*message), ("08P01", "PQexec disallowed"));
    eventually("it is disconnected", || client.is_closed()).await;
}
