//! How fast a server has answered lately: a moving average that rises at once and falls slowly.
//!
//! "Peak EWMA", as Finagle and linkerd have it: an answer that took longer than the average becomes the average, a faster one
//! pulls it down by as much as time has passed, and while nothing comes it falls towards nothing, so that a server that was
//! slow is tried again. Times are to the first byte of an answer. Pure: the clock is an argument.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// After this long an old answer has a third of its weight (1/e).
const DECAY: Duration = Duration::from_secs(10);
/// What is expected of a server that has not answered yet: neither shunned nor overrun.
const EXPECTED: Duration = Duration::from_millis(30);
/// As what a request counts that the server failed: an answer, however quick, that nobody wants again soon.
const FAILED: Duration = Duration::from_secs(5);

/// The average of one server.
#[derive(Debug, Default)]
pub struct Latency(Mutex<Option<Average>>);

#[derive(Debug, Clone, Copy)]
struct Average {
    seconds: f64,
    at: Instant,
}

impl Latency {
    /// Takes note of an answer.
    pub fn answered(&self, took: Duration, now: Instant) {
        let mut average = self.0.lock();
        *average = Some(match *average {
            None => Average { seconds: took.as_secs_f64(), at: now },
            Some(before) => before.after(took.as_secs_f64(), now),
        });
    }

    /// Takes note of a request that the server failed.
    pub fn failed(&self, now: Instant) {
        self.answered(FAILED, now);
    }

    /// Returns the seconds an answer is expected to take.
    pub fn expected(&self, now: Instant) -> f64 {
        self.0.lock().map_or(EXPECTED.as_secs_f64(), |average| average.seconds * average.weight(now))
    }
}

impl Average {
    fn after(self, took: f64, now: Instant) -> Self {
        let old = self.weight(now);
        let seconds = if took >= self.seconds { took } else { self.seconds * old + took * (1.0 - old) };
        Self { seconds, at: now }
    }

    fn weight(self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.at);
        (-passed.as_secs_f64() / DECAY.as_secs_f64()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn it_rises_at_once_and_falls_slowly() {
        let (latency, start) = (Latency::default(), Instant::now());
        latency.answered(10 * MS, start);
        latency.answered(500 * MS, start + 10 * MS);
        assert!((latency.expected(start + 10 * MS) - 0.5).abs() < 1e-9);
        latency.answered(10 * MS, start + 20 * MS);
        assert!(latency.expected(start + 20 * MS) > 0.49, "one quick answer does not make it quick");
        for second in 1..40 {
            latency.answered(10 * MS, start + second * 1000 * MS);
        }
        assert!(latency.expected(start + 40_000 * MS) < 0.02);
    }

    #[test]
    fn who_is_not_asked_is_forgiven() {
        let (latency, start) = (Latency::default(), Instant::now());
        latency.failed(start);
        assert!(latency.expected(start) > 4.0);
        assert!(latency.expected(start + 60_000 * MS) < 0.02);
    }

    #[test]
    fn who_never_answered_is_neither_first_nor_last() {
        let (quick, slow, new, now) = (Latency::default(), Latency::default(), Latency::default(), Instant::now());
        quick.answered(MS, now);
        slow.answered(300 * MS, now);
        assert!(quick.expected(now) < new.expected(now) && new.expected(now) < slow.expected(now));
    }
}
