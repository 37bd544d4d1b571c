//! Limits that are reached, and what the client is told.

use bookend::{
    config::pool::{AuthType, Database, Pool, User, UserTimeouts},
    health::drain::Phase,
};
use tokio::io::AsyncWriteExt;
use tokio_postgres::error::SqlState;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_that_is_too_long_ends_with_words_that_help() {
    let cluster = postgres::shared();
    let limit = Some(SECOND / 4);
    let pooled = start(Pool { default_pool_size: 1, query_wait_timeout: limit, ..config(&cluster) }).await;
    let (holder, waits) = (pooled.client().await, pooled.client().await);
    holder.batch_execute("BEGIN").await.unwrap();
    let (code, message) = told(&waits.batch_execute("SELECT 1").await.unwrap_err());
    assert_eq!(code, "53300");
    assert!(message.contains("query_wait_timeout"), "{message}");
    holder.batch_execute("COMMIT").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_users_own_timeouts_hold_for_it_and_change_with_a_reload() {
    let cluster = postgres::shared();
    let mut config = Pool { default_pool_size: 1, ..config(&cluster) };
    config.users[0].timeouts =
        UserTimeouts { query: Some(Some(SECOND / 4)), query_wait: Some(Some(SECOND / 4)), ..Default::default() };
    let pooled = start(config.clone()).await;
    let client = pooled.client().await;
    let (code, message) = told(&client.batch_execute("SELECT pg_sleep(10)").await.unwrap_err());
    assert_eq!(code, "57014", "{message}");
    let (holder, waits) = (pooled.client().await, pooled.client().await);
    holder.batch_execute("BEGIN").await.unwrap();
    let (code, message) = told(&waits.batch_execute("SELECT 1").await.unwrap_err());
    assert_eq!(code, "53300", "{message}");
    holder.batch_execute("COMMIT").await.unwrap();
    config.users[0].timeouts.query = None;
    pooled.pooler.reload(&std::sync::Arc::new(config));
    holder.batch_execute("SELECT pg_sleep(0.4)").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_clients_are_told_the_setting_and_the_console_still_lets_in() {
    let cluster = postgres::shared();
    let pooled = start(Pool { max_client_conn: 2, ..config(&cluster) }).await;
    let _clients = (pooled.client().await, pooled.client().await);
    let (code, message) = told(&pooled.client_with("").await.err().unwrap());
    assert_eq!(code, "53300");
    assert!(message.contains("max_client_conn"), "{message}");
    let console = postgres::connect(pooled.port, "pgbouncer", "").await.unwrap();
    assert!(!console.simple_query("SHOW POOLS").await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_said_about_databases_before_the_password_is_right() {
    let cluster = postgres::shared();
    let pooled = start(config(&cluster)).await;
    let wrong = format!("host=127.0.0.1 port={} user={USER} password=wrong dbname=nowhere", pooled.port);
    let error = tokio_postgres::connect(&wrong, tokio_postgres::NoTls).await.err().unwrap();
    assert_eq!(error.code(), Some(&SqlState::INVALID_PASSWORD));
    let error = postgres::connect(pooled.port, "nowhere", "").await.err().unwrap();
    assert_eq!(told(&error).0, "3D000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_other_database_is_the_fallbacks() {
    let cluster = postgres::shared();
    let any = Database { dbname: None, ..database(&cluster, "*") };
    let pooled = start(Pool { databases: vec![any], ..config(&cluster) }).await;
    let client = postgres::connect(pooled.port, "template1", "").await.unwrap();
    assert_eq!(ask(&client, "SELECT current_database()").await.unwrap(), "template1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_clients_are_told_when_their_time_is_over() {
    let cluster = postgres::shared();
    let pooled = start(Pool { client_idle_timeout: Some(SECOND / 5), ..config(&cluster) }).await;
    let client = pooled.client().await;
    eventually("it is gone", || client.is_closed()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_database_and_of_a_user_have_limits_of_their_own() {
    let cluster = postgres::shared();
    let databases = || {
        let narrow = Database { max_db_client_connections: Some(1), ..database(&cluster, "narrow") };
        let wide = Database { max_db_client_connections: Some(9), ..database(&cluster, "wide") };
        vec![database(&cluster, DATABASE), narrow, wide]
    };
    let settings = Pool { max_db_client_connections: Some(2), databases: databases(), ..config(&cluster) };
    let pooled = start(settings.clone()).await;
    let connect = |name: &'static str| postgres::connect(pooled.port, name, "");
    let refused = async |name: &'static str| told(&connect(name).await.err().unwrap());

    let narrow = connect("narrow").await.unwrap();
    assert_eq!(
        refused("narrow").await,
        ("53300".to_owned(), "client connections exceeded (max_db_client_connections)".to_owned())
    );
    let general = [connect(DATABASE).await.unwrap(), connect(DATABASE).await.unwrap()];
    assert_eq!(refused(DATABASE).await.0, "53300");
    let wide = [connect("wide").await.unwrap(), connect("wide").await.unwrap(), connect("wide").await.unwrap()];
    // Who goes makes room.
    drop(narrow);
    eventually("it has gone", || pooled.pooler.registry().client_count() == 5).await;
    let narrow = connect("narrow").await.unwrap();

    let console = connect("pgbouncer").await.unwrap();
    let shown = async |command: &str, name: &str, columns: [&str; 2]| {
        let rows = rows(&console, command).await;
        let row = rows.iter().find(|row| row.get("name") == Some(name)).unwrap();
        columns.map(|column| row.get(column).unwrap().parse::<u32>().unwrap())
    };
    let columns = ["max_client_connections", "current_client_connections"];
    assert_eq!(shown("SHOW DATABASES", DATABASE, columns).await, [2, 2]);
    assert_eq!(shown("SHOW DATABASES", "narrow", columns).await, [1, 1]);
    assert_eq!(shown("SHOW DATABASES", "wide", columns).await, [9, 3]);
    let columns = ["max_user_client_connections", "current_client_connections"];
    assert_eq!(shown("SHOW USERS", USER, columns).await, [0, 6]);

    // A reload sends nobody away and holds for those who come.
    let users = settings.users.clone();
    let user = |limit| vec![User { max_user_client_connections: Some(limit), ..users[0].clone() }];
    let fewer = Pool { users: user(6), max_user_client_connections: Some(9), ..settings.clone() };
    pooled.pooler.reload(&std::sync::Arc::new(fewer));
    assert_eq!(shown("SHOW USERS", USER, columns).await, [6, 6]);
    assert_eq!(
        refused("wide").await,
        ("53300".to_owned(), "client connections exceeded (max_user_client_connections)".to_owned())
    );
    pooled.pooler.reload(&std::sync::Arc::new(Pool {
        users: user(7),
        max_user_client_connections: Some(1),
        ..settings
    }));
    let seventh = connect("wide").await.unwrap();
    drop((general, wide, narrow, seventh));
}

/// Logs in by trust and sends Sync after Sync without ever reading, until the pool takes no more.
async fn flood_with_syncs(port: u16) -> tokio::net::TcpStream {
    let mut stream = raw(port).await;
    let syncs = [b'S', 0, 0, 0, 4].repeat(10_000);
    while tokio::time::timeout(SECOND / 2, stream.write_all(&syncs)).await.is_ok_and(|sent| sent.is_ok()) {}
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_asks_and_never_reads_is_reached_by_its_timeout_and_by_draining() {
    let cluster = postgres::shared();
    let timed = start(Pool { auth_type: AuthType::Trust, client_idle_timeout: Some(2 * SECOND), ..config(&cluster) });
    let timed = timed.await;
    let _stuck = flood_with_syncs(timed.port).await;
    eventually("its time is over", || timed.pooler.registry().client_count() == 0).await;

    let killed = start(Pool { auth_type: AuthType::Trust, ..config(&cluster) }).await;
    let _stuck = flood_with_syncs(killed.port).await;
    assert_eq!(killed.pooler.registry().client_count(), 1);
    killed.drain.advance(Phase::Draining { deadline: tokio::time::Instant::now() + 30 * SECOND });
    eventually("it is gone", || killed.pooler.registry().client_count() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_sends_idle_clients_away_and_lets_transactions_finish() {
    let cluster = postgres::shared();
    let pooled = start(config(&cluster)).await;
    let (idle, busy) = (pooled.client().await, pooled.client().await);
    busy.batch_execute("BEGIN").await.unwrap();
    pooled.drain.advance(Phase::Draining { deadline: tokio::time::Instant::now() + 30 * SECOND });
    eventually("the idle one is gone", || idle.is_closed()).await;
    assert_eq!(ask(&busy, "SELECT 1").await.unwrap(), "1");
    busy.batch_execute("COMMIT").await.unwrap();
    eventually("the busy one is gone", || busy.is_closed()).await;
    // A client sees its end before its session has lingered for what it may still say.
    eventually("nothing is in flight", || pooled.pooler.drain().in_flight() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_ends_transactions() {
    let cluster = postgres::shared();
    let pooled = start(config(&cluster)).await;
    let busy = pooled.client().await;
    busy.batch_execute("BEGIN").await.unwrap();
    pooled.drain.advance(Phase::Cut);
    eventually("it is gone", || busy.is_closed()).await;
}
