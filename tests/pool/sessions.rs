//! What belongs to a client stays with it, and with nobody else.

use bookend::config::pool::{Pool, PoolMode};

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_zone_that_was_set_is_kept_for_its_client_alone() {
    let cluster = postgres::shared();
    let pooled = start(Pool { default_pool_size: 1, ..config(&cluster) }).await;
    let (tokyo, other) = (pooled.client().await, pooled.client().await);
    let before = ask(&other, "SHOW TIME ZONE").await.unwrap();
    tokyo.batch_execute("SET TIME ZONE 'Asia/Tokyo'").await.unwrap();
    for _ in 0..5 {
        assert_eq!(ask(&tokyo, "SHOW TIME ZONE").await.unwrap(), "Asia/Tokyo");
        assert_eq!(ask(&other, "SHOW TIME ZONE").await.unwrap(), before);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn options_of_the_startup_packet_do_not_reach_another_client() {
    let cluster = postgres::shared();
    let pooled = start(Pool { default_pool_size: 1, ..config(&cluster) }).await;
    let hasty = pooled.client_with("options='-c statement_timeout=5s'").await.unwrap();
    let other = pooled.client().await;
    for _ in 0..3 {
        assert_eq!(ask(&hasty, "SHOW statement_timeout").await.unwrap(), "5s");
        assert_eq!(ask(&other, "SHOW statement_timeout").await.unwrap(), "0");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn application_names_follow_their_clients() {
    let cluster = postgres::shared();
    let pooled = start(Pool { default_pool_size: 1, ..config(&cluster) }).await;
    let web = pooled.client_with("application_name=web-1").await.unwrap();
    let job = pooled.client_with("application_name=job").await.unwrap();
    assert_eq!(ask(&web, "SHOW application_name").await.unwrap(), "web-1");
    assert_eq!(ask(&job, "SHOW application_name").await.unwrap(), "job");
    let census = pooled.pooler.registry().census();
    let names: Vec<_> = census.iter().map(|count| count.application_name.as_str()).collect();
    assert_eq!(names, ["job", "web-1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_session_mode_a_client_keeps_its_server_and_leaves_it_clean() {
    let cluster = postgres::shared();
    let pooled = start(Pool { default_pool_size: 1, pool_mode: PoolMode::Session, ..config(&cluster) }).await;
    let first = pooled.client().await;
    let pid = ask(&first, "SELECT pg_backend_pid()").await.unwrap();
    first.batch_execute("SET statement_timeout = '7s'; CREATE TEMP TABLE mine (id int)").await.unwrap();
    assert_eq!(ask(&first, "SELECT pg_backend_pid()").await.unwrap(), pid);
    drop(first);
    let second = pooled.client().await;
    assert_eq!(ask(&second, "SHOW statement_timeout").await.unwrap(), "0");
    assert_eq!(ask(&second, "SELECT to_regclass('mine') IS NULL").await.unwrap(), "t");
    assert_eq!(ask(&second, "SELECT pg_backend_pid()").await.unwrap(), pid, "the same server, reset");
}
