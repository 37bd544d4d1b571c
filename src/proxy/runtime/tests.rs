use std::net::{Ipv4Addr, SocketAddr};

use prometheus::{Registry, TextEncoder};

use super::*;
use crate::{
    config::lb::{Balance, HealthCheck, PathMatch},
    health::{drain, threshold::Health},
    proxy::upstream::{Ask, Tried},
};

struct Bench {
    deps: Deps,
    registry: Registry,
    drain: drain::Drain,
    _control: drain::DrainControl,
}

fn bench() -> Bench {
    let registry = Registry::new();
    let (control, drain) = drain::channel();
    let deps = Deps {
        board: Arc::default(),
        ready: Ready::default(),
        checks: Surroundings { runtime: tokio::runtime::Handle::current(), drain: drain.clone() },
        metrics: Metrics::register(&registry).unwrap(),
    };
    Bench { deps, registry, drain, _control: control }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn server(name: &str, port: u16) -> lb::Server {
    lb::Server {
        name: name.into(),
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        weight: 1,
        backup: false,
        max_fails: 3,
        fail_timeout: seconds(10),
        slow_start: Duration::ZERO,
        max_conns: None,
        down: false,
    }
}

fn upstream(name: &str, servers: lb::Servers) -> lb::Upstream {
    lb::Upstream {
        name: name.into(),
        balance: Balance::RoundRobin,
        sticky: None,
        servers,
        connect_timeout: seconds(2),
        read_timeout: seconds(60),
        send_timeout: seconds(60),
        keepalive_timeout: seconds(4),
        tries: 3,
        queue: lb::Queue::default(),
        health_check: None,
    }
}

fn route(name: &str, target: lb::Target) -> lb::Route {
    lb::Route {
        name: name.into(),
        host: None,
        path: PathMatch::Prefix(name.into()),
        target,
        allow: Vec::new(),
        deny: Vec::new(),
        needs_database: true,
        max_body_size: None,
        read_timeout: None,
        websocket_idle_timeout: seconds(3600),
        queue_priority: QueuePriority::Normal,
        strip_prefix: None,
        headers: lb::Headers::default(),
    }
}

fn check() -> HealthCheck {
    HealthCheck {
        path: "/health/".into(),
        host: None,
        interval: seconds(600),
        down_interval: seconds(600),
        timeout: seconds(1),
        rise: 1,
        fall: 1,
        status: vec![200..=399],
        database: Some("db".into()),
        max_body: 1000,
        ..HealthCheck::default()
    }
}

/// `django` with these servers, `sockets` that shares them, a page, and a route to each.
fn lb(servers: Vec<lb::Server>) -> Lb {
    Lb {
        listeners: vec![],
        threads: 1,
        trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
        client: lb::Client {
            header_timeout: seconds(10),
            header_max_size: 65_536,
            max_headers: 100,
            body_timeout: seconds(60),
            max_body_size: Some(1000),
            keepalive_timeout: seconds(75),
            keepalive_requests: 1000,
            send_timeout: seconds(60),
            max_streams: 128,
        },
        headers: lb::Headers::default(),
        access_log: lb::AccessLog { enabled: true, queue: 100 },
        shutdown: lb::Shutdown { pre_stop_delay: Duration::ZERO, grace_period: seconds(30) },
        upstreams: vec![
            upstream("django", lb::Servers::Own(servers)),
            lb::Upstream { balance: Balance::IpHash, ..upstream("sockets", lb::Servers::Of("django".into())) },
        ],
        routes: vec![
            route("/", lb::Target::Upstream("django".into())),
            lb::Route { read_timeout: Some(seconds(5)), ..route("/ws/", lb::Target::Upstream("sockets".into())) },
            lb::Route {
                allow: vec!["127.0.0.0/8".parse().unwrap()],
                max_body_size: Some(None),
                ..route("/db/", lb::Target::Builtin(Builtin::DbConnections))
            },
        ],
    }
}

fn two_servers() -> Vec<lb::Server> {
    vec![server("web-1", 8001), server("web-2", 8002)]
}

async fn eventually(what: impl Fn() -> bool) {
    let happened = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(seconds(10), happened).await.expect("did not happen in time");
}

fn cluster_of(runtime: &Runtime, path: &str) -> Arc<Cluster> {
    match &runtime.route(None, path.as_bytes()).unwrap().target {
        Target::Upstream(cluster) => cluster.clone(),
        _ => panic!("{path} is a page"),
    }
}

fn endpoints(runtime: &Runtime) -> Vec<Arc<Endpoint>> {
    runtime.endpoints().cloned().collect()
}

#[tokio::test]
async fn routes_know_their_upstreams_and_limits() {
    let bench = bench();
    let runtime = Runtime::build(&lb(two_servers()), None, &bench.deps);
    let root = runtime.route(Some(b"any.example"), b"/x").unwrap();
    assert_eq!((&*root.name, root.max_body_size, root.read_timeout), ("/", Some(1000), seconds(60)));
    let sockets = runtime.route(None, b"/ws/x").unwrap();
    assert_eq!((sockets.max_body_size, sockets.read_timeout), (Some(1000), seconds(5)));
    assert_eq!(cluster_of(&runtime, "/ws/").balance(), &Balance::IpHash);
    let page = runtime.route(None, b"/db/").unwrap();
    assert!(matches!(page.target, Target::Builtin(Builtin::DbConnections)));
    assert_eq!(page.max_body_size, None);
    assert!(page.admits("127.0.0.9".parse().unwrap()) && page.admits("::ffff:127.0.0.1".parse().unwrap()));
    assert!(!page.admits("192.0.2.1".parse().unwrap()));
    assert!(root.admits("192.0.2.1".parse().unwrap()));
    assert!(runtime.trusted.contains("10.1.2.3".parse().unwrap()));
}

#[tokio::test]
async fn upstreams_that_share_servers_share_them_really() {
    let bench = bench();
    let runtime = Runtime::build(&lb(two_servers()), None, &bench.deps);
    assert!(Arc::ptr_eq(cluster_of(&runtime, "/").servers(), cluster_of(&runtime, "/ws/").servers()));
    assert_eq!(endpoints(&runtime).len(), 2, "each server once");
    let names: Vec<String> = bench.deps.board.servers().iter().map(|server| server.name.to_string()).collect();
    assert_eq!(names, ["web-1", "web-2"]);
}

#[tokio::test]
async fn an_unchanged_server_is_the_same_one_after_a_reload() {
    let bench = bench();
    let first = Runtime::build(&lb(two_servers()), None, &bench.deps);
    let before = endpoints(&first);
    before[0].set_draining(true);
    let mut changed = two_servers();
    changed[0].weight = 7;
    changed[1] = server("web-2", 9002);
    changed.push(server("web-3", 8003));
    let second = Runtime::build(&lb(changed), Some(&first), &bench.deps);
    let after = endpoints(&second);
    assert!(Arc::ptr_eq(&before[0], &after[0]) && after[0].draining(), "another weight is no other server");
    assert!(!Arc::ptr_eq(&before[1], &after[1]), "another address is");
    assert_eq!(cluster_of(&second, "/").servers().members[0].weight, 7);
    assert_eq!(bench.deps.board.servers().len(), 3);
}

const ASK: Ask = Ask {
    client: std::net::IpAddr::V4(Ipv4Addr::LOCALHOST),
    needs_database: true,
    hash: None,
    sticky: None,
    priority: lb::QueuePriority::Normal,
};

#[tokio::test]
async fn a_server_that_a_reload_brings_begins_slowly_and_those_of_the_start_do_not() {
    let bench = bench();
    let slow = |mut servers: Vec<lb::Server>| {
        servers.iter_mut().for_each(|server| server.slow_start = seconds(1000));
        lb(servers)
    };
    let mut all = two_servers();
    let first = Runtime::build(&slow(all.clone()), None, &bench.deps);
    all.push(server("web-3", 8003));
    let second = Runtime::build(&slow(all), Some(&first), &bench.deps);
    let mut counts = [0; 3];
    for _ in 0..66 {
        counts[cluster_of(&second, "/").pick(&ASK, &Tried::default(), std::time::Instant::now()).unwrap().index] += 1;
    }
    assert_eq!(counts, [32, 32, 2], "one sixteenth of its weight");
}

#[tokio::test]
async fn a_rotation_goes_on_over_a_reload() {
    let bench = bench();
    let mut runtime = Runtime::build(&lb(two_servers()), None, &bench.deps);
    let mut picked = Vec::new();
    for _ in 0..4 {
        let now = std::time::Instant::now();
        picked.push(cluster_of(&runtime, "/").pick(&ASK, &Tried::default(), now).unwrap().index);
        runtime = Runtime::build(&lb(two_servers()), Some(&runtime), &bench.deps);
    }
    assert_eq!(picked, [0, 1, 0, 1]);
}

#[tokio::test]
async fn first_checks_hold_readiness_back_at_the_start_and_never_at_a_reload() {
    let bench = bench();
    // Nobody listens on port 1: the first look fails at once, and that is a result too.
    let mut checked = lb(vec![server("web-1", 1)]);
    checked.upstreams[0].health_check = Some(check());
    let first = Runtime::build(&checked, None, &bench.deps);
    assert_eq!(bench.deps.ready.pending(), ["first health checks of upstream django"]);
    first.checked_once().await;
    eventually(|| bench.deps.ready.is_ready()).await;
    assert_eq!(endpoints(&first)[0].facts().passing, Health::Down);
    let mut more = checked.clone();
    more.upstreams[0].servers = lb::Servers::Own(vec![server("web-1", 1), server("web-2", 1)]);
    let second = Runtime::build(&more, Some(&first), &bench.deps);
    assert!(bench.deps.ready.is_ready());
    assert_eq!(endpoints(&second)[0].facts().passing, Health::Down, "what was known is known");
    tokio::time::timeout(seconds(10), second.checked_once()).await.unwrap();
}

#[tokio::test]
async fn checks_of_a_server_that_left_the_file_end() {
    let bench = bench();
    let mut checked = lb(vec![server("web-1", 1), server("web-2", 1)]);
    checked.upstreams[0].health_check = Some(check());
    let first = Runtime::build(&checked, None, &bench.deps);
    assert_eq!(bench.drain.in_flight(), 2);
    checked.upstreams[0].servers = lb::Servers::Own(vec![server("web-1", 1)]);
    let second = Runtime::build(&checked, Some(&first), &bench.deps);
    eventually(|| bench.drain.in_flight() == 1).await;
    checked.upstreams[0].health_check = None;
    let third = Runtime::build(&checked, Some(&second), &bench.deps);
    eventually(|| bench.drain.in_flight() == 0).await;
    assert!(
        cluster_of(&third, "/").pick(&ASK, &Tried::default(), std::time::Instant::now()).is_ok(),
        "without a check a server is up"
    );
}

#[tokio::test]
async fn a_server_is_named_alone_or_with_its_upstream() {
    let bench = bench();
    let mut two = lb(two_servers());
    two.upstreams.push(upstream("other", lb::Servers::Own(vec![server("web-1", 7001), server("solo", 7002)])));
    let runtime = Runtime::build(&two, None, &bench.deps);
    assert_eq!(runtime.server_named("solo").unwrap().address().port(), 7002);
    assert_eq!(runtime.server_named("other/web-1").unwrap().address().port(), 7001);
    assert!(matches!(runtime.server_named("web-9"), Err(DrainError::Unknown { known, .. }) if known.len() == 4));
    let Err(DrainError::Ambiguous { candidates, .. }) = runtime.server_named("web-1") else { panic!("ambiguous") };
    assert_eq!(candidates, ["django/web-1", "other/web-1"]);
}

#[tokio::test]
async fn metrics_forget_what_left_the_file_and_keep_the_rest() {
    let bench = bench();
    let first = Runtime::build(&lb(two_servers()), None, &bench.deps);
    for path in ["/", "/ws/"] {
        for server in [Some(0), Some(1), None] {
            first.route(None, path.as_bytes()).unwrap().metrics.finished(server, 200, 0.1, 0, 0);
        }
    }
    let mut less = lb(vec![server("web-1", 8001)]);
    less.routes.remove(1);
    let _second = Runtime::build(&less, Some(&first), &bench.deps);
    let text = TextEncoder::new().encode_to_string(&bench.registry.gather()).unwrap();
    assert!(text.contains(r#"bookend_http_requests_total{route="/",server="web-1",status="2xx",upstream="django"} 1"#));
    assert!(text.contains(r#"bookend_http_requests_total{route="/",server="-",status="2xx",upstream="django"} 1"#));
    assert!(text.contains(r#"bookend_upstream_server_up{server="web-1",upstream="django"} 1"#), "{text}");
    for gone in ["\"web-2\"", "\"/ws/\"", "\"sockets\""] {
        assert!(!text.contains(gone), "{gone}: {text}");
    }
}
