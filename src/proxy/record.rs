//! What is written down of a request once it is over: its line in the access log, and its counts.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderMap, HeaderName, Method, Version, header};
use pingora::proxy::Session;

use super::{
    Shared,
    accept::Rules,
    access_log::Line,
    attempts::Attempts,
    ctx::{self, Ctx},
    error::Failure,
    metrics::Direction,
    request_id::RequestId,
    runtime::Route,
    websocket::tunnel::{End, Summary},
};
use crate::config::lb::Client;

/// Bytes of a client's text that a WebSocket keeps for its last line.
const KEPT_MAX: usize = 512;

impl Shared {
    /// Writes down a request that pingora is done with.
    pub(super) fn log(&self, session: &Session, ctx: &Ctx) {
        let request = session.req_header();
        let sent = session.response_written().map(|head| head.status.as_u16());
        let status = sent.or(ctx.failure.map(|failure| failure.status())).unwrap_or(499);
        let bytes = (session.body_bytes_read() as u64, session.body_bytes_sent() as u64);
        let total = ctx.started.elapsed();
        self.count(ctx, status, bytes, total);
        if let Some(attempts) = &ctx.attempts {
            attempts.settle(ctx.failure);
        }
        let Some(log) = &self.access_log else { return };
        log.write(&Line {
            time: ctx.time,
            request_id: ctx.request_id(),
            client: ctx.client,
            method: request.method.as_str(),
            host: ctx::host(request),
            uri: request.raw_path(),
            protocol: protocol(request.version),
            status,
            bytes_in: bytes.0,
            bytes_out: bytes.1,
            total,
            reason: ctx.failure.map(Failure::reason),
            user_agent: text(&request.headers, &header::USER_AGENT),
            referer: text(&request.headers, &header::REFERER),
            websocket: false,
            ..way(ctx.route.as_deref(), ctx.attempts.as_ref(), ctx.started)
        });
    }

    fn count(&self, ctx: &Ctx, status: u16, bytes: (u64, u64), total: Duration) {
        let metrics = ctx.route.as_ref().map_or(&ctx.runtime.unmatched, |route| &route.metrics);
        // A server counts as the one that answered only if it did.
        let answered = ctx.attempts.as_ref().filter(|attempts| attempts.is_answered());
        let server = answered.and_then(|attempts| attempts.current()).map(|picked| picked.index);
        metrics.finished(server, status, total.as_secs_f64(), bytes.0, bytes.1);
        if let Some(failure) = ctx.failure {
            metrics.failed(failure);
        }
    }
}

impl Rules for Shared {
    fn client(&self) -> Client {
        self.runtime.load().client.clone()
    }

    fn refused(&self, failure: Failure, detail: &'static str, peer: Option<SocketAddr>) {
        let runtime = self.runtime.load();
        runtime.unmatched.failed(failure);
        runtime.unmatched.finished(None, failure.status(), 0.0, 0, 0);
        tracing::debug!(peer = ?peer, reason = failure.reason(), detail, "request refused");
        let Some(log) = &self.access_log else { return };
        log.write(&Line {
            client: peer.map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.ip()),
            status: failure.status(),
            reason: Some(failure.reason()),
            ..way(None, None, Instant::now())
        });
    }
}

/// Returns a line that knows the way a request took, and nothing else yet.
fn way<'a>(route: Option<&'a Route>, attempts: Option<&'a Attempts>, started: Instant) -> Line<'a> {
    let picked = attempts.and_then(|attempts| attempts.current());
    Line {
        time: SystemTime::now(),
        request_id: "",
        client: IpAddr::from([0, 0, 0, 0]),
        method: "",
        host: None,
        uri: b"",
        protocol: "",
        route: route.map(|route| &*route.name),
        upstream: attempts.map(|attempts| &**attempts.cluster().name()),
        server: picked.map(|picked| (&**picked.endpoint.name(), picked.endpoint.address())),
        attempts: attempts.map_or(0, |attempts| attempts.count()),
        status: 0,
        bytes_in: 0,
        bytes_out: 0,
        total: Duration::ZERO,
        queued: attempts.map(|attempts| attempts.queued()).filter(|queued| !queued.is_zero()),
        connect: attempts.and_then(|attempts| attempts.connect()),
        first_byte: attempts.and_then(|attempts| attempts.answered_at()).map(|at| at - started),
        reason: None,
        user_agent: None,
        referer: None,
        websocket: false,
    }
}

/// What an open WebSocket keeps of its request. Copies: the request's own buffer is larger than all of it.
pub(super) struct WebSocketRecord {
    started: Instant,
    time: SystemTime,
    client: IpAddr,
    request_id: Option<RequestId>,
    host: Option<Box<[u8]>>,
    uri: Box<[u8]>,
    user_agent: Option<Box<[u8]>>,
    route: Arc<Route>,
    /// Counts it as being at its server.
    attempts: Attempts,
}

impl WebSocketRecord {
    /// Takes over a request that became a WebSocket; nothing else writes about it from here on.
    pub(super) fn take(session: &Session, ctx: &mut Ctx) -> Option<Self> {
        let request = session.req_header();
        let record = Self {
            started: ctx.started,
            time: ctx.time,
            client: ctx.client,
            request_id: ctx.request_id.take(),
            host: ctx::host(request).map(keep),
            uri: keep(request.raw_path()),
            user_agent: text(&request.headers, &header::USER_AGENT).map(keep),
            route: ctx.route.clone()?,
            attempts: ctx.attempts.take()?,
        };
        ctx.handed_over = true;
        Some(record)
    }

    pub(super) fn route(&self) -> &Route {
        &self.route
    }

    /// Writes down the end.
    pub(super) fn finish(self, shared: &Shared, summary: Summary) {
        let total = self.started.elapsed();
        let metrics = &self.route.metrics;
        let server = self.attempts.current().map(|picked| picked.index);
        metrics.websocket_bytes(Direction::FromClient, summary.to_server);
        metrics.websocket_bytes(Direction::FromServer, summary.to_client);
        // How long it was open would drown the times of requests: its time is that of its handshake.
        let handshake = self.attempts.answered_at().map_or(total, |at| at - self.started);
        metrics.finished(server, 101, handshake.as_secs_f64(), 0, 0);
        self.attempts.settle(None);
        let Some(log) = &shared.access_log else { return };
        log.write(&Line {
            time: self.time,
            request_id: self.request_id.as_ref().map_or("", |id| id.as_str()),
            client: self.client,
            method: Method::GET.as_str(),
            host: self.host.as_deref(),
            uri: &self.uri,
            protocol: protocol(Version::HTTP_11),
            status: 101,
            bytes_in: summary.to_server,
            bytes_out: summary.to_client,
            total,
            reason: reason(summary.end),
            user_agent: self.user_agent.as_deref(),
            websocket: true,
            ..way(Some(&self.route), Some(&self.attempts), self.started)
        });
    }
}

fn reason(end: End) -> Option<&'static str> {
    match end {
        End::Closed => None,
        End::Idle => Some("idle"),
        End::Drained => Some(Failure::Draining.reason()),
        End::Broken => Some("broken"),
    }
}

fn keep(text: &[u8]) -> Box<[u8]> {
    text[..text.len().min(KEPT_MAX)].into()
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h [u8]> {
    headers.get(name).map(|value| value.as_bytes())
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}
