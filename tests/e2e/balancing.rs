//! HTTP over real replicas: spread, forwarding headers, what is refused.

use std::{collections::HashMap, time::Duration};

use crate::support::{
    eventually,
    load::{get, request},
    shared,
};

#[test]
fn requests_are_spread_evenly_over_the_replicas() {
    let deployment = shared();
    let url = deployment.bookend.url("/api/items/1/");
    let mut seen: HashMap<String, u32> = HashMap::new();
    for _ in 0..90 {
        let answer = get(&url).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        *seen.entry(answer.header("x-replica").unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert!(seen.values().all(|&count| (29..=31).contains(&count)), "{seen:?}");
}

#[test]
fn django_sees_the_client_as_it_came_to_the_front() {
    let deployment = shared();
    let headers = "X-Forwarded-For: 203.0.113.9\r\nX-Request-ID: abc-123\r\n";
    let answer = request(&deployment.bookend.url("/echo/?a=b"), "GET", headers, b"").unwrap();
    let seen = answer.text();
    // The test's own address is in trusted_proxies, so what it says of its client is believed.
    assert!(seen.contains("203.0.113.9"), "{seen}");
    assert!(seen.contains(&format!("127.0.0.1:{}", deployment.bookend.front_port)), "Host is kept: {seen}");
    assert_eq!(answer.header("x-request-id"), Some("abc-123"));
}

#[test]
fn a_request_without_an_id_is_given_one_that_the_log_has_too() {
    let deployment = shared();
    let answer = get(&deployment.bookend.url("/nodb/")).unwrap();
    let id = answer.header("x-request-id").unwrap().to_owned();
    let line = eventually("the access log line", Duration::from_secs(3), || {
        deployment.bookend.access_log().lines().find(|line| line.contains(&id)).map(str::to_owned)
    });
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["status"], 200, "{line}");
    assert!(line["server"].as_str().unwrap().starts_with("web-"), "{line}");
}

#[test]
fn the_orm_works_through_the_pool() {
    let deployment = shared();
    let answer = get(&deployment.bookend.url("/api/orm/")).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["ok"], true, "{}", answer.text());
}

#[test]
fn rows_locked_for_update_count_every_increment() {
    let deployment = shared();
    let url = deployment.bookend.url("/api/counter/e2e/");
    let before = get(&url).unwrap().json()["value"].as_i64().unwrap_or(0);
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let answer = request(&url, "POST", "", b"").unwrap();
                    assert_eq!(answer.status, 200, "{}", answer.text());
                }
            });
        }
    });
    assert_eq!(get(&url).unwrap().json()["value"].as_i64().unwrap(), before + 100);
}
