//! One server as the process knows it: who it is, how it does, what it is doing.
//!
//! An endpoint lives as long as anyone holds it. It belongs to every upstream that shares it and survives a reload as long as
//! its upstream, name and address stay, so its health, failures and requests in flight do too. What an operator may change
//! about a server without making it another one (weight, limits) is not here but in [`Member`].

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwapOption;
use tokio::sync::SetOnce;

use super::{
    check::{CheckSlot, Outcome},
    latency::Latency,
    passive::{Limits, Passive},
    queue::Queue,
    standing::{Facts, SharedFacts},
    warm::Warmth,
};

/// One server.
#[derive(Debug)]
pub struct Endpoint {
    upstream: Arc<str>,
    name: Arc<str>,
    address: SocketAddr,
    pub(super) facts: SharedFacts,
    /// Set by the first finished check.
    pub(super) checked_once: SetOnce<()>,
    pub(super) last_check: ArcSwapOption<LastCheck>,
    pub(super) checks: CheckSlot,
    pub(super) passive: Passive,
    /// Kept by upstreams that choose by it.
    pub(super) latency: Latency,
    pub(super) warmth: Warmth,
    /// An operator wants no new requests here.
    draining: AtomicBool,
    in_flight: AtomicUsize,
    /// Where requests wait for it and its like.
    queue: Arc<Queue>,
    totals: Totals,
}

/// Counters since the endpoint exists.
#[derive(Debug, Default)]
struct Totals {
    picked: AtomicU64,
    failures: AtomicU64,
    ejections: AtomicU64,
}

/// Values of an endpoint's counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub in_flight: usize,
    /// Requests and WebSockets sent here, tries included.
    pub picked: u64,
    pub failures: u64,
    pub ejections: u64,
}

/// The last finished check, for pages.
#[derive(Debug, Clone)]
pub struct LastCheck {
    pub at: SystemTime,
    pub took: Duration,
    pub outcome: Outcome,
}

impl Endpoint {
    /// Returns a server of which nothing is known yet.
    pub fn new(upstream: Arc<str>, name: Arc<str>, address: SocketAddr, queue: Arc<Queue>) -> Self {
        Self {
            upstream,
            name,
            address,
            facts: SharedFacts::unproven(),
            checked_once: SetOnce::new(),
            last_check: ArcSwapOption::empty(),
            checks: CheckSlot::default(),
            passive: Passive::default(),
            latency: Latency::default(),
            warmth: Warmth::new(Instant::now()),
            draining: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            queue,
            totals: Totals::default(),
        }
    }

    /// Returns the upstream whose `servers` it stands in (not those that share it).
    pub fn upstream(&self) -> &Arc<str> {
        &self.upstream
    }

    /// Returns its name in lb.yaml.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns what its checks found out; it counts only where checks decide.
    pub fn facts(&self) -> Facts {
        self.facts.load()
    }

    /// Returns its last finished check, if there was one.
    pub fn last_check(&self) -> Option<Arc<LastCheck>> {
        self.last_check.load_full()
    }

    /// Returns whether it gets no new requests by an operator's word.
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Gives it no new requests, or some again. What is in flight goes on.
    pub fn set_draining(&self, draining: bool) {
        if self.draining.swap(draining, Ordering::Relaxed) && !draining {
            self.warmth.begin(Instant::now());
        }
        self.queue.changed();
    }

    /// Takes note that it has come while others were at work.
    pub fn came_late(&self) {
        self.warmth.begin(Instant::now());
    }

    /// Returns the requests and WebSockets at it.
    pub fn in_flight(&self) -> usize {
        // Against the line's length: see `Queue::join`.
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Lets those who wait for a server look again.
    pub(super) fn announce(&self) {
        self.queue.changed();
    }

    /// Returns its counters.
    pub fn counts(&self) -> Counts {
        Counts {
            in_flight: self.in_flight(),
            picked: self.totals.picked.load(Ordering::Relaxed),
            failures: self.totals.failures.load(Ordering::Relaxed),
            ejections: self.totals.ejections.load(Ordering::Relaxed),
        }
    }

    /// Returns the failures that count against it at this moment.
    pub fn recent_failures(&self) -> u32 {
        self.passive.fails()
    }
}

/// A server's place in an upstream: the endpoint, and what the file says of it today.
#[derive(Debug, Clone)]
pub struct Member {
    pub endpoint: Arc<Endpoint>,
    pub weight: u32,
    pub backup: bool,
    pub limits: Limits,
    pub slow_start: Duration,
    /// Requests and WebSockets it may have. `None` = any number.
    pub max_conns: Option<usize>,
    /// The file says that it gets nothing.
    pub down: bool,
}

impl Member {
    /// Returns its name in lb.yaml.
    pub fn name(&self) -> &str {
        self.endpoint.name()
    }

    /// Returns whether requests have shown it to be failing.
    pub fn ejected(&self, now: Instant) -> bool {
        self.endpoint.passive.ejected(self.limits, now)
    }

    /// Returns whether it has all it may have.
    pub fn is_full(&self) -> bool {
        self.max_conns.is_some_and(|limit| self.endpoint.in_flight() >= limit)
    }

    /// Counts a request in, if there is room; it is in flight until the guard is dropped.
    pub(super) fn enter(&self, now: Instant) -> Option<InFlight> {
        let in_flight = InFlight::within(&self.endpoint, self.max_conns)?;
        self.endpoint.passive.picked(self.limits, now);
        self.endpoint.totals.picked.fetch_add(1, Ordering::Relaxed);
        Some(in_flight)
    }

    /// Notes a failed request; returns whether that ejected the server just now.
    pub(super) fn failed(&self, now: Instant) -> bool {
        self.endpoint.totals.failures.fetch_add(1, Ordering::Relaxed);
        let ejected = self.endpoint.passive.failed(self.limits, now);
        if ejected {
            self.endpoint.totals.ejections.fetch_add(1, Ordering::Relaxed);
        }
        ejected
    }

    pub(super) fn succeeded(&self, now: Instant) {
        if self.endpoint.passive.succeeded(self.limits) {
            self.endpoint.warmth.begin(now);
        }
    }
}

/// A request or WebSocket at a server; dropping it counts it out.
#[derive(Debug)]
pub struct InFlight {
    endpoint: Arc<Endpoint>,
}

impl InFlight {
    fn within(endpoint: &Arc<Endpoint>, limit: Option<usize>) -> Option<Self> {
        let count = &endpoint.in_flight;
        match limit {
            None => drop(count.fetch_add(1, Ordering::SeqCst)),
            Some(limit) => {
                let one_more = |now: usize| (now < limit).then_some(now + 1);
                count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).ok()?;
            }
        }
        Some(Self { endpoint: endpoint.clone() })
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.endpoint.queue.freed();
    }
}
