//! What a store's lock protects, and what is decided under it: who gets a connection, which ones rest, which ones go.
//!
//! Nothing here waits or closes a socket: connections that must go are handed out, to be closed after the lock.

use std::time::Duration;

use tokio::time::Instant;

use super::{Refusal, Settings};
use crate::pool::{
    lease::{
        Connection,
        backoff::Logins,
        budget::{Budgets, Permit},
        plan,
        queue::Queue,
    },
    registry::{ClientState, Group, ServerHandle, ServerState},
};

/// A check that takes longer no longer keeps another connection from being opened for the one who waits.
const CHECK_PATIENCE: Duration = Duration::from_millis(500);

pub(super) struct Inner<T> {
    pub settings: Settings,
    /// In the order in which they came to rest: the first has been idle the longest.
    pub idle: Vec<Held<T>>,
    /// Given back while a cancel request for their last client is under way.
    pub parked: Vec<Held<T>>,
    pub queue: Queue<Held<T>>,
    /// Connections that exist: lent, idle, parked and being checked.
    pub open: u32,
    pub dialing: u32,
    /// When the checks under way began. At most as many as there are connections.
    checks: Vec<Instant>,
    pub paused: bool,
    pub login: Logins,
}

/// A connection with everything that must be given back with it.
pub(in crate::pool::lease) struct Held<T> {
    pub connection: T,
    pub handle: ServerHandle,
    /// `None`: at the end of its first lease.
    expires: Option<Instant>,
    lent: bool,
    pub idle_since: Instant,
    _permit: Permit,
}

impl<T> Held<T> {
    pub(super) fn new(
        connection: T,
        handle: ServerHandle,
        expires: Option<Instant>,
        permit: Permit,
        now: Instant,
    ) -> Self {
        Self { connection, handle, expires, lent: false, idle_since: now, _permit: permit }
    }

    /// Whether the connection may be lent once more.
    pub(super) fn usable(&self, now: Instant) -> bool {
        let young = self.expires.map_or(!self.lent, |moment| now < moment);
        young && !self.handle.close_needed() && !self.handle.cancel_doubtful()
    }

    /// Ties the connection to its next client.
    pub(super) fn lend(&mut self, client: u64, now: Instant) {
        self.lent = true;
        self.handle.give_to(client, now);
    }
}

impl<T: Connection> Inner<T> {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            idle: Vec::new(),
            parked: Vec::new(),
            queue: Queue::default(),
            open: 0,
            dialing: 0,
            checks: Vec::new(),
            paused: false,
            login: Logins::default(),
        }
    }

    /// Returns whether no connection exists or is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.open == 0 && self.dialing == 0
    }

    /// Finds the place of a connection that comes back clean and is nobody's: the first waiter, the idle ones, or the end.
    pub(super) fn place(&mut self, held: Held<T>, budgets: &Budgets, now: Instant, dead: &mut Vec<Held<T>>) {
        if self.settings.check_delay == Some(Duration::ZERO) && self.may_stay(&held, budgets, now) {
            // Nobody gets it unchecked.
            self.rest(held, now);
        } else {
            self.place_proven(held, budgets, now, dead);
        }
    }

    /// As [`Self::place`], for one that has just answered: a new one, or one that was checked.
    pub(super) fn place_proven(&mut self, mut held: Held<T>, budgets: &Budgets, now: Instant, dead: &mut Vec<Held<T>>) {
        if !self.may_stay(&held, budgets, now) {
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
        self.rest(held, now);
    }

    fn may_stay(&self, held: &Held<T>, budgets: &Budgets, now: Instant) -> bool {
        let too_many = self.open > self.settings.sizes.most() || budgets.overdraft() > 0;
        !self.paused && !too_many && held.usable(now)
    }

    fn rest(&mut self, mut held: Held<T>, now: Instant) {
        held.idle_since = now;
        held.handle.transition(ServerState::Idle);
        self.idle.push(held);
    }

    /// Takes the idle connection that is to be lent next: last in, first out, so that the others get old enough to be
    /// closed; or in turn. One that needs a check first is not it.
    pub(super) fn take_idle(&mut self, now: Instant) -> Option<Held<T>> {
        if self.settings.round_robin {
            let fresh = self.stale(now);
            return (fresh < self.idle.len()).then(|| self.idle.remove(fresh));
        }
        self.idle.pop_if(|held| !needs_check(self.settings.check_delay, held.idle_since, now))
    }

    /// Returns how many of the idle ones need a check before they are lent: the first so many.
    pub(super) fn stale(&self, now: Instant) -> usize {
        let delay = self.settings.check_delay;
        self.idle.partition_point(|held| needs_check(delay, held.idle_since, now))
    }

    /// Takes all that need a check.
    pub(super) fn take_stale(&mut self, now: Instant) -> impl Iterator<Item = Held<T>> {
        let stale = self.stale(now);
        self.idle.drain(..stale)
    }

    /// Takes a connection to be checked for each one who waits and for whom nothing else is under way: the freshest ones.
    pub(super) fn begin_checks(&mut self, now: Instant) -> Vec<Held<T>> {
        if self.paused {
            return Vec::new();
        }
        let under_way = self.dialing as usize + self.checking(now);
        let wanted = self.queue.len().saturating_sub(under_way);
        let stale = self.stale(now);
        let taken: Vec<_> = self.idle.drain(stale.saturating_sub(wanted)..stale).collect();
        for held in &taken {
            held.handle.transition(ServerState::Resetting);
            self.checks.push(now); // bound: the connections there are
        }
        taken
    }

    pub(super) fn end_check(&mut self, begun: Instant) {
        if let Some(at) = self.checks.iter().position(|each| *each == begun) {
            self.checks.swap_remove(at);
        }
    }

    /// Returns how many checks are not late yet.
    fn checking(&self, now: Instant) -> usize {
        self.checks.iter().filter(|begun| now < **begun + CHECK_PATIENCE).count()
    }

    /// Hands idle connections to waiters: one may have come back between a look at the idle ones and joining the queue.
    pub(super) fn serve_idle(&mut self, now: Instant, dead: &mut Vec<Held<T>>) {
        while !self.paused && !self.queue.is_empty() {
            let Some(held) = self.take_idle(now) else { return };
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

    pub(super) fn refuse_late(&mut self, now: Instant) {
        let Some(limit) = self.settings.query_wait_timeout else { return };
        if let Some(moment) = now.checked_sub(limit) {
            let refusal = Refusal::WaitedTooLong { limit, login: self.login.error().cloned() };
            self.queue.refuse_until(moment, &refusal);
        }
    }

    pub(super) fn tally(&self, group: &Group, now: Instant) -> plan::Tally {
        plan::Tally {
            waiting: self.queue.len() as u32,
            front_since: self.queue.front_since(),
            open: self.open,
            dialing: self.dialing,
            checking: self.checking(now) as u32,
            check_late: self.checks.iter().map(|begun| *begun + CHECK_PATIENCE).filter(|late| *late > now).min(),
            keep_min: self.settings.keep_min || ClientState::ALL.iter().any(|state| group.clients(*state) > 0),
            paused: self.paused,
            failures: self.login.failures(),
            not_before: self.login.not_before(),
        }
    }

    pub(super) fn dials(&self, group: &Group, now: Instant) -> plan::Dials {
        plan::dials(&self.tally(group, now), &self.settings.sizes, now)
    }
}

fn needs_check(delay: Option<Duration>, idle_since: Instant, now: Instant) -> bool {
    delay.is_some_and(|delay| now.saturating_duration_since(idle_since) >= delay)
}
