//! PostgreSQL restarts under load.

use std::time::Duration;

use serde_json::json;

use crate::support::{Deployment, eventually, load::get, python::client, turn};

#[test]
fn only_transactions_then_open_fail_and_all_is_well_soon_after() {
    let _turn = turn();
    let mut deployment = Deployment::start();
    let postgres = deployment.stack.postgres.clone();
    let dsn = postgres.dsn(deployment.bookend.pool_port);
    let script = std::thread::spawn(move || client("restart.py", &[&dsn, "30", "14"]));
    std::thread::sleep(Duration::from_secs(3));
    deployment.stack.command(json!({"cmd": "restart_postgres"}));
    let items = deployment.bookend.url("/api/items/1/");
    eventually("HTTP is well within 5 s", Duration::from_secs(5), || (get(&items)?.status == 200).then_some(()));
    let seen = script.join().unwrap();
    assert_eq!(seen["wrong"], 0, "{seen}");
    assert_eq!(seen["idle_clients_disturbed"], 0, "a client outside a transaction saw the restart: {seen}");
    assert!(seen["longest_stall"].as_f64().unwrap() < 6.0, "{seen}");
    assert!(seen["after"].as_u64().unwrap() > 100, "work goes on afterwards: {seen}");
}
