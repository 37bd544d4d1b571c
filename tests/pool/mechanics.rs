//! Sizes, limits and the life of server connections, by PostgreSQL's own count.

use std::{sync::Arc, time::Duration};

use bookend::config::{
    pool::{Database, DatabaseServers, Pool, Servers, User, UserSecret},
    secret::Secret,
};

use crate::support::*;

/// Sessions on the cluster whose `application_name` is `name`.
async fn sessions(direct: &tokio_postgres::Client, name: &str) -> usize {
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}'");
    ask(direct, &sql).await.unwrap().parse().unwrap()
}

/// Waits until PostgreSQL has that many sessions of a name.
async fn has_sessions(direct: &tokio_postgres::Client, name: &str, count: usize) {
    let wait = async {
        while sessions(direct, name).await != count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let there = tokio::time::timeout(20 * SECOND, wait).await;
    assert!(there.is_ok(), "not {count} but {}", sessions(direct, name).await);
}

/// A database whose server connections bear this name, logged in as the cluster's user.
fn named(cluster: &Cluster, name: &str, application_name: &str) -> Database {
    let startup = vec![("application_name".to_owned(), application_name.to_owned())];
    Database {
        user: Some(USER.into()),
        servers: DatabaseServers { startup, ..DatabaseServers::default() },
        ..database(cluster, name)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forced_users_minimum_is_open_before_any_client_comes_and_comes_back() {
    let cluster = postgres::shared();
    let direct = cluster.direct().await;
    let warm = Database { min_pool_size: Some(3), ..named(&cluster, "warm", "warmed") };
    let pooled = start(Pool { databases: vec![warm], ..config(&cluster) }).await;
    has_sessions(&direct, "warmed", 3).await;
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'warmed'";
    ask(&direct, end).await.unwrap();
    has_sessions(&direct, "warmed", 3).await;
    let client = postgres::connect(pooled.port, "warm", "").await.unwrap();
    assert_eq!(ask(&client, "SELECT 1").await.unwrap(), "1");
    assert_eq!(pooled.servers(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minimum_comes_with_a_reload_and_goes_with_one() {
    let cluster = postgres::shared();
    let direct = cluster.direct().await;
    let with = |min| Pool {
        databases: vec![Database { min_pool_size: Some(min), ..named(&cluster, "warm", "reloaded") }],
        server_idle_timeout: Some(Duration::from_millis(200)),
        ..config(&cluster)
    };
    let pooled = start(with(0)).await;
    pooled.pooler.reload(&Arc::new(with(2)));
    has_sessions(&direct, "reloaded", 2).await;
    pooled.pooler.reload(&Arc::new(with(0)));
    has_sessions(&direct, "reloaded", 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minimum_above_max_db_connections_opens_what_is_allowed_and_leaves_it_alone() {
    let cluster = postgres::shared();
    let direct = cluster.direct().await;
    let warm = Database { min_pool_size: Some(4), max_db_connections: Some(2), ..named(&cluster, "warm", "limited") };
    let _pooled = start(Pool { databases: vec![warm], ..config(&cluster) }).await;
    has_sessions(&direct, "limited", 2).await;
    let pids =
        "SELECT string_agg(pid::text, ',' ORDER BY pid) FROM pg_stat_activity WHERE application_name = 'limited'";
    let before = ask(&direct, pids).await.unwrap();
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(ask(&direct, pids).await.unwrap(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_users_limit_holds_over_all_databases_and_idle_connections_give_way() {
    let cluster = postgres::shared();
    let databases = ["one", "two"].map(|name| database(&cluster, name)).to_vec();
    let secret = UserSecret::Plain(Secret::new(PASSWORD));
    let users = vec![User { max_user_connections: Some(2), ..User::new(USER, secret) }];
    let pooled = start(Pool { databases, users, ..config(&cluster) }).await;
    let client = |name: &'static str| {
        let port = pooled.port;
        async move { postgres::connect(port, name, "").await.unwrap() }
    };
    let (one, two) = (client("one").await, client("two").await);
    one.batch_execute("BEGIN").await.unwrap();
    let more = client("one").await;
    more.batch_execute("BEGIN").await.unwrap();
    assert_eq!(pooled.servers(), 2, "the idle connection to two gave way");
    let waiting = tokio::spawn(async move { ask(&two, "SELECT 'served'").await });
    tokio::time::sleep(SECOND / 5).await;
    assert!(!waiting.is_finished());
    one.batch_execute("COMMIT").await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), "served");
    assert_eq!(pooled.servers(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_users_size_counts_before_the_databases_and_that_before_the_general_one() {
    let cluster = postgres::shared();
    let sized = Database { pool_size: Some(2), ..database(&cluster, DATABASE) };
    let general = database(&cluster, "general");
    let at_once = async |pooled: &Pooled, name: &str| {
        let mut clients = Vec::new();
        for _ in 0..6 {
            clients.push(postgres::connect(pooled.port, name, "").await.unwrap());
        }
        let sleeping = clients.iter().map(|client| client.batch_execute("SELECT pg_sleep(0.3)"));
        futures_util::future::try_join_all(sleeping).await.unwrap();
        pooled.servers()
    };
    let base = Pool { default_pool_size: 3, ..config(&cluster) };
    let pooled = start(Pool { databases: vec![general.clone()], ..base.clone() }).await;
    assert_eq!(at_once(&pooled, "general").await, 3);
    let pooled = start(Pool { databases: vec![sized.clone()], ..base.clone() }).await;
    assert_eq!(at_once(&pooled, DATABASE).await, 2);
    let user = User { pool_size: Some(1), ..base.users[0].clone() };
    let pooled = start(Pool { databases: vec![sized], users: vec![user], ..base.clone() }).await;
    assert_eq!(at_once(&pooled, DATABASE).await, 1);
    let pooled = start(Pool { databases: vec![general], default_pool_size: 0, ..base }).await;
    assert_eq!(at_once(&pooled, "general").await, 6, "0 is no limit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lifetime_of_zero_is_one_transaction_for_each_server_connection() {
    let cluster = postgres::shared();
    let pooled = start(Pool { server_lifetime: Duration::ZERO, ..config(&cluster) }).await;
    let client = pooled.client().await;
    let pid = "SELECT pg_backend_pid()";
    let (first, second) = (ask(&client, pid).await.unwrap(), ask(&client, pid).await.unwrap());
    assert_ne!(first, second);
    client.batch_execute("BEGIN").await.unwrap();
    assert_eq!(ask(&client, pid).await.unwrap(), ask(&client, pid).await.unwrap());
    client.batch_execute("COMMIT").await.unwrap();
    eventually("it has gone", || pooled.servers() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connect_query_runs_once_on_each_server_connection_before_any_client_has_it() {
    let cluster = postgres::shared();
    let direct = cluster.direct().await;
    direct.batch_execute("CREATE TABLE IF NOT EXISTS logins (pid int)").await.unwrap();
    direct.batch_execute("TRUNCATE logins").await.unwrap();
    let query = "INSERT INTO logins SELECT pg_backend_pid(); SET TimeZone TO 'Asia/Tokyo'; SELECT 1";
    let servers = DatabaseServers { connect_query: Some(query.into()), ..DatabaseServers::default() };
    let entry = Database { servers, ..database(&cluster, DATABASE) };
    let pooled = start(Pool { databases: vec![entry], ..config(&cluster) }).await;
    let client = pooled.client().await;
    let own = ask(&client, "SELECT pg_backend_pid()").await.unwrap();
    assert_eq!(
        ask(&client, "SHOW TimeZone").await.unwrap(),
        "Asia/Tokyo",
        "what it reports is what clients begin with"
    );
    ask(&client, "SELECT 1").await.unwrap();
    assert_eq!(ask(&direct, "SELECT string_agg(pid::text, ',') FROM logins").await.unwrap(), own);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_connect_query_has_set_is_there_for_the_next_client_whatever_one_has_done() {
    let cluster = postgres::shared();
    let query = Some("SET statement_timeout TO '77s'".to_owned());
    let servers = DatabaseServers { connect_query: query, ..DatabaseServers::default() };
    let entry = Database { servers, ..database(&cluster, DATABASE) };
    let pooled = start(Pool { databases: vec![entry], default_pool_size: 1, ..config(&cluster) }).await;
    let (show, next) = ("SELECT current_setting('statement_timeout')", pooled.client().await);
    let pid = ask(&next, "SELECT pg_backend_pid()").await.unwrap();
    for own in ["SET statement_timeout TO '5s'", "RESET ALL", "DISCARD ALL", "SET work_mem TO '1MB'"] {
        let client = pooled.client().await;
        client.batch_execute(own).await.unwrap();
        assert_eq!(ask(&next, show).await.unwrap(), "77s", "after {own}");
    }
    let client = pooled.client_with("options='-c statement_timeout=9s'").await.unwrap();
    assert_eq!(ask(&client, show).await.unwrap(), "9s");
    assert_eq!(ask(&next, show).await.unwrap(), "77s");
    assert_eq!(ask(&next, "SELECT pg_backend_pid()").await.unwrap(), pid, "on the same connection");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connect_query_that_fails_closes_the_connection_and_is_said_to_who_logs_in() {
    let cluster = postgres::shared();
    let servers = DatabaseServers { connect_query: Some("SELECT 1/0".into()), ..DatabaseServers::default() };
    let entry = Database { servers, ..database(&cluster, DATABASE) };
    let pooled = start(Pool { databases: vec![entry], ..config(&cluster) }).await;
    let error = pooled.client_with("").await.err().unwrap();
    assert_eq!(told(&error), ("22012".into(), "server login failed: connect_query failed: division by zero".into()));
    assert_eq!(pooled.servers(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_databases_startup_parameters_are_the_servers_and_a_clients_own_count_before_them() {
    let cluster = postgres::shared();
    let startup = [("client_encoding", "LATIN1"), ("DateStyle", "German"), ("TimeZone", "Asia/Tokyo")];
    let startup = startup.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let servers = DatabaseServers { startup, ..DatabaseServers::default() };
    let entry = Database { servers, ..database(&cluster, DATABASE) };
    let pooled = start(Pool { databases: vec![entry], ..config(&cluster) }).await;
    let client = pooled.client_with("options='-c DateStyle=ISO'").await.unwrap();
    assert_eq!(ask(&client, "SHOW TimeZone").await.unwrap(), "Asia/Tokyo");
    assert!(ask(&client, "SHOW DateStyle").await.unwrap().starts_with("ISO"));
    // The driver asks for UTF8 by itself.
    assert_eq!(ask(&client, "SHOW client_encoding").await.unwrap(), "UTF8");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_rested_answers_the_check_query_first() {
    let cluster = postgres::shared();
    let servers = Servers {
        check_query: Some("SELECT 'checked' FROM generate_series(1, 3)".into()),
        check_delay: Duration::ZERO,
        ..Servers::default()
    };
    let pooled = start(Pool { servers, ..config(&cluster) }).await;
    let client = pooled.client().await;
    let direct = cluster.direct().await;
    let pid = ask(&client, "SELECT pg_backend_pid()").await.unwrap();
    assert_eq!(ask(&client, "SELECT pg_backend_pid()").await.unwrap(), pid, "and is kept");
    // A check that the server refuses: the connection is closed, and the client gets another.
    let bad = Servers { check_query: Some("SELECT 1/0".into()), check_delay: Duration::ZERO, ..Servers::default() };
    pooled.pooler.reload(&Arc::new(Pool { servers: bad, ..config(&cluster) }));
    assert_ne!(ask(&client, "SELECT pg_backend_pid()").await.unwrap(), pid);
    let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
    assert_eq!(ask(&direct, &gone).await.unwrap(), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_fail_fast_a_client_is_told_at_once_and_without_it_waits() {
    let cluster = Arc::new(Cluster::start());
    let servers = Servers { fail_fast: true, ..Servers::default() };
    let quick = start(Pool { servers, ..config(&cluster) }).await;
    let patient = start(config(&cluster)).await;
    let (hurried, waits) = (quick.client().await, patient.client().await);
    let stopped = cluster.clone();
    tokio::task::spawn_blocking(move || stopped.down()).await.unwrap();
    let began = std::time::Instant::now();
    let error = ask(&hurried, "SELECT 1").await.unwrap_err();
    assert_eq!(told(&error).0, "08001");
    assert!(told(&error).1.starts_with("server login failed"), "{error:?}");
    assert!(began.elapsed() < 5 * SECOND);
    let waiting = tokio::spawn(async move { ask(&waits, "SELECT 'waited'").await });
    tokio::time::sleep(SECOND).await;
    assert!(!waiting.is_finished());
    let started = cluster.clone();
    tokio::task::spawn_blocking(move || started.up()).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), "waited");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_of_the_fallback_keeps_its_counts_until_its_time_and_an_unknown_one_leaves_nothing() {
    let cluster = postgres::shared();
    let servers = Servers { autodb_idle_timeout: Some(2 * SECOND), ..Servers::default() };
    let fallback = Database { dbname: None, ..database(&cluster, "*") };
    let pooled = start(Pool {
        databases: vec![fallback],
        servers,
        server_idle_timeout: Some(Duration::from_millis(100)),
        ..config(&cluster)
    })
    .await;
    let known = |name: &str| pooled.pooler.view()["databases"].get(name).is_some();
    let unknown = postgres::connect(pooled.port, "no_such_database", "").await;
    assert_eq!(told(&unknown.err().unwrap()).0, "3D000");
    drop(postgres::connect(pooled.port, "postgres", "").await.unwrap());
    eventually("no connection is left", || pooled.servers() == 0).await;
    eventually("the unknown one is forgotten", || !known("no_such_database")).await;
    assert!(known("postgres"));
    eventually("the other as well, later", || !known("postgres")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_with_an_idle_timeout_of_its_own_can_be_dropped() {
    let cluster = postgres::shared();
    let direct = cluster.direct().await;
    direct.batch_execute("CREATE DATABASE short_lived").await.unwrap();
    let servers = DatabaseServers { idle_timeout: Some(Duration::from_millis(100)), ..DatabaseServers::default() };
    let fallback = Database { dbname: None, servers, ..database(&cluster, "*") };
    let pooled = start(Pool { databases: vec![fallback], ..config(&cluster) }).await;
    let client = postgres::connect(pooled.port, "short_lived", "").await.unwrap();
    ask(&client, "SELECT 1").await.unwrap();
    eventually("no connection is left", || pooled.servers() == 0).await;
    direct.batch_execute("DROP DATABASE short_lived").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_console_shows_whose_sizes_count() {
    let cluster = postgres::shared();
    let servers = DatabaseServers { lifetime: Some(60 * SECOND), ..DatabaseServers::default() };
    let entry = Database { servers, pool_size: Some(0), reserve_pool_size: Some(4), ..database(&cluster, DATABASE) };
    let user = User { reserve_pool_size: Some(3), max_user_connections: Some(9), ..config(&cluster).users[0].clone() };
    let pooled = start(Pool { databases: vec![entry], users: vec![user], ..config(&cluster) }).await;
    let console = postgres::connect(pooled.port, "pgbouncer", "").await.unwrap();
    let row = async |sql: &str| rows(&console, sql).await.into_iter().next();
    let shown = row("SHOW DATABASES").await.unwrap();
    assert_eq!((shown.get("pool_size"), shown.get("reserve_pool_size")), (Some("0"), Some("4")));
    assert_eq!((shown.get("server_lifetime"), shown.get("pool_mode")), (Some("60"), None));
    let shown = row("SHOW USERS").await.unwrap();
    assert_eq!((shown.get("reserve_pool_size"), shown.get("max_user_connections")), (Some("3"), Some("9")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_database_can_be_swapped_for_another_while_its_clients_wait() {
    let cluster = Arc::new(Cluster::start());
    let direct = cluster.direct().await;
    direct.batch_execute("CREATE DATABASE live").await.unwrap();
    direct.batch_execute("CREATE DATABASE next").await.unwrap();
    let entry = Database { dbname: Some("live".into()), ..database(&cluster, DATABASE) };
    let mut base = config(&cluster);
    base.probe.interval = Duration::from_millis(50);
    base.probe.down_interval = Duration::from_millis(50);
    let pooled = start(Pool { databases: vec![entry], ..base }).await;
    let client = pooled.client().await;
    let oid = "SELECT oid FROM pg_database WHERE datname = current_database()";
    let before = ask(&client, oid).await.unwrap();
    has_sessions(&direct, "bookend probe", 1).await;
    let console = postgres::connect(pooled.port, "pgbouncer", "").await.unwrap();
    console.simple_query(&format!("PAUSE {DATABASE}")).await.unwrap();
    let waiting = tokio::spawn(async move { ask(&client, oid).await });
    has_sessions(&direct, "bookend probe", 0).await;
    direct.batch_execute("ALTER DATABASE live RENAME TO former").await.unwrap();
    direct.batch_execute("ALTER DATABASE next RENAME TO live").await.unwrap();
    tokio::time::sleep(SECOND / 2).await;
    assert!(!waiting.is_finished());
    assert_eq!(sessions(&direct, "bookend probe").await, 0, "it does not come back before RESUME");
    console.simple_query(&format!("RESUME {DATABASE}")).await.unwrap();
    assert_ne!(waiting.await.unwrap().unwrap(), before);
    has_sessions(&direct, "bookend probe", 1).await;
    for command in ["KILL", "RESUME", "PAUSE", "RESUME"] {
        console.simple_query(command).await.unwrap();
        has_sessions(&direct, "bookend probe", usize::from(command == "RESUME")).await;
    }
}
