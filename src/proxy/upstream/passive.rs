//! Passive ejection: what requests themselves say of a server, by nginx's `max_fails` and `fail_timeout`.
//!
//! `max_fails` failures within `fail_timeout` take a server out for `fail_timeout`; then one request is let through as a
//! trial while the others still go elsewhere, and its success clears the slate. Exactly
//! ngx_http_upstream_round_robin.c: failures add up until a success that began after `fail_timeout` had passed since the
//! last one, so a few good answers between failures do not hide them. Beyond nginx, which has no active checks: a server
//! that its check brings up again starts with a clean slate.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// A server's limits. They come with the call: a reload may change them and keep the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// 0 = never ejected.
    pub max_fails: u32,
    pub fail_timeout: Duration,
}

/// A server's record, shared by every thread. A server without failures costs one atomic load.
#[derive(Debug, Default)]
pub struct Passive {
    /// Copy of `Record::fails`.
    fails: AtomicU32,
    record: Mutex<Record>,
}

/// The record itself. Pure.
#[derive(Debug, Clone, Copy, Default)]
struct Record {
    fails: u32,
    failed_at: Option<Instant>,
    /// When it last failed, or was last given a trial.
    checked_at: Option<Instant>,
}

impl Passive {
    /// Returns whether the server should be passed over.
    pub fn ejected(&self, limits: Limits, now: Instant) -> bool {
        self.fails.load(Ordering::Relaxed) != 0 && self.record.lock().ejected(limits, now)
    }

    /// Notes that a request goes to the server: if its time out is over this is the trial, and the next one waits.
    pub fn picked(&self, limits: Limits, now: Instant) {
        if self.fails.load(Ordering::Relaxed) != 0 {
            self.record.lock().picked(limits, now);
        }
    }

    /// Notes a failure; returns whether it ejected the server just now.
    pub fn failed(&self, limits: Limits, now: Instant) -> bool {
        let mut record = self.record.lock();
        let was_out = record.ejected(limits, now);
        record.failed(now);
        self.fails.store(record.fails, Ordering::Relaxed);
        !was_out && record.ejected(limits, now)
    }

    /// Notes an answer; returns whether it ended the time out of a server that had been ejected.
    pub fn succeeded(&self, limits: Limits) -> bool {
        if self.fails.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let mut record = self.record.lock();
        let was_out = limits.max_fails != 0 && record.fails >= limits.max_fails;
        record.succeeded();
        self.fails.store(record.fails, Ordering::Relaxed);
        was_out && record.fails == 0
    }

    /// Forgets all failures: the server was proven anew.
    pub fn clear(&self) {
        *self.record.lock() = Record::default();
        self.fails.store(0, Ordering::Relaxed);
    }

    /// Returns the failures that count at this moment.
    pub fn fails(&self) -> u32 {
        self.fails.load(Ordering::Relaxed)
    }
}

impl Record {
    fn ejected(&self, limits: Limits, now: Instant) -> bool {
        limits.max_fails != 0 && self.fails >= limits.max_fails && !self.rested(limits, now)
    }

    fn picked(&mut self, limits: Limits, now: Instant) {
        if self.rested(limits, now) {
            self.checked_at = Some(now);
        }
    }

    fn failed(&mut self, now: Instant) {
        self.fails = self.fails.saturating_add(1);
        self.failed_at = Some(now);
        self.checked_at = Some(now);
    }

    fn succeeded(&mut self) {
        if self.failed_at < self.checked_at {
            self.fails = 0;
        }
    }

    fn rested(&self, limits: Limits, now: Instant) -> bool {
        self.checked_at.is_none_or(|checked| now.saturating_duration_since(checked) > limits.fail_timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { max_fails: 2, fail_timeout: Duration::from_secs(10) };

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn ejects_at_the_limit_and_says_so_once() {
        let (server, t0) = (Passive::default(), Instant::now());
        assert!(!server.failed(LIMITS, t0));
        assert!(!server.ejected(LIMITS, t0));
        assert!(server.failed(LIMITS, t0 + seconds(1)));
        assert!(server.ejected(LIMITS, t0 + seconds(2)));
        assert!(!server.failed(LIMITS, t0 + seconds(2)), "a late failure of a request sent before is no news");
    }

    #[test]
    fn stays_out_for_fail_timeout_then_gets_one_trial() {
        let (server, t0) = (Passive::default(), Instant::now());
        server.failed(LIMITS, t0);
        server.failed(LIMITS, t0);
        assert!(server.ejected(LIMITS, t0 + seconds(10)));
        let later = t0 + seconds(11);
        assert!(!server.ejected(LIMITS, later));
        server.picked(LIMITS, later);
        assert!(server.ejected(LIMITS, later), "others wait for the trial's end");
    }

    #[test]
    fn a_failed_trial_ejects_again_and_a_good_one_clears_the_slate() {
        let (server, t0) = (Passive::default(), Instant::now());
        server.failed(LIMITS, t0);
        server.failed(LIMITS, t0);
        server.picked(LIMITS, t0 + seconds(11));
        server.failed(LIMITS, t0 + seconds(12));
        assert!(server.ejected(LIMITS, t0 + seconds(20)));
        server.picked(LIMITS, t0 + seconds(23));
        assert!(server.succeeded(LIMITS), "it is back");
        assert_eq!(server.fails(), 0);
        assert!(!server.ejected(LIMITS, t0 + seconds(23)));
    }

    #[test]
    fn an_answer_to_a_request_sent_before_the_failure_does_not_bring_it_back() {
        let (server, t0) = (Passive::default(), Instant::now());
        server.picked(LIMITS, t0);
        server.failed(LIMITS, t0);
        server.failed(LIMITS, t0);
        assert!(!server.succeeded(LIMITS));
        assert!(server.ejected(LIMITS, t0 + seconds(1)));
    }

    #[test]
    fn failures_far_apart_with_answers_between_do_not_add_up() {
        let (server, t0) = (Passive::default(), Instant::now());
        server.failed(LIMITS, t0);
        server.picked(LIMITS, t0 + seconds(11));
        assert!(!server.succeeded(LIMITS));
        assert!(!server.failed(LIMITS, t0 + seconds(12)));
    }

    #[test]
    fn a_cleared_server_is_as_good_as_new() {
        let (server, t0) = (Passive::default(), Instant::now());
        server.failed(LIMITS, t0);
        server.failed(LIMITS, t0);
        server.clear();
        assert!(!server.ejected(LIMITS, t0));
        assert!(!server.failed(LIMITS, t0));
    }

    #[test]
    fn zero_max_fails_never_ejects() {
        let never = Limits { max_fails: 0, ..LIMITS };
        let (server, t0) = (Passive::default(), Instant::now());
        for _ in 0..100 {
            assert!(!server.failed(never, t0));
        }
        assert!(!server.ejected(never, t0));
    }
}
