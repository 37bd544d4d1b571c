//! The store itself: idle servers, the queue, and the hand-over from one client to the next.
//!
//! One short lock per pool; nothing is awaited under it, and sockets are closed after it. The fast path (an idle server is
//! there, or nobody waits when one comes back) is one lock each way, no allocation, and no system call. [`inner`] is what
//! the lock protects, [`opening`] how connections come here, [`handles`] what goes out, [`handover`] how it comes back,
//! [`steer`] what others want of a store.

mod handles;
mod handover;
mod inner;
mod opening;
mod steer;

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

pub use self::handles::{Lease, Waiting};
use self::inner::Inner;
use super::{Budgets, Connect, Connection, Patience, Sizes, budget::Member, keeper, plan};
use crate::pool::{
    registry::{Group, Registry, ServerEntry, ServerState},
    server::error::ServerError,
};

/// What the configuration says about one pool. May change at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    pub sizes: Sizes,
    pub query_wait_timeout: Option<Duration>,
    pub server_idle_timeout: Option<Duration>,
    /// Zero: a connection is used once.
    pub server_lifetime: Duration,
    /// Longest pause between failed logins.
    pub server_login_retry: Duration,
    /// A connection that was idle for so long is checked before it is lent. `None`: there are no checks.
    pub check_delay: Option<Duration>,
    /// Idle connections are lent in turn.
    pub round_robin: bool,
    /// Who waits is told at once that a login failed, unless the pool has connections.
    pub fail_fast: bool,
    /// The minimum is kept without clients too.
    pub keep_min: bool,
}

/// Why a client that waited gets no server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// `query_wait_timeout`; with the last failed login, if logins are failing.
    WaitedTooLong { limit: Duration, login: Option<ServerError> },
    /// The server refuses this login for good.
    Login(ServerError),
}

/// A pool at one moment, for pages and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub settings: Settings,
    pub open: u32,
    pub idle: u32,
    /// Of those that are idle, which need a check before they are lent.
    pub stale: u32,
    pub dialing: u32,
    pub waiting: u32,
    /// How long the first in the queue has waited.
    pub waited: Duration,
    pub paused: bool,
    /// The last failed login since one worked.
    pub login_error: Option<ServerError>,
}

/// The store of one pool.
pub struct Store<C: Connect> {
    connect: ArcSwap<C>,
    registry: Arc<Registry>,
    group: Arc<Group>,
    budgets: Budgets,
    inner: Mutex<Inner<C::Connection>>,
    hungry: AtomicBool,
    /// Wakes the keeper; outlives the store, so that the keeper can wait without holding it.
    pub(super) alarm: Arc<Notify>,
    /// Told when the last connection of a paused store has gone.
    emptied: Notify,
    me: Weak<Self>,
}

impl<C: Connect> Store<C> {
    /// Returns an empty store and starts its keeper on the current runtime.
    pub fn new(
        connect: C,
        settings: Settings,
        group: Arc<Group>,
        registry: Arc<Registry>,
        budgets: Budgets,
    ) -> Arc<Self> {
        let alarm = Arc::new(Notify::new());
        let store = Arc::new_cyclic(|me: &Weak<Self>| Self {
            connect: ArcSwap::from_pointee(connect),
            registry,
            group,
            budgets,
            inner: Mutex::new(Inner::new(settings)),
            hungry: AtomicBool::new(false),
            alarm: alarm.clone(),
            emptied: Notify::new(),
            me: me.clone(),
        });
        store.budgets.join(&store.member());
        tokio::spawn(keeper::run(Arc::downgrade(&store), alarm));
        store
    }

    /// Returns the database and user.
    pub fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// Returns an idle server at once, if one is there and nobody waits.
    pub fn try_lease(&self, client: u64, now: Instant) -> Option<Lease<C>> {
        loop {
            let mut held = {
                let mut inner = self.inner.lock();
                if inner.paused || !inner.queue.is_empty() {
                    return None;
                }
                inner.take_idle(now)?
            };
            // The look at the socket may be a system call: outside the lock.
            if held.usable(now) && held.connection.is_quiet() {
                held.handle.transition(ServerState::Leased);
                return Some(self.lend(held, client, now));
            }
            held.connection.farewell();
            self.close(held);
        }
    }

    /// Joins the queue. The wait is over when [`Waiting::served`] returns or the value is dropped.
    pub fn wait(&self, client: u64, patience: Patience, now: Instant) -> Waiting<C> {
        let mut dead = Vec::new();
        let (ticket, slot, alarm) = {
            let mut inner = self.inner.lock();
            let (ticket, slot) = inner.queue.join(patience, now);
            inner.serve_idle(now, &mut dead);
            if inner.fails_fast()
                && inner.dialing == 0
                && inner.login.not_before().is_some_and(|moment| now < moment)
                && let Some(error) = inner.login.error().cloned()
            {
                inner.queue.refuse_all(&Refusal::Login(error));
            }
            // A keeper that already watches a queue sleeps no longer than this one needs, unless more is to be opened.
            // A hungry pool is woken by what comes free.
            let alarm = inner.queue.len() == 1
                || !inner.idle.is_empty()
                || (!self.is_hungry() && inner.dials(&self.group, now) != plan::Dials::default());
            (ticket, slot, alarm)
        };
        self.bury(dead);
        if alarm {
            self.alarm.notify_one();
        }
        Waiting { store: self.arc(), client, ticket, slot, done: false }
    }

    /// Ends a cancel request for a server that is perhaps parked here; `proven` as in [`ServerEntry::cancel_ended`].
    pub fn cancel_ended(&self, server: &ServerEntry, proven: bool, now: Instant) {
        if !server.cancel_ended(proven) {
            return;
        }
        let mut dead = Vec::new();
        {
            let mut inner = self.inner.lock();
            if let Some(at) = inner.parked.iter().position(|held| held.handle.id() == server.id()) {
                let held = inner.parked.swap_remove(at);
                inner.place(held, &self.budgets, now, &mut dead);
            }
        }
        self.bury(dead);
        self.budgets.feed();
    }

    /// Takes the right to have a connection that is not the store's own, at the cost of an idle one of any pool, this one
    /// included, if it must be; `None`: all are in use.
    pub fn permit(&self) -> Option<super::Permit> {
        let nobody: Weak<dyn Member> = Weak::<Self>::new();
        self.budgets.take_or_evict(&nobody)
    }

    fn set_hungry(&self, is: bool) {
        self.budgets.set_hungry(self.hungry.swap(is, Ordering::AcqRel), is);
    }

    fn member(&self) -> Weak<dyn Member> {
        self.me.clone()
    }

    fn arc(&self) -> Arc<Self> {
        self.me.upgrade().expect("a method of a living value runs")
    }
}

impl<C: Connect> Drop for Store<C> {
    fn drop(&mut self) {
        self.set_hungry(false);
        // The keeper sees that the store has gone.
        self.alarm.notify_one();
        for held in &mut self.inner.get_mut().idle {
            held.connection.farewell();
        }
    }
}
