//! How a server goes from one client to the next, or to its end: lent, given back, closed; to a waiter of this pool first,
//! then to whoever is short of connections.

use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::{Lease, Store, inner::Held};
use crate::pool::{
    lease::{Connect, Connection, budget::Member},
    registry::ServerState,
};

impl<C: Connect> Store<C> {
    pub(super) fn lend(&self, mut held: Held<C::Connection>, client: u64, now: Instant) -> Lease<C> {
        held.lend(client, now);
        Lease { store: self.arc(), held: Some(held) }
    }

    pub(super) fn give_back(&self, held: Held<C::Connection>, now: Instant) {
        let being_cancelled = held.handle.take_back();
        let mut dead = Vec::new();
        let (rests, unserved) = {
            let mut inner = self.inner.lock();
            // Looked at again under the lock: the last cancel may have ended since, and then nobody would come to unpark.
            if being_cancelled && held.handle.being_cancelled() {
                held.handle.transition(ServerState::BeingCancelled);
                inner.parked.push(held);
            } else {
                inner.place(held, &self.budgets, now, &mut dead);
            }
            let rests = !inner.idle.is_empty();
            (rests, rests && !inner.queue.is_empty())
        };
        self.bury(dead);
        if unserved {
            // It is to be checked first.
            self.alarm.notify_one();
        }
        if rests {
            self.budgets.feed();
        }
    }

    pub(super) fn close(&self, held: Held<C::Connection>) {
        drop(held);
        self.closed(1);
    }

    /// Closes idle connections politely, after the lock.
    pub(super) fn bury(&self, dead: Vec<Held<C::Connection>>) {
        let count = dead.len() as u32;
        if count == 0 {
            return;
        }
        for mut held in dead {
            held.connection.farewell();
        }
        self.closed(count);
    }

    pub(super) fn closed(&self, count: u32) {
        let empty = {
            let mut inner = self.inner.lock();
            inner.open -= count;
            inner.is_empty()
        };
        if empty {
            self.emptied.notify_waiters();
        }
        self.alarm.notify_one();
    }
}

impl<C: Connect> Member for Store<C> {
    fn idle_longest(&self) -> Option<Instant> {
        self.inner.lock().idle.first().map(|held| held.idle_since)
    }

    fn evict(&self) -> bool {
        let evicted = {
            let mut inner = self.inner.lock();
            if inner.idle.is_empty() { None } else { Some(inner.idle.remove(0)) }
        };
        let found = evicted.is_some();
        self.bury(evicted.into_iter().collect());
        found
    }

    fn wake(&self) {
        self.alarm.notify_one();
    }

    fn is_hungry(&self) -> bool {
        self.hungry.load(Ordering::Acquire)
    }
}
