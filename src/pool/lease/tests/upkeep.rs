//! What ends idle connections, and PAUSE, RECONNECT and changed settings.

use std::time::Duration;

use tokio::time::Instant;

use super::{super::*, fake::*};
use crate::pool::{peer::Peer, registry::ClientState};

fn client_of(bench: &Bench) -> crate::pool::registry::ClientHandle {
    let address = "127.0.0.1:1".parse().unwrap();
    let peer = Peer::Tcp { remote: address, local: address };
    let client = bench.registry.enter_client(peer, 0, Instant::now(), &mut rand::rng());
    client.transition(ClientState::Authenticating, Instant::now());
    client.identify(bench.group.clone());
    client
}

#[tokio::test(start_paused = true)]
async fn idle_connections_go_after_their_timeout_but_the_minimum_stays() {
    let sizes = Sizes { pool: 4, min: 1, ..settings().sizes };
    let bench = bench(Settings { sizes, server_idle_timeout: Some(60 * SECOND), ..settings() });
    let leases = [bench.lease(1).await, bench.lease(2).await, bench.lease(3).await];
    leases.into_iter().for_each(release);
    pass(61 * SECOND).await;
    bench.store.sweep(Instant::now());
    settle().await;
    assert_eq!(bench.server.alive(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_minimum_is_opened_while_the_pool_has_a_client() {
    let bench = bench(Settings { sizes: Sizes { pool: 4, min: 3, ..settings().sizes }, ..settings() });
    bench.store.sweep(Instant::now());
    settle().await;
    assert_eq!(bench.server.alive(), 0, "nobody is there");
    let _client = client_of(&bench);
    bench.store.sweep(Instant::now());
    settle().await;
    assert_eq!(bench.server.alive(), 3);
}

#[tokio::test(start_paused = true)]
async fn lifetimes_end_spread_out_and_never_while_lent() {
    let sizes = Sizes { pool: 40, ..settings().sizes };
    let bench = bench(Settings { sizes, server_lifetime: 100 * SECOND, ..settings() });
    let mut leases = Vec::new();
    for client in 1..=40 {
        leases.push(bench.lease(client).await);
    }
    let kept = leases.pop().unwrap();
    leases.into_iter().for_each(release);
    let mut alive = Vec::new();
    for _ in 0..5 {
        alive.push(bench.server.alive());
        pass(30 * SECOND).await;
        bench.store.sweep(Instant::now());
    }
    assert_eq!(alive[..3], [40, 40, 40], "not before 80 s");
    assert!((2..40).contains(&alive[3]), "some at 90 s: {alive:?}");
    assert_eq!(alive[4], 1, "all at 120 s but the one in use");
    release(kept);
    assert_eq!(bench.server.alive(), 0, "that one when it comes back");
}

#[tokio::test(start_paused = true)]
async fn a_lifetime_of_zero_is_one_use() {
    let sizes = Sizes { pool: 2, min: 1, ..settings().sizes };
    let bench = bench(Settings { sizes, server_lifetime: Duration::ZERO, ..settings() });
    let _client = client_of(&bench);
    bench.store.sweep(Instant::now());
    settle().await;
    pass(60 * SECOND).await;
    bench.store.sweep(Instant::now());
    assert_eq!((bench.server.alive(), bench.server.tries()), (1, 1), "an unused one stays");
    let mut lease = bench.lease(1).await;
    assert_eq!(lease.connection().number, 1);
    release(lease);
    assert_eq!(bench.server.alive(), 0);
    let mut waiting = bench.wait(2);
    release(waiting.served().await.unwrap());
    assert_eq!(bench.server.tries(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_minimum_of_a_forced_user_is_kept_without_clients() {
    let sizes = Sizes { pool: 4, min: 3, ..settings().sizes };
    let bench = bench(Settings { sizes, keep_min: true, ..settings() });
    bench.store.sweep(Instant::now());
    settle().await;
    assert_eq!(bench.server.alive(), 3);
    bench.server.restart();
    bench.store.sweep(Instant::now());
    settle().await;
    assert_eq!(bench.server.alive(), 3, "and opened again");
}

#[tokio::test(start_paused = true)]
async fn a_pool_without_a_limit_opens_as_many_as_are_waited_for() {
    let sizes = Sizes { pool: u32::MAX, ..settings().sizes };
    let bench = bench(Settings { sizes, ..settings() });
    let mut leases = Vec::new();
    for client in 0..50 {
        leases.push(bench.lease(client).await);
    }
    assert_eq!(bench.server.alive(), 50);
}

#[tokio::test(start_paused = true)]
async fn connections_that_a_restart_ended_are_found_without_a_client() {
    let bench = bench(settings());
    release(bench.lease(1).await);
    bench.server.restart();
    bench.store.sweep(Instant::now());
    assert_eq!(bench.server.alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_pause_lends_nothing_and_ends_when_the_last_lease_does() {
    let bench = bench(settings());
    let lease = bench.lease(1).await;
    release(bench.lease(2).await);
    bench.store.pause();
    assert_eq!(bench.server.alive(), 1, "idle ones go at once");
    let mut waiting = bench.wait(3);
    assert!(tokio::time::timeout(SECOND, bench.store.emptied()).await.is_err());
    let store = bench.store.clone();
    let emptied = tokio::spawn(async move { store.emptied().await });
    settle().await;
    release(lease);
    emptied.await.unwrap();
    assert!(tokio::time::timeout(SECOND, waiting.served()).await.is_err());
    bench.store.resume();
    assert!(waiting.served().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_pause_waits_for_a_login_under_way_and_lends_it_to_nobody() {
    let bench = bench(settings());
    *bench.server.login_takes.lock() = SECOND;
    let mut waiting = bench.wait(1);
    settle().await;
    bench.store.pause();
    let start = Instant::now();
    bench.store.emptied().await;
    assert_eq!(start.elapsed(), SECOND);
    assert!(tokio::time::timeout(SECOND, waiting.served()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_reconnect_replaces_every_connection_at_its_boundary() {
    let bench = bench(settings());
    let mut lease = bench.lease(1).await;
    release(bench.lease(2).await);
    bench.store.reconnect();
    assert_eq!(bench.server.alive(), 1);
    assert_eq!(lease.connection().number, 1, "work in hand goes on");
    release(lease);
    assert_eq!(bench.server.alive(), 0);
    assert_eq!(bench.lease(3).await.connection().number, 3);
}

#[tokio::test(start_paused = true)]
async fn a_reconnect_during_a_login_does_not_miss_it() {
    let bench = bench(settings());
    *bench.server.login_takes.lock() = SECOND;
    let mut waiting = bench.wait(1);
    settle().await;
    bench.store.reconnect();
    assert_eq!(waiting.served().await.unwrap().connection().number, 2);
}

#[tokio::test(start_paused = true)]
async fn smaller_sizes_take_effect_as_connections_come_back() {
    let bench = bench(Settings { sizes: Sizes { pool: 3, ..settings().sizes }, ..settings() });
    let leases = [bench.lease(1).await, bench.lease(2).await, bench.lease(3).await];
    bench.store.set_settings(Settings { sizes: Sizes { pool: 1, ..settings().sizes }, ..settings() });
    leases.into_iter().for_each(release);
    assert_eq!(bench.server.alive(), 1);
}

#[tokio::test(start_paused = true)]
async fn larger_sizes_serve_those_who_wait_at_once() {
    let bench = bench(Settings { sizes: Sizes { pool: 1, ..settings().sizes }, ..settings() });
    let _lease = bench.lease(1).await;
    let mut waiting = bench.wait(2);
    settle().await;
    bench.store.set_settings(settings());
    let start = Instant::now();
    assert!(waiting.served().await.is_ok());
    assert!(start.elapsed() < MS);
}
