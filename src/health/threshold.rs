//! Rise and fall: how many results in a row change a mind.
//!
//! HAProxy's meaning: up after `rise` successes in a row, down after `fall` failures in a row. A target that was never
//! proven comes up at its first success and goes down at its first failure, so that a start is quick and still proven.

use std::num::NonZeroU32;

/// What a target is held to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    Unproven,
    Up,
    Down,
}

/// Counts results in a row. Pure.
#[derive(Debug, Clone)]
pub struct Threshold {
    rise: NonZeroU32,
    fall: NonZeroU32,
    health: Health,
    streak: u32,
}

impl Threshold {
    /// Returns an unproven target.
    pub fn new(rise: NonZeroU32, fall: NonZeroU32) -> Self {
        Self { rise, fall, health: Health::Unproven, streak: 0 }
    }

    /// Returns a target of which something is known already (a reload that starts its checks anew).
    pub fn resume(rise: NonZeroU32, fall: NonZeroU32, health: Health) -> Self {
        Self { rise, fall, health, streak: 0 }
    }

    /// Returns what the target is held to be.
    pub fn health(&self) -> Health {
        self.health
    }

    /// Takes new limits and keeps what is known (a reload).
    pub fn set_limits(&mut self, rise: NonZeroU32, fall: NonZeroU32) {
        self.rise = rise;
        self.fall = fall;
    }

    /// Takes one result; returns the new health if it changed.
    pub fn record(&mut self, success: bool) -> Option<Health> {
        let needed = match (self.health, success) {
            (Health::Unproven, _) => 1,
            (Health::Down, true) => self.rise.get(),
            (Health::Up, false) => self.fall.get(),
            (Health::Up, true) | (Health::Down, false) => {
                self.streak = 0;
                return None;
            }
        };
        self.streak += 1;
        if self.streak < needed {
            return None;
        }
        self.streak = 0;
        self.health = if success { Health::Up } else { Health::Down };
        Some(self.health)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threshold(rise: u32, fall: u32) -> Threshold {
        Threshold::new(NonZeroU32::new(rise).unwrap(), NonZeroU32::new(fall).unwrap())
    }

    #[test]
    fn a_first_result_decides_at_once() {
        assert_eq!(threshold(3, 3).record(true), Some(Health::Up));
        assert_eq!(threshold(3, 3).record(false), Some(Health::Down));
    }

    #[test]
    fn only_failures_in_a_row_take_a_target_down() {
        let mut target = threshold(2, 3);
        target.record(true);
        for success in [false, false, true, false, false] {
            assert_eq!(target.record(success), None);
        }
        assert_eq!(target.record(false), Some(Health::Down));
    }

    #[test]
    fn a_target_that_was_down_must_rise() {
        let mut target = threshold(2, 1);
        target.record(false);
        assert_eq!(target.record(true), None);
        assert_eq!(target.record(false), None);
        assert_eq!(target.record(true), None);
        assert_eq!(target.record(true), Some(Health::Up));
    }
}
