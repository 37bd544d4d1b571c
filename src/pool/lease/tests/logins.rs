//! Opening connections: how many at a time, and what happens when that fails.

use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::{super::*, fake::*};

fn starting_up() -> ServerError {
    ServerError::refused(Some("57P03"), Some("the database system is starting up"))
}

#[tokio::test(start_paused = true)]
async fn four_logins_at_a_time() {
    let bench = bench(Settings { sizes: Sizes { pool: 20, ..settings().sizes }, ..settings() });
    *bench.server.login_takes.lock() = 30 * MS;
    let mut waiting: Vec<_> = (1..=20).map(|client| bench.wait(client)).collect();
    let start = Instant::now();
    let mut leases = Vec::new();
    for waiting in &mut waiting {
        leases.push(waiting.served().await.unwrap());
    }
    assert_eq!(bench.server.logins_now_max.load(Ordering::SeqCst), 4);
    assert_eq!(start.elapsed(), 150 * MS);
}

#[tokio::test(start_paused = true)]
async fn a_failed_login_fails_nobody_who_waits() {
    let bench = bench(settings());
    bench.server.fail(5, starting_up());
    let mut waiting = bench.wait(1);
    assert!(waiting.served().await.is_ok());
    assert_eq!(bench.server.tries(), 6);
    assert_eq!(bench.store.snapshot(Instant::now()).login_error, None);
}

#[tokio::test(start_paused = true)]
async fn logins_that_fail_together_cost_the_waiters_one_pause() {
    let bench = bench(Settings { sizes: Sizes { pool: 20, ..settings().sizes }, ..settings() });
    *bench.server.login_takes.lock() = MS;
    bench.server.fail(4, starting_up());
    let mut waiting: Vec<_> = (1..=20).map(|client| bench.wait(client)).collect();
    let start = Instant::now();
    let mut leases = Vec::new();
    for waiting in &mut waiting {
        leases.push(waiting.served().await.unwrap());
    }
    // Four fail in the first millisecond; after one pause of at most 100 ms one tries alone, and then four at a time.
    assert!(start.elapsed() <= 110 * MS, "{:?}", start.elapsed());
    assert_eq!(bench.server.tries(), 24);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_back_after_a_long_outage_serves_within_half_a_second() {
    let bench = bench(settings());
    bench.server.fail(u32::MAX, starting_up());
    let mut waiting = bench.wait(1);
    pass(20 * SECOND).await;
    bench.server.fail(0, starting_up());
    let back = Instant::now();
    assert!(waiting.served().await.is_ok());
    assert!(back.elapsed() <= 500 * MS, "{:?}", back.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_finds_the_server_back_ends_the_pause() {
    let bench = bench(settings());
    bench.server.fail(u32::MAX, starting_up());
    let mut waiting = bench.wait(1);
    pass(10 * SECOND + 300 * MS).await;
    bench.server.fail(0, starting_up());
    bench.store.server_is_up();
    let back = Instant::now();
    assert!(waiting.served().await.is_ok());
    assert!(back.elapsed() < 10 * MS);
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_at_query_wait_timeout_with_the_last_login_error() {
    let bench = bench(settings());
    bench.server.fail(u32::MAX, starting_up());
    let start = Instant::now();
    let mut waiting = bench.wait(1);
    let refusal = waiting.served().await.err().unwrap();
    assert_eq!(start.elapsed(), 30 * SECOND);
    assert_eq!(refusal, Refusal::WaitedTooLong { limit: 30 * SECOND, login: Some(starting_up()) });
}

#[tokio::test(start_paused = true)]
async fn each_wait_has_its_own_end_though_one_timer_watches_them_all() {
    let bench = bench(Settings { sizes: Sizes { pool: 1, ..settings().sizes }, ..settings() });
    let _lease = bench.lease(1).await;
    let mut early = bench.wait(2);
    pass(10 * SECOND).await;
    let mut late = bench.wait(3);
    let start = Instant::now();
    assert!(early.served().await.is_err());
    assert_eq!(start.elapsed(), 20 * SECOND);
    assert!(late.served().await.is_err());
    assert_eq!(start.elapsed(), 30 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_login_that_is_refused_for_good_is_told_to_a_client_that_logs_in_but_not_to_one_that_works() {
    let bench = bench(settings());
    let gone = ServerError::refused(Some("3D000"), Some("database \"arena\" does not exist"));
    bench.server.fail(3, gone.clone());
    let mut works = bench.wait(1);
    let mut logs_in = bench.store.wait(2, Patience::UntilRefused, Instant::now());
    assert_eq!(logs_in.served().await.err().unwrap(), Refusal::Login(gone));
    assert!(works.served().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_logs_in_waits_for_a_server_that_is_only_starting() {
    let bench = bench(settings());
    bench.server.fail(3, starting_up());
    let mut logs_in = bench.store.wait(2, Patience::UntilRefused, Instant::now());
    assert!(logs_in.served().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_connection_nobody_waits_for_any_more_rests_in_the_pool() {
    let bench = bench(settings());
    *bench.server.login_takes.lock() = SECOND;
    drop(bench.wait(1));
    let waiting = bench.wait(2);
    pass(100 * MS).await;
    drop(waiting);
    pass(SECOND).await;
    assert_eq!(bench.store.snapshot(Instant::now()).idle, 1);
}

#[tokio::test(start_paused = true)]
async fn the_reserve_opens_for_one_that_waited_long_enough() {
    let sizes = Sizes { pool: 1, min: 0, reserve: 1, reserve_after: Some(5 * SECOND) };
    let bench = bench(Settings { sizes, ..settings() });
    let _lease = bench.lease(1).await;
    let start = Instant::now();
    assert!(bench.wait(2).served().await.is_ok());
    assert_eq!(start.elapsed(), 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn with_fail_fast_who_waits_is_told_at_once_and_who_comes_in_the_pause_as_well() {
    let bench = bench(Settings { fail_fast: true, ..settings() });
    bench.server.fail(2, starting_up());
    let mut waiting = [bench.wait(1), bench.wait(2)];
    for waiting in &mut waiting {
        assert_eq!(waiting.served().await.err().unwrap(), Refusal::Login(starting_up()));
    }
    let mut newcomer = bench.wait(3);
    assert_eq!(newcomer.served().await.err().unwrap(), Refusal::Login(starting_up()));
    assert_eq!(bench.server.tries(), 2, "told without another try");
    pass(SECOND).await;
    assert!(bench.wait(4).served().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn fail_fast_spares_those_for_whom_a_connection_will_come_back() {
    let bench = bench(Settings { fail_fast: true, ..settings() });
    let lease = bench.lease(1).await;
    bench.server.fail(u32::MAX, starting_up());
    let mut waiting = bench.wait(2);
    pass(SECOND).await;
    release(lease);
    assert!(waiting.served().await.is_ok());
}
