//! Cancel requests: one of a client's connections asks to stop what another of its connections runs.
//!
//! The danger is the server that has gone on to another client meanwhile. So a request passes only while its client holds
//! the server, is counted as under way until the server has closed the request's connection (which it does after the
//! signal has been sent), and a server that is given back in between waits for that end before anybody gets it. Requests
//! for a client that waits, or whose parameters are being set, are dropped: nothing of its own runs.

use std::sync::Arc;

use tokio::time::Instant;

use crate::pool::{
    database::Pool,
    pooler::Pooler,
    registry::{CancelKey, ServerEntry},
    server::{cancel, error::ServerError},
};

/// Requests under way for one server at a time. With PgBouncer's bound of twice the pool's size in mind: a full pool can be
/// cancelled whole, and who presses the key again is heard again.
const AT_A_TIME: u32 = 2;

/// Carries a request out, to its end. The caller closes the connection it came on afterwards, without a word.
pub async fn carry_out(pooler: &Pooler, pid: i32, secret: &[u8]) {
    let result = match request(pooler, pid, secret) {
        Ok(under_way) => under_way.send(pooler).await,
        Err(result) => result,
    };
    pooler.metrics.cancel(result);
}

fn request(pooler: &Pooler, pid: i32, secret: &[u8]) -> Result<UnderWay, &'static str> {
    const UNKNOWN_KEY: &str = "unknown_key";
    const NOTHING_TO_CANCEL: &str = "nothing_to_cancel";
    let pid = u32::try_from(pid).map_err(|_| UNKNOWN_KEY)?;
    let secret = u32::from_be_bytes(secret.try_into().map_err(|_| UNKNOWN_KEY)?);
    let client = pooler.registry().client_by_key(CancelKey { pid, secret }).ok_or(UNKNOWN_KEY)?;
    let server = client.link().ok_or(NOTHING_TO_CANCEL)?;
    let pool = client.group().and_then(|group| pooler.known(&group.database)?.pool(&group.user));
    let pool = pool.ok_or(NOTHING_TO_CANCEL)?;
    if !server.begin_cancel(client.id(), AT_A_TIME) {
        return Err(NOTHING_TO_CANCEL);
    }
    let mut under_way = UnderWay { pool, server, proven: true };
    if !client.control().is_some_and(|control| control.is_cancellable()) {
        return Err(NOTHING_TO_CANCEL);
    }
    under_way.proven = false;
    Ok(under_way)
}

/// A request that its server must wait for.
struct UnderWay {
    pool: Arc<Pool>,
    server: Arc<ServerEntry>,
    /// Whether it is certain that no signal comes any more.
    proven: bool,
}

impl UnderWay {
    async fn send(mut self, pooler: &Pooler) -> &'static str {
        let limit = pooler.running.load().pool.cancel_wait_timeout;
        let Some((address, host, key)) = self.server.cancel_target() else {
            self.proven = true;
            return "nothing_to_cancel";
        };
        let tls = self.pool.tls();
        let sent = cancel::cancel(address, (host, tls.as_deref()), key, limit).await;
        // A connection that was never made carried nothing.
        self.proven = matches!(sent, Ok(()) | Err(ServerError::Connect { .. }));
        if let Err(error) = sent {
            tracing::debug!(server = self.server.id(), %error, "cancel request failed");
        }
        "sent"
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.pool.store.cancel_ended(&self.server, self.proven, Instant::now());
    }
}
