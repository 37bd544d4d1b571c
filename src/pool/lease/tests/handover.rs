//! Who gets which server.

use std::sync::{Arc, atomic::Ordering};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{super::*, fake::*};
use crate::pool::registry::ServerState;

#[tokio::test(start_paused = true)]
async fn waiters_are_served_in_order_of_arrival() {
    let bench = bench(settings());
    let (first, second) = (bench.lease(1).await, bench.lease(2).await);
    let served = Arc::new(Mutex::new(Vec::new()));
    for client in 10..20 {
        let mut waiting = bench.wait(client);
        let served = served.clone();
        tokio::spawn(async move {
            let lease = waiting.served().await.unwrap();
            served.lock().push(client);
            pass(MS).await;
            release(lease);
        });
    }
    settle().await;
    release(first);
    release(second);
    pass(SECOND).await;
    assert_eq!(*served.lock(), (10..20).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_never_overtakes_one_that_waits() {
    let bench = bench(Settings { sizes: Sizes { pool: 1, ..settings().sizes }, ..settings() });
    let lease = bench.lease(1).await;
    let mut waiting = bench.wait(2);
    release(lease);
    assert!(bench.try_lease(3).is_none(), "the server is client 2's already");
    assert_eq!(waiting.served().await.unwrap().entry().link(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_vanished_takes_no_server_with_it() {
    let bench = bench(Settings { sizes: Sizes { pool: 1, ..settings().sizes }, ..settings() });
    let lease = bench.lease(1).await;
    let vanishes_early = bench.wait(2);
    let vanishes_late = bench.wait(3);
    let mut stays = bench.wait(4);
    drop(vanishes_early);
    release(lease);
    // The server is in the slot of client 3, who is gone before it looks.
    drop(vanishes_late);
    let lease = stays.served().await.unwrap();
    assert_eq!(bench.server.tries(), 1, "the same server");
    release(lease);
    assert_eq!(bench.store.snapshot(Instant::now()).idle, 1);
    assert_eq!(bench.store.snapshot(Instant::now()).waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn the_server_used_last_is_lent_first() {
    let bench = bench(settings());
    let (mut first, mut second) = (bench.lease(1).await, bench.lease(2).await);
    let (a, b) = (first.connection().number, second.connection().number);
    release(first);
    release(second);
    assert_eq!(bench.lease(3).await.connection().number, b);
    assert_ne!(a, b);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_dropped_closes_its_server_and_the_next_waiter_gets_a_new_one() {
    let bench = bench(Settings { sizes: Sizes { pool: 1, ..settings().sizes }, ..settings() });
    let lease = bench.lease(1).await;
    let mut waiting = bench.wait(2);
    drop(lease);
    assert_eq!(waiting.served().await.unwrap().connection().number, 2);
    assert_eq!(bench.server.alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_speaks_or_ended_while_idle_is_closed_unseen() {
    let bench = bench(settings());
    let mut lease = bench.lease(1).await;
    let speaks = lease.connection().speaks.clone();
    release(lease);
    speaks.store(true, Ordering::SeqCst);
    let mut lease = bench.lease(2).await;
    assert_eq!(lease.connection().number, 2);
    assert_eq!(bench.server.alive(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_with_a_cancel_under_way_goes_to_nobody_until_that_has_ended() {
    let bench = bench(Settings { sizes: Sizes { pool: 1, ..settings().sizes }, ..settings() });
    let lease = bench.lease(1).await;
    let server = lease.entry().clone();
    assert!(server.begin_cancel(1, 2));
    let mut waiting = bench.wait(2);
    release(lease);
    settle().await;
    assert_eq!(server.state(), ServerState::BeingCancelled);
    assert!(!server.begin_cancel(1, 2), "a second cancel comes too late");
    let waits = tokio::time::timeout(SECOND, waiting.served()).await;
    assert!(waits.is_err());
    bench.store.cancel_ended(&server, true, Instant::now());
    assert_eq!(waiting.served().await.unwrap().connection().number, 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_whose_cancel_was_not_seen_to_end_is_never_lent_again() {
    let bench = bench(settings());
    let lease = bench.lease(1).await;
    let server = lease.entry().clone();
    assert!(server.begin_cancel(1, 2));
    release(lease);
    bench.store.cancel_ended(&server, false, Instant::now());
    assert_eq!(bench.server.alive(), 0);
    assert_eq!(bench.lease(2).await.connection().number, 2);
}

#[tokio::test(start_paused = true)]
async fn states_and_links_follow_the_lease() {
    let bench = bench(settings());
    let lease = bench.lease(7).await;
    let server = lease.entry().clone();
    assert_eq!((server.state(), server.link()), (ServerState::Leased, Some(7)));
    assert_eq!(bench.group.servers(ServerState::Leased), 1);
    release(lease);
    assert_eq!((server.state(), server.link()), (ServerState::Idle, None));
    bench.store.pause();
    assert_eq!(server.state(), ServerState::Closed);
    assert!(ServerState::ALL.iter().all(|state| bench.group.servers(*state) == 0));
    assert!(bench.registry.servers().is_empty());
}

#[tokio::test]
async fn under_a_thousand_clients_on_real_threads_every_one_is_served() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let done = runtime.spawn(async {
        let bench = Arc::new(bench(Settings { sizes: Sizes { pool: 5, ..settings().sizes }, ..settings() }));
        let mut clients = Vec::new();
        for client in 1..=1000 {
            let bench = bench.clone();
            clients.push(tokio::spawn(async move {
                for turn in 0..20 {
                    // Some give up half way, some drop what they have.
                    if (client + turn) % 7 == 0 {
                        let mut waiting = bench.wait(client);
                        let _unserved = tokio::time::timeout(MS / 10, waiting.served()).await;
                        continue;
                    }
                    let lease = bench.lease(client).await;
                    tokio::task::yield_now().await;
                    if (client + turn) % 13 != 0 {
                        release(lease);
                    }
                }
            }));
        }
        for client in clients {
            client.await.unwrap();
        }
        assert!(bench.server.alive_max.load(Ordering::SeqCst) <= 5);
        let snapshot = bench.store.snapshot(Instant::now());
        assert_eq!((snapshot.waiting, snapshot.open), (0, snapshot.idle));
    });
    tokio::time::timeout(60 * SECOND, done).await.unwrap().unwrap();
    runtime.shutdown_background();
}
