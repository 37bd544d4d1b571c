//! Cancel requests: in time, too late, and for nobody.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bookend::{
    config::pool::{AuthType, Pool},
    pool::registry::ClientState,
};
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
    holder.batch_execute("BEGIN").await.unwrap();
    let waiting = tokio::spawn(async move { ask(&waits, "SELECT 'served'").await });
    let clients = || pooled.pooler.registry().clients();
    eventually("it waits", || clients().iter().any(|client| client.state() == ClientState::Waiting)).await;
    let holding = tokio::spawn(async move { holder.simple_query("SELECT pg_sleep(0.5); COMMIT").await });
    let direct = cluster.direct().await;
    let asleep =
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(0.5)%' AND wait_event = 'PgSleep'";
    while ask(&direct, asleep).await.unwrap() != "1" {
        tokio::task::yield_now().await;
    }
    token.cancel_query(NoTls).await.unwrap();
    assert!(holding.await.unwrap().is_ok());
    assert_eq!(waiting.await.unwrap().unwrap(), "served");
}

/// Requests need connections to the server of their own, beyond those of the pool.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_whose_every_server_is_busy_can_be_cancelled_whole() {
    let cluster = postgres::shared();
    let pool = Pool { default_pool_size: 4, max_db_connections: Some(4), ..trusting(&cluster) };
    let pooled = start(pool).await;
    let mut sessions = Vec::new();
    for _ in 0..4 {
        let mut session = keyed(pooled.port, 0x30000, "").await;
        session.sleep().await;
        sessions.push(session);
    }
    eventually("all servers are taken", || pooled.pooler.registry().clients().iter().all(|c| c.link().is_some())).await;
    for session in &mut sessions {
        assert_eq!(session.cancelled_by(pooled.port).await.as_deref(), Some("57014"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_wrong_in_one_bit_stops_nobody_and_is_not_answered() {
    let cluster = postgres::shared();
    let pooled = start(trusting(&cluster)).await;
    for (version, bits) in [(0x30000, 64), (0x30002, 288)] {
        let mut session = keyed(pooled.port, version, "").await;
        assert_eq!(session.key.len() * 8, bits);
        session.sleep().await;
        eventually("it runs", || pooled.pooler.registry().clients().iter().any(|c| c.link().is_some())).await;
        for bit in 0..bits {
            // What says how often it may still be passed on is not of the key.
            if !(62..64).contains(&bit) {
                let mut key = session.key.clone();
                key[bit / 8] ^= 0x80 >> (bit % 8);
                cancel(pooled.port, &key).await;
            }
        }
        for key in [&session.key[..4], &session.key[..7], &[&session.key[..], &[0]].concat(), &[0; 260], &[0; 300], &[]]
        {
            cancel(pooled.port, key).await;
        }
        session.still_sleeps().await;
        assert_eq!(session.cancelled_by(pooled.port).await.as_deref(), Some("57014"));
    }
    assert_eq!(pooled.metric_of("bookend_pool_cancel_requests_total", "unknown_key"), 62.0 + 286.0 + 12.0);
}

/// More than the pool has room for, at once: two of them at a time get through to the server, the rest end at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_cancels_stops_its_own_query_alone_and_keeps_nobody_out() {
    let cluster = postgres::shared();
    let pooled = start(Pool { default_pool_size: 3, max_client_conn: 20, ..trusting(&cluster) }).await;
    let mut neighbour = keyed(pooled.port, 0x30000, "").await;
    neighbour.sleep().await;
    let mut session = keyed(pooled.port, 0x30000, "").await;
    session.sleep().await;
    let linked = || pooled.pooler.registry().clients().iter().filter(|client| client.link().is_some()).count();
    eventually("both run", || linked() == 2).await;
    // Fifty is what has room beside max_client_conn whatever else is here.
    let flood: Vec<_> = (0..50u8)
        .map(|nth| {
            let (port, mut key) = (pooled.port, session.key.clone());
            key[3] ^= if nth % 2 == 0 { 0 } else { nth };
            tokio::spawn(async move {
                for _ in 0..20 {
                    cancel(port, &key).await;
                }
            })
        })
        .collect();
    for attempt in 0..20 {
        let client = pooled.client_with("").await.unwrap_or_else(|error| panic!("{attempt}: {error}"));
        assert_eq!(ask(&client, "SELECT 1").await.unwrap(), "1", "{attempt}");
    }
    assert_eq!(session.sqlstate().await.as_deref(), Some("57014"));
    for task in flood {
        task.await.unwrap();
    }
    neighbour.still_sleeps().await;
    let count = |result| pooled.metric_of("bookend_pool_cancel_requests_total", result);
    assert_eq!(count("sent") + count("nothing_to_cancel") + count("unknown_key"), 1000.0);
    assert!(count("sent") >= 1.0 && count("unknown_key") == 500.0);
}

fn trusting(cluster: &Cluster) -> Pool {
    Pool { auth_type: AuthType::Trust, ..config(cluster) }
}
