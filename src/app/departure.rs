//! How the process leaves, as a value: told what happens and when, it says which phase holds and when to ask again.
//!
//! Running → (stop) Leaving → (pre_stop_delay) Draining → (idle, or grace_period) Cutting → Gone. A second stop cuts at
//! once. Pure: no clock, no signals, no sockets, so every edge is a test.

use std::time::Duration;

use tokio::time::Instant;

use crate::{config::lb::Shutdown, health::drain::Phase};

/// After the cut, sessions may still send their last words (a close frame, an ErrorResponse).
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The states. Left by the events named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// `stop`
    Running,
    /// `tick` at `until`; `stop` cuts.
    Leaving {
        until: Instant,
    },
    /// `idle`; `tick` at `deadline`; `stop` cuts.
    Draining {
        deadline: Instant,
    },
    /// `idle`; `tick` at `until`.
    Cutting {
        until: Instant,
    },
    Gone,
}

/// The state machine.
#[derive(Debug)]
pub struct Departure {
    state: State,
    grace_period: Duration,
}

impl Default for Departure {
    fn default() -> Self {
        Self { state: State::Running, grace_period: Duration::ZERO }
    }
}

impl Departure {
    /// The process was asked to stop; `shutdown` are the settings that hold now.
    pub fn stop(&mut self, shutdown: Shutdown, now: Instant) {
        match self.state {
            State::Running => {
                self.grace_period = shutdown.grace_period;
                self.state = State::Leaving { until: now + shutdown.pre_stop_delay };
                self.tick(now);
            }
            State::Leaving { .. } | State::Draining { .. } => self.cut(now),
            State::Cutting { .. } | State::Gone => {}
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) {
        match self.state {
            State::Leaving { until } if now >= until => {
                self.state = State::Draining { deadline: now + self.grace_period };
            }
            State::Draining { deadline } if now >= deadline => self.cut(now),
            State::Cutting { until } if now >= until => self.state = State::Gone,
            _ => {}
        }
    }

    /// Nothing is in flight any more.
    pub fn idle(&mut self) {
        if matches!(self.state, State::Draining { .. } | State::Cutting { .. }) {
            self.state = State::Gone;
        }
    }

    fn cut(&mut self, now: Instant) {
        self.state = State::Cutting { until: now + LAST_WORDS };
    }

    /// Returns the phase everyone is to see.
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Running => Phase::Running,
            State::Leaving { .. } => Phase::Leaving,
            State::Draining { deadline } => Phase::Draining { deadline },
            State::Cutting { .. } | State::Gone => Phase::Cut,
        }
    }

    /// Returns when [`Self::tick`] is due.
    pub fn wakes_at(&self) -> Option<Instant> {
        match self.state {
            State::Running | State::Gone => None,
            State::Leaving { until } | State::Cutting { until } => Some(until),
            State::Draining { deadline } => Some(deadline),
        }
    }

    /// Returns whether [`Self::idle`] is worth waiting for.
    pub fn waits_for_idle(&self) -> bool {
        matches!(self.state, State::Draining { .. } | State::Cutting { .. })
    }

    /// Returns whether the process may end.
    pub fn is_gone(&self) -> bool {
        self.state == State::Gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHUTDOWN: Shutdown =
        Shutdown { pre_stop_delay: Duration::from_secs(5), grace_period: Duration::from_secs(30) };

    fn seconds(begin: Instant, seconds: u64) -> Instant {
        begin + Duration::from_secs(seconds)
    }

    #[test]
    fn a_stop_waits_for_the_delay_then_drains_then_cuts_at_the_deadline() {
        let (mut departure, begin) = (Departure::default(), Instant::now());
        assert_eq!(departure.wakes_at(), None);
        departure.stop(SHUTDOWN, begin);
        assert_eq!(departure.phase(), Phase::Leaving);
        assert_eq!(departure.wakes_at(), Some(seconds(begin, 5)));
        departure.tick(seconds(begin, 4));
        assert_eq!(departure.phase(), Phase::Leaving);
        departure.tick(seconds(begin, 5));
        assert_eq!(departure.phase(), Phase::Draining { deadline: seconds(begin, 35) });
        departure.tick(seconds(begin, 35));
        assert_eq!(departure.phase(), Phase::Cut);
        assert!(!departure.is_gone(), "last words");
        departure.tick(seconds(begin, 36));
        assert!(departure.is_gone());
    }

    #[test]
    fn nothing_in_flight_ends_draining_at_once() {
        let (mut departure, begin) = (Departure::default(), Instant::now());
        departure.stop(Shutdown { pre_stop_delay: Duration::ZERO, ..SHUTDOWN }, begin);
        assert!(matches!(departure.phase(), Phase::Draining { .. }), "no delay, no detour");
        departure.idle();
        assert!(departure.is_gone());
    }

    #[test]
    fn being_idle_does_not_shorten_the_delay() {
        let (mut departure, begin) = (Departure::default(), Instant::now());
        departure.idle();
        assert_eq!(departure.phase(), Phase::Running);
        departure.stop(SHUTDOWN, begin);
        departure.idle();
        assert_eq!(departure.phase(), Phase::Leaving);
    }

    #[test]
    fn a_second_stop_cuts_in_either_phase() {
        for ticks in [0, 6] {
            let (mut departure, begin) = (Departure::default(), Instant::now());
            departure.stop(SHUTDOWN, begin);
            departure.tick(seconds(begin, ticks));
            departure.stop(SHUTDOWN, seconds(begin, ticks));
            assert_eq!(departure.phase(), Phase::Cut);
            departure.idle();
            assert!(departure.is_gone());
        }
    }

    #[test]
    fn further_stops_do_not_put_the_end_off() {
        let (mut departure, begin) = (Departure::default(), Instant::now());
        departure.stop(SHUTDOWN, begin);
        departure.stop(SHUTDOWN, begin);
        let end = departure.wakes_at();
        departure.stop(SHUTDOWN, begin + LAST_WORDS / 2);
        assert_eq!(departure.wakes_at(), end);
    }
}
