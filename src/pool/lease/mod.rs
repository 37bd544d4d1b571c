//! The store of server connections, one per (database, user): who gets which, when new ones are opened, when old ones go.
//!
//! In flows a client's wish for a server, out flows a [`Lease`]. What must always hold:
//! - a server that comes free goes straight to the client that has waited longest (hand-off, not a race of the woken);
//! - a client that stops waiting leaves the queue at once and takes neither a server nor a place with it;
//! - a server is lent only at a proven boundary: [`Lease::release`] says so, dropping a lease closes the connection;
//! - a failed login fails nobody who waits (unless `fail_fast` says so); their wait is bounded by `query_wait_timeout` alone.
//!
//! [`plan`] decides (pure), [`store`] holds and hands over under one short lock, [`keeper`] opens and checks connections and
//! watches the clock for all waiters of a pool with one timer, [`budget`] shares `max_db_connections` and
//! `max_user_connections` between pools. A connection pool crate (bb8) was measured against this and is not used here: its waiters are only notified,
//! so that a newcomer may overtake them, and its idle connections cannot be looked at, counted out, or evicted.

mod backoff;
mod budget;
mod keeper;
mod plan;
mod queue;
mod store;
#[cfg(test)]
mod tests;

use std::future::Future;

pub use self::{
    budget::{Budget, Budgets, Permit},
    plan::Sizes,
    queue::Patience,
    store::{Lease, Refusal, Settings, Snapshot, Store, Waiting},
};
use crate::pool::{registry::ServerEntry, server::error::ServerError};

/// How to open a server connection. The store's only view of the network, so that it is tested without one.
pub trait Connect: Send + Sync + 'static {
    type Connection: Connection;

    /// Opens a connection and logs in, bounded in time by itself. Where it went is written into `entry`.
    fn connect(&self, entry: &ServerEntry) -> impl Future<Output = Result<Self::Connection, ServerError>> + Send;

    /// Asks an idle connection whether it still works, bounded in time by itself. One that fails, or whose check is dropped,
    /// must be closed.
    fn check(&self, connection: &mut Self::Connection) -> impl Future<Output = Result<(), ServerError>> + Send;
}

/// An open, logged-in connection as the store sees it.
pub trait Connection: Send + 'static {
    /// Returns whether nothing can be read: neither bytes nor an end. A connection that is idle has nothing to say, and one
    /// that speaks is about to die or out of step (57P01 at a restart, for one). Does not wait.
    fn is_quiet(&self) -> bool;

    /// Says goodbye before an idle connection is closed, as far as that is possible without waiting.
    fn farewell(&mut self);
}

impl<T: Connection> Connection for Box<T> {
    fn is_quiet(&self) -> bool {
        T::is_quiet(self)
    }

    fn farewell(&mut self) {
        T::farewell(self);
    }
}
