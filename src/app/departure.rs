//! How the process leaves, as a value: told what happens and when, it says which phase holds for each half and when to ask
//! again.
//!
//! Running → (stop) Leaving → (pre_stop_delay) FrontDraining → (the front idle, or its share of grace_period) PoolDraining →
//! (idle, or grace_period) Cutting → Gone. Told to wait for clients, the pool is PoolClosed until they have gone by themselves,
//! and drains nobody. A second stop cuts at once. The pool goes on serving while the front drains: the requests in flight are
//! Django's, and Django finishes them with the database behind the pool. Two programs told to stop at the same moment cannot
//! do this. Pure: no clock, no signals, no sockets, so every edge is a test.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    config::lb::Shutdown,
    health::drain::{Phase, WaitFor},
};

/// After the cut, sessions may still send their last words (a close frame, an ErrorResponse).
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Of the grace period, how much the front may take before the pool must drain too.
const FRONT_SHARE: f64 = 0.75;

/// The states. Left by the events named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// `stop`
    Running,
    /// `tick` at `until`; `stop` cuts.
    Leaving {
        until: Instant,
    },
    /// `front_idle`; `tick` at `until`; `stop` cuts.
    FrontDraining {
        until: Instant,
        deadline: Instant,
    },
    /// `idle`; a wish to wait for transactions only; `stop` cuts; `tick` at the first of `end`, when the second is the deadline.
    /// Without an end of its own where there is none.
    PoolClosed {
        front: Instant,
        end: Option<(Instant, Instant)>,
    },
    /// `idle`; `tick` at `deadline`; `stop` cuts.
    PoolDraining {
        front: Instant,
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
    /// Whether the pool's clients are to go by themselves.
    waits_for_clients: bool,
    /// Whether that has an end.
    in_time: bool,
}

impl Default for Departure {
    fn default() -> Self {
        Self { state: State::Running, grace_period: Duration::ZERO, waits_for_clients: false, in_time: false }
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
            State::Leaving { .. }
            | State::FrontDraining { .. }
            | State::PoolClosed { .. }
            | State::PoolDraining { .. } => self.cut(now),
            State::Cutting { .. } | State::Gone => {}
        }
    }

    /// The process was asked to stop when the pool's clients have gone, and all the same within the grace period: in its last
    /// quarter those who are left are drained.
    pub fn stop_for_clients(&mut self, shutdown: Shutdown, now: Instant) {
        if self.state == State::Running {
            (self.waits_for_clients, self.in_time) = (true, true);
        }
        self.stop(shutdown, now);
    }

    /// The pool's console was told SHUTDOWN. Unlike a signal, the same wish again changes nothing, and a more patient one
    /// does not put the end off.
    pub fn leave(&mut self, wait_for: WaitFor, shutdown: Shutdown, now: Instant) {
        match (wait_for, self.state) {
            (_, State::Cutting { .. } | State::Gone) => {}
            (WaitFor::Nothing, _) => self.cut(now),
            (WaitFor::Transactions | WaitFor::Clients, State::Running) => {
                self.waits_for_clients = wait_for == WaitFor::Clients;
                self.stop(shutdown, now);
            }
            (WaitFor::Transactions, State::PoolClosed { front, end }) => {
                let deadline = end.map_or(now + self.grace_period, |(_, deadline)| deadline);
                self.state = State::PoolDraining { front, deadline };
            }
            (WaitFor::Transactions, _) => self.waits_for_clients = false,
            (WaitFor::Clients, _) => {}
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) {
        match self.state {
            State::Leaving { until } if now >= until => {
                let until = now + self.grace_period.mul_f64(FRONT_SHARE);
                self.state = State::FrontDraining { until, deadline: now + self.grace_period };
            }
            State::FrontDraining { until, .. } if now >= until => self.front_idle(),
            State::PoolClosed { front, end: Some((from, deadline)) } if now >= from => {
                self.state = State::PoolDraining { front, deadline };
            }
            State::PoolDraining { deadline, .. } if now >= deadline => self.cut(now),
            State::Cutting { until } if now >= until => self.state = State::Gone,
            _ => {}
        }
    }

    /// Nothing of the front is in flight any more.
    pub fn front_idle(&mut self) {
        if let State::FrontDraining { until: front, deadline } = self.state {
            self.state = if self.waits_for_clients {
                let drain = deadline.checked_sub(self.grace_period.mul_f64(1.0 - FRONT_SHARE)).unwrap_or(deadline);
                State::PoolClosed { front, end: self.in_time.then_some((drain, deadline)) }
            } else {
                State::PoolDraining { front, deadline }
            };
        }
    }

    /// Nothing at all is in flight any more.
    pub fn idle(&mut self) {
        if self.waits_for_idle() {
            self.state = State::Gone;
        }
    }

    fn cut(&mut self, now: Instant) {
        self.state = State::Cutting { until: now + LAST_WORDS };
    }

    /// Returns the phase the front is to see.
    pub fn front(&self) -> Phase {
        match self.state {
            State::Running => Phase::Running,
            State::Leaving { .. } => Phase::Leaving,
            State::FrontDraining { until: deadline, .. }
            | State::PoolClosed { front: deadline, .. }
            | State::PoolDraining { front: deadline, .. } => Phase::Draining { deadline },
            State::Cutting { .. } | State::Gone => Phase::Cut,
        }
    }

    /// Returns the phase the pool is to see.
    pub fn pool(&self) -> Phase {
        match self.state {
            State::Running => Phase::Running,
            State::Leaving { .. } | State::FrontDraining { .. } => Phase::Leaving,
            State::PoolClosed { .. } => Phase::Closed,
            State::PoolDraining { deadline, .. } => Phase::Draining { deadline },
            State::Cutting { .. } | State::Gone => Phase::Cut,
        }
    }

    /// Returns when [`Self::tick`] is due.
    pub fn wakes_at(&self) -> Option<Instant> {
        match self.state {
            State::Running | State::PoolClosed { end: None, .. } | State::Gone => None,
            State::PoolClosed { end: Some((until, _)), .. } => Some(until),
            State::Leaving { until } | State::FrontDraining { until, .. } | State::Cutting { until } => Some(until),
            State::PoolDraining { deadline, .. } => Some(deadline),
        }
    }

    /// Returns whether [`Self::front_idle`] is worth waiting for.
    pub fn waits_for_front(&self) -> bool {
        matches!(self.state, State::FrontDraining { .. })
    }

    /// Returns whether [`Self::idle`] is worth waiting for.
    pub fn waits_for_idle(&self) -> bool {
        matches!(self.state, State::PoolClosed { .. } | State::PoolDraining { .. } | State::Cutting { .. })
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
        Shutdown { pre_stop_delay: Duration::from_secs(5), grace_period: Duration::from_secs(40) };
    const AT_ONCE: Shutdown = Shutdown { pre_stop_delay: Duration::ZERO, ..SHUTDOWN };

    fn seconds(begin: Instant, seconds: u64) -> Instant {
        begin + Duration::from_secs(seconds)
    }

    #[test]
    fn the_front_goes_first_the_pool_follows_and_the_deadline_cuts_both() {
        let (mut departure, begin) = (Departure::default(), Instant::now());
        assert_eq!(departure.wakes_at(), None);
        departure.stop(SHUTDOWN, begin);
        assert_eq!((departure.front(), departure.pool()), (Phase::Leaving, Phase::Leaving));
        departure.tick(seconds(begin, 4));
        assert_eq!(departure.front(), Phase::Leaving);
        departure.tick(seconds(begin, 5));
        let front = Phase::Draining { deadline: seconds(begin, 35) };
        assert_eq!((departure.front(), departure.pool()), (front, Phase::Leaving));
        departure.tick(seconds(begin, 35));
        let pool = Phase::Draining { deadline: seconds(begin, 45) };
        assert_eq!((departure.front(), departure.pool()), (front, pool));
        departure.tick(seconds(begin, 45));
        assert_eq!((departure.front(), departure.pool()), (Phase::Cut, Phase::Cut));
        assert!(!departure.is_gone(), "last words");
        departure.tick(seconds(begin, 46));
        assert!(departure.is_gone());
    }

    #[test]
    fn the_pool_follows_as_soon_as_the_front_is_idle() {
        let (mut departure, begin) = (Departure::default(), Instant::now());
        departure.stop(AT_ONCE, begin);
        departure.idle();
        assert!(!departure.is_gone(), "the pool has not been told yet");
        departure.front_idle();
        assert_eq!(departure.pool(), Phase::Draining { deadline: seconds(begin, 40) });
        departure.idle();
        assert!(departure.is_gone());
    }

    #[test]
    fn being_idle_does_not_shorten_the_delay() {
        let (mut departure, begin) = (Departure::default(), Instant::now());
        departure.idle();
        departure.front_idle();
        assert_eq!(departure.front(), Phase::Running);
        departure.stop(SHUTDOWN, begin);
        departure.front_idle();
        departure.idle();
        assert_eq!((departure.front(), departure.pool()), (Phase::Leaving, Phase::Leaving));
    }

    #[test]
    fn a_second_stop_cuts_in_every_phase() {
        for ticks in [0, 6, 36] {
            let (mut departure, begin) = (Departure::default(), Instant::now());
            departure.stop(SHUTDOWN, begin);
            departure.tick(seconds(begin, ticks.min(6)));
            departure.tick(seconds(begin, ticks));
            departure.stop(SHUTDOWN, seconds(begin, ticks));
            assert_eq!((departure.front(), departure.pool()), (Phase::Cut, Phase::Cut));
            departure.idle();
            assert!(departure.is_gone());
        }
    }

    #[test]
    fn a_shutdown_that_waits_for_clients_closes_the_pool_without_a_deadline() {
        let (mut departure, begin) = (Departure::default(), Instant::now());
        departure.leave(WaitFor::Clients, SHUTDOWN, begin);
        assert_eq!(departure.pool(), Phase::Leaving);
        departure.tick(seconds(begin, 5));
        departure.front_idle();
        assert_eq!((departure.pool(), departure.wakes_at()), (Phase::Closed, None));
        departure.tick(seconds(begin, 5_000));
        assert_eq!(departure.pool(), Phase::Closed);
        departure.idle();
        assert!(departure.is_gone());
    }

    #[test]
    fn a_signal_that_waits_for_clients_drains_the_rest_in_time_for_the_deadline() {
        let (mut departure, begin) = (Departure::default(), Instant::now());
        departure.stop_for_clients(AT_ONCE, begin);
        departure.front_idle();
        assert_eq!((departure.pool(), departure.wakes_at()), (Phase::Closed, Some(seconds(begin, 30))));
        departure.tick(seconds(begin, 29));
        assert_eq!(departure.pool(), Phase::Closed);
        departure.tick(seconds(begin, 30));
        assert_eq!(departure.pool(), Phase::Draining { deadline: seconds(begin, 40) });
        departure.tick(seconds(begin, 40));
        assert_eq!(departure.pool(), Phase::Cut);
    }

    #[test]
    fn a_second_signal_cuts_though_the_first_one_waits_for_clients() {
        let (mut departure, begin) = (Departure::default(), Instant::now());
        departure.stop_for_clients(AT_ONCE, begin);
        departure.front_idle();
        departure.stop_for_clients(AT_ONCE, seconds(begin, 1));
        assert_eq!(departure.pool(), Phase::Cut);
    }

    #[test]
    fn a_console_that_is_less_patient_than_the_signal_keeps_its_deadline() {
        let (mut departure, begin) = (Departure::default(), Instant::now());
        departure.stop_for_clients(AT_ONCE, begin);
        departure.front_idle();
        departure.leave(WaitFor::Transactions, AT_ONCE, seconds(begin, 10));
        assert_eq!(departure.pool(), Phase::Draining { deadline: seconds(begin, 40) });
    }

    #[test]
    fn a_shutdown_that_waits_for_less_hastens_one_that_waits_for_clients() {
        for ticks in [0, 5] {
            let (mut departure, begin) = (Departure::default(), Instant::now());
            departure.leave(WaitFor::Clients, SHUTDOWN, begin);
            departure.tick(seconds(begin, ticks));
            departure.front_idle();
            departure.leave(WaitFor::Transactions, SHUTDOWN, seconds(begin, 100));
            departure.tick(seconds(begin, 100));
            departure.front_idle();
            assert_eq!(departure.pool(), Phase::Draining { deadline: seconds(begin, 140) }, "{ticks}");
            departure.leave(WaitFor::Nothing, SHUTDOWN, seconds(begin, 101));
            assert_eq!((departure.front(), departure.pool()), (Phase::Cut, Phase::Cut));
        }
    }

    #[test]
    fn the_same_shutdown_again_cuts_nothing_and_a_more_patient_one_puts_nothing_off() {
        let (mut departure, begin) = (Departure::default(), Instant::now());
        departure.leave(WaitFor::Transactions, AT_ONCE, begin);
        departure.front_idle();
        let draining = Phase::Draining { deadline: seconds(begin, 40) };
        for wait_for in [WaitFor::Transactions, WaitFor::Clients] {
            departure.leave(wait_for, AT_ONCE, seconds(begin, 1));
            assert_eq!(departure.pool(), draining, "{wait_for:?}");
        }
        departure.stop(AT_ONCE, seconds(begin, 2));
        assert_eq!(departure.pool(), Phase::Cut, "a signal does");
    }

    #[test]
    fn a_shutdown_that_waits_for_nothing_cuts_at_once() {
        let (mut departure, begin) = (Departure::default(), Instant::now());
        departure.leave(WaitFor::Nothing, SHUTDOWN, begin);
        assert_eq!((departure.front(), departure.pool()), (Phase::Cut, Phase::Cut));
        departure.leave(WaitFor::Clients, SHUTDOWN, begin);
        departure.tick(begin + LAST_WORDS);
        assert!(departure.is_gone());
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
