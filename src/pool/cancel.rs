//! Cancel requests: one of a client's connections asks to stop what another of its connections runs.
//!
//! The danger is the server that has gone on to another client meanwhile. So a request passes only while its client holds
//! the server, is counted as under way until the server has closed the request's connection (which it does after the
//! signal has been sent), and a server that is given back in between waits for that end before anybody gets it. Requests
//! for a client that waits, or whose parameters are being set, are dropped: nothing of its own runs.
//!
//! A request whose key another process of the group has given is passed on to it ([`super::peering`]).

use std::sync::Arc;

use tokio::time::Instant;

use crate::pool::{
    database::Pool,
    pooler::Pooler,
    registry::{CancelRequest, ClientEntry, ServerEntry},
    server::{cancel, error::ServerError},
};

/// Requests under way for one server at a time. With PgBouncer's bound of twice the pool's size in mind: a full pool can be
/// cancelled whole, and who presses the key again is heard again.
const AT_A_TIME: u32 = 2;

/// Carries a request out, to its end. The caller closes the connection it came on afterwards, without a word.
pub async fn carry_out(pooler: &Pooler, pid: i32, secret: &[u8]) {
    let result = match CancelRequest::new(pid, secret) {
        Some(request) => answer(pooler, &request).await,
        None => Cancelled::UnknownKey,
    };
    pooler.metrics.cancel(result);
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// To the server.
    Sent,
    /// Nobody here has that key, and no other process of the group.
    UnknownKey,
    NothingToCancel,
    /// To the process that gave the key.
    Forwarded,
    /// That process could not be reached, or did not deal with it in time.
    ForwardFailed,
    /// It was passed on too often already.
    ForwardExhausted,
}

impl Cancelled {
    /// Every label.
    pub const ALL: [Self; 6] = [
        Self::Sent,
        Self::UnknownKey,
        Self::NothingToCancel,
        Self::Forwarded,
        Self::ForwardFailed,
        Self::ForwardExhausted,
    ];

    /// Returns the label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::UnknownKey => "unknown_key",
            Self::NothingToCancel => "nothing_to_cancel",
            Self::Forwarded => "forwarded",
            Self::ForwardFailed => "forward_failed",
            Self::ForwardExhausted => "forward_exhausted",
        }
    }
}

async fn answer(pooler: &Pooler, request: &CancelRequest) -> Cancelled {
    // Its own clients first: keys that were given under another peer_id, before a reload, are good until they leave.
    let Some(client) = pooler.registry().client_by_key(request) else { return pass_on(pooler, request).await };
    match begin(pooler, &client) {
        Some(under_way) => under_way.send(pooler).await,
        None => Cancelled::NothingToCancel,
    }
}

/// Passes a request on to the process that it is meant for.
async fn pass_on(pooler: &Pooler, request: &CancelRequest) -> Cancelled {
    let Some(peer) = pooler.peering.meant(request) else { return Cancelled::UnknownKey };
    let Some(request) = request.passed_on() else {
        // Two processes hold each other for a third, or a balancer stands before a peer.
        tracing::debug!(peer = peer.id(), "a cancel request was passed on too often");
        return Cancelled::ForwardExhausted;
    };
    let pool = pooler.running.load().pool.clone();
    match peer.pass_on(&request, &pool, Instant::now() + pool.cancel_wait_timeout).await {
        Ok(()) => Cancelled::Forwarded,
        Err(error) => {
            tracing::debug!(peer = peer.id(), %error, "a cancel request could not be passed on");
            Cancelled::ForwardFailed
        }
    }
}

/// Lets a request of `client` begin, if its own query runs.
fn begin(pooler: &Pooler, client: &ClientEntry) -> Option<UnderWay> {
    let server = client.link()?;
    let pool = client.group().and_then(|group| pooler.known(&group.database)?.pool(&group.user))?;
    if !server.begin_cancel(client.id(), AT_A_TIME) {
        return None;
    }
    let mut under_way = UnderWay { pool, server, proven: true };
    if !client.control().is_some_and(|control| control.is_cancellable()) {
        return None;
    }
    under_way.proven = false;
    Some(under_way)
}

/// A request that its server must wait for.
struct UnderWay {
    pool: Arc<Pool>,
    server: Arc<ServerEntry>,
    /// Whether it is certain that no signal comes any more.
    proven: bool,
}

impl UnderWay {
    async fn send(mut self, pooler: &Pooler) -> Cancelled {
        let limit = pooler.running.load().pool.cancel_wait_timeout;
        let Some((address, host, key)) = self.server.cancel_target() else {
            self.proven = true;
            return Cancelled::NothingToCancel;
        };
        let tls = self.pool.tls();
        let sent = cancel::cancel(address, (host, tls.as_deref()), key, limit).await;
        // A connection that was never made carried nothing.
        self.proven = matches!(sent, Ok(()) | Err(ServerError::Connect { .. }));
        if let Err(error) = sent {
            tracing::debug!(server = self.server.id(), %error, "cancel request failed");
        }
        Cancelled::Sent
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.pool.store.cancel_ended(&self.server, self.proven, Instant::now());
    }
}
