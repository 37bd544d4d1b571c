//! What is known of one request while it is served.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Instant, SystemTime},
};

use http::{HeaderMap, header};
use pingora::{
    http::{RequestHeader, ResponseHeader},
    proxy::Session,
};

use super::{
    accept::progress::Progress,
    attempts::Attempts,
    error::Failure,
    header_rules::{self, Rules},
    request_id::RequestId,
    runtime::{Route, Runtime},
    template::Values,
};
use crate::telemetry::guard::GaugeGuard;

/// A request, from its head to its line in the access log.
pub(super) struct Ctx {
    /// The configuration it began with; a reload does not change it any more.
    pub(super) runtime: Arc<Runtime>,
    pub(super) started: Instant,
    pub(super) time: SystemTime,
    pub(super) peer: IpAddr,
    pub(super) client: IpAddr,
    pub(super) request_id: Option<RequestId>,
    pub(super) route: Option<Arc<Route>>,
    pub(super) attempts: Option<Attempts>,
    /// What decided it, if anything went wrong.
    pub(super) failure: Option<Failure>,
    /// Bytes of the request's body seen.
    pub(super) body_seen: u64,
    /// Its line is written by somebody else: it became a WebSocket.
    pub(super) handed_over: bool,
    /// It came by TLS.
    pub(super) secure: bool,
    /// Watched for a body that stops coming: on HTTP/2.
    pub(super) progress: Option<Arc<Progress>>,
    in_flight: Option<GaugeGuard>,
}

impl Ctx {
    pub(super) fn new(runtime: Arc<Runtime>) -> Self {
        let unknown = IpAddr::from([0, 0, 0, 0]);
        Self {
            runtime,
            started: Instant::now(),
            time: SystemTime::now(),
            peer: unknown,
            client: unknown,
            request_id: None,
            route: None,
            attempts: None,
            failure: None,
            body_seen: 0,
            handed_over: false,
            secure: false,
            progress: None,
            in_flight: None,
        }
    }

    /// Learns who asks.
    pub(super) fn identify(&mut self, peer: IpAddr, headers: &HeaderMap) {
        self.peer = peer.to_canonical();
        let chain = headers.get_all("x-forwarded-for");
        let lines: Vec<&[u8]> = chain.iter().map(|value| value.as_bytes()).collect();
        self.client = self.runtime.trusted.client(self.peer, lines);
        self.request_id = Some(RequestId::accept_or_make(headers, rand::random));
    }

    /// Finds the route.
    pub(super) fn find_route(&mut self, request: &RequestHeader) -> Result<Arc<Route>, Failure> {
        let found = self.runtime.route(host(request), path(request));
        let route = found.cloned().map_err(|missing| match missing {
            super::route::NotFound::Host => Failure::HostUnknown,
            super::route::NotFound::Path => Failure::PathUnknown,
        })?;
        self.in_flight = Some(route.metrics.begin());
        self.route = Some(route.clone());
        Ok(route)
    }

    /// Changes an answer as the file says, for all routes and for this one.
    pub(super) fn change_answer(&self, request: &RequestHeader, answer: &mut ResponseHeader) -> pingora::Result<()> {
        let of_route = self.route.as_ref().map(|route| &route.headers.response);
        self.change([Some(&self.runtime.headers.response), of_route], request, answer)
    }

    /// Changes a request to a server as the file says. `asked` is the client's.
    pub(super) fn change_request(&self, asked: &RequestHeader, request: &mut RequestHeader) -> pingora::Result<()> {
        let of_route = self.route.as_ref().map(|route| &route.headers.request);
        self.change([Some(&self.runtime.headers.request), of_route], asked, request)
    }

    /// Adds what the listener asks for to an answer.
    pub(super) fn mark_secure(&self, session: &Session, answer: &mut ResponseHeader) -> pingora::Result<()> {
        // Only by HTTPS does it mean anything (RFC 6797 section 7.2).
        let entry = self.secure.then(|| self.runtime.entries.find(|| local_address(session))).flatten();
        match entry.and_then(|entry| entry.hsts.as_ref()) {
            Some(hsts) => answer.insert_header(header::STRICT_TRANSPORT_SECURITY, hsts),
            None => Ok(()),
        }
    }

    fn change(
        &self,
        rules: [Option<&Rules>; 2],
        asked: &RequestHeader,
        head: &mut impl header_rules::Head,
    ) -> pingora::Result<()> {
        for rules in rules.into_iter().flatten().filter(|rules| !rules.is_empty()) {
            header_rules::apply(rules, head, &self.values(asked))?;
        }
        Ok(())
    }

    /// Returns what variables stand for.
    pub(super) fn values<'a>(&'a self, request: &'a RequestHeader) -> Values<'a> {
        let raw = request.raw_path();
        Values {
            host: host(request),
            request_uri: absolute(raw).map_or(raw, |(_, target)| target),
            client: self.client,
            request_id: self.request_id(),
        }
    }

    /// Returns the request's id; empty before it has one.
    pub(super) fn request_id(&self) -> &str {
        self.request_id.as_ref().map_or("", |id| id.as_str())
    }

    /// Returns whether a server began to answer.
    pub(super) fn is_answered(&self) -> bool {
        self.attempts.as_ref().is_some_and(|attempts| attempts.is_answered())
    }
}

/// Returns the address a connection came in at.
pub(super) fn local_address(session: &Session) -> Option<SocketAddr> {
    session.server_addr()?.as_inet().copied()
}

/// Returns the host that was asked for. A request written for a proxy names it in its target; when it has a Host header
/// too, that is the same.
pub(super) fn host(request: &RequestHeader) -> Option<&[u8]> {
    let named = request.headers.get(header::HOST).map(|host| host.as_bytes());
    named.or_else(|| absolute(request.raw_path()).map(|(authority, _)| authority))
}

/// Returns the path as it came, without the query.
pub(super) fn path(request: &RequestHeader) -> &[u8] {
    let raw = request.raw_path();
    let target = absolute(raw).map_or(raw, |(_, target)| target);
    match target.split(|byte| matches!(byte, b'?' | b'#')).next() {
        // An empty path means the root (RFC 9110 4.2.3).
        None | Some(b"") => b"/",
        Some(path) => path,
    }
}

/// Makes a request written for a proxy (RFC 9112 3.2.2) one for a server: the host's name moves from the target to the
/// Host header.
pub(super) fn to_origin_form(request: &mut RequestHeader) -> pingora::Result<()> {
    let Some((host, target)) = absolute(request.raw_path()) else { return Ok(()) };
    let (host, target) = (host.to_vec(), target.to_vec());
    request.insert_header(header::HOST, host)?;
    match target.starts_with(b"/") {
        true => request.set_raw_path(&target),
        false => request.set_raw_path(&[b"/", &target[..]].concat()),
    }
}

/// Splits a target with a scheme into the authority and the rest.
fn absolute(target: &[u8]) -> Option<(&[u8], &[u8])> {
    if target.starts_with(b"/") {
        return None;
    }
    let begin = memchr::memmem::find(target, b"://")? + 3;
    let rest = &target[begin..];
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    Some(match &rest[end..] {
        // A target without a path means the root (RFC 9110 4.2.3).
        b"" => (rest, b"/"),
        _ => rest.split_at(end),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str) -> RequestHeader {
        RequestHeader::build("GET", target.as_bytes(), None).unwrap()
    }

    #[test]
    fn the_path_is_raw_and_without_its_query() {
        assert_eq!(path(&request("/a%2Fb/../c?d=/e")), b"/a%2Fb/../c");
        assert_eq!(path(&request("http://example.com/a?b")), b"/a");
        assert_eq!(path(&request("http://example.com")), b"/");
        assert_eq!(path(&request("http://example.com?b")), b"/");
        assert_eq!(path(&request("//example.com/a")), b"//example.com/a");
        assert_eq!(path(&request("*")), b"*");
        assert_eq!(path(&request("/?")), b"/");
    }

    #[test]
    fn the_host_is_the_header_or_the_targets() {
        let mut named = request("/");
        assert_eq!(host(&named), None);
        named.insert_header(header::HOST, "a:80").unwrap();
        assert_eq!(host(&named), Some(&b"a:80"[..]));
        assert_eq!(host(&request("http://b:81/")), Some(&b"b:81"[..]));
    }

    #[test]
    fn a_target_for_a_proxy_becomes_one_for_a_server() {
        for (target, expected) in [
            ("http://example.com/a?b", "/a?b"),
            ("HTTPS://example.com", "/"),
            ("http://example.com?b", "/?b"),
            ("/a?u=http://b/", "/a?u=http://b/"),
        ] {
            let mut request = request(target);
            to_origin_form(&mut request).unwrap();
            assert_eq!(request.raw_path(), expected.as_bytes(), "{target}");
            let named = request.headers.get(header::HOST).map(|host| host.as_bytes());
            assert_eq!(named, (!target.starts_with('/')).then_some(&b"example.com"[..]), "{target}");
        }
    }
}
