//! Servers that die, restart, or are not there.

use bookend::config::{
    pool::{Database, Pool, PoolMode, User, UserSecret},
    secret::Secret,
};

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminated_idle_servers_are_never_noticed_by_a_client() {
    let cluster = postgres::Cluster::start();
    let pooled = start(config(&cluster)).await;
    let direct = cluster.direct().await;
    let client = pooled.client().await;
    for turn in 0..50 {
        assert_eq!(ask(&client, &format!("SELECT {turn}")).await.unwrap(), turn.to_string());
        // Waits until they have ended: a query that crosses its own server's end is no idle server's.
        let others = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity \
                      WHERE pid <> pg_backend_pid() AND backend_type = 'client backend' AND application_name = ''";
        ask(&direct, others).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_costs_only_the_transactions_that_were_open() {
    let cluster = std::sync::Arc::new(postgres::Cluster::start());
    let pooled = start(config(&cluster)).await;
    let (idle, open, waits) = (pooled.client().await, pooled.client().await, pooled.client().await);
    ask(&idle, "SELECT 1").await.unwrap();
    open.batch_execute("BEGIN").await.unwrap();
    let stopped = cluster.clone();
    tokio::task::spawn_blocking(move || stopped.down()).await.unwrap();
    let waiting = tokio::spawn(async move { ask(&waits, "SELECT 'waited'").await });
    assert!(open.batch_execute("SELECT 1").await.is_err());
    let started = cluster.clone();
    tokio::task::spawn_blocking(move || started.up()).await.unwrap();
    let back = std::time::Instant::now();
    assert_eq!(waiting.await.unwrap().unwrap(), "waited");
    assert_eq!(ask(&idle, "SELECT 2").await.unwrap(), "2");
    assert!(back.elapsed() < 5 * SECOND, "{:?}", back.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_the_server_does_not_have_is_said_so_at_once() {
    let cluster = postgres::shared();
    let mut missing = database(&cluster, "missing");
    missing.dbname = Some("no_such_database".into());
    let pooled = start(Pool { databases: vec![missing], ..config(&cluster) }).await;
    let began = std::time::Instant::now();
    let error = postgres::connect(pooled.port, "missing", "").await.err().unwrap();
    assert_eq!(told(&error).0, "3D000");
    assert!(began.elapsed() < 5 * SECOND);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_logs_in_while_the_server_is_away_waits_for_it() {
    let cluster = std::sync::Arc::new(postgres::Cluster::start());
    cluster.down();
    let pooled = start(config(&cluster)).await;
    let port = pooled.port;
    let login = tokio::spawn(async move { postgres::connect(port, DATABASE, "").await });
    tokio::time::sleep(SECOND / 2).await;
    let started = cluster.clone();
    tokio::task::spawn_blocking(move || started.up()).await.unwrap();
    let client = tokio::time::timeout(10 * SECOND, login).await.unwrap().unwrap().unwrap();
    assert_eq!(ask(&client, "SELECT 1").await.unwrap(), "1");
}

/// PostgreSQL waits for others to leave a database before it drops it, and then refuses: a test runner's last step.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_of_the_pool_is_in_nobodys_way_who_drops_its_database() {
    let cluster = postgres::shared();
    let drops = [
        "DROP DATABASE to_be_dropped",
        "ALTER DATABASE to_be_dropped RENAME TO dropped; DROP DATABASE dropped",
        "CREATE DATABASE dropped TEMPLATE to_be_dropped; DROP DATABASE dropped; DROP DATABASE IF EXISTS \"to_be_dropped\"",
    ];
    for pool_mode in [PoolMode::Transaction, PoolMode::Session] {
        let mut pool = Pool { pool_mode, ..config(&cluster) };
        pool.databases.push(Database { dbname: None, ..database(&cluster, "*") });
        let pooled = start(pool).await;
        let admin = pooled.client().await;
        for drops in drops {
            admin.batch_execute("CREATE DATABASE to_be_dropped").await.unwrap();
            let client = postgres::connect(pooled.port, "to_be_dropped", "").await.unwrap();
            assert_eq!(ask(&client, "SELECT current_database()").await.unwrap(), "to_be_dropped");
            drop(client);
            for sql in drops.split("; ") {
                admin.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
            }
        }
    }
}

/// Closing others' connections is for those who may drop what they lead to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_drop_a_database_takes_no_connections_from_those_who_use_it() {
    let cluster = postgres::shared();
    let direct = cluster.direct().await;
    for sql in ["CREATE DATABASE in_use", "CREATE ROLE powerless LOGIN PASSWORD 'secret'"] {
        direct.batch_execute(sql).await.unwrap();
    }
    for pool_mode in [PoolMode::Transaction, PoolMode::Session] {
        let mut pool = Pool { pool_mode, ..config(&cluster) };
        pool.databases.push(Database { dbname: None, ..database(&cluster, "*") });
        pool.users.push(User::new("powerless", UserSecret::Plain(Secret::new("secret"))));
        let pooled = start(pool).await;
        let client = postgres::connect(pooled.port, "in_use", "").await.unwrap();
        let process = ask(&client, "SELECT pg_backend_pid()").await.unwrap();
        let powerless = pooled.client_with("user=powerless password=secret").await.unwrap();
        for _ in 0..20 {
            let error = powerless.batch_execute("DROP DATABASE in_use").await.unwrap_err();
            assert_eq!(told(&error).0, "42501");
        }
        // Longer than any would be closed in.
        tokio::time::sleep(SECOND).await;
        assert_eq!(ask(&client, "SELECT pg_backend_pid()").await.unwrap(), process, "{pool_mode:?}");
    }
}
