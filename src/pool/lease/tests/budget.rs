//! `max_db_connections` between the pools of one database.

use std::{
    sync::{Arc, atomic::Ordering},
    time::SystemTime,
};

use tokio::time::Instant;

use super::{super::*, fake::*};
use crate::pool::registry::Registry;

fn two_pools(limit: u32) -> (Bench, Bench) {
    let registry = Registry::new(Instant::now(), SystemTime::UNIX_EPOCH);
    let (budget, server) = (Budget::new(Some(limit)), Arc::default());
    let pool = |user| bench_for(user, settings(), budget.clone(), Arc::clone(&server), registry.clone());
    (pool("a"), pool("b"))
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_of_another_pool_makes_room() {
    let (a, b) = two_pools(2);
    let leases = [a.lease(1).await, a.lease(2).await];
    leases.into_iter().for_each(release);
    let _lease = b.lease(3).await;
    assert_eq!(a.store.snapshot(Instant::now()).idle, 1);
    assert_eq!(a.server.alive_max.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_found_no_room_is_served_when_another_gives_one_back() {
    let (a, b) = two_pools(1);
    let lease = a.lease(1).await;
    let mut waiting = b.wait(2);
    pass(SECOND).await;
    release(lease);
    let start = Instant::now();
    assert!(waiting.served().await.is_ok());
    assert!(start.elapsed() < MS);
    assert_eq!(a.server.alive_max.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_found_no_room_is_served_when_a_lease_of_another_is_dropped() {
    let (a, b) = two_pools(1);
    let lease = a.lease(1).await;
    let mut waiting = b.wait(2);
    pass(SECOND).await;
    drop(lease);
    assert!(waiting.served().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_minimum_above_the_limit_does_not_close_and_open_for_ever() {
    let registry = Registry::new(Instant::now(), SystemTime::UNIX_EPOCH);
    let (budget, server) = (Budget::new(Some(2)), Arc::default());
    let greedy = Settings { sizes: Sizes { pool: 4, min: 4, ..settings().sizes }, ..settings() };
    let pool = |user| bench_for(user, greedy, budget.clone(), Arc::clone(&server), registry.clone());
    let (a, b) = (pool("a"), pool("b"));
    release(a.lease(1).await);
    release(b.lease(2).await);
    for _ in 0..10 {
        a.store.sweep(Instant::now());
        b.store.sweep(Instant::now());
        pass(SECOND).await;
    }
    assert_eq!(a.server.tries(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failed_login_gives_its_place_back() {
    let (a, b) = two_pools(1);
    a.server.fail(1, ServerError::Closed);
    let first = a.wait(1);
    settle().await;
    drop(first);
    assert_eq!(a.budget.taken(), 0);
    assert!(b.wait(2).served().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_lowered_limit_closes_no_more_than_it_must() {
    let (a, _b) = two_pools(2);
    let leases = [a.lease(1).await, a.lease(2).await];
    leases.into_iter().for_each(release);
    a.budget.set_limit(Some(1));
    a.store.sweep(Instant::now());
    assert_eq!(a.server.alive(), 1);
}
