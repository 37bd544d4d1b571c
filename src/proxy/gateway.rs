//! The front's part in pingora's phases: each asks the module that knows, and keeps the answer in the request's [`Ctx`].
//!
//! Errors take one way out: whatever goes wrong becomes a [`Failure`] in the `Ctx`, `fail_to_proxy` (or `request_filter`,
//! before a server was asked) says it to the client, `logging` writes it down. pingora's own log lines are off: the access
//! log has one line for each request, with the reason in a word.

use std::{net::IpAddr, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderName, Method, StatusCode, Version, header};
use pingora::{
    Error, ErrorType, Result,
    http::{RequestHeader, ResponseHeader},
    modules::http::HttpModules,
    protocols::Digest,
    proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session},
    upstreams::peer::{H1UpgradePolicy, HttpPeer},
};

use super::{
    Shared,
    accept::progress,
    attempts::{Attempts, Fault},
    ctx::{self, Ctx},
    error::{Answer, Failure},
    fault,
    forward::{self, Origin},
    hash_key, http2, own_answer, reply, request_id,
    retry::{self, Sent},
    rewrite,
    runtime::Target,
    upstream::Ask,
    websocket::{self, handshake::Upgrade},
};
use crate::config::lb::Builtin;

/// Sent with every error of ours: what it means is in the `Ctx`.
const REFUSED: ErrorType = ErrorType::new("refused");

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// The proxy application.
pub(super) struct Gateway {
    pub(super) shared: Arc<Shared>,
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        Ctx::new(self.shared.runtime.load_full())
    }

    /// None of pingora's modules: its compression would hold back streams.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<()> {
        let peer = session.client_addr().and_then(|address| address.as_inet());
        let peer = peer.map_or(IpAddr::from([0, 0, 0, 0]), |address| address.ip());
        ctx.identify(peer, &session.req_header().headers);
        ctx.secure = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
        if session.req_header().version == Version::HTTP_2 {
            ctx.progress = progress::current();
            http2::to_http1(session.req_header_mut())?;
        }
        if session.req_header().version == Version::HTTP_10 {
            // An interim answer is the final one to a client that knows none (RFC 9110 10.1.1 and 15.2).
            session.set_ignore_info_resp(true);
            session.req_header_mut().remove_header(&header::EXPECT);
        }
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        match self.serve(session, ctx).await {
            Ok(done) => Ok(done),
            Err(failure) => {
                ctx.failure = Some(failure);
                if has_begun(session) || failure.status() == 499 {
                    // The answer is cut off, or nobody is there for one: `fail_to_proxy` closes the connection.
                    return Error::err(REFUSED);
                }
                self.say(session, ctx, failure).await?;
                Ok(true)
            }
        }
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
        if let Err(failure) = find_server(session, ctx).await {
            ctx.failure = Some(failure);
            return Error::err(REFUSED);
        }
        let (Some(attempts), Some(route)) = (ctx.attempts.as_mut(), ctx.route.as_ref()) else {
            return Error::err(ErrorType::InternalError);
        };
        match attempts.begin().map(|picked| picked.endpoint.address()) {
            Ok(address) => {
                let settings = attempts.cluster().settings();
                let mut peer = HttpPeer::new(address, false, String::new());
                peer.options.connection_timeout = Some(settings.connect_timeout);
                peer.options.total_connection_timeout = Some(settings.connect_timeout);
                peer.options.read_timeout = Some(route.read_timeout);
                peer.options.write_timeout = Some(settings.send_timeout);
                peer.options.idle_timeout = Some(settings.keepalive_timeout);
                // Tunnels are ours alone; an `Upgrade` that got here is none.
                peer.options.http_upstream_request_policy.h1_upgrade = H1UpgradePolicy::Deny;
                Ok(Box::new(peer))
            }
            Err(failure) => {
                ctx.failure = Some(failure);
                Error::err(REFUSED)
            }
        }
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        reused: bool,
        _peer: &HttpPeer,
        _fd: std::os::fd::RawFd,
        _digest: Option<&Digest>,
        ctx: &mut Ctx,
    ) -> Result<()> {
        if let (Some(attempts), Some(route)) = (ctx.attempts.as_mut(), ctx.route.as_ref()) {
            attempts.connected(reused, &route.metrics);
        }
        Ok(())
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Ctx,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let again = attempt_failed(session, ctx, &error, Sent::Nothing);
        error.set_retry(again);
        error
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Ctx,
        _client_reused: bool,
    ) -> Box<Error> {
        let sent = if session.body_bytes_read() > 0 { Sent::Body } else { Sent::Head };
        let again = attempt_failed(session, ctx, &error, sent);
        error.set_retry(again);
        error
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        prepare_request(session, request, ctx)
    }

    async fn request_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Ctx,
    ) -> Result<()> {
        if let Some(progress) = &ctx.progress {
            progress.came(end);
        }
        ctx.body_seen += body.as_ref().map_or(0, |bytes| bytes.len() as u64);
        let limit = ctx.route.as_ref().and_then(|route| route.max_body_size);
        if limit.is_some_and(|limit| ctx.body_seen > limit) {
            ctx.failure = Some(Failure::BodyTooLarge);
            return Error::err_down(REFUSED);
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        if response.status == StatusCode::SWITCHING_PROTOCOLS {
            // Nobody asked for it: requests that do never come this way.
            return Error::err_up(ErrorType::InvalidHTTPHeader);
        }
        if !response.status.is_informational()
            && let (Some(attempts), Some(route)) = (ctx.attempts.as_mut(), ctx.route.as_ref())
        {
            attempts.answered(&route.metrics);
        }
        Ok(())
    }

    async fn response_filter(&self, session: &mut Session, response: &mut ResponseHeader, ctx: &mut Ctx) -> Result<()> {
        if !response.status.is_informational() {
            finish_answer(&self.shared, session, response, ctx)?;
        }
        Ok(())
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Ctx) -> FailToProxy {
        let failure = ctx.failure.unwrap_or_else(|| fault::of(error, ctx.is_answered()));
        ctx.failure = Some(failure);
        session.set_keepalive(None);
        // Once an answer has begun there is nothing to say but to cut it: its framing shows that it is not whole.
        if !has_begun(session) && failure.status() != 499 {
            // If it does not arrive, the client is gone too; the failure stays the one above.
            let _ = self.say(session, ctx, failure).await;
        }
        FailToProxy { error_code: failure.status(), can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, _error: Option<&Error>, ctx: &mut Ctx) {
        if !ctx.handed_over {
            self.shared.log(session, ctx);
        }
    }

    fn suppress_error_log(&self, _session: &Session, _ctx: &Ctx, _error: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _ctx: &Ctx,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

impl Gateway {
    /// Does everything that happens before pingora asks a server; returns whether that was all. On a failure nothing was
    /// sent to the client.
    async fn serve(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool, Failure> {
        if session.req_header().version == Version::HTTP_2 {
            http2::check(session.req_header(), ctx.runtime.client.max_headers)?;
        }
        if let Some(entry) = ctx.runtime.entries.find(|| ctx::local_address(session)).filter(|_| !ctx.secure) {
            let values = ctx.values(session.req_header());
            if let Some(answer) = entry.to_https(values.host, ctx::path(session.req_header()), values.request_uri)? {
                return self.own(session, ctx, answer).await;
            }
        }
        let route = ctx.find_route(session.req_header())?;
        if !route.admits(ctx.client) {
            return Err(Failure::Forbidden);
        }
        ctx::to_origin_form(session.req_header_mut()).map_err(|_| Failure::BadRequest)?;
        let cluster = match &route.target {
            Target::Builtin(builtin) => return self.page(session, ctx, *builtin).await,
            Target::Upstream(cluster) => cluster.clone(),
            Target::Redirect(redirect) => {
                let answer = own_answer::redirect(redirect, &ctx.values(session.req_header()))?;
                return self.own(session, ctx, answer).await;
            }
            Target::Respond(respond) => return self.own(session, ctx, own_answer::respond(respond)).await,
        };
        if let (Some(limit), Some(length)) = (route.max_body_size, content_length(session.req_header()))
            && length > limit
        {
            return Err(Failure::BodyTooLarge);
        }
        let hash = hash_key::of(cluster.balance(), session.req_header(), ctx.client);
        let sticky = cluster.sticky().and_then(|sticky| sticky.server(&session.req_header().headers));
        let (needs_database, priority) = (route.needs_database, route.queue_priority);
        let ask = Ask { client: ctx.client, needs_database, hash, sticky, priority };
        ctx.attempts = Some(Attempts::new(cluster, ask));
        let has_body = !session.is_body_empty();
        match websocket::handshake::upgrade_of(session.req_header(), has_body) {
            Upgrade::WebSocket => return websocket::serve(&self.shared, session, ctx).await.map(|()| true),
            Upgrade::Malformed => return Err(Failure::WebSocketHandshake),
            Upgrade::None => {}
        }
        session.req_header_mut().remove_header(&header::UPGRADE);
        // The first choice is made here: if there is no server, the connection can stay.
        find_server(session, ctx).await?;
        Ok(false)
    }

    /// Answers as the file says.
    async fn own(&self, session: &mut Session, ctx: &Ctx, answer: Answer) -> Result<bool, Failure> {
        if !session.is_body_empty() {
            // It is not read, and the next request would stand behind it.
            session.set_keepalive(None);
        }
        leave_if_draining(&self.shared, session);
        reply::send_lasting(session, answer, ctx).await.map_err(|_| Failure::ClientGone)?;
        Ok(true)
    }

    /// Answers with a page of our own.
    async fn page(&self, session: &mut Session, ctx: &Ctx, builtin: Builtin) -> Result<bool, Failure> {
        if !matches!(session.req_header().method, Method::GET | Method::HEAD) {
            return Err(Failure::MethodNotAllowed);
        }
        let page = self.shared.pages.render(builtin).ok_or(Failure::PathUnknown)?;
        leave_if_draining(&self.shared, session);
        let answer = Answer::of(page.status, page.content_type, page.body);
        reply::send(session, answer, ctx).await.map_err(|_| Failure::ClientGone)?;
        Ok(true)
    }

    /// Sends what the client sees of a failure.
    async fn say(&self, session: &mut Session, ctx: &Ctx, failure: Failure) -> Result<()> {
        if !failure.keeps_connection() {
            session.set_keepalive(None);
        }
        leave_if_draining(&self.shared, session);
        let accept = session.req_header().headers.get(header::ACCEPT).map(|accept| accept.as_bytes());
        let answer = failure.answer(accept, Some(ctx.request_id()));
        reply::send(session, answer, ctx).await
    }
}

/// Chooses a server, and waits in line for it if that must be.
async fn find_server(session: &mut Session, ctx: &mut Ctx) -> Result<(), Failure> {
    let Some(attempts) = ctx.attempts.as_mut() else { return Err(Failure::Internal) };
    match attempts.choose()? {
        true => Ok(()),
        // On the heap: a request that need not wait is not larger for those that do.
        false => Box::pin(wait_for_server(session, attempts)).await,
    }
}

async fn wait_for_server(session: &mut Session, attempts: &mut Attempts) -> Result<(), Failure> {
    if !session.is_body_empty() {
        return attempts.wait().await;
    }
    tokio::select! {
        biased;
        // The request is complete: all this can see is a client that goes away, which is not to hold a place in the line.
        _ = session.read_body_or_idle(true) => Err(Failure::ClientGone),
        waited = attempts.wait() => waited,
    }
}

/// Makes the answer under way the last on its connection when the process leaves.
fn leave_if_draining(shared: &Shared, session: &mut Session) {
    if shared.drain.is_draining() {
        session.set_keepalive(None);
    }
}

/// Returns whether the client was sent the head of a final answer.
fn has_begun(session: &Session) -> bool {
    session.response_written().is_some_and(|head| !head.status.is_informational())
}

/// Makes a server's answer ours to send.
pub(super) fn finish_answer(
    shared: &Shared,
    session: &mut Session,
    answer: &mut ResponseHeader,
    ctx: &Ctx,
) -> Result<()> {
    leave_if_draining(shared, session);
    // Ours, not the server's (RFC 9110 6.2): an answer of HTTP/1.0 would have the client close its connection.
    answer.set_version(Version::HTTP_11);
    for name in [KEEP_ALIVE, PROXY_CONNECTION] {
        answer.remove_header(&name);
    }
    if answer.status != StatusCode::UPGRADE_REQUIRED {
        answer.remove_header(&header::UPGRADE);
    }
    // HTTP/1.0 knows no chunks (RFC 9112 6.1): the end of the connection is the end of the body.
    if session.req_header().version == Version::HTTP_10 && answer.remove_header(&header::TRANSFER_ENCODING).is_some() {
        session.set_keepalive(None);
    }
    ctx.change_answer(session.req_header(), answer)?;
    ctx.mark_secure(session, answer)?;
    if let Some(cookie) = ctx.attempts.as_ref().and_then(|attempts| attempts.new_cookie()) {
        answer.append_header(header::SET_COOKIE, cookie)?;
    }
    answer.insert_header(request_id::HEADER, ctx.request_id())
}

/// Makes a client's request the one for a server; pingora has removed what concerned only the client's connection.
pub(super) fn prepare_request(session: &Session, request: &mut RequestHeader, ctx: &Ctx) -> Result<()> {
    let origin = Origin {
        peer: ctx.peer,
        client: ctx.client,
        peer_trusted: ctx.runtime.trusted.contains(ctx.peer),
        scheme: if ctx.secure { "https" } else { "http" },
        port: ctx::local_address(session).map_or(80, |address| address.port()),
        host: session.req_header().headers.get(header::HOST),
        request_id: ctx.request_id(),
    };
    forward::apply(request, &origin)?;
    if let Some(prefix) = ctx.route.as_ref().and_then(|route| route.strip_prefix.as_deref())
        && let Some(rest) = rewrite::strip_prefix(request.raw_path(), prefix)
    {
        request.set_raw_path(&rest)?;
        request.insert_header("X-Forwarded-Prefix", prefix)?;
    }
    ctx.change_request(session.req_header(), request)
}

/// Takes note of a failed try; returns whether pingora should begin another.
fn attempt_failed(session: &mut Session, ctx: &mut Ctx, error: &Error, sent: Sent) -> bool {
    let failure = ctx.failure.unwrap_or_else(|| fault::of(error, ctx.is_answered()));
    let fault = Fault {
        failure,
        idempotent: retry::is_idempotent(&session.req_header().method),
        has_body: !session.is_body_empty(),
        sent,
    };
    let again = match (ctx.attempts.as_mut(), ctx.route.as_ref()) {
        (Some(attempts), Some(route)) => attempts.failed(fault, &route.metrics),
        _ => false,
    };
    if !again {
        ctx.failure = Some(failure);
    }
    again
}

/// Returns the declared length; it was found to be one plain number when the request came in.
fn content_length(request: &RequestHeader) -> Option<u64> {
    request.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
