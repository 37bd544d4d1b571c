//! The store itself: idle servers, the queue, and the hand-over from one client to the next.
//!
//! One short lock per pool; nothing is awaited under it, and sockets are closed after it. The fast path (an idle server is
//! there, or nobody waits when one comes back) is one lock each way, no allocation, and no system call.

mod handles;

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rand::Rng;
use tokio::{sync::Notify, time::Instant};

pub(super) use self::handles::Dial;
pub use self::handles::{Lease, Waiting};
use super::{
    Budget, Connect, Connection, Patience, Sizes,
    backoff::{Begun, Logins},
    budget::{Member, Permit},
    keeper, plan,
    queue::Queue,
};
use crate::pool::{
    registry::{ClientState, Group, Registry, ServerEntry, ServerHandle, ServerState},
    server::error::ServerError,
};

/// What the configuration says about one pool. May change at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    pub sizes: Sizes,
    pub query_wait_timeout: Option<Duration>,
    pub server_idle_timeout: Option<Duration>,
    pub server_lifetime: Option<Duration>,
    /// Longest pause between failed logins.
    pub server_login_retry: Duration,
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
    budget: Arc<Budget>,
    inner: Mutex<Inner<C::Connection>>,
    hungry: AtomicBool,
    /// Wakes the keeper; outlives the store, so that the keeper can wait without holding it.
    pub(super) alarm: Arc<Notify>,
    /// Told when the last connection of a paused store has gone.
    emptied: Notify,
    me: Weak<Self>,
}

struct Inner<T> {
    settings: Settings,
    /// The last one in is the first one out: the others get old enough to be closed. The first has been idle the longest.
    idle: Vec<Held<T>>,
    /// Given back while a cancel request for their last client is under way.
    parked: Vec<Held<T>>,
    queue: Queue<Held<T>>,
    /// Connections that exist: lent, idle and parked.
    open: u32,
    dialing: u32,
    paused: bool,
    login: Logins,
}

/// A connection with everything that must be given back with it.
pub(super) struct Held<T> {
    connection: T,
    handle: ServerHandle,
    expires: Option<Instant>,
    idle_since: Instant,
    _permit: Permit,
}

impl<C: Connect> Store<C> {
    /// Returns an empty store and starts its keeper on the current runtime.
    pub fn new(
        connect: C,
        settings: Settings,
        group: Arc<Group>,
        registry: Arc<Registry>,
        budget: Arc<Budget>,
    ) -> Arc<Self> {
        let alarm = Arc::new(Notify::new());
        let store = Arc::new_cyclic(|me: &Weak<Self>| Self {
            connect: ArcSwap::from_pointee(connect),
            registry,
            group,
            budget,
            inner: Mutex::new(Inner::new(settings)),
            hungry: AtomicBool::new(false),
            alarm: alarm.clone(),
            emptied: Notify::new(),
            me: me.clone(),
        });
        store.budget.join(store.member());
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
                inner.idle.pop()?
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
            // A keeper that already watches a queue sleeps no longer than this one needs, unless more is to be opened.
            // A hungry pool is woken by what comes free.
            let alarm = inner.queue.len() == 1
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
                inner.place(held, &self.budget, now, &mut dead);
            }
        }
        self.bury(dead);
        self.budget.feed();
    }

    /// Takes new settings; they hold from now on.
    pub fn set_settings(&self, settings: Settings) {
        self.inner.lock().settings = settings;
        self.alarm.notify_one();
    }

    /// Takes another way to connect (host, user or password changed). Existing connections are not touched.
    pub fn set_connect(&self, connect: C) {
        self.connect.store(Arc::new(connect));
        self.login_again();
    }

    /// Closes every connection at its next boundary, idle ones now. New ones are opened as they are needed.
    pub fn reconnect(&self) {
        for server in self.registry.servers() {
            if Arc::ptr_eq(server.group(), &self.group) {
                server.set_close_needed();
            }
        }
        let idle = std::mem::take(&mut self.inner.lock().idle);
        self.bury(idle);
    }

    /// Lends nothing more, closes idle connections now and the others as they come back. Clients wait.
    pub fn pause(&self) {
        let idle = {
            let mut inner = self.inner.lock();
            inner.paused = true;
            std::mem::take(&mut inner.idle)
        };
        self.bury(idle);
    }

    /// Undoes [`Self::pause`].
    pub fn resume(&self) {
        self.inner.lock().paused = false;
        self.alarm.notify_one();
    }

    /// Waits until no connection is left or on its way: the end of a PAUSE. Cancel safe.
    pub async fn emptied(&self) {
        loop {
            let told = self.emptied.notified();
            if self.is_empty() {
                return;
            }
            told.await;
        }
    }

    /// Returns whether no connection exists or is on its way.
    pub fn is_empty(&self) -> bool {
        let inner = self.inner.lock();
        inner.open == 0 && inner.dialing == 0
    }

    /// Ends the pause between logins that failed because the server was away: a probe has found it back. A login that was
    /// refused for good is not tried any sooner for that.
    pub fn server_is_up(&self) {
        let away = self.inner.lock().login.error().is_some_and(ServerError::is_transient);
        if away {
            self.login_again();
        }
    }

    /// Forgets failed logins: the way to the server has changed.
    fn login_again(&self) {
        self.inner.lock().login.forget();
        self.alarm.notify_one();
    }

    /// Returns the pool as it is now.
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        let inner = self.inner.lock();
        Snapshot {
            settings: inner.settings,
            open: inner.open,
            idle: inner.idle.len() as u32,
            dialing: inner.dialing,
            waiting: inner.queue.len() as u32,
            waited: inner.queue.front_since().map_or(Duration::ZERO, |since| now.saturating_duration_since(since)),
            paused: inner.paused,
            login_error: inner.login.error().cloned(),
        }
    }

    /// Looks through the idle connections: those that speak or ended, those that are too old or idle for too long, and those
    /// above a size that was made smaller are closed. Called every half second or so.
    pub fn sweep(&self, now: Instant) {
        let mut dead = Vec::new();
        {
            let mut inner = self.inner.lock();
            let mut spare = inner.open.saturating_sub(inner.settings.sizes.min);
            let mut over = inner.open.saturating_sub(inner.settings.sizes.most()).max(self.budget.overdraft());
            let idle_timeout = inner.settings.server_idle_timeout;
            let all = std::mem::take(&mut inner.idle);
            for held in all {
                let resting = now.saturating_duration_since(held.idle_since);
                let tired = spare > 0 && idle_timeout.is_some_and(|limit| resting >= limit);
                if over > 0 || tired || !held.usable(now) || !held.connection.is_quiet() {
                    spare = spare.saturating_sub(1);
                    over = over.saturating_sub(1);
                    dead.push(held);
                } else {
                    inner.idle.push(held);
                }
            }
        }
        self.bury(dead);
        self.alarm.notify_one();
    }

    // --- for the keeper ---

    /// Ends waits that took too long, and takes what is needed to open what is to be opened now. Returns when to look again.
    pub(super) fn step(self: &Arc<Self>, now: Instant) -> (Vec<Dial<C>>, Option<Instant>) {
        let (dials, next) = {
            let mut inner = self.inner.lock();
            inner.refuse_late(now);
            let tally = inner.tally(&self.group);
            let next = plan::next_look(&tally, &inner.settings.sizes, inner.settings.query_wait_timeout, now);
            (plan::dials(&tally, &inner.settings.sizes, now), next)
        };
        let mut permits = Vec::new();
        for _ in 0..dials.wanted {
            let permit = self.budget.take().or_else(|| {
                // Hungry before the look at the others: what comes free in between wakes this pool again.
                self.set_hungry(true);
                self.budget.take_or_evict(&self.member())
            });
            permits.extend(permit);
        }
        self.set_hungry(permits.len() < dials.wanted as usize);
        for _ in 0..dials.spare {
            permits.extend(self.budget.take());
        }
        let begun = {
            let mut inner = self.inner.lock();
            inner.dialing += permits.len() as u32;
            inner.login.begin()
        };
        let dial = |permit| Dial { store: self.clone(), permit: Some(permit), begun };
        (permits.into_iter().map(dial).collect(), next)
    }

    fn logged_in(&self, held: Held<C::Connection>, now: Instant) {
        let mut dead = Vec::new();
        {
            let mut inner = self.inner.lock();
            inner.login.worked();
            inner.open += 1;
            inner.place(held, &self.budget, now, &mut dead);
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
        if !error.is_transient() {
            inner.queue.refuse_impatient(&Refusal::Login(error));
        }
    }

    // --- hand-over ---

    fn lend(&self, held: Held<C::Connection>, client: u64, now: Instant) -> Lease<C> {
        held.handle.give_to(client, now);
        Lease { store: self.arc(), held: Some(held) }
    }

    fn give_back(&self, held: Held<C::Connection>, now: Instant) {
        let being_cancelled = held.handle.take_back();
        let mut dead = Vec::new();
        let rests = {
            let mut inner = self.inner.lock();
            // Looked at again under the lock: the last cancel may have ended since, and then nobody would come to unpark.
            if being_cancelled && held.handle.being_cancelled() {
                held.handle.transition(ServerState::BeingCancelled);
                inner.parked.push(held);
            } else {
                inner.place(held, &self.budget, now, &mut dead);
            }
            !inner.idle.is_empty()
        };
        self.bury(dead);
        if rests {
            self.budget.feed();
        }
    }

    fn close(&self, held: Held<C::Connection>) {
        drop(held);
        self.closed(1);
    }

    /// Closes idle connections politely, after the lock.
    fn bury(&self, dead: Vec<Held<C::Connection>>) {
        let count = dead.len() as u32;
        if count == 0 {
            return;
        }
        for mut held in dead {
            held.connection.farewell();
        }
        self.closed(count);
    }

    fn closed(&self, count: u32) {
        let empty = {
            let mut inner = self.inner.lock();
            inner.open -= count;
            inner.open == 0 && inner.dialing == 0
        };
        if empty {
            self.emptied.notify_waiters();
        }
        self.alarm.notify_one();
    }

    fn set_hungry(&self, is: bool) {
        self.budget.set_hungry(self.hungry.swap(is, Ordering::AcqRel), is);
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

impl<T: Connection> Inner<T> {
    fn new(settings: Settings) -> Self {
        Self {
            settings,
            idle: Vec::new(),
            parked: Vec::new(),
            queue: Queue::default(),
            open: 0,
            dialing: 0,
            paused: false,
            login: Logins::default(),
        }
    }

    /// Finds the place of a connection that is clean and nobody's: the first waiter, the idle ones, or the end.
    fn place(&mut self, mut held: Held<T>, budget: &Budget, now: Instant, dead: &mut Vec<Held<T>>) {
        let too_many = self.open > self.settings.sizes.most() || budget.overdraft() > 0;
        if self.paused || too_many || !held.usable(now) {
            dead.push(held);
            return;
        }
        if !self.queue.is_empty() {
            // A server that was told to stop says so right behind its last answer. (A system call, under the lock, only if
            // something came.)
            if !held.connection.is_quiet() {
                dead.push(held);
                return;
            }
            held.handle.transition(ServerState::Leased);
            match self.queue.serve(held) {
                None => return,
                Some(back) => held = back,
            }
        }
        held.idle_since = now;
        held.handle.transition(ServerState::Idle);
        self.idle.push(held);
    }

    /// Hands idle connections to waiters: one may have come back between a look at the idle ones and joining the queue.
    fn serve_idle(&mut self, now: Instant, dead: &mut Vec<Held<T>>) {
        while !self.paused && !self.queue.is_empty() {
            let Some(held) = self.idle.pop() else { return };
            if !held.usable(now) || !held.connection.is_quiet() {
                dead.push(held);
                continue;
            }
            held.handle.transition(ServerState::Leased);
            if let Some(back) = self.queue.serve(held) {
                back.handle.transition(ServerState::Idle);
                self.idle.push(back);
            }
        }
    }

    fn refuse_late(&mut self, now: Instant) {
        let Some(limit) = self.settings.query_wait_timeout else { return };
        if let Some(moment) = now.checked_sub(limit) {
            let refusal = Refusal::WaitedTooLong { limit, login: self.login.error().cloned() };
            self.queue.refuse_until(moment, &refusal);
        }
    }

    fn tally(&self, group: &Group) -> plan::Tally {
        plan::Tally {
            waiting: self.queue.len() as u32,
            front_since: self.queue.front_since(),
            open: self.open,
            dialing: self.dialing,
            keep_min: ClientState::ALL.iter().any(|state| group.clients(*state) > 0),
            paused: self.paused,
            failures: self.login.failures(),
            not_before: self.login.not_before(),
        }
    }

    fn dials(&self, group: &Group, now: Instant) -> plan::Dials {
        plan::dials(&self.tally(group), &self.settings.sizes, now)
    }
}

impl<T> Held<T> {
    /// Whether the connection may be lent once more.
    fn usable(&self, now: Instant) -> bool {
        !self.handle.close_needed() && !self.handle.cancel_doubtful() && self.expires.is_none_or(|moment| now < moment)
    }
}
