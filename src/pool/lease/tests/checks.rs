//! `server_check_query`: idle connections that are asked before they are lent; `server_round_robin`.

use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::{super::*, fake::*};

fn checked(size: u32) -> Bench {
    let sizes = Sizes { pool: size, ..settings().sizes };
    bench(Settings { sizes, check_delay: Some(30 * SECOND), ..settings() })
}

/// Opens that many connections and lets them rest.
async fn rest(bench: &Bench, count: u64, time: std::time::Duration) {
    let mut leases = Vec::new();
    for client in 0..count {
        leases.push(bench.lease(client).await);
    }
    leases.into_iter().for_each(release);
    pass(time).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_rested_for_long_is_asked_before_it_is_lent() {
    let bench = checked(1);
    rest(&bench, 1, 29 * SECOND).await;
    release(bench.try_lease(1).unwrap());
    assert_eq!(bench.server.checks.load(Ordering::SeqCst), 0);
    pass(30 * SECOND).await;
    assert_eq!(bench.store.snapshot(Instant::now()).stale, 1);
    assert!(bench.try_lease(2).is_none());
    let mut lease = bench.lease(2).await;
    assert_eq!((lease.connection().number, bench.server.checks.load(Ordering::SeqCst)), (1, 1));
    release(lease);
    release(bench.try_lease(3).unwrap());
}

#[tokio::test(start_paused = true)]
async fn with_a_delay_of_zero_nobody_gets_a_connection_unchecked() {
    let sizes = Sizes { pool: 1, ..settings().sizes };
    let bench = bench(Settings { sizes, check_delay: Some(std::time::Duration::ZERO), ..settings() });
    let lease = bench.lease(1).await;
    let mut waiting = bench.wait(2);
    settle().await;
    release(lease);
    let lease = waiting.served().await.unwrap();
    assert_eq!(bench.server.checks.load(Ordering::SeqCst), 1);
    release(lease);
    release(bench.lease(3).await);
    assert_eq!((bench.server.checks.load(Ordering::SeqCst), bench.server.tries()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn one_that_does_not_answer_is_closed_with_its_like_and_another_serves() {
    let bench = checked(3);
    rest(&bench, 3, 60 * SECOND).await;
    bench.server.check_fails.store(true, Ordering::SeqCst);
    let mut lease = bench.lease(9).await;
    assert_eq!(lease.connection().number, 4, "a new one");
    assert_eq!((bench.server.checks.load(Ordering::SeqCst), bench.server.alive()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_check_that_hangs_keeps_nobody_from_a_new_connection() {
    let bench = checked(2);
    rest(&bench, 1, 60 * SECOND).await;
    *bench.server.check_takes.lock() = 15 * SECOND;
    bench.server.check_fails.store(true, Ordering::SeqCst);
    let start = Instant::now();
    let mut lease = bench.lease(9).await;
    assert_eq!(lease.connection().number, 2);
    assert_eq!(start.elapsed(), 500 * MS);
    pass(15 * SECOND).await;
    assert_eq!(bench.store.snapshot(Instant::now()).open, 1);
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_have_one_check_each_and_no_login_beside_it() {
    let bench = checked(5);
    rest(&bench, 5, 60 * SECOND).await;
    *bench.server.check_takes.lock() = 10 * MS;
    let mut waiting = [bench.wait(1), bench.wait(2), bench.wait(3)];
    let mut leases = Vec::new();
    for waiting in &mut waiting {
        leases.push(waiting.served().await.unwrap());
    }
    assert_eq!((bench.server.checks.load(Ordering::SeqCst), bench.server.tries()), (3, 5));
}

#[tokio::test(start_paused = true)]
async fn a_pause_waits_for_a_check_and_lends_what_it_leaves_to_nobody() {
    let bench = checked(1);
    rest(&bench, 1, 60 * SECOND).await;
    *bench.server.check_takes.lock() = SECOND;
    let mut waiting = bench.wait(1);
    settle().await;
    bench.store.pause();
    let start = Instant::now();
    bench.store.emptied().await;
    assert_eq!(start.elapsed(), SECOND);
    assert!(tokio::time::timeout(SECOND, waiting.served()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn connections_are_lent_in_turn_if_they_are_to_be() {
    let sizes = Sizes { pool: 3, ..settings().sizes };
    let bench = bench(Settings { sizes, round_robin: true, ..settings() });
    rest(&bench, 3, SECOND).await;
    let mut numbers = Vec::new();
    for client in 0..6 {
        let mut lease = bench.lease(client).await;
        numbers.push(lease.connection().number);
        release(lease);
        pass(MS).await;
    }
    assert_eq!(numbers, [1, 2, 3, 1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn in_turn_means_among_those_that_need_no_check() {
    let sizes = Sizes { pool: 2, ..settings().sizes };
    let bench = bench(Settings { sizes, round_robin: true, check_delay: Some(30 * SECOND), ..settings() });
    rest(&bench, 2, 20 * SECOND).await;
    release(bench.lease(1).await);
    pass(15 * SECOND).await;
    let mut lease = bench.lease(2).await;
    assert_eq!((lease.connection().number, bench.server.checks.load(Ordering::SeqCst)), (1, 0));
}
