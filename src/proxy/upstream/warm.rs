//! `slow_start`: how much of its weight a server has that has just come up. Pure.
//!
//! A Python process that has just started imports, compiles and connects with its first requests; the share of its
//! neighbours at once is what takes it down again. Its weight grows evenly from a sixteenth to the whole over `slow_start`
//! (HAProxy's `slowstart`, nginx Plus's `slow_start`). It begins when a check brings a server up that was down, when a server
//! comes back from ejection or draining, and when a reload brings it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// The whole weight.
pub const WHOLE: u32 = 256;
/// What a server begins with.
const LEAST: u32 = WHOLE / 16;

/// When a server came up, if it did while the process ran.
#[derive(Debug)]
pub struct Warmth {
    made: Instant,
    /// Milliseconds from `made`, plus one; 0: never.
    since: AtomicU64,
}

impl Warmth {
    /// Returns that of a server that was there from the beginning.
    pub fn new(now: Instant) -> Self {
        Self { made: now, since: AtomicU64::new(0) }
    }

    /// Takes note that the server has come up.
    pub fn begin(&self, now: Instant) {
        let passed = now.saturating_duration_since(self.made).as_millis();
        self.since.store(u64::try_from(passed).unwrap_or(u64::MAX - 1) + 1, Ordering::Relaxed);
    }

    /// Returns how much of its weight it has, of [`WHOLE`].
    pub fn share(&self, slow_start: Duration, now: Instant) -> u32 {
        let since = self.since.load(Ordering::Relaxed);
        if since == 0 || slow_start.is_zero() {
            return WHOLE;
        }
        let passed = now.saturating_duration_since(self.made).saturating_sub(Duration::from_millis(since - 1));
        let grown = passed.as_secs_f64() / slow_start.as_secs_f64() * f64::from(WHOLE);
        // Below WHOLE after `min`, so it fits.
        (grown.min(f64::from(WHOLE)) as u32).max(LEAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_grows_evenly_from_a_sixteenth_to_the_whole() {
        let (start, ten) = (Instant::now(), Duration::from_secs(10));
        let warmth = Warmth::new(start);
        assert_eq!(warmth.share(ten, start), WHOLE, "it was there from the beginning");
        let up = start + Duration::from_secs(100);
        warmth.begin(up);
        for (seconds, share) in [(0, 16), (5, 128), (10, 256), (1000, 256)] {
            assert_eq!(warmth.share(ten, up + Duration::from_secs(seconds)), share, "after {seconds} s");
        }
        assert_eq!(warmth.share(Duration::ZERO, up), WHOLE);
    }
}
