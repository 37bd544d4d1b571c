//! When things began: what the timeouts and the times in the statistics are reckoned from.
//!
//! Pure: the driver says what time it is, once for each wake-up. A message costs no timer; there is one for each lease, and
//! only when a timeout is configured.

use std::time::Duration;

use tokio::time::Instant;

use super::Limits;
use crate::pool::{error::PoolError, wire::backend::TxStatus};

/// The beginnings, and what has been added up since the last [`Pace::take`].
#[derive(Debug)]
pub(super) struct Pace {
    pub now: Instant,
    xact_start: Option<Instant>,
    query_start: Option<Instant>,
    idle_since: Option<Instant>,
    /// What `idle_since` is about.
    rest: Rest,
    sum: Sums,
}

/// Whose turn it is after a wake-up, as far as a limit is on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// Something is under way, or nothing is held.
    No,
    /// The client's, inside a transaction.
    InTransaction,
    /// The client's, between two transactions, with the server that it keeps.
    Pinned,
}

/// What a wake-up adds to the statistics.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Sums {
    pub xacts: u64,
    pub queries: u64,
    pub xact_time: Duration,
    pub query_time: Duration,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { now, xact_start: None, query_start: None, idle_since: None, rest: Rest::No, sum: Sums::default() }
    }

    /// A message of the client went to the server.
    pub(super) fn sent(&mut self) {
        (self.idle_since, self.rest) = (None, Rest::No);
        self.xact_start.get_or_insert(self.now);
        self.query_start.get_or_insert(self.now);
    }

    /// The server is asked something of our own, and the client's next message waits for the answer: a server that says nothing
    /// is not waited for longer than for an answer to the client.
    pub(super) fn asked(&mut self) {
        self.query_start.get_or_insert(self.now);
    }

    /// That was answered.
    pub(super) fn told(&mut self) {
        self.query_start = None;
    }

    /// A request of the client was answered to its end. `more`: another one is under way.
    pub(super) fn ready(&mut self, status: TxStatus, more: bool) {
        self.sum.queries += 1;
        let query = self.query_start.take();
        let query_time = query.map_or(Duration::ZERO, |start| self.now.saturating_duration_since(start));
        self.sum.query_time += query_time;
        if status == TxStatus::Idle {
            self.sum.xacts += 1;
            self.sum.xact_time += match self.xact_start.take() {
                // A transaction of one query.
                xact if xact == query => query_time,
                xact => xact.map_or(Duration::ZERO, |start| self.now.saturating_duration_since(start)),
            };
        }
        if more {
            self.query_start = Some(self.now);
            self.xact_start.get_or_insert(self.now);
        }
    }

    /// The wake-up is over.
    pub(super) fn settle(&mut self, rest: Rest) {
        if self.rest != rest {
            self.rest = rest;
            self.idle_since = (rest != Rest::No).then_some(self.now);
        }
    }

    /// Returns whether a request has ended since the last [`Self::take`].
    pub(super) fn has_sums(&self) -> bool {
        self.sum.queries > 0
    }

    /// Returns the sums since the last call.
    pub(super) fn take(&mut self) -> Sums {
        std::mem::take(&mut self.sum)
    }

    /// Returns the next moment at which a limit is reached, and what is said then.
    pub(super) fn due(&self, limits: &Limits) -> Option<(Instant, PoolError)> {
        let due = |start: Option<Instant>, limit: Option<Duration>| {
            let limit = limit?;
            Some((start?.checked_add(limit)?, limit))
        };
        let query = due(self.query_start, limits.query_timeout);
        let transaction = due(self.xact_start, limits.transaction_timeout);
        let idle = |rest: Rest, limit| due(self.idle_since.filter(|_| self.rest == rest), limit);
        let in_transaction = idle(Rest::InTransaction, limits.idle_transaction_timeout);
        let pinned = idle(Rest::Pinned, limits.client_idle_timeout);
        let all = [
            query.map(|(at, limit)| (at, PoolError::QueryTimeout { limit })),
            transaction.map(|(at, limit)| (at, PoolError::TransactionTimeout { limit })),
            in_transaction.map(|(at, limit)| (at, PoolError::IdleTransactionTimeout { limit })),
            pinned.map(|(at, limit)| (at, PoolError::ClientIdleTimeout { limit })),
        ];
        all.into_iter().flatten().min_by_key(|(at, _)| *at)
    }
}

impl Limits {
    /// Returns how long after now a limit can be reached at the soonest, whatever begins meanwhile. `pinned`: the client may
    /// be idle with its server.
    pub(super) fn soonest(&self, pinned: bool) -> Option<Duration> {
        let idle = self.client_idle_timeout.filter(|_| pinned);
        [self.query_timeout, self.transaction_timeout, self.idle_transaction_timeout, idle].into_iter().flatten().min()
    }
}
