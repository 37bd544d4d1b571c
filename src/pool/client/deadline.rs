//! The one clock of a login: however slowly a peer sends, from accept to AuthenticationOk it has `client_login_timeout`.

use std::time::Duration;

use tokio::time::Instant;

use crate::pool::error::PoolError;

/// When a login must be complete.
#[derive(Debug, Clone, Copy)]
pub struct LoginDeadline {
    at: Instant,
    limit: Duration,
}

impl LoginDeadline {
    /// Starts the clock at `now`; `limit` is `client_login_timeout`.
    pub fn new(now: Instant, limit: Duration) -> Self {
        Self { at: now + limit, limit }
    }

    /// Runs `work` until it is done or the deadline has passed. Dropping `work` half way must be harmless, which it is
    /// for a connection that is closed next.
    pub async fn guard<T>(self, work: impl Future<Output = Result<T, PoolError>>) -> Result<T, PoolError> {
        match tokio::time::timeout_at(self.at, work).await {
            Ok(result) => result,
            Err(_) => Err(PoolError::LoginTimeout { limit: self.limit }),
        }
    }
}
