//! The console's commands on a pool that works.

use crate::support::*;

async fn console(pooled: &Pooled) -> tokio_postgres::Client {
    postgres::connect(pooled.port, "pgbouncer", "").await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_waits_for_transactions_and_holds_the_next_ones_back() {
    let cluster = postgres::shared();
    let pooled = start(config(&cluster)).await;
    let (console, busy, next) = (console(&pooled).await, pooled.client().await, pooled.client().await);
    busy.batch_execute("BEGIN").await.unwrap();
    let paused = tokio::spawn(async move {
        console.simple_query("PAUSE arena").await.unwrap();
        console
    });
    tokio::time::sleep(SECOND / 5).await;
    assert!(!paused.is_finished());
    busy.batch_execute("COMMIT").await.unwrap();
    let console = paused.await.unwrap();
    assert_eq!(pooled.servers(), 0);
    let held = tokio::spawn(async move { ask(&next, "SELECT 1").await });
    tokio::time::sleep(SECOND / 5).await;
    assert!(!held.is_finished());
    console.simple_query("RESUME arena").await.unwrap();
    assert_eq!(held.await.unwrap().unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_ends_clients_and_servers_at_once() {
    let cluster = postgres::shared();
    let pooled = start(config(&cluster)).await;
    let (console, busy) = (console(&pooled).await, pooled.client().await);
    busy.batch_execute("BEGIN").await.unwrap();
    console.simple_query("KILL arena").await.unwrap();
    eventually("the client is gone", || busy.is_closed()).await;
    eventually("the server is gone", || pooled.servers() == 0).await;
    console.simple_query("RESUME arena").await.unwrap();
    assert_eq!(ask(&pooled.client().await, "SELECT 1").await.unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reconnect_replaces_servers_without_anybody_noticing() {
    let cluster = postgres::shared();
    let pooled = start(config(&cluster)).await;
    let (console, client) = (console(&pooled).await, pooled.client().await);
    let before = ask(&client, "SELECT pg_backend_pid()").await.unwrap();
    console.simple_query("RECONNECT").await.unwrap();
    assert_ne!(ask(&client, "SELECT pg_backend_pid()").await.unwrap(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_without_rights_is_told_which_setting_gives_them() {
    let cluster = postgres::shared();
    let pooled = start(bookend::config::pool::Pool { admin_users: Vec::new(), ..config(&cluster) }).await;
    let error = postgres::connect(pooled.port, "pgbouncer", "").await.unwrap_err();
    assert_eq!(told(&error).0, "42501");
    assert!(error.as_db_error().unwrap().hint().is_some_and(|hint| hint.contains("stats_users")), "{error:?}");
}
