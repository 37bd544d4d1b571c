//! A thousand real psycopg clients on a few server connections.

use crate::support::{python::client, shared};

#[test]
fn a_thousand_clients_get_their_own_answers_from_at_most_50_servers() {
    let deployment = shared();
    let postgres = &deployment.stack.postgres;
    let seen = client(
        "thousand.py",
        &[&postgres.dsn(deployment.bookend.pool_port), &postgres.dsn(postgres.port), "1000", "5"],
    );
    assert_eq!(seen["wrong"], 0, "{seen}");
    assert_eq!(seen["failed"], 0, "{seen}");
    assert_eq!(seen["answers"], 5000, "{seen}");
    assert_eq!(seen["connected_at_once"], 1000, "{seen}");
    assert!(seen["peak_server_connections"].as_u64().unwrap() <= 50, "{seen}");
}

#[test]
fn psycopg_keeps_its_time_zone_prepares_and_copies_through_the_pool() {
    let deployment = shared();
    let postgres = &deployment.stack.postgres;
    let seen = client("psycopg_features.py", &[&postgres.dsn(deployment.bookend.pool_port)]);
    assert_eq!(seen["ok"], true, "{seen}");
}

#[test]
fn the_console_answers_psql_habits() {
    let deployment = shared();
    let postgres = &deployment.stack.postgres;
    let dsn = postgres.dsn(deployment.bookend.pool_port);
    let seen = client("console.py", &[&dsn.replace(&format!("dbname={}", postgres.database), "dbname=pgbouncer")]);
    let columns: Vec<&str> =
        seen["POOLS"]["columns"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    for name in
        ["database", "user", "cl_active", "cl_waiting", "sv_active", "sv_idle", "maxwait", "maxwait_us", "pool_mode"]
    {
        assert!(columns.contains(&name), "{name} in {columns:?}");
    }
    for show in ["STATS", "CLIENTS", "SERVERS", "DATABASES", "LISTS", "CONFIG", "VERSION"] {
        assert!(!seen[show]["rows"].as_array().unwrap().is_empty(), "SHOW {show}: {seen}");
    }
}
