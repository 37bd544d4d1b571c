//! What the front counts.
//!
//! Label values come from the configuration or an enum, never from a request. The hot path does no label lookup: the handles
//! of a route, and of each server it may use, are resolved when the configuration is put to work ([`RouteMetrics`]) or, for
//! combinations most of which never occur, at their first use. What the servers know of themselves (up, in flight, checks,
//! ejections) is read from them at each scrape ([`servers`]).

mod servers;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::Collector,
};

use super::{error::Failure, upstream::Servers};
use crate::telemetry::guard::GaugeGuard;

/// From a cached page to a report that takes a minute.
const SECONDS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The label of requests that no route matched, and of requests that reached no server.
const NONE: &str = "-";

/// All metrics of the front.
#[derive(Debug, Clone)]
pub struct Metrics {
    requests: IntCounterVec,
    duration: HistogramVec,
    connect: HistogramVec,
    first_byte: HistogramVec,
    in_flight: IntGaugeVec,
    failures: IntCounterVec,
    retries: IntCounterVec,
    request_bytes: IntCounterVec,
    response_bytes: IntCounterVec,
    websockets: IntGaugeVec,
    websocket_bytes: IntCounterVec,
    client_connections: IntGaugeVec,
    client_connections_refused: IntCounterVec,
    access_log_dropped: IntCounter,
    servers: Arc<ArcSwap<Vec<Arc<Servers>>>>,
}

/// The handles of one route.
#[derive(Debug)]
pub struct RouteMetrics {
    all: Metrics,
    route: Arc<str>,
    upstream: Arc<str>,
    duration: Histogram,
    in_flight: IntGauge,
    request_bytes: IntCounter,
    response_bytes: IntCounter,
    websockets: IntGauge,
    websocket_bytes: [IntCounter; 2],
    failures: [OnceLock<IntCounter>; Failure::ALL.len()],
    retries: [OnceLock<IntCounter>; Failure::ALL.len()],
    /// By the index of the server in its cluster.
    servers: Box<[ServerMetrics]>,
    no_server: StatusCounters,
}

/// The handles of one server, for the requests of one route.
#[derive(Debug)]
struct ServerMetrics {
    requests: StatusCounters,
    connect: Histogram,
    first_byte: Histogram,
}

#[derive(Debug)]
struct StatusCounters {
    server: Arc<str>,
    by_class: [OnceLock<IntCounter>; CLASSES.len()],
}

/// The handles of one listener.
#[derive(Debug)]
pub struct ListenerMetrics {
    open: IntGauge,
    over_limit: IntCounter,
    handshake: IntCounter,
    proxy_protocol: IntCounter,
}

/// Which way bytes of a WebSocket went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    FromClient,
    FromServer,
}

/// Why a client connection was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `max_connections` are open.
    Limit,
    /// It and we found no TLS in common, or not in time.
    Handshake,
    /// It did not begin with a header of the PROXY protocol.
    ProxyProtocol,
}

impl Metrics {
    /// Makes the front's metrics and registers them.
    ///
    /// # Errors
    /// When one of their names is registered already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self::unregistered()?;
        for collector in metrics.collectors() {
            registry.register(collector)?;
        }
        registry.register(Box::new(servers::ServersCollector::new(metrics.servers.clone())?))?;
        Ok(metrics)
    }

    fn unregistered() -> prometheus::Result<Self> {
        Ok(Self {
            requests: counters(
                "bookend_http_requests_total",
                "Requests answered, by route, server and class of status; server \"-\" answered by us. For everyone.",
                &["route", "upstream", "server", "status"],
            )?,
            duration: histograms(
                "bookend_http_request_duration_seconds",
                "From a request's first byte to its answer's last. What clients feel.",
                &["route", "upstream"],
            )?,
            connect: histograms(
                "bookend_upstream_connect_seconds",
                "Time to a new connection to a server. High: its backlog is full.",
                &["upstream", "server"],
            )?,
            first_byte: histograms(
                "bookend_upstream_first_byte_seconds",
                "From a request sent to a server to the first byte of its answer. What Django took.",
                &["upstream", "server"],
            )?,
            in_flight: gauges("bookend_http_requests_in_flight", "Requests being handled now.", &["route"])?,
            failures: counters(
                "bookend_http_failures_total",
                "Requests that a server did not answer whole, by reason. For whoever is on call.",
                &["route", "reason"],
            )?,
            retries: counters(
                "bookend_http_retries_total",
                "Requests sent to another server, by what went wrong with the one before.",
                &["route", "upstream", "reason"],
            )?,
            request_bytes: counters("bookend_http_request_body_bytes_total", "Bytes of request bodies.", &["route"])?,
            response_bytes: counters(
                "bookend_http_response_body_bytes_total",
                "Bytes of answers' bodies.",
                &["route"],
            )?,
            websockets: gauges("bookend_websockets_open", "WebSockets open now.", &["route", "upstream"])?,
            websocket_bytes: counters(
                "bookend_websocket_bytes_total",
                "Bytes that went through WebSockets, by who sent them.",
                &["route", "from"],
            )?,
            client_connections: gauges(
                "bookend_client_connections_open",
                "HTTP client connections open now.",
                &["listener"],
            )?,
            client_connections_refused: counters(
                "bookend_client_connections_refused_total",
                "HTTP client connections closed at once. Any: raise the limit or find who opens so many.",
                &["listener", "reason"],
            )?,
            access_log_dropped: IntCounter::new(
                "bookend_access_log_lines_dropped_total",
                "Access log lines lost because standard output was slower than traffic.",
            )?,
            servers: Arc::default(),
        })
    }

    fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.requests.clone()),
            Box::new(self.duration.clone()),
            Box::new(self.connect.clone()),
            Box::new(self.first_byte.clone()),
            Box::new(self.in_flight.clone()),
            Box::new(self.failures.clone()),
            Box::new(self.retries.clone()),
            Box::new(self.request_bytes.clone()),
            Box::new(self.response_bytes.clone()),
            Box::new(self.websockets.clone()),
            Box::new(self.websocket_bytes.clone()),
            Box::new(self.client_connections.clone()),
            Box::new(self.client_connections_refused.clone()),
            Box::new(self.access_log_dropped.clone()),
        ]
    }

    /// Returns the handles of a route to these servers (none: a page of our own, or no route at all).
    pub fn route(&self, route: Option<&Arc<str>>, upstream: Option<&Arc<str>>, servers: &[Arc<str>]) -> RouteMetrics {
        let none = || Arc::from(NONE);
        let route = route.cloned().unwrap_or_else(none);
        let upstream = upstream.cloned().unwrap_or_else(none);
        let by_route = [&*route];
        let by_upstream = [&*route, &*upstream];
        let server = |name: &Arc<str>| ServerMetrics {
            requests: StatusCounters::new(name.clone()),
            connect: self.connect.with_label_values(&[&*upstream, &**name]),
            first_byte: self.first_byte.with_label_values(&[&*upstream, &**name]),
        };
        RouteMetrics {
            duration: self.duration.with_label_values(&by_upstream),
            in_flight: self.in_flight.with_label_values(&by_route),
            request_bytes: self.request_bytes.with_label_values(&by_route),
            response_bytes: self.response_bytes.with_label_values(&by_route),
            websockets: self.websockets.with_label_values(&by_upstream),
            websocket_bytes: ["client", "server"].map(|from| self.websocket_bytes.with_label_values(&[&*route, from])),
            failures: [const { OnceLock::new() }; Failure::ALL.len()],
            retries: [const { OnceLock::new() }; Failure::ALL.len()],
            servers: servers.iter().map(server).collect(),
            no_server: StatusCounters::new(NONE.into()),
            all: self.clone(),
            route,
            upstream,
        }
    }

    /// Returns the handles of a listener.
    pub fn listener(&self, listener: &str) -> ListenerMetrics {
        ListenerMetrics {
            open: self.client_connections.with_label_values(&[listener]),
            over_limit: self.client_connections_refused.with_label_values(&[listener, "limit"]),
            handshake: self.client_connections_refused.with_label_values(&[listener, "tls_handshake"]),
            proxy_protocol: self.client_connections_refused.with_label_values(&[listener, "proxy_protocol"]),
        }
    }

    /// Returns the counter of lost access log lines.
    pub fn access_log_dropped(&self) -> &IntCounter {
        &self.access_log_dropped
    }

    /// Shows these servers from the next scrape on.
    pub(super) fn show_servers(&self, servers: Vec<Arc<Servers>>) {
        self.servers.store(Arc::new(servers));
    }

    /// Forgets what only `gone` counted, so that names that left the configuration leave the metrics.
    pub(super) fn retire<'a>(
        &self,
        gone: impl IntoIterator<Item = &'a RouteMetrics>,
        current: impl Iterator<Item = &'a RouteMetrics> + Clone,
    ) {
        for old in gone {
            // An error only says that the combination never occurred.
            let same_route = |other: &RouteMetrics| other.route == old.route;
            let same_upstream = |other: &RouteMetrics| other.upstream == old.upstream;
            if !current.clone().any(same_route) {
                for vector in [&self.request_bytes, &self.response_bytes] {
                    let _ = vector.remove_label_values(&[&*old.route]);
                }
                let _ = self.in_flight.remove_label_values(&[&*old.route]);
                for from in ["client", "server"] {
                    let _ = self.websocket_bytes.remove_label_values(&[&*old.route, from]);
                }
                for failure in Failure::ALL {
                    let _ = self.failures.remove_label_values(&[&*old.route, failure.reason()]);
                }
            }
            if !current.clone().any(|other| same_route(other) && same_upstream(other)) {
                let labels = [&*old.route, &*old.upstream];
                let _ = self.duration.remove_label_values(&labels);
                let _ = self.websockets.remove_label_values(&labels);
                for failure in Failure::ALL {
                    let _ = self.retries.remove_label_values(&[labels[0], labels[1], failure.reason()]);
                }
            }
            for server in old.servers.iter().map(|server| &server.requests.server).chain([&old.no_server.server]) {
                let has_server = |other: &RouteMetrics| {
                    same_upstream(other)
                        && (**server == *NONE || other.servers.iter().any(|own| own.requests.server == *server))
                };
                if !current.clone().any(has_server) {
                    let labels = [&*old.upstream, &**server];
                    let _ = self.connect.remove_label_values(&labels);
                    let _ = self.first_byte.remove_label_values(&labels);
                }
                if !current.clone().any(|other| same_route(other) && has_server(other)) {
                    for class in CLASSES {
                        let _ = self.requests.remove_label_values(&[&*old.route, &*old.upstream, &**server, class]);
                    }
                }
            }
        }
    }
}

impl ListenerMetrics {
    /// Counts a client connection as open until the guard is dropped.
    pub fn opened(&self) -> GaugeGuard {
        GaugeGuard::hold(&self.open)
    }

    /// Counts a client connection that was closed at once.
    pub fn refused(&self, why: Refusal) {
        match why {
            Refusal::Limit => self.over_limit.inc(),
            Refusal::Handshake => self.handshake.inc(),
            Refusal::ProxyProtocol => self.proxy_protocol.inc(),
        }
    }
}

impl RouteMetrics {
    /// Counts a request as being handled until the guard is dropped.
    pub fn begin(&self) -> GaugeGuard {
        GaugeGuard::hold(&self.in_flight)
    }

    /// Counts an answered request. `server` is the index in its cluster of the one that answered.
    pub fn finished(&self, server: Option<usize>, status: u16, seconds: f64, request_bytes: u64, response_bytes: u64) {
        let counters =
            server.and_then(|index| self.servers.get(index)).map_or(&self.no_server, |server| &server.requests);
        counters.inc(self, status);
        self.duration.observe(seconds);
        self.request_bytes.inc_by(request_bytes);
        self.response_bytes.inc_by(response_bytes);
    }

    /// Notes how long a new connection to a server took.
    pub fn connected(&self, server: usize, seconds: f64) {
        if let Some(server) = self.servers.get(server) {
            server.connect.observe(seconds);
        }
    }

    /// Notes how long a server took to begin its answer.
    pub fn first_byte(&self, server: usize, seconds: f64) {
        if let Some(server) = self.servers.get(server) {
            server.first_byte.observe(seconds);
        }
    }

    /// Counts a failure that decided a request.
    pub fn failed(&self, failure: Failure) {
        self.failures[failure as usize]
            .get_or_init(|| self.all.failures.with_label_values(&[&*self.route, failure.reason()]))
            .inc();
    }

    /// Counts a request sent once more because of `failure`.
    pub fn retried(&self, failure: Failure) {
        self.retries[failure as usize]
            .get_or_init(|| self.all.retries.with_label_values(&[&*self.route, &*self.upstream, failure.reason()]))
            .inc();
    }

    /// Counts a WebSocket as open until the guard is dropped.
    pub fn websocket(&self) -> GaugeGuard {
        GaugeGuard::hold(&self.websockets)
    }

    /// Counts bytes of a WebSocket.
    pub fn websocket_bytes(&self, direction: Direction, count: u64) {
        self.websocket_bytes[direction as usize].inc_by(count);
    }
}

impl StatusCounters {
    fn new(server: Arc<str>) -> Self {
        Self { server, by_class: [const { OnceLock::new() }; CLASSES.len()] }
    }

    fn inc(&self, of: &RouteMetrics, status: u16) {
        let class = usize::from((status / 100).clamp(1, 5)) - 1;
        self.by_class[class]
            .get_or_init(|| {
                of.all.requests.with_label_values(&[&*of.route, &*of.upstream, &*self.server, CLASSES[class]])
            })
            .inc();
    }
}

fn counters(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
    IntCounterVec::new(Opts::new(name, help), labels)
}

fn gauges(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
    IntGaugeVec::new(Opts::new(name, help), labels)
}

fn histograms(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<HistogramVec> {
    HistogramVec::new(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()), labels)
}
