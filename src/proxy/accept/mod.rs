//! Client connections between requests, and the first look at each request.
//!
//! pingora accepts, and speaks HTTP once there is a request; everything before that is ours. The reasons: pingora has no
//! total deadline for a request head, no configurable bound on it, holds its whole session (and 64 KiB) for a connection
//! that only waits, and gives no say over requests that two parsers might read differently. So this loop waits for a head
//! in a small future, reads it strictly ([`head`]), and only then builds a session around exactly that request's bytes
//! ([`conn`], [`body`]). When pingora is done the connection comes back: for the next request, or to be closed so that the
//! client can still read the answer.
//!
//! Every connection holds a token of the drain while it lives. While the process leaves, connections that wait are closed
//! at once and answers under way are the last of their connection.

mod alarm;
mod arrive;
pub(super) mod body;
pub(super) mod conn;
pub(super) mod head;
mod http2;
mod layer;
pub(super) mod limit;
pub(super) mod progress;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Buf;
use futures_util::FutureExt;
use pingora::{
    apps::{HttpServerApp, ServerApp},
    protocols::{
        Stream,
        http::{ServerSession, date::get_cached_date},
    },
    server::ShutdownWatch,
};
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, timeout},
};

use self::{
    alarm::Alarm,
    arrive::{Arrived, Manner, NotArrived},
    conn::{Conn, Downstream, Home},
    head::{Bounds, Head, Refusal, Scanner, leading_line_ends},
    limit::{Admission, Limit},
};
use super::error::{Answer, Failure, SERVER};
use crate::{config::lb::Client, health::drain::Drain};

/// How long a connection is still read after our last word, so that closing it does not destroy the answer on its way
/// (nginx's lingering close; RFC 9112 9.6).
const LINGER: Duration = Duration::from_secs(5);

/// What the loop asks of the front.
pub(super) trait Rules: Send + Sync {
    /// Returns limits and deadlines as they are now; a reload changes them.
    fn client(&self) -> Client;
    /// Learns of a request that was refused before it was one. `detail` says more than the failure, for logs.
    fn refused(&self, failure: Failure, detail: &'static str, peer: Option<SocketAddr>);
}

/// The application pingora gives accepted connections to.
pub(super) struct Accept<H> {
    pub(super) http: Arc<H>,
    pub(super) limits: Arc<[Arc<Limit>]>,
    pub(super) drain: Drain,
    pub(super) rules: Arc<dyn Rules>,
}

/// What a connection brings next.
enum Next {
    Request(Head),
    /// It ended, was idle for too long, or the process leaves.
    Nothing,
    Refused(Refusal),
}

#[async_trait]
impl<H: HttpServerApp + Send + Sync + 'static> ServerApp for Accept<H> {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let limit = self.limit_of(&stream)?;
        let manner = limit.manner();
        match limit.admit(self.drain.token()) {
            None => self.turn_away(stream, &manner),
            Some(admission) if manner.is_plain() => self.serve(Box::new(Conn::new(stream, admission)), shutdown).await,
            // On the heap: a plain connection is not larger for those that are not.
            Some(admission) => Box::pin(self.greet(stream, admission, &manner, shutdown)).await,
        }
        None
    }
}

impl<H: HttpServerApp + Send + Sync + 'static> Accept<H> {
    fn limit_of(&self, stream: &Stream) -> Option<&Arc<Limit>> {
        match &*self.limits {
            [only] => Some(only),
            several => {
                let local = local_address(stream);
                several.iter().find(|limit| local.is_some_and(|local| limit.accepts_at(local)))
            }
        }
    }

    /// Finds out what is spoken, and serves it.
    async fn greet(&self, stream: Stream, admission: Admission, manner: &Manner, shutdown: &ShutdownWatch) {
        let mut drain = self.drain.clone();
        let arrived = tokio::select! {
            arrived = manner.arrive(stream, self.rules.client().header_timeout) => arrived,
            _ = drain.draining() => return,
        };
        match arrived {
            Err(NotArrived(Some(why))) => admission.refused(why),
            // As a connection that says nothing at all.
            Err(NotArrived(None)) => {}
            Ok(Arrived { io, http2: true, .. }) => self.serve_http2(io, admission, shutdown).await,
            Ok(Arrived { io, early, .. }) => {
                let mut conn = Box::new(Conn::new(io, admission));
                conn.held = early;
                self.serve(conn, shutdown).await;
            }
        }
    }

    /// Closes a connection that is one too many, with a word if it is taken at once.
    fn turn_away(&self, mut stream: Stream, manner: &Manner) {
        self.rules.refused(Failure::Overloaded, "max_connections", peer_address(&stream));
        if manner.is_secure() {
            return;
        }
        let bytes = render(&Failure::Overloaded.answer(None, None));
        // Whether the word arrives or not, the place is not there.
        let _ = stream.write_all(&bytes).now_or_never();
        let _ = stream.shutdown().now_or_never();
    }

    /// Serves requests until the connection ends. Not cancel safe: dropping it cuts the connection.
    async fn serve(&self, mut conn: Box<Conn>, shutdown: &ShutdownWatch) {
        let mut drain = self.drain.clone();
        let home = Home::default();
        let mut alarm = Alarm::default();
        let mut first = true;
        let mut left = self.rules.client().keepalive_requests.max(1);
        loop {
            let client = self.rules.client();
            let head = match next(&mut conn, &client, first, &mut alarm, &mut drain).await {
                Next::Request(head) => head,
                Next::Nothing => return,
                Next::Refused(refusal) => return self.refuse(conn, refusal, &mut drain).await,
            };
            first = false;
            left -= 1;
            let session = session(conn, head, &home, &client, left);
            let reusable = tokio::select! {
                biased;
                reused = self.http.process_new_http(session, shutdown) => reused.is_some(),
                () = drain.cut() => return,
            };
            // Not there: a WebSocket took it.
            let Some(back) = home.take() else { return };
            conn = back;
            if !reusable || left == 0 || drain.is_draining() {
                return close(conn, &[], &mut drain).await;
            }
        }
    }

    async fn refuse(&self, conn: Box<Conn>, refusal: Refusal, drain: &mut Drain) {
        let (failure, detail) = failure(refusal);
        self.rules.refused(failure, detail, peer_address(&conn.io));
        close(conn, &render(&failure.answer(None, None)), drain).await;
    }
}

/// Waits for the next request's head. Cancel safe: what was read stays with the connection.
async fn next(conn: &mut Conn, client: &Client, first: bool, alarm: &mut Alarm, drain: &mut Drain) -> Next {
    let patience = if first { client.header_timeout } else { client.keepalive_timeout };
    if !begins(conn, Instant::now() + patience, alarm, drain).await {
        return Next::Nothing;
    }
    let bounds = Bounds { bytes: client.header_max_size, headers: client.max_headers };
    let mut scanner = Scanner::default();
    let whole = async {
        loop {
            match scanner.scan(&conn.held, bounds) {
                Err(refusal) => return Next::Refused(refusal),
                Ok(Some(head)) => return Next::Request(head),
                Ok(None) => {}
            }
            if !conn.read_more().await.is_ok_and(|read| read > 0) {
                return Next::Nothing;
            }
        }
    };
    timeout(client.header_timeout, whole).await.unwrap_or(Next::Refused(Refusal::Timeout))
}

/// Waits for the first byte of a request; false when none will be waited for any longer. The deadline does not move for
/// line ends in between.
async fn begins(conn: &mut Conn, deadline: Instant, alarm: &mut Alarm, drain: &mut Drain) -> bool {
    loop {
        let skip = leading_line_ends(&conn.held);
        conn.held.advance(skip);
        if !conn.held.is_empty() && conn.held[..] != *b"\r" {
            return true;
        }
        conn.rest();
        tokio::select! {
            // What has arrived is served, even when the process leaves at the same moment.
            biased;
            read = conn.read_more() => if !read.is_ok_and(|read| read > 0) { return false },
            _ = drain.draining() => return false,
            () = alarm.until(deadline) => return false,
        }
    }
}

/// Returns pingora's session for one request.
fn session(mut conn: Box<Conn>, head: Head, home: &Home, client: &Client, left: u32) -> ServerSession {
    let bytes = conn.held.split_to(head.len);
    let bytes = head::with_valid_target(&bytes).unwrap_or(bytes);
    conn.body = head.body;
    conn.send_timeout = client.send_timeout;
    let mut session = ServerSession::new_http1(Box::new(Downstream::new(conn, home.clone())));
    // The head goes in front of the stream as if it had been read along with the request before.
    session.set_pipelined_prefix(bytes);
    session.set_read_timeout(Some(client.body_timeout));
    session.set_keepalive_reuses_remaining(Some(left));
    session
}

/// Says `last`, closes our direction, and reads on for a while if the client has more to say: closing with unread bytes
/// resets the connection, and the answer with it.
async fn close(mut conn: Box<Conn>, last: &[u8], drain: &mut Drain) {
    let linger = !last.is_empty() || !conn.body.is_done() || !conn.held.is_empty();
    let farewell = async {
        if conn.finish(last).await.is_ok() && linger {
            while conn.discard().await.is_ok_and(|read| read > 0) {}
        }
    };
    tokio::select! {
        _ = timeout(LINGER, farewell) => {}
        () = drain.cut() => {}
    }
}

fn failure(refusal: Refusal) -> (Failure, &'static str) {
    match refusal {
        Refusal::Malformed(detail) => (Failure::BadRequest, detail),
        Refusal::TargetTooLong => (Failure::TargetTooLong, "client_header_max_size"),
        Refusal::HeadersTooLarge => (Failure::HeaderTooLarge, "client_header_max_size"),
        Refusal::TooManyHeaders => (Failure::TooManyHeaders, "max_headers"),
        Refusal::Method => (Failure::MethodNotAllowed, "method"),
        Refusal::Coding => (Failure::TransferCodingUnknown, "transfer-encoding"),
        Refusal::Version => (Failure::VersionNotSupported, "version"),
        Refusal::Timeout => (Failure::HeaderTimeout, "client_header_timeout"),
    }
}

/// Writes out an answer that ends its connection.
fn render(answer: &Answer) -> Vec<u8> {
    use std::io::Write as _;
    let reason = http::StatusCode::from_u16(answer.status).ok().and_then(|status| status.canonical_reason());
    let mut bytes = Vec::with_capacity(256 + answer.body.len());
    let written = write!(
        bytes,
        "HTTP/1.1 {} {}\r\nServer: {SERVER}\r\nContent-Type: {}\r\nContent-Length: {}\r\n",
        answer.status,
        reason.unwrap_or_default(),
        answer.content_type,
        answer.body.len()
    )
    .and_then(|()| match answer.retry_after {
        Some(seconds) => write!(bytes, "Retry-After: {seconds}\r\n"),
        None => Ok(()),
    });
    debug_assert!(written.is_ok(), "writing to a Vec cannot fail");
    bytes.extend_from_slice(b"Date: ");
    bytes.extend_from_slice(get_cached_date().as_bytes());
    bytes.extend_from_slice(b"\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n");
    bytes.extend_from_slice(&answer.body);
    bytes
}

fn peer_address(stream: &Stream) -> Option<SocketAddr> {
    stream.get_socket_digest()?.peer_addr()?.as_inet().copied()
}

fn local_address(stream: &Stream) -> Option<SocketAddr> {
    stream.get_socket_digest()?.local_addr()?.as_inet().copied()
}

#[cfg(test)]
mod tests;
