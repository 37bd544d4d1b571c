//! `max_db_connections`: one limit for all pools of a database, whatever their users.
//!
//! A pool takes a [`Permit`] before it opens a connection. When none is left and clients wait, the connection that has been
//! idle the longest in another pool is closed to make room, as PgBouncer does; when all are lent, the pool stays hungry and
//! is woken by the next connection of another pool that becomes idle or closes.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicU32, Ordering},
};

use parking_lot::Mutex;
use tokio::time::Instant;

/// The connections one database may have.
#[derive(Default)]
pub struct Budget {
    /// `u32::MAX`: no limit.
    limit: AtomicU32,
    taken: AtomicU32,
    /// Pools that want a permit and found none.
    hungry: AtomicU32,
    pools: Mutex<Vec<Weak<dyn Member>>>,
}

/// A pool as the others see it.
pub(super) trait Member: Send + Sync {
    /// Since when the connection waits that has been idle the longest.
    fn idle_longest(&self) -> Option<Instant>;
    /// Closes that connection.
    fn evict(&self) -> bool;
    /// Looks at its queue again.
    fn wake(&self);
    fn is_hungry(&self) -> bool;
}

/// The right to have one connection; given back when dropped.
pub(super) struct Permit {
    budget: Arc<Budget>,
}

impl Budget {
    /// Returns a budget; `None` is no limit.
    pub fn new(limit: Option<u32>) -> Arc<Self> {
        let budget = Self::default();
        budget.set_limit(limit);
        Arc::new(budget)
    }

    /// Changes the limit. Connections above it go as they come back.
    pub fn set_limit(&self, limit: Option<u32>) {
        self.limit.store(limit.unwrap_or(u32::MAX), Ordering::Relaxed);
        self.feed();
    }

    /// Returns how many connections are open or being opened.
    pub fn taken(&self) -> u32 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Returns how many connections there are above a limit that was lowered.
    pub(super) fn overdraft(&self) -> u32 {
        self.taken().saturating_sub(self.limit.load(Ordering::Relaxed))
    }

    pub(super) fn join(&self, pool: Weak<dyn Member>) {
        let mut pools = self.pools.lock();
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(pool);
    }

    /// Takes a permit if one is left.
    pub(super) fn take(self: &Arc<Self>) -> Option<Permit> {
        let limit = self.limit.load(Ordering::Relaxed);
        let more = |taken: u32| (taken < limit).then(|| taken + 1);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Relaxed, more).ok()?;
        Some(Permit { budget: self.clone() })
    }

    /// Takes a permit, at the cost of another pool's idle connection if it must be.
    pub(super) fn take_or_evict(self: &Arc<Self>, but: &Weak<dyn Member>) -> Option<Permit> {
        if let Some(permit) = self.take() {
            return Some(permit);
        }
        let others = self.living().into_iter().filter(|pool| !std::ptr::addr_eq(Arc::as_ptr(pool), but.as_ptr()));
        let oldest = others.filter_map(|pool| Some((pool.idle_longest()?, pool))).min_by_key(|(since, _)| *since);
        if oldest.is_some_and(|(_, pool)| pool.evict()) { self.take() } else { None }
    }

    pub(super) fn set_hungry(&self, was: bool, is: bool) {
        match (was, is) {
            (false, true) => drop(self.hungry.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(self.hungry.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
    }

    /// Wakes the pools that are hungry. One atomic load when none is.
    pub(super) fn feed(&self) {
        if self.hungry.load(Ordering::Relaxed) == 0 {
            return;
        }
        for pool in self.living() {
            if pool.is_hungry() {
                pool.wake();
            }
        }
    }

    /// The pools themselves, taken out of the lock: dropping the last reference to one gives permits back, which locks again.
    fn living(&self) -> Vec<Arc<dyn Member>> {
        self.pools.lock().iter().filter_map(Weak::upgrade).collect()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(1, Ordering::AcqRel);
        self.budget.feed();
    }
}
