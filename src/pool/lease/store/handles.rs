//! What the store hands out: a place in the queue, a server.
//!
//! Each is a value whose end puts the store right, however it ends: a waiter that vanishes leaves the queue and passes on what
//! had reached it, a lease that is dropped rather than released closes its connection.

use std::{sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use super::{Refusal, Store, inner::Held};
use crate::pool::{
    lease::{Connect, queue::Served},
    registry::ServerEntry,
};

/// A place in the queue.
#[must_use = "dropping it leaves the queue"]
pub struct Waiting<C: Connect> {
    pub(super) store: Arc<Store<C>>,
    pub(super) client: u64,
    pub(super) ticket: u64,
    pub(super) slot: oneshot::Receiver<Served<Held<C::Connection>>>,
    pub(super) done: bool,
}

impl<C: Connect> Waiting<C> {
    /// Waits for a server. Cancel safe: may be called again until it has returned.
    pub async fn served(&mut self) -> Result<Lease<C>, Refusal> {
        let served = (&mut self.slot).await;
        self.done = true;
        match served {
            Ok(Ok(held)) => Ok(self.store.lend(held, self.client, Instant::now())),
            Ok(Err(refusal)) => Err(refusal),
            // The queue drops no slot unanswered while the store lives, and `self` keeps it alive.
            Err(_) => Err(Refusal::WaitedTooLong { limit: Duration::ZERO, login: None }),
        }
    }
}

impl<C: Connect> Drop for Waiting<C> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        self.store.inner.lock().queue.leave(self.ticket);
        // Closed first: after this nothing is put into the slot, and what was put there before goes to the next.
        self.slot.close();
        if let Ok(Ok(held)) = self.slot.try_recv() {
            self.store.give_back(held, Instant::now());
        }
    }
}

/// A server in the hands of one client.
#[must_use = "dropping a lease closes the connection"]
pub struct Lease<C: Connect> {
    pub(super) store: Arc<Store<C>>,
    /// Taken only by release and drop.
    pub(super) held: Option<Held<C::Connection>>,
}

impl<C: Connect> Lease<C> {
    /// Gives the server back at a proven boundary: the next client may have it. Anything doubtful is dropped instead.
    pub fn release(mut self, now: Instant) {
        if let Some(held) = self.held.take() {
            self.store.give_back(held, now);
        }
    }

    /// Returns the connection.
    pub fn connection(&mut self) -> &mut C::Connection {
        &mut self.held_mut().connection
    }

    /// Returns what the registry knows of the connection.
    pub fn entry(&self) -> &Arc<ServerEntry> {
        self.held.as_ref().expect("held until it is released or dropped").handle.entry()
    }

    fn held_mut(&mut self) -> &mut Held<C::Connection> {
        self.held.as_mut().expect("held until it is released or dropped")
    }
}

impl<C: Connect> Drop for Lease<C> {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            // No cancel may pass for it any more; one that is under way hits nothing.
            held.handle.take_back();
            self.store.close(held);
        }
    }
}
