//! When to log in again after failed logins: after 100 ms, doubling, with jitter, up to a limit. Pure.
//!
//! Several logins are under way at a time, and a server that goes away fails them all at once. That is one failure: a login
//! counts only when nothing was counted since it began. Otherwise four refused connections of one moment made the pause
//! 92, 166, 355 and 639 ms, and the clients waited on for a server that was back.

use std::time::Duration;

use rand::{Rng, RngExt};
use tokio::time::Instant;

use crate::pool::server::error::ServerError;

/// The pause after the first failure.
const FIRST: Duration = Duration::from_millis(100);

/// Longest pause while the server is only away (refused, starting up): one try per pool costs it next to nothing, clients
/// wait, and a restart takes PostgreSQL a second or two. They wait this much longer than that at most.
const AWAY_MAX: Duration = Duration::from_millis(500);

/// Doublings after which the limit is long reached.
const DOUBLINGS_MAX: u32 = 16;

/// How the last logins went.
#[derive(Debug, Default)]
pub(super) struct Logins {
    /// Failures in a row.
    failures: u32,
    not_before: Option<Instant>,
    error: Option<ServerError>,
    /// How often something was counted, or everything was forgotten.
    epoch: u64,
}

/// What a login that begins now has seen: whatever is counted later, it has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Begun(u64);

impl Logins {
    /// Returns what [`Self::failed`] must know of a login that begins now.
    pub(super) fn begin(&self) -> Begun {
        Begun(self.epoch)
    }

    /// A login failed. Returns the pause that follows, or `None` if it was part of what was counted already.
    pub(super) fn failed(
        &mut self,
        begun: Begun,
        error: &ServerError,
        retry: Duration,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Option<Duration> {
        if begun != self.begin() {
            return None;
        }
        self.epoch += 1;
        self.failures = self.failures.saturating_add(1);
        let pause = pause(self.failures, retry, error.is_transient(), rng);
        self.not_before = Some(now + pause);
        self.error = Some(error.clone());
        Some(pause)
    }

    /// A login worked.
    pub(super) fn worked(&mut self) {
        *self = Self { epoch: self.epoch, ..Self::default() };
    }

    /// Forgets what went wrong: the server or the way to it has changed. What fails now and began before tells nothing.
    pub(super) fn forget(&mut self) {
        self.worked();
        self.epoch += 1;
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    pub(super) fn not_before(&self) -> Option<Instant> {
        self.not_before
    }

    pub(super) fn error(&self) -> Option<&ServerError> {
        self.error.as_ref()
    }
}

/// Returns how long to wait after `failures` failed logins in a row. `retry` is `server_login_retry`; `away` says that the
/// last failure will likely pass by itself.
fn pause(failures: u32, retry: Duration, away: bool, rng: &mut impl Rng) -> Duration {
    let limit = if away { retry.min(AWAY_MAX) } else { retry };
    let doubled = FIRST * 2u32.pow(failures.saturating_sub(1).min(DOUBLINGS_MAX));
    // Jitter: pools of many processes that lost the same server do not come back in step.
    doubled.min(limit).mul_f64(rng.random_range(0.75..=1.0))
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    const RETRY: Duration = Duration::from_secs(15);

    #[test]
    fn pauses_double_from_100_ms_and_stop_at_the_limit() {
        let mut rng = StdRng::seed_from_u64(1);
        for (failures, full) in [(1, 100), (2, 200), (3, 400), (8, 12_800), (9, 15_000), (u32::MAX, 15_000)] {
            let pause = pause(failures, RETRY, false, &mut rng);
            let full = Duration::from_millis(full);
            assert!(pause <= full && pause >= full.mul_f64(0.75), "{failures}: {pause:?}");
        }
    }

    #[test]
    fn a_server_that_is_only_away_is_tried_twice_a_second() {
        let mut rng = StdRng::seed_from_u64(1);
        assert!(pause(20, RETRY, true, &mut rng) <= AWAY_MAX);
    }

    /// What went wrong first is what waiting clients are told; only its own pause holds.
    #[tokio::test]
    async fn logins_that_were_under_way_together_fail_as_one() {
        let (mut logins, mut rng, now) = (Logins::default(), StdRng::seed_from_u64(1), Instant::now());
        let mut fail = |logins: &mut Logins, begun, error| logins.failed(begun, &error, RETRY, now, &mut rng);
        let (first, second, third) = (logins.begin(), logins.begin(), logins.begin());
        assert!(fail(&mut logins, first, ServerError::Closed).is_some());
        let not_before = logins.not_before();
        assert_eq!(fail(&mut logins, second, ServerError::Timeout), None);
        assert_eq!((logins.failures(), logins.not_before()), (1, not_before));
        assert_eq!(logins.error(), Some(&ServerError::Closed));

        let alone = logins.begin();
        assert!(fail(&mut logins, alone, ServerError::Closed).is_some());
        assert_eq!(fail(&mut logins, third, ServerError::Timeout), None);
        assert_eq!(logins.failures(), 2);
    }

    #[tokio::test]
    async fn a_login_that_began_before_the_server_was_found_back_tells_nothing() {
        let (mut logins, mut rng, now) = (Logins::default(), StdRng::seed_from_u64(1), Instant::now());
        let begun = logins.begin();
        logins.forget();
        assert_eq!(logins.failed(begun, &ServerError::Closed, RETRY, now, &mut rng), None);
        assert_eq!((logins.failures(), logins.not_before(), logins.error()), (0, None, None));
    }
}
