//! `max_db_connections` and `max_user_connections`: limits that several pools share.
//!
//! A pool draws on two [`Budget`]s, its database's and its user's. It takes a [`Permit`] on both before it opens a
//! connection. When one has none left and clients wait, the connection that has been idle the longest in another pool of
//! that budget is closed to make room, as PgBouncer does; when all are lent, the pool stays hungry and is woken by the next
//! connection of another pool that becomes idle or closes.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicU32, Ordering},
};

use parking_lot::Mutex;
use tokio::time::Instant;

/// The connections that one database, or one user, may have.
#[derive(Default)]
pub struct Budget {
    /// `u32::MAX`: no limit.
    limit: AtomicU32,
    taken: AtomicU32,
    /// Pools that want a permit and found none.
    hungry: AtomicU32,
    pools: Mutex<Vec<Weak<dyn Member>>>,
}

/// What one pool draws on.
#[derive(Clone)]
pub struct Budgets {
    pub database: Arc<Budget>,
    pub user: Arc<Budget>,
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
pub struct Permit {
    _database: Share,
    _user: Share,
}

/// One connection of a budget; given back when dropped.
struct Share(Arc<Budget>);

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

    fn has_room(&self) -> bool {
        self.taken() < self.limit.load(Ordering::Relaxed)
    }

    fn join(&self, pool: Weak<dyn Member>) {
        let mut pools = self.pools.lock();
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(pool);
    }

    fn take(self: &Arc<Self>) -> Option<Share> {
        let limit = self.limit.load(Ordering::Relaxed);
        let more = |taken: u32| (taken < limit).then(|| taken + 1);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Relaxed, more).ok()?;
        Some(Share(self.clone()))
    }

    /// Returns the pool, other than `but`, whose connection has been idle the longest.
    fn idlest(&self, but: &Weak<dyn Member>) -> Option<Arc<dyn Member>> {
        let others = self.living().into_iter().filter(|pool| !std::ptr::addr_eq(Arc::as_ptr(pool), but.as_ptr()));
        others
            .filter_map(|pool| Some((pool.idle_longest()?, pool)))
            .min_by_key(|(since, _)| *since)
            .map(|(_, pool)| pool)
    }

    fn set_hungry(&self, was: bool, is: bool) {
        match (was, is) {
            (false, true) => drop(self.hungry.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(self.hungry.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
    }

    /// Wakes the pools that are hungry. One atomic load when none is.
    fn feed(&self) {
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

impl Budgets {
    fn each(&self) -> [&Arc<Budget>; 2] {
        [&self.database, &self.user]
    }

    pub(super) fn join(&self, pool: &Weak<dyn Member>) {
        self.each().into_iter().for_each(|budget| budget.join(pool.clone()));
    }

    /// Takes a permit if both budgets have room. Nothing is taken of one while the other has none: giving that back would
    /// wake pools that are hungry for it, and two of them could wake each other for ever.
    pub(super) fn take(&self) -> Option<Permit> {
        if !self.each().into_iter().all(|budget| budget.has_room()) {
            return None;
        }
        Some(Permit { _database: self.database.take()?, _user: self.user.take()? })
    }

    /// Takes a permit, at the cost of other pools' idle connections if it must be. Nobody loses one in vain: each budget
    /// without room must have a pool that can give way.
    pub(super) fn take_or_evict(&self, but: &Weak<dyn Member>) -> Option<Permit> {
        if let Some(permit) = self.take() {
            return Some(permit);
        }
        let full = self.each().into_iter().filter(|budget| !budget.has_room());
        let givers: Option<Vec<_>> = full.map(|budget| budget.idlest(but)).collect();
        for giver in givers? {
            giver.evict();
        }
        self.take()
    }

    /// Returns how many connections there are above a limit that was lowered.
    pub(super) fn overdraft(&self) -> u32 {
        let over = |budget: &Arc<Budget>| budget.taken().saturating_sub(budget.limit.load(Ordering::Relaxed));
        self.each().into_iter().map(over).max().unwrap_or(0)
    }

    pub(super) fn set_hungry(&self, was: bool, is: bool) {
        self.each().into_iter().for_each(|budget| budget.set_hungry(was, is));
    }

    /// Wakes the pools that are hungry for what this one has. One atomic load for each budget when none is.
    pub(super) fn feed(&self) {
        self.each().into_iter().for_each(|budget| budget.feed());
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
        self.0.feed();
    }
}
