//! A whole front in this process, on a free port.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bookend::{
    config::lb::{
        AccessLog, Balance, Client, Headers, HealthCheck, Lb, Listener, PathMatch, Queue, QueuePriority, Route, Server,
        Servers, Shutdown, Target, Upstream,
    },
    health::{
        board::Board,
        drain::{self, Drain, DrainControl, Phase},
        ready::Ready,
    },
    proxy::{Deps, Front, Pages},
};
use pingora::services::Service;
use prometheus::Registry;
use tokio::{net::TcpStream, sync::watch, task::JoinHandle, time::Instant};

use crate::http::PATIENCE;

/// A front at work.
pub struct Rig {
    pub address: SocketAddr,
    pub lb: Lb,
    pub front: Front,
    pub control: DrainControl,
    pub drain: Drain,
    pub board: Arc<Board>,
    pub ready: Ready,
    pub pages: Arc<Pages>,
    pub registry: Registry,
    pub log: Log,
    stop: watch::Sender<bool>,
    service: JoinHandle<()>,
}

/// Access log lines, kept.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Returns the lines so far.
    pub fn lines(&self) -> Vec<serde_json::Value> {
        let text = self.0.lock().unwrap().clone();
        text.split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    /// Waits for a line that fits.
    pub async fn find(&self, what: &str, fits: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = self.lines().into_iter().find(|line| fits(line)) {
                return line;
            }
            assert!(Instant::now() < deadline, "no line with {what} in {:#?}", self.lines());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Rig {
    /// Starts a front.
    pub async fn start(mut lb: Lb) -> Self {
        let address = free_port();
        lb.listeners[0].address = address;
        let (control, drain) = drain::channel();
        let (board, ready) = (Arc::new(Board::default()), Ready::default());
        let (pages, registry, log) = (Arc::new(Pages::default()), Registry::new(), Log::default());
        let deps = Deps {
            board: board.clone(),
            ready: ready.clone(),
            drain: drain.clone(),
            registry: &registry,
            pages: pages.clone(),
            checks: tokio::runtime::Handle::current(),
            access_log: Box::new(log.clone()),
        };
        let front = Front::new(&Arc::new(lb.clone()), deps).unwrap();
        let mut service = front.service();
        let (stop, stopped) = watch::channel(false);
        let service = tokio::spawn(async move { service.start_service(None, stopped, 1).await });
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address).await.is_err() {
            assert!(Instant::now() < deadline, "the front does not listen");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Self { address, lb, front, control, drain, board, ready, pages, registry, log, stop, service }
    }

    /// Begins to leave, as the program does it.
    pub fn leave(&self, grace: Duration) {
        self.control.advance(Phase::Draining { deadline: Instant::now() + grace });
        // Nobody listening any more is as good.
        let _ = self.stop.send(true);
    }

    /// Waits until everything has ended.
    pub async fn ended(&self) {
        tokio::time::timeout(PATIENCE, self.drain.idle()).await.expect("all ends in time");
    }

    /// Returns the value of a metric with all these labels, summed.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().filter(|family| family.name() == name);
        family
            .flat_map(|family| family.get_metric())
            .filter(|metric| {
                labels.iter().all(|(name, value)| {
                    metric.get_label().iter().any(|label| label.name() == *name && label.value() == *value)
                })
            })
            .map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value())
            .sum()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.control.advance(Phase::Cut);
        self.service.abort();
    }
}

/// One upstream of these servers for all paths, with defaults that suit tests.
pub fn lb(servers: &[SocketAddr]) -> Lb {
    Lb {
        listeners: vec![Listener::plain(([127, 0, 0, 1], 0).into(), 100)],
        threads: 1,
        trusted_proxies: Vec::new(),
        client: Client {
            header_timeout: Duration::from_secs(10),
            header_max_size: 64 * 1024,
            max_headers: 100,
            body_timeout: Duration::from_secs(60),
            max_body_size: Some(20 * 1024 * 1024),
            keepalive_timeout: Duration::from_secs(75),
            keepalive_requests: 1000,
            send_timeout: Duration::from_secs(60),
            max_streams: 128,
        },
        headers: Headers::default(),
        access_log: AccessLog { enabled: true, queue: 16_384 },
        shutdown: Shutdown { pre_stop_delay: Duration::ZERO, grace_period: Duration::from_secs(30) },
        upstreams: vec![upstream("django", servers)],
        routes: vec![route("/")],
    }
}

pub fn upstream(name: &str, servers: &[SocketAddr]) -> Upstream {
    let server = |(index, address): (usize, &SocketAddr)| Server {
        name: format!("web-{}", index + 1).into(),
        address: *address,
        weight: 1,
        backup: false,
        max_fails: 3,
        fail_timeout: Duration::from_secs(10),
        slow_start: Duration::ZERO,
        max_conns: None,
        down: false,
    };
    Upstream {
        name: name.into(),
        balance: Balance::RoundRobin,
        sticky: None,
        servers: Servers::Own(servers.iter().enumerate().map(server).collect()),
        connect_timeout: Duration::from_secs(2),
        read_timeout: Duration::from_secs(60),
        send_timeout: Duration::from_secs(60),
        keepalive_timeout: Duration::from_secs(4),
        tries: 3,
        queue: Queue::default(),
        health_check: None,
    }
}

/// A route by prefix to the upstream `django`.
pub fn route(prefix: &str) -> Route {
    Route {
        name: prefix.into(),
        host: None,
        path: PathMatch::Prefix(prefix.into()),
        target: Target::Upstream("django".into()),
        allow: Vec::new(),
        deny: Vec::new(),
        needs_database: true,
        max_body_size: None,
        read_timeout: None,
        websocket_idle_timeout: Duration::from_secs(3600),
        queue_priority: QueuePriority::Normal,
        strip_prefix: None,
        headers: Headers::default(),
    }
}

/// An address nothing listens on.
pub fn free_port() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A quick active check.
pub fn check() -> HealthCheck {
    HealthCheck {
        path: "/health/".into(),
        host: None,
        interval: Duration::from_millis(50),
        down_interval: Duration::from_millis(50),
        timeout: Duration::from_secs(1),
        rise: 1,
        fall: 1,
        status: vec![200..=399],
        database: None,
        max_body: 64 * 1024,
        ..HealthCheck::default()
    }
}
