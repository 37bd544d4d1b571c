//! `max_db_connections` between the pools of one database, `max_user_connections` between those of one user.

use std::{
    sync::{Arc, atomic::Ordering},
    time::SystemTime,
};

use tokio::time::Instant;

use super::{super::*, fake::*};
use crate::pool::registry::Registry;

fn two_pools(limit: u32) -> (Bench, Bench) {
    let registry = Registry::new(Instant::now(), SystemTime::UNIX_EPOCH, [0; 32]);
    let (database, server) = (Budget::new(Some(limit)), Arc::default());
    let pool = |user| {
        let budgets = Budgets { database: Arc::clone(&database), ..unlimited() };
        bench_for(user, settings(), budgets, Arc::clone(&server), registry.clone())
    };
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
    let registry = Registry::new(Instant::now(), SystemTime::UNIX_EPOCH, [0; 32]);
    let (budgets, server) = (Budgets { database: Budget::new(Some(2)), ..unlimited() }, Arc::default());
    let greedy = Settings { sizes: Sizes { pool: 4, min: 4, ..settings().sizes }, ..settings() };
    let pool = |user| bench_for(user, greedy, budgets.clone(), Arc::clone(&server), registry.clone());
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
    assert_eq!(a.budgets.database.taken(), 0);
    assert!(b.wait(2).served().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_lowered_limit_closes_no_more_than_it_must() {
    let (a, _b) = two_pools(2);
    let leases = [a.lease(1).await, a.lease(2).await];
    leases.into_iter().for_each(release);
    a.budgets.database.set_limit(Some(1));
    a.store.sweep(Instant::now());
    assert_eq!(a.server.alive(), 1);
}

/// The pools of (database x, user a), (x, b) and (y, a).
fn three_pools(of_database: u32, of_user: u32) -> [Bench; 3] {
    let registry = Registry::new(Instant::now(), SystemTime::UNIX_EPOCH, [0; 32]);
    let (x, y) = (Budget::new(Some(of_database)), Budget::new(Some(of_database)));
    let (a, b) = (Budget::new(Some(of_user)), Budget::new(Some(of_user)));
    let server: Arc<Server> = Arc::default();
    [("xa", &x, &a), ("xb", &x, &b), ("ya", &y, &a)].map(|(name, database, user)| {
        let budgets = Budgets { database: database.clone(), user: user.clone() };
        bench_for(name, settings(), budgets, server.clone(), registry.clone())
    })
}

#[tokio::test(start_paused = true)]
async fn a_users_limit_holds_across_databases_and_an_idle_connection_elsewhere_makes_room() {
    let [xa, xb, ya] = three_pools(9, 1);
    release(xa.lease(1).await);
    let _other_user = xb.lease(2).await;
    let lease = ya.lease(3).await;
    assert_eq!(xa.store.snapshot(Instant::now()).open, 0, "the idle one went");
    let mut waiting = xa.wait(4);
    assert!(tokio::time::timeout(SECOND, waiting.served()).await.is_err(), "the only one is lent");
    release(lease);
    let _lease = waiting.served().await.unwrap();
    assert_eq!(xa.budgets.user.taken(), 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_evicted_in_vain_when_the_other_limit_has_no_room() {
    let [xa, xb, ya] = three_pools(1, 1);
    release(xb.lease(1).await);
    let _lent = ya.lease(2).await;
    let _waiting = xa.wait(3);
    settle().await;
    assert_eq!(xb.store.snapshot(Instant::now()).idle, 1, "of user a's connections none can give way");
    assert_eq!((xa.budgets.database.taken(), xa.budgets.user.taken()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn pools_that_wait_for_different_limits_do_not_wake_each_other_for_ever() {
    let [xa, xb, ya] = three_pools(1, 1);
    let (of_b, of_y) = (xb.lease(1).await, ya.lease(2).await);
    let mut first = xa.wait(3);
    let second = xb.wait(4);
    pass(SECOND).await;
    let tries = xa.server.tries();
    drop(second);
    drop(of_b);
    settle().await;
    assert_eq!(xa.server.tries(), tries, "the user's limit is still reached");
    drop(of_y);
    assert!(first.served().await.is_ok());
}
