use std::time::Duration;

use super::*;
use crate::config::lb::{
    AccessLog, Balance, Client, Headers, Listener, PathMatch, Queue, QueuePriority, Route, Shutdown, Target, Upstream,
};

fn server(name: &str, port: u16) -> Server {
    Server {
        name: name.into(),
        address: ([127, 0, 0, 1], port).into(),
        weight: 1,
        backup: false,
        max_fails: 3,
        fail_timeout: Duration::from_secs(10),
        slow_start: Duration::ZERO,
        max_conns: None,
        down: false,
    }
}

fn lb() -> Lb {
    let second = Duration::from_secs(1);
    Lb {
        listeners: vec![Listener::plain(([127, 0, 0, 1], 80).into(), 10)],
        threads: 2,
        trusted_proxies: Vec::new(),
        client: Client {
            header_timeout: second,
            header_max_size: 1,
            max_headers: 1,
            body_timeout: second,
            max_body_size: None,
            keepalive_timeout: second,
            keepalive_requests: 1,
            send_timeout: second,
            max_streams: 128,
        },
        headers: Headers::default(),
        access_log: AccessLog { enabled: true, queue: 1 },
        shutdown: Shutdown { pre_stop_delay: second, grace_period: second },
        upstreams: vec![Upstream {
            name: "django".into(),
            balance: Balance::RoundRobin,
            sticky: None,
            servers: Servers::Own(vec![server("web-1", 1), server("web-2", 2)]),
            connect_timeout: second,
            read_timeout: second,
            send_timeout: second,
            keepalive_timeout: second,
            tries: 3,
            queue: Queue::default(),
            health_check: None,
        }],
        routes: vec![Route {
            name: "/".into(),
            host: None,
            path: PathMatch::Prefix("/".into()),
            target: Target::Upstream("django".into()),
            allow: Vec::new(),
            deny: Vec::new(),
            needs_database: true,
            max_body_size: None,
            read_timeout: None,
            websocket_idle_timeout: second,
            queue_priority: QueuePriority::Normal,
            strip_prefix: None,
            headers: Headers::default(),
        }],
    }
}

#[test]
fn nothing_is_said_of_what_stayed() {
    assert_eq!(differences(&lb(), &lb()), ReloadSummary::default());
}

#[test]
fn servers_that_come_go_and_change_are_named() {
    let mut after = lb();
    let mut heavier = server("web-2", 2);
    heavier.weight = 5;
    after.upstreams[0].servers = Servers::Own(vec![heavier, server("web-3", 3)]);
    after.upstreams[0].tries = 1;
    assert_eq!(
        differences(&lb(), &after).changed,
        [
            "upstream django: server web-1 removed",
            "upstream django: server web-2 changed",
            "upstream django: server web-3 added",
            "upstream django: settings changed",
        ]
    );
}

#[test]
fn routes_and_limits_are_named() {
    let mut after = lb();
    after.routes[0].needs_database = false;
    after.client.max_headers = 2;
    after.listeners[0].max_connections = 11;
    assert_eq!(
        differences(&lb(), &after).changed,
        [
            "listener 127.0.0.1:80: max_connections changed",
            "limits and deadlines towards clients changed",
            "route / changed",
        ]
    );
}

#[test]
fn what_takes_a_restart_is_said() {
    let mut after = lb();
    after.listeners[0].address = ([127, 0, 0, 1], 81).into();
    after.threads = 3;
    let summary = differences(&lb(), &after);
    assert_eq!(summary.needs_restart, ["lb.yaml listeners", "lb.yaml threads"]);
    assert!(summary.changed.is_empty());
}
