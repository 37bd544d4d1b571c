//! WebSockets: a handshake that is passed on strictly, then a tunnel that costs next to nothing.
//!
//! pingora would forward an upgrade itself, and pay 170 to 230 KB for as long as it lives: buffers for bodies on both
//! sides, and its largest futures kept alive. So the handshake is ours: we connect, write the client's request, and read
//! the server's answer ([`handshake`]). If the server agrees, both sockets are taken out of HTTP and joined by a small
//! task of their own ([`tunnel`]), and pingora's request ends. If it does not, its answer is relayed like any other.
//!
//! Bytes that came too early on either side (behind the client's request, behind the server's answer) go first.

mod answer;
mod frame;
pub(super) mod handshake;
pub(super) mod tunnel;

use std::{io::Cursor, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use pingora::{protocols::http::ServerSession, proxy::Session};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

use self::{
    answer::{Answer, Refused},
    tunnel::Lot,
};
use super::{
    Shared,
    accept::conn::{Downstream, Taken},
    attempts::Fault,
    ctx::Ctx,
    error::Failure,
    gateway, listener,
    record::WebSocketRecord,
    request_id,
    retry::Sent,
};

/// Asks a server for a WebSocket and, if it agrees, joins it with the client.
///
/// Not cancel safe: the client may have been sent a part of the answer.
pub(super) async fn serve(shared: &Arc<Shared>, session: &mut Session, ctx: &mut Ctx) -> Result<(), Failure> {
    let request = request(session, ctx).ok_or(Failure::BadRequest)?;
    let asked = tokio::select! {
        biased;
        // The request is complete: all this can see is a client that goes away.
        _ = session.read_body_or_idle(true) => return Err(Failure::ClientGone),
        asked = ask(ctx, &request) => asked?,
    };
    match asked {
        (server, Answer::Agreed { head, early }) => join(shared, session, ctx, server, &head, early).await,
        (server, Answer::Refused(refused)) => relay(shared, session, ctx, server, refused).await,
    }
}

/// Returns the client's request as the server gets it.
fn request(session: &Session, ctx: &Ctx) -> Option<BytesMut> {
    let mut request = session.req_header().clone();
    handshake::remove_hop_by_hop(&mut request);
    gateway::prepare_request(session, &mut request, ctx).ok()?;
    handshake::request_for_server(request)
}

/// Finds a server that answers. Cancel safe: nothing of the client's is lost.
async fn ask(ctx: &mut Ctx, request: &[u8]) -> Result<(TcpStream, Answer), Failure> {
    let (Some(attempts), Some(route)) = (ctx.attempts.as_mut(), ctx.route.as_ref()) else {
        return Err(Failure::Internal);
    };
    loop {
        if !attempts.choose()? {
            Box::pin(attempts.wait()).await?;
        }
        let address = attempts.begin()?.endpoint.address();
        let settings = *attempts.cluster().settings();
        let (failure, sent) = match connect(address, settings.connect_timeout).await {
            Err(failure) => (failure, Sent::Nothing),
            Ok(mut server) => {
                attempts.connected(false, &route.metrics);
                match answer::ask(&mut server, request, settings.send_timeout, route.read_timeout).await {
                    Ok(answer) => {
                        attempts.answered(&route.metrics);
                        return Ok((server, answer));
                    }
                    Err(failure) => (failure, Sent::Head),
                }
            }
        };
        let fault = Fault { failure, idempotent: true, has_body: false, sent };
        if !attempts.failed(fault, &route.metrics) {
            return Err(failure);
        }
    }
}

async fn connect(address: std::net::SocketAddr, patience: Duration) -> Result<TcpStream, Failure> {
    match timeout(patience, TcpStream::connect(address)).await {
        Err(_) => Err(Failure::ConnectTimeout),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => Err(Failure::ConnectRefused),
        Ok(Err(_)) => Err(Failure::ConnectFailed),
        Ok(Ok(server)) => {
            let keepalive = TcpKeepalive::new()
                .with_time(listener::KEEPALIVE_IDLE)
                .with_interval(listener::KEEPALIVE_INTERVAL)
                .with_retries(listener::KEEPALIVE_PROBES);
            // Both only make things better; without them the connection still works.
            let _ = server.set_nodelay(true);
            let _ = SockRef::from(&server).set_tcp_keepalive(&keepalive);
            Ok(server)
        }
    }
}

/// Takes the client's connection out of pingora, gives it the server's answer as it is, and starts the tunnel.
async fn join(
    shared: &Arc<Shared>,
    session: &mut Session,
    ctx: &mut Ctx,
    server: TcpStream,
    head: &[u8],
    early: Bytes,
) -> Result<(), Failure> {
    let head = with_request_id(head, ctx.request_id());
    let record = WebSocketRecord::take(session, ctx).ok_or(Failure::Internal)?;
    let deadline = Instant::now() + ctx.runtime.client.send_timeout;
    // Nobody is left to be told if any of this fails: the connection was pingora's to answer on until here.
    let Some(Taken { io: mut client, early: early_up, admission }) = take(session) else { return Ok(()) };
    let answered = timeout_at(deadline, async {
        client.write_all(&head).await?;
        client.flush().await
    });
    if !matches!(answered.await, Ok(Ok(()))) {
        let summary = tunnel::Summary { end: tunnel::End::Broken, to_server: 0, to_client: 0 };
        record.finish(shared, summary);
        return Ok(());
    }
    let open = record.route().metrics.websocket();
    let idle_timeout = record.route().websocket_idle_timeout;
    let lot = Lot { moment: rand::random(), key: rand::random() };
    let (drain, shared) = (shared.drain.clone(), shared.clone());
    // Boxed once: the record is only looked at again at the end.
    let kept = Box::new((record, open, admission));
    let early = (Bytes::copy_from_slice(&early_up), early);
    let tunnel = tunnel::run(client, server, early, idle_timeout, lot, drain.clone());
    drain.spawn(async move {
        let summary = tunnel.await;
        let (record, _open, _admission) = *kept;
        record.finish(&shared, summary);
    });
    Ok(())
}

/// Adds the request's id to a complete head, which else is the server's, byte for byte.
fn with_request_id(head: &[u8], id: &str) -> Vec<u8> {
    let lines = head.strip_suffix(b"\r\n").unwrap_or(head);
    [lines, request_id::HEADER.as_bytes(), b": ", id.as_bytes(), b"\r\n\r\n"].concat()
}

/// Takes the connection out of pingora's session and leaves it one over nothing, which it may close.
fn take(session: &mut Session) -> Option<Taken> {
    let nothing = ServerSession::new_http1(Box::new(Cursor::new(Vec::new())));
    match std::mem::replace(&mut *session.downstream_session, nothing) {
        ServerSession::H1(h1) => h1.into_inner().into_any().downcast::<Downstream>().ok()?.take(),
        _ => None,
    }
}

/// Passes on the answer of a server that would not speak WebSocket. After an error part of it may have been sent.
async fn relay(
    shared: &Shared,
    session: &mut Session,
    ctx: &Ctx,
    server: TcpStream,
    refused: Refused,
) -> Result<(), Failure> {
    let read_timeout = ctx.route.as_ref().map(|route| route.read_timeout);
    let mut server = refused.read(server, read_timeout).await?;
    let mut head = server.resp_header().cloned().ok_or(Failure::BadAnswer)?;
    gateway::finish_answer(shared, session, &mut head, ctx).map_err(|_| Failure::Internal)?;
    session.write_response_header(Box::new(head), false).await.map_err(|_| Failure::ClientGone)?;
    loop {
        match server.read_body_bytes().await {
            Ok(Some(bytes)) => {
                session.write_response_body(Some(bytes), false).await.map_err(|_| Failure::ClientGone)?;
            }
            Ok(None) => break,
            Err(_) => return Err(Failure::ResetWithinAnswer),
        }
    }
    session.write_response_body(None, true).await.map_err(|_| Failure::ClientGone)
}
