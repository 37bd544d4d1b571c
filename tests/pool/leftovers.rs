//! What SQL leaves on a server does not reach the next client of that server.

use bookend::config::pool::Pool;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_made_by_sql_reach_nobody_else() {
    let cluster = postgres::shared();
    let pooled = start(Pool { default_pool_size: 1, ..config(&cluster) }).await;
    let (one, other) = (pooled.client().await, pooled.client_with("options='-c work_mem=5MB'").await.unwrap());
    for (sets, looks) in [
        ("SET statement_timeout = '77s'", "SHOW statement_timeout"),
        ("SELECT set_config('search_path', '', false)", "SHOW search_path"),
        ("SET ROLE pg_monitor", "SELECT current_user"),
        ("SET SESSION AUTHORIZATION pg_monitor", "SELECT session_user"),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SHOW default_transaction_read_only"),
        ("SET work_mem = '7MB'", "SHOW work_mem"),
        ("SET a.b = 'left'", "SELECT coalesce(current_setting('a.b', true), '')"),
        ("DISCARD ALL", "SHOW work_mem"),
    ] {
        let before = ask(&other, looks).await.unwrap();
        one.batch_execute(sets).await.unwrap();
        assert_eq!(ask(&other, looks).await.unwrap(), before, "{sets}");
    }
    assert_eq!(pooled.servers(), 1, "the server was kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prepared_set_config_is_seen_wherever_it_runs() {
    let cluster = postgres::shared();
    let pooled = start(Pool { default_pool_size: 1, ..config(&cluster) }).await;
    let (one, other) = (pooled.client().await, pooled.client().await);
    let sets = one.prepare("SELECT set_config('lock_timeout', '5s', false)").await.unwrap();
    assert_eq!(ask(&other, "SHOW lock_timeout").await.unwrap(), "0");
    one.query_one(&sets, &[]).await.unwrap();
    assert_eq!(ask(&other, "SHOW lock_timeout").await.unwrap(), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tracked_settings_follow_their_client_through_everybody_elses_resets() {
    let cluster = postgres::shared();
    let pooled = start(Pool { default_pool_size: 1, ..config(&cluster) }).await;
    let (one, other) = (pooled.client().await, pooled.client().await);
    one.batch_execute("SET TIME ZONE 'Asia/Tokyo'").await.unwrap();
    other.batch_execute("SET lock_timeout = '5s'").await.unwrap();
    assert_eq!(ask(&one, "SHOW TIME ZONE").await.unwrap(), "Asia/Tokyo");
    one.batch_execute("BEGIN; SET TIME ZONE 'Europe/Oslo'; SET application_name = 'gone'; ROLLBACK").await.unwrap();
    assert_ne!(ask(&other, "SHOW TIME ZONE").await.unwrap(), "Asia/Tokyo");
    assert_eq!(ask(&one, "SHOW TIME ZONE").await.unwrap(), "Asia/Tokyo");
    assert_eq!(ask(&one, "SHOW application_name").await.unwrap(), "");
}

/// As pg_dump does; the second one must find the name free.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_sql_prepare_reach_nobody_else() {
    let cluster = postgres::shared();
    let pooled = start(Pool { default_pool_size: 1, ..config(&cluster) }).await;
    let (one, other) = (pooled.client().await, pooled.client().await);
    let kept = other.prepare("SELECT 'kept'").await.unwrap();
    for client in [&one, &other, &one] {
        client.batch_execute("BEGIN; PREPARE dump AS SELECT 1; EXECUTE dump; COMMIT; DEALLOCATE dump").await.unwrap();
    }
    assert_eq!(other.query_one(&kept, &[]).await.unwrap().get::<_, &str>(0), "kept");
}
