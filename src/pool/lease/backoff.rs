//! The pause after a failed login: 100 ms, doubling, with jitter, up to a limit. Pure.

use std::time::Duration;

use rand::{Rng, RngExt};

/// The pause after the first failure.
const FIRST: Duration = Duration::from_millis(100);

/// Longest pause while the server is only away (refused, starting up): trying costs it next to nothing, and clients wait.
const AWAY_MAX: Duration = Duration::from_secs(2);

/// Doublings after which the limit is long reached.
const DOUBLINGS_MAX: u32 = 16;

/// Returns how long to wait after `failures` failed logins in a row. `retry` is `server_login_retry`; `away` says that the
/// last failure will likely pass by itself.
pub(super) fn pause(failures: u32, retry: Duration, away: bool, rng: &mut impl Rng) -> Duration {
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
    fn a_server_that_is_only_away_is_tried_every_two_seconds() {
        let mut rng = StdRng::seed_from_u64(1);
        assert!(pause(20, RETRY, true, &mut rng) <= AWAY_MAX);
    }
}
