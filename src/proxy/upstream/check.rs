//! Active checks: one task per server asks it for a page, again and again, and keeps its facts.
//!
//! Pingora's own health service starts servers as up, checks a whole set at one pace and forgets on rebuild. Here every
//! server has its own loop in the manner of [`crate::health::probe`] (first look at once, jittered pauses, faster while
//! down), starts as down until proven, and keeps what is known when the configuration around it changes. It is not that
//! loop itself because two minds are kept from one look, `alive` and `passing` (see [`super::standing`]), and because a look
//! may teach nothing: what a server answers while its database is down is not held against it.

mod http;
#[cfg(test)]
mod tests;

use std::{
    num::NonZeroU32,
    ops::RangeInclusive,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::{
    task::AbortHandle,
    time::{self, Instant},
};
use tracing::{info, warn};

use super::{
    endpoint::{Endpoint, LastCheck},
    standing::Facts,
};
use crate::{
    config::lb::HealthCheck,
    health::{
        board::{DatabaseEntry, Serving},
        drain::Drain,
        probe::{Schedule, jittered},
        ready::Latch,
        threshold::{Health, Threshold},
    },
};

/// How one look ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A status that means success, and a whole body.
    Passed(u16),
    WrongStatus(u16),
    /// A header of `expect_headers` is missing, or has another value.
    WrongHeader(u16),
    /// The body has not the text of `expect_body`.
    WrongBody(u16),
    /// A connection, which is all that was asked for (`type: tcp`).
    Connected,
    /// The body is longer than `max_body`.
    BodyTooLarge(u16),
    /// The connection ended before the body did.
    BodyCut(u16),
    /// Connected, but there was no whole answer in time.
    TimedOut,
    /// The connection was refused, timed out or ended before an answer.
    NoConnection,
    /// What came was not HTTP.
    NotHttp,
}

/// What a look teaches; `None`: nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lesson {
    alive: Option<bool>,
    passing: Option<bool>,
}

/// Everything that decides how a server is looked at. A task is restarted only when this changed.
#[derive(Debug, Clone)]
pub struct Plan {
    check: HealthCheck,
    database: Option<Arc<DatabaseEntry>>,
}

/// What a check task needs of the process.
#[derive(Debug)]
pub struct Surroundings {
    pub runtime: tokio::runtime::Handle,
    pub drain: Drain,
}

/// The check task of an endpoint, if it has one, and its minds.
#[derive(Debug, Default)]
pub struct CheckSlot {
    state: Mutex<State>,
    passed: AtomicU64,
    failed: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    running: Option<(Plan, AbortHandle)>,
    minds: Option<Minds>,
}

#[derive(Debug)]
struct Minds {
    alive: Threshold,
    passing: Threshold,
}

impl Outcome {
    /// Returns the word for it on pages and in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed(_) => "passed",
            Self::Connected => "connected",
            Self::WrongStatus(_) => "wrong_status",
            Self::WrongHeader(_) => "wrong_header",
            Self::WrongBody(_) => "wrong_body",
            Self::BodyTooLarge(_) => "body_too_large",
            Self::BodyCut(_) => "body_cut",
            Self::TimedOut => "timeout",
            Self::NoConnection => "no_connection",
            Self::NotHttp => "not_http",
        }
    }

    /// Returns the status, when one came.
    pub fn status(self) -> Option<u16> {
        match self {
            Self::Passed(status)
            | Self::WrongStatus(status)
            | Self::WrongHeader(status)
            | Self::WrongBody(status)
            | Self::BodyTooLarge(status)
            | Self::BodyCut(status) => Some(status),
            Self::Connected | Self::TimedOut | Self::NoConnection | Self::NotHttp => None,
        }
    }

    /// Returns whether it is what was hoped for.
    pub fn is_good(self) -> bool {
        matches!(self, Self::Passed(_) | Self::Connected)
    }

    /// A server that answers badly, or hangs, while its database is down may do so because of it: that says nothing of the
    /// server. That it answers, or that nobody listens, does.
    fn lesson(self, database: Serving) -> Lesson {
        let blameless = database == Serving::Down;
        match self {
            Self::Passed(_) | Self::Connected => Lesson { alive: Some(true), passing: Some(true) },
            Self::WrongStatus(_)
            | Self::WrongHeader(_)
            | Self::WrongBody(_)
            | Self::BodyTooLarge(_)
            | Self::BodyCut(_) => Lesson { alive: Some(true), passing: (!blameless).then_some(false) },
            Self::TimedOut if blameless => Lesson { alive: None, passing: None },
            Self::TimedOut | Self::NoConnection | Self::NotHttp => Lesson { alive: Some(false), passing: Some(false) },
        }
    }
}

impl Plan {
    /// Returns how `check` looks at a server.
    pub fn new(check: HealthCheck, database: Option<Arc<DatabaseEntry>>) -> Self {
        Self { check, database }
    }

    fn schedule(&self) -> Schedule {
        let HealthCheck { interval, down_interval, timeout, .. } = self.check;
        Schedule { interval, down_interval, timeout }
    }

    /// Returns how long to wait for the next look at a server that is held to be well or not, behind a look that was good or
    /// not.
    fn pause(&self, well: bool, good: bool) -> Duration {
        let Schedule { interval, down_interval, .. } = self.schedule();
        match self.check.fast_interval {
            Some(fast) if well != good => fast,
            _ if well => interval,
            _ => down_interval,
        }
    }

    fn limits(&self) -> (NonZeroU32, NonZeroU32) {
        let limit = |count| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        (limit(self.check.rise), limit(self.check.fall))
    }

    fn database(&self) -> Serving {
        self.database.as_ref().map_or(Serving::Unknown, |entry| entry.serving())
    }
}

impl PartialEq for Plan {
    fn eq(&self, other: &Self) -> bool {
        let name = |plan: &Self| plan.database.as_ref().map(|entry| entry.name().clone());
        self.check == other.check && name(self) == name(other)
    }
}

impl Endpoint {
    /// Sees to it that the server is checked by `plan`: keeps a task that does so already, replaces one that does not. What
    /// is known stays known. `latch` holds readiness back until the first look is over. A server that served unchecked
    /// so far (`served`) is up until a check says otherwise.
    pub fn check_by(self: &Arc<Self>, plan: Plan, served: bool, latch: Option<Arc<Latch>>, around: &Surroundings) {
        let mut state = self.checks.state.lock();
        if state.running.as_ref().is_some_and(|(running, _)| *running == plan) {
            return;
        }
        let (rise, fall) = plan.limits();
        let never_checked = state.running.is_none();
        if let Some((_, task)) = state.running.take() {
            task.abort();
        }
        let minds = state.minds.get_or_insert_with(|| Minds::new(rise, fall));
        minds.alive.set_limits(rise, fall);
        minds.passing.set_limits(rise, fall);
        if (served || plan.check.initially_up) && never_checked {
            *minds = Minds::up(rise, fall);
        }
        self.facts.store(minds.facts());
        let task = run(Arc::downgrade(self), plan.clone(), latch, around.drain.clone());
        let _entered = around.runtime.enter();
        state.running = Some((plan, around.drain.spawn(task).abort_handle()));
    }

    /// Stops checking the server: it was removed, or its upstream has no check any more.
    pub fn stop_checks(&self) {
        if let Some((_, task)) = self.checks.state.lock().running.take() {
            task.abort();
        }
    }

    /// Waits until a check of this server has ended once, whichever way. Cancel safe.
    pub async fn checked_once(&self) {
        self.checked_once.wait().await;
    }

    /// Returns how many checks passed and failed.
    pub fn check_counts(&self) -> (u64, u64) {
        (self.checks.passed.load(Ordering::Relaxed), self.checks.failed.load(Ordering::Relaxed))
    }

    /// Takes in one look; returns whether the server should be looked at at the pace of a healthy one.
    fn learn(&self, outcome: Outcome, took: Duration, database: Serving) -> bool {
        let passed = outcome.is_good();
        let counter = if passed { &self.checks.passed } else { &self.checks.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        self.last_check.store(Some(Arc::new(LastCheck { at: SystemTime::now(), took, outcome })));
        let mut state = self.checks.state.lock();
        let Some(minds) = state.minds.as_mut() else { return false };
        let before = minds.facts();
        minds.learn(outcome.lesson(database));
        let facts = minds.facts();
        if before.passing == Health::Down && facts.passing == Health::Up {
            self.passive.clear();
            self.warmth.begin(std::time::Instant::now());
        }
        self.facts.store(facts);
        drop(state);
        if before != facts {
            self.announce();
        }
        self.log_change(before, facts, outcome);
        // An error only says that this was not the first look.
        let _ = self.checked_once.set(());
        facts.alive == Health::Up && facts.passing == Health::Up
    }

    fn log_change(&self, before: Facts, after: Facts, outcome: Outcome) {
        if before.passing == after.passing {
            return;
        }
        let (upstream, server, status) = (self.upstream(), self.name(), outcome.status());
        match after.passing {
            Health::Up => info!(%upstream, %server, address = %self.address(), "server is up"),
            Health::Down | Health::Unproven => {
                warn!(%upstream, %server, address = %self.address(), check = outcome.as_str(), status, "server is down");
            }
        }
    }
}

impl Minds {
    fn new(rise: NonZeroU32, fall: NonZeroU32) -> Self {
        Self { alive: Threshold::new(rise, fall), passing: Threshold::new(rise, fall) }
    }

    fn up(rise: NonZeroU32, fall: NonZeroU32) -> Self {
        Self { alive: Threshold::resume(rise, fall, Health::Up), passing: Threshold::resume(rise, fall, Health::Up) }
    }

    fn learn(&mut self, lesson: Lesson) {
        for (mind, success) in [(&mut self.alive, lesson.alive), (&mut self.passing, lesson.passing)] {
            if let Some(success) = success {
                mind.record(success);
            }
        }
    }

    fn facts(&self) -> Facts {
        Facts { alive: self.alive.health(), passing: self.passing.health() }
    }
}

/// Looks until the endpoint is gone or the process drains. Cancel safe.
async fn run(endpoint: Weak<Endpoint>, plan: Plan, mut latch: Option<Arc<Latch>>, mut drain: Drain) {
    let Some(address) = endpoint.upgrade().map(|endpoint| endpoint.address()) else { return };
    let request = http::request(&plan.check, address);
    loop {
        let started = Instant::now();
        let outcome = tokio::select! {
            outcome = http::look(address, &request, &plan.check) => outcome,
            _ = drain.draining() => return,
        };
        let Some(endpoint) = endpoint.upgrade() else { return };
        let well = endpoint.learn(outcome, started.elapsed(), plan.database());
        drop((endpoint, latch.take()));
        let pause = plan.pause(well, outcome.is_good());
        tokio::select! {
            () = time::sleep_until(started + jittered(pause, rand::random())) => {}
            _ = drain.draining() => return,
        }
    }
}

/// Returns whether `status` is among those that mean success.
fn is_success(status: u16, wanted: &[RangeInclusive<u16>]) -> bool {
    wanted.iter().any(|range| range.contains(&status))
}
