//! Cancel requests: in time, too late, and for nobody.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bookend::config::pool::Pool;
use tokio_postgres::NoTls;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_is_cancelled() {
    let cluster = postgres::shared();
    let pooled = start(config(&cluster)).await;
    let client = pooled.client().await;
    let token = client.cancel_token();
    let query = tokio::spawn(async move {
        let error = client.batch_execute("SELECT pg_sleep(30)").await.unwrap_err();
        (told(&error).0, ask(&client, "SELECT 'goes on'").await.unwrap())
    });
    tokio::time::sleep(SECOND / 5).await;
    token.cancel_query(NoTls).await.unwrap();
    let (code, then) = tokio::time::timeout(10 * SECOND, query).await.unwrap().unwrap();
    assert_eq!((code.as_str(), then.as_str()), ("57014", "goes on"));
}

/// One server, two clients. The first cancels in the moment its own query ends; the second's next query runs on the same
/// server and must never feel it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_late_cancels_never_stop_a_neighbour() {
    let cluster = postgres::shared();
    let pooled = start(Pool { default_pool_size: 1, ..config(&cluster) }).await;
    let (canceller, neighbour) = (pooled.client().await, pooled.client().await);
    let over = Arc::new(AtomicBool::new(false));
    let ended = over.clone();
    let neighbour = tokio::spawn(async move {
        let mut queries = 0;
        while !ended.load(Ordering::Relaxed) {
            let answer = ask(&neighbour, "SELECT pg_sleep(0.001), 1").await;
            assert!(answer.is_ok(), "after {queries} queries: {answer:?}");
            queries += 1;
        }
        queries
    });
    let token = canceller.cancel_token();
    for turn in 0..1000u64 {
        let token = token.clone();
        let delay = Duration::from_micros(turn % 40 * 50);
        let cancel = tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let _ = token.cancel_query(NoTls).await;
        });
        // Hit or not: both are right for one's own query.
        let _ = ask(&canceller, "SELECT pg_sleep(0.0005)").await;
        if turn % 10 == 0 {
            cancel.await.unwrap();
        }
    }
    over.store(true, Ordering::Relaxed);
    let queries = neighbour.await.unwrap();
    assert!(queries > 100, "{queries}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_for_a_client_that_waits_stops_nobody() {
    let cluster = postgres::shared();
    let pooled = start(Pool { default_pool_size: 1, ..config(&cluster) }).await;
    let (holder, waits) = (pooled.client().await, pooled.client().await);
    let token = waits.cancel_token();
    let holding = tokio::spawn(async move { ask(&holder, "SELECT pg_sleep(0.5), 'mine'").await });
    tokio::time::sleep(SECOND / 10).await;
    let waiting = tokio::spawn(async move { ask(&waits, "SELECT 'served'").await });
    tokio::time::sleep(SECOND / 10).await;
    token.cancel_query(NoTls).await.unwrap();
    assert!(holding.await.unwrap().is_ok());
    assert_eq!(waiting.await.unwrap().unwrap(), "served");
}
