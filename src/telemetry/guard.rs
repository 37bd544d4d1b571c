//! A gauge that counts what exists: up when the guard is made, down when it is dropped.
//!
//! Pairs of `inc()` and `dec()` lose count at the first early return, cancelled future or panic. A value that is stored
//! beside what it counts cannot.

use prometheus::IntGauge;

/// Counts one on a gauge for as long as it lives.
#[derive(Debug)]
#[must_use = "the gauge goes down again as soon as this is dropped"]
pub struct GaugeGuard {
    gauge: IntGauge,
}

impl GaugeGuard {
    /// Counts one more. The gauge is a handle (an `Arc` inside), not a copy.
    pub fn hold(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self { gauge: gauge.clone() }
    }

    /// Moves this one from its gauge to another: a state machine's transition.
    pub fn move_to(&mut self, gauge: &IntGauge) {
        gauge.inc();
        self.gauge.dec();
        self.gauge = gauge.clone();
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gauge(name: &str) -> IntGauge {
        IntGauge::new(name, "for the test").unwrap()
    }

    #[test]
    fn the_gauge_is_the_number_of_guards_alive() {
        let open = gauge("open");
        let first = GaugeGuard::hold(&open);
        let second = GaugeGuard::hold(&open);
        assert_eq!(open.get(), 2);
        drop(first);
        assert_eq!(open.get(), 1);
        drop(second);
        assert_eq!(open.get(), 0);
    }

    #[test]
    fn a_moved_guard_leaves_nothing_behind() {
        let (idle, active) = (gauge("idle"), gauge("active"));
        let mut guard = GaugeGuard::hold(&idle);
        guard.move_to(&active);
        assert_eq!((idle.get(), active.get()), (0, 1));
        drop(guard);
        assert_eq!((idle.get(), active.get()), (0, 0));
    }

    #[test]
    fn a_panic_takes_the_guard_with_it() {
        let open = gauge("open");
        let held = open.clone();
        let panicked = std::thread::spawn(move || {
            let _guard = GaugeGuard::hold(&held);
            panic!("a request went wrong");
        })
        .join();
        assert!(panicked.is_err());
        assert_eq!(open.get(), 0);
    }
}
