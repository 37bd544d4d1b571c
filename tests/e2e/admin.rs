//! What operators, scripts and Prometheus read.

use std::{
    io::Write,
    process::{Command, Stdio},
    time::Duration,
};

use crate::support::{eventually, load::get, shared};

#[test]
fn db_connections_has_the_shape_that_scripts_read() {
    let deployment = shared();
    for url in [deployment.bookend.url("/db/connections/"), deployment.bookend.admin("/db/connections/")] {
        get(&deployment.bookend.url("/api/items/1/")).unwrap();
        let page = get(&url).unwrap().json();
        let default = &page["connections"]["default"];
        for key in ["total_connections", "active_connections", "idle_connections", "waiting_clients", "max_connections"]
        {
            assert!(default[key].is_u64(), "{key}: {page}");
        }
        assert_eq!(default["using_pgbouncer"], true);
        assert_eq!(page["pgbouncer"]["pool_mode"], "transaction");
        assert_eq!(page["databases"]["arena_db"]["role"], "primary", "{page}");
        assert_eq!(page["databases"]["arena_db"]["up"], true, "{page}");
        assert!(page["recommendations"].is_array() && page["container"].is_string());
    }
}

#[test]
fn each_replicas_database_connections_are_named() {
    let deployment = shared();
    for _ in 0..30 {
        get(&deployment.bookend.url("/api/items/1/")).unwrap();
    }
    let page = eventually("all three replicas hold connections", Duration::from_secs(5), || {
        let page = get(&deployment.bookend.admin("/db/connections/"))?.json();
        ["web-1", "web-2", "web-3"]
            .iter()
            .all(|name| page["clients"][name]["total_connections"].as_u64().is_some_and(|total| total > 0))
            .then_some(page)
    });
    assert_eq!(page["clients"]["web-1"]["address"], "127.0.0.1", "{page}");
}

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics() {
    let deployment = shared();
    get(&deployment.bookend.url("/api/items/1/")).unwrap();
    let metrics = get(&deployment.bookend.admin("/metrics")).unwrap().text();
    for name in
        ["bookend_build_info", "bookend_http_requests_total", "bookend_pool_clients", "bookend_config_reloads_total"]
    {
        assert!(metrics.contains(name), "{name} in:\n{metrics}");
    }
    // `scripts/setup --test` unpacks it there when the machine has none.
    let unpacked = concat!(env!("CARGO_MANIFEST_DIR"), "/.cache/tools/usr/bin/promtool");
    let mut promtool = Command::new(if std::path::Path::new(unpacked).exists() { unpacked } else { "promtool" })
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool (Debian package prometheus)");
    promtool.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

#[test]
fn live_ready_and_status_answer() {
    let deployment = shared();
    for path in ["/live", "/ready", "/status", "/"] {
        assert_eq!(get(&deployment.bookend.admin(path)).unwrap().status, 200, "{path}");
    }
    let status = get(&deployment.bookend.admin("/status")).unwrap().text();
    for name in ["web-1", "web-2", "web-3", "django_websocket", "arena_db"] {
        assert!(status.contains(name), "{name}: {status}");
    }
    assert!(!status.contains(&deployment.stack.postgres.password), "a secret on a page");
}
