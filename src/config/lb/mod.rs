//! What `lb.yaml` says, checked: the front half of the process.
//!
//! Every value here has passed its checks, has its default filled in and carries no YAML: the rest of the program never
//! asks whether a weight may be zero or a route names an upstream that exists. Names are nginx's and HAProxy's where
//! they have one, so that an operator who knows those knows these.

mod balance;
mod client;
mod headers;
mod health_check;
mod listener;
mod own_answer;
pub(super) mod process;
mod route;
mod server;
mod sticky;
mod template;
mod upstream;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use ipnet::IpNet;

pub use self::{
    balance::{Balance, Hash, HashKey},
    headers::HeaderRules,
    listener::{CertificateFiles, ClientAuth, ListenerTls},
    own_answer::{Redirect, Respond},
    route::PRIORITIES,
    sticky::{SameSite, Sticky},
    template::{HIDDEN, Piece, Template, Variable},
};
use crate::config::{
    field::Field,
    node::Node,
    reading::{Reading, Spot},
};

/// The whole of `lb.yaml`.
#[derive(Debug, Clone, PartialEq)]
pub struct Lb {
    /// At least one.
    pub listeners: Vec<Listener>,
    /// Worker threads of the front; `threads: auto` gives the number of cores.
    pub threads: usize,
    /// Peers whose `X-Forwarded-*` headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    pub client: Client,
    /// `request_headers`, `response_headers`: for all routes.
    pub headers: Headers,
    pub access_log: AccessLog,
    pub shutdown: Shutdown,
    /// In the order of the file. Names are unique.
    pub upstreams: Vec<Upstream>,
    /// In the order of the file; choosing does not depend on it (longest match wins).
    pub routes: Vec<Route>,
}

/// One address the front accepts connections on.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    pub address: SocketAddr,
    /// `max_connections`: open client connections on this listener; further ones are closed at once. Default 20,000.
    pub max_connections: usize,
    /// `tls`. Default: plain HTTP.
    pub tls: Option<ListenerTls>,
    /// `http2`: with TLS offered by ALPN, without it by prior knowledge (RFC 9113 section 3.3). Default: with TLS.
    pub http2: bool,
    /// `redirect_https`: every request is sent on to this port by HTTPS (308), but for `/.well-known/acme-challenge/`, by which
    /// certificates are had. Default: none is.
    pub redirect_https: Option<u16>,
    /// `proxy_protocol`: each connection begins with a header of the PROXY protocol that says whose it is. Default false.
    pub proxy_protocol: bool,
}

impl Listener {
    /// Returns a listener for plain HTTP/1.1.
    pub fn plain(address: SocketAddr, max_connections: usize) -> Self {
        Self { address, max_connections, tls: None, http2: false, redirect_https: None, proxy_protocol: false }
    }
}

/// Limits and deadlines towards HTTP clients. All are top-level keys of `lb.yaml`, named as in nginx.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// `client_header_timeout`: total time to receive a request header (408). Default 10 s.
    pub header_timeout: Duration,
    /// `client_header_max_size`: bytes of request line and headers (431). Default 64 KiB.
    pub header_max_size: usize,
    /// `max_headers`: number of header lines (431). Default 100.
    pub max_headers: usize,
    /// `client_body_timeout`: between two reads of a request body (408). Default 60 s.
    pub body_timeout: Duration,
    /// `client_max_body_size`: bytes of a request body (413); a route may override. `0` = no limit. Default 20 MiB.
    pub max_body_size: Option<u64>,
    /// `keepalive_timeout`: an idle client connection is closed after this. Default 75 s.
    pub keepalive_timeout: Duration,
    /// `keepalive_requests`: requests served on one client connection. Default 1,000.
    pub keepalive_requests: u32,
    /// `send_timeout`: between two writes to a client. Default 60 s.
    pub send_timeout: Duration,
    /// `http2_max_concurrent_streams`: requests at a time on one HTTP/2 connection; clients keep further ones back. Default 128.
    pub max_streams: u32,
}

/// `access_log: {enabled, queue}`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// Default true. Lines go to standard output as JSON.
    pub enabled: bool,
    /// Lines waiting for the writer; a full queue drops lines (counted), never delays a request. Default 16,384.
    pub queue: usize,
}

/// `shutdown: {pre_stop_delay, grace_period}`; from lb.yaml when there is one, else from pool.yaml.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shutdown {
    /// Between readiness turning false and the listeners closing, for load balancers in front. Default 0 s.
    pub pre_stop_delay: Duration,
    /// After that: how long work in flight may take before it is cut. Default 30 s.
    pub grace_period: Duration,
}

/// A named group of servers and the way one is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    pub name: Arc<str>,
    pub balance: Balance,
    /// `sticky:`; before `balance`, for clients that have the cookie.
    pub sticky: Option<Sticky>,
    pub servers: Servers,
    /// `connect_timeout`: default 2 s.
    pub connect_timeout: Duration,
    /// `read_timeout`: between two reads from the server (504); a route may override. Default 60 s.
    pub read_timeout: Duration,
    /// `send_timeout`: between two writes to the server. Default 60 s.
    pub send_timeout: Duration,
    /// `keepalive_timeout`: an idle server connection is closed after this. Default 4 s: below uvicorn's 5 s, so that
    /// the server never closes a connection that a request is just being sent on.
    pub keepalive_timeout: Duration,
    /// `tries`: servers asked for one request, the first included (nginx `proxy_next_upstream_tries`). Default 3.
    pub tries: u32,
    /// `queue:`
    pub queue: Queue,
    /// `None` with `servers_of` (the other upstream's checks count) or when the file has none (always up).
    pub health_check: Option<HealthCheck>,
}

/// `queue: {limit, timeout}` of an upstream: requests that wait for a server below its `max_conns`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// How many may wait; further ones are refused (503). 0: none waits. Default 1,000.
    pub limit: usize,
    /// How long one waits before it is refused (503). Default 10 s.
    pub timeout: Duration,
}

impl Default for Queue {
    fn default() -> Self {
        Self { limit: 1_000, timeout: Duration::from_secs(10) }
    }
}

/// Which requests are served first of those that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum QueuePriority {
    High,
    Normal,
    Low,
}

/// Where an upstream's servers come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Servers {
    /// Its own. At least one; names and addresses are unique within the upstream.
    Own(Vec<Server>),
    /// `servers_of: NAME`: the servers of that upstream (one that has its own), with their health and in-flight counts.
    Of(Arc<str>),
}

/// One server of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Default: the address as written.
    pub name: Arc<str>,
    /// Names are resolved once, when the file is read: to the first IPv4 address, or the first one.
    pub address: SocketAddr,
    /// 1..=65535. Default 1.
    pub weight: u32,
    /// Used only when no other server is up.
    pub backup: bool,
    /// Failures within `fail_timeout` that take the server out for `fail_timeout`; 0 = never. Default 3.
    pub max_fails: u32,
    /// Default 10 s.
    pub fail_timeout: Duration,
    /// `max_conns`: requests and WebSockets it may have at a time; further ones wait (see [`Queue`]). Default 0, written
    /// so for any number.
    pub max_conns: Option<usize>,
    /// `slow_start`: for how long the weight grows to the whole after the server has come up. Default 0, at once.
    pub slow_start: Duration,
    /// `down`: gets nothing, but keeps its share of hashes (nginx).
    pub down: bool,
}

/// `health_check:` of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// `type`. Default `http`.
    pub kind: CheckKind,
    /// Default `/`.
    pub path: String,
    /// Value of the Host header (Django's ALLOWED_HOSTS wants one it knows). Default: the server's address.
    pub host: Option<String>,
    /// `headers`: further ones of the request.
    pub headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// Default 2 s.
    pub interval: Duration,
    /// While the server is down or not proven yet. Default: a quarter of `interval`, at least 100 ms.
    pub down_interval: Duration,
    /// After a result that speaks against what the server is held to be, until that is settled (HAProxy's `fastinter`).
    /// Default: as without.
    pub fast_interval: Option<Duration>,
    /// `initial: up`: it serves before its first check has ended. Default `down`.
    pub initially_up: bool,
    /// For one whole check, connect to last byte. Default 1 s.
    pub timeout: Duration,
    /// Successes in a row that bring a server up. Default 2. (A server that was never proven comes up at the first.)
    pub rise: u32,
    /// Failures in a row that take it down. Default 3.
    pub fall: u32,
    /// `status: [200-399]`: the statuses that mean success.
    pub status: Vec<std::ops::RangeInclusive<u16>>,
    /// `expect_body`: text that the body must have somewhere within `max_body`.
    pub expect_body: Option<Box<str>>,
    /// `expect_headers`: headers that the answer must have, with these values.
    pub expect_headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// `database: NAME` of pool.yaml that must serve too.
    pub database: Option<Arc<str>>,
    /// Bytes of a check's answer that are read at most. Default 64 KiB.
    pub max_body: usize,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            kind: CheckKind::Http,
            path: "/".into(),
            host: None,
            headers: Vec::new(),
            interval: Duration::from_secs(2),
            down_interval: Duration::from_millis(500),
            fast_interval: None,
            initially_up: false,
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            status: vec![200..=399],
            expect_body: None,
            expect_headers: Vec::new(),
            database: None,
            max_body: 64 << 10,
        }
    }
}

/// How a server is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckKind {
    /// It is asked for a page.
    Http,
    /// A connection is opened, and closed.
    Tcp,
}

/// What requests go where.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// `path_prefix: /ws/` or `path: /exact`, and `host:`; also the label in logs and metrics, e.g. `/ws/`.
    pub name: Arc<str>,
    /// Lower case, without port; `*.example.com`: every host below it; `None`: any host.
    pub host: Option<String>,
    pub path: PathMatch,
    pub target: Target,
    /// `allow: [CIDR…]`: client addresses that may use the route (403 for others); empty = all.
    pub allow: Vec<IpNet>,
    /// `deny: [CIDR…]`: client addresses that may not, whatever `allow` says (403).
    pub deny: Vec<IpNet>,
    /// `needs_database` (default true): answered 503 at once while the database named by the upstream's check is down.
    pub needs_database: bool,
    /// Overrides `client_max_body_size`. Outer `None` = not set here.
    pub max_body_size: Option<Option<u64>>,
    /// Overrides the upstream's `read_timeout`.
    pub read_timeout: Option<Duration>,
    /// `websocket_idle_timeout`: no byte in either direction. Default 1 h.
    pub websocket_idle_timeout: Duration,
    /// `queue_priority`: whose turn it is when a server has room again. Default `normal`.
    pub queue_priority: QueuePriority,
    /// `strip_prefix`: what the route's path begins with and the server does not see; it is told in `X-Forwarded-Prefix`.
    pub strip_prefix: Option<Box<str>>,
    /// After those for all routes.
    pub headers: Headers,
}

/// What is changed in requests to servers and in answers to clients.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headers {
    /// `request_headers`
    pub request: HeaderRules,
    /// `response_headers`
    pub response: HeaderRules,
}

impl Headers {
    fn read(section: &mut crate::config::section::Section<'_>) -> Self {
        let request = HeaderRules::read(section, "request_headers");
        Self { request, response: HeaderRules::read(section, "response_headers") }
    }
}

/// How a route's path is compared (with the raw path, before the `?`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    Exact(String),
    Prefix(String),
}

/// What answers a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Upstream(Arc<str>),
    Builtin(Builtin),
    Redirect(Redirect),
    Respond(Respond),
}

/// Pages the process itself answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Builtin {
    DbConnections,
    Status,
    Metrics,
    Live,
    Ready,
}

/// `admin: {address}`; may stand in either file, lb.yaml's wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    pub address: SocketAddr,
}

/// The files a configuration came from, as the operator named them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    pub lb: Option<PathBuf>,
    pub pool: Option<PathBuf>,
}

/// What was read of a file, and what the checks beyond it need.
pub(super) struct Found {
    pub lb: Lb,
    pub process: process::Process,
    pub listeners: Vec<Spot>,
    /// Databases that health checks name.
    pub databases: Vec<(Arc<str>, Spot)>,
}

/// Reads the tree of `lb.yaml`. The values count only if `reading` has no errors at the end.
pub(super) fn read(reading: &Reading<'_>, root: &Node) -> Found {
    let mut file = Field::root(reading, root).section();
    let (listeners, spots) = listener::read(&mut file).into_iter().unzip();
    let found = upstream::read(&mut file);
    let process = process::read(&mut file);
    let lb = Lb {
        listeners,
        threads: process::read_threads(&mut file, None),
        trusted_proxies: file.list("trusted_proxies").iter().filter_map(Field::network).collect(),
        client: client::read(&mut file),
        headers: Headers::read(&mut file),
        access_log: client::read_access_log(&mut file),
        shutdown: process.shutdown.unwrap_or(process::DEFAULT_SHUTDOWN),
        routes: route::read(&mut file, &found),
        upstreams: found.iter().map(|found| found.upstream.clone()).collect(),
    };
    file.finish();
    let named = |found: upstream::Found<'_>| {
        let database = found.upstream.health_check.and_then(|check| check.database);
        database.zip(found.database)
    };
    Found { lb, process, listeners: spots, databases: found.into_iter().filter_map(named).collect() }
}
