//! How connections come to the store: what the keeper is to do now, logins and checks, and what follows from each.
//!
//! A login or a check is a value that gives back what it took, however it ends: [`Dial`] its place among the logins and its
//! permit, [`Check`] the connection it has in hand.

use std::{sync::Arc, time::Duration};

use rand::{Rng, RngExt};
use tokio::time::Instant;

use super::{
    Refusal, Store,
    inner::{Held, Inner},
};
use crate::pool::{
    lease::{Connect, Connection, backoff::Begun, budget::Permit, plan},
    server::error::ServerError,
};

/// How much sooner or later than `server_lifetime` a connection may be closed.
const LIFETIME_JITTER: f64 = 0.2;

/// What there is to do at one moment.
pub(in crate::pool::lease) struct Todo<C: Connect> {
    pub dials: Vec<Dial<C>>,
    pub checks: Vec<Check<C>>,
    /// When to look again.
    pub next: Option<Instant>,
}

impl<C: Connect> Store<C> {
    /// Ends waits that took too long, and takes what is needed to open and to check what is to be opened and checked now.
    pub(in crate::pool::lease) fn step(self: &Arc<Self>, now: Instant) -> Todo<C> {
        let (checks, dials, next) = {
            let mut inner = self.inner.lock();
            inner.refuse_late(now);
            let checks = inner.begin_checks(now);
            let tally = inner.tally(&self.group, now);
            let next = plan::next_look(&tally, &inner.settings.sizes, inner.settings.query_wait_timeout, now);
            (checks, plan::dials(&tally, &inner.settings.sizes, now), next)
        };
        let permits = self.permits(dials);
        let begun = {
            let mut inner = self.inner.lock();
            inner.dialing += permits.len() as u32;
            inner.login.begin()
        };
        let dial = |permit| Dial { store: self.clone(), permit: Some(permit), begun };
        let check = |held| Check { store: self.clone(), held: Some(held), begun: now };
        Todo { dials: permits.into_iter().map(dial).collect(), checks: checks.into_iter().map(check).collect(), next }
    }

    fn permits(&self, dials: plan::Dials) -> Vec<Permit> {
        let mut permits = Vec::new();
        for _ in 0..dials.wanted {
            let permit = self.budgets.take().or_else(|| {
                // Hungry before the look at the others: what comes free in between wakes this pool again.
                self.set_hungry(true);
                self.budgets.take_or_evict(&self.member())
            });
            permits.extend(permit);
        }
        self.set_hungry(permits.len() < dials.wanted as usize);
        for _ in 0..dials.spare {
            permits.extend(self.budgets.take());
        }
        permits
    }

    fn logged_in(&self, held: Held<C::Connection>, now: Instant) {
        let mut dead = Vec::new();
        {
            let mut inner = self.inner.lock();
            inner.login.worked();
            inner.open += 1;
            inner.place_proven(held, &self.budgets, now, &mut dead);
        }
        self.bury(dead);
    }

    fn login_failed(&self, begun: Begun, error: ServerError, now: Instant, rng: &mut impl Rng) {
        let mut inner = self.inner.lock();
        let retry = inner.settings.server_login_retry;
        let (database, user) = (&*self.group.database, &*self.group.user);
        match inner.login.failed(begun, &error, retry, now, rng) {
            Some(pause) => tracing::warn!(
                database, user, %error, failures = inner.login.failures(), next_in_ms = pause.as_millis() as u64,
                "server login failed"
            ),
            None => tracing::debug!(database, user, %error, "server login failed with the one before"),
        }
        if inner.fails_fast() {
            inner.queue.refuse_all(&Refusal::Login(error));
        } else if !error.is_transient() {
            inner.queue.refuse_impatient(&Refusal::Login(error));
        }
    }

    /// A check has ended. When it failed, those that were idle for as long go with it: what ate the one (a firewall that
    /// forgot, a server that vanished) has eaten them too, and each would cost somebody the same wait.
    fn checked(&self, held: Held<C::Connection>, begun: Instant, result: Result<(), ServerError>, now: Instant) {
        let mut dead = Vec::new();
        {
            let mut inner = self.inner.lock();
            inner.end_check(begun);
            match result {
                Ok(()) => inner.place_proven(held, &self.budgets, now, &mut dead),
                Err(error) => {
                    dead.extend(inner.take_stale(now));
                    tracing::info!(
                        database = &*self.group.database, user = &*self.group.user, server = held.handle.id(), %error,
                        closed_with_it = dead.len(), "an idle server connection did not answer server_check_query"
                    );
                    dead.push(held);
                }
            }
        }
        self.bury(dead);
        self.budgets.feed();
    }
}

impl<T: Connection> Inner<T> {
    /// Returns whether nobody is to wait now: logins fail, nothing else is there, and `fail_fast` says so.
    pub(super) fn fails_fast(&self) -> bool {
        self.settings.fail_fast && self.open == 0 && self.login.error().is_some()
    }
}

/// The right and duty to open one connection.
pub(in crate::pool::lease) struct Dial<C: Connect> {
    store: Arc<Store<C>>,
    permit: Option<Permit>,
    begun: Begun,
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
                let expires = expiry(lifetime, now, &mut rand::rng());
                store.logged_in(Held::new(connection, handle, expires, permit, now), now);
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
            inner.is_empty()
        };
        if empty {
            self.store.emptied.notify_waiters();
        }
        self.store.alarm.notify_one();
    }
}

/// An idle connection that is asked whether it still works before somebody who waits gets it.
pub(in crate::pool::lease) struct Check<C: Connect> {
    store: Arc<Store<C>>,
    held: Option<Held<C::Connection>>,
    begun: Instant,
}

impl<C: Connect> Check<C> {
    /// Asks, and brings the connection back to the store with the answer.
    pub(in crate::pool::lease) async fn run(mut self) {
        let connect = self.store.connect.load_full();
        let Some(held) = &mut self.held else { return };
        let result = connect.check(&mut held.connection).await;
        if let Some(held) = self.held.take() {
            self.store.checked(held, self.begun, result, Instant::now());
        }
    }
}

impl<C: Connect> Drop for Check<C> {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            self.store.inner.lock().end_check(self.begun);
            self.store.close(held);
        }
    }
}

/// When a connection is too old; `None`: when it has been used once (`server_lifetime` 0).
fn expiry(lifetime: Duration, now: Instant, rng: &mut impl Rng) -> Option<Instant> {
    // Spread out, so that a pool that was opened in one moment is not closed in one.
    let jittered = || lifetime.mul_f64(rng.random_range(1.0 - LIFETIME_JITTER..=1.0 + LIFETIME_JITTER));
    (!lifetime.is_zero()).then(jittered).map(|lifetime| now + lifetime)
}
