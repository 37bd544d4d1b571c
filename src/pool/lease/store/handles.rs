//! What the store hands out: a place in the queue, a server, the right to open one.
//!
//! Each is a value whose end puts the store right, however it ends: a waiter that vanishes leaves the queue and passes on what
//! had reached it, a lease that is dropped rather than released closes its connection, a dial that fails gives its place back.

use std::{sync::Arc, time::Duration};

use rand::{Rng, RngExt};
use tokio::{sync::oneshot, time::Instant};

use super::{Held, Refusal, Store};
use crate::pool::{
    lease::{Connect, backoff::Begun, budget::Permit, queue::Served},
    registry::ServerEntry,
};

/// How much sooner or later than `server_lifetime` a connection may be closed.
const LIFETIME_JITTER: f64 = 0.2;

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

/// The right and duty to open one connection.
pub(in crate::pool::lease) struct Dial<C: Connect> {
    pub(super) store: Arc<Store<C>>,
    pub(super) permit: Option<Permit>,
    pub(super) begun: Begun,
}

impl<C: Connect> Dial<C> {
    /// Opens the connection and brings it to the store, or tells it why not.
    pub(in crate::pool::lease) async fn run(mut self) {
        let store = self.store.clone();
        // Entered before the way to connect is read: a RECONNECT marks what is entered, and comes after the new way is set.
        let handle = store.registry.enter_server(store.group.clone(), Instant::now());
        let connect = store.connect.load_full();
        let opened = connect.connect(&handle).await;
        let now = Instant::now();
        match (opened, self.permit.take()) {
            (Ok(connection), Some(permit)) => {
                let lifetime = store.inner.lock().settings.server_lifetime;
                let expires = lifetime.map(|lifetime| now + jittered(lifetime, &mut rand::rng()));
                store.logged_in(Held { connection, handle, expires, idle_since: now, _permit: permit }, now);
            }
            (Ok(_), None) => {}
            (Err(error), permit) => {
                drop(handle);
                store.login_failed(self.begun, error, now, &mut rand::rng());
                drop(permit);
            }
        }
    }
}

impl<C: Connect> Drop for Dial<C> {
    fn drop(&mut self) {
        let empty = {
            let mut inner = self.store.inner.lock();
            inner.dialing -= 1;
            inner.open == 0 && inner.dialing == 0
        };
        if empty {
            self.store.emptied.notify_waiters();
        }
        self.store.alarm.notify_one();
    }
}

/// Lifetimes end spread out, so that a pool that was opened in one moment is not closed in one.
fn jittered(lifetime: Duration, rng: &mut impl Rng) -> Duration {
    lifetime.mul_f64(rng.random_range(1.0 - LIFETIME_JITTER..=1.0 + LIFETIME_JITTER))
}
