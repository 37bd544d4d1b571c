//! Who has failed to log in too often: `auth_failure_limit` failures of one address within `auth_failure_window`.
//!
//! An address is an IPv4 address or the /64 of an IPv6 one, which is what one subscriber gets. Windows are not sliding:
//! one begins with the first failure after the last window, and ends all at once. The table is bounded; when it is full
//! the oldest window gives way, so that a crowd of addresses costs nothing but precision. Pure: the clock is an argument.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::pool::error::PoolError;

/// Addresses that are remembered. 40 bytes each.
const ADDRESSES_MAX: usize = 10_000;

/// The failures of every address.
#[derive(Debug, Default)]
pub struct Throttle {
    windows: Mutex<HashMap<IpAddr, Window, ahash::RandomState>>,
}

/// The limit as it holds for one login.
#[derive(Debug, Clone, Copy)]
pub struct Gate<'a> {
    pub throttle: &'a Throttle,
    /// `None`: a Unix socket, which has no address and no limit.
    pub address: Option<IpAddr>,
    pub limit: Option<u32>,
    pub window: Duration,
}

impl Gate<'_> {
    /// Decides whether this login is heard, or answered: guesses that are under way at the same time are no more than
    /// guesses one after the other.
    ///
    /// # Errors
    /// `TooManyFailures`.
    pub fn pass(&self, now: Instant) -> Result<(), PoolError> {
        let (limit, window) = (self.limit, self.window);
        match self.address.is_none_or(|address| self.throttle.admits(address, limit, window, now)) {
            true => Ok(()),
            false => Err(PoolError::TooManyFailures { limit: limit.unwrap_or_default(), window }),
        }
    }

    /// Counts a failure; returns whether it was the last that is allowed.
    pub fn failed(&self, now: Instant) -> bool {
        self.address.is_some_and(|address| Some(self.throttle.failed(address, self.window, now)) == self.limit)
    }
}

#[derive(Debug, Clone, Copy)]
struct Window {
    begun: Instant,
    failures: u32,
}

impl Throttle {
    /// Returns whether `address` may try. `limit` of `None`: always.
    pub fn admits(&self, address: IpAddr, limit: Option<u32>, window: Duration, now: Instant) -> bool {
        let Some(limit) = limit else { return true };
        let windows = self.windows.lock();
        let failures = windows.get(&subscriber(address)).filter(|w| !w.is_over(window, now)).map_or(0, |w| w.failures);
        failures < limit
    }

    /// Counts a failure; returns how many there are in this window.
    pub fn failed(&self, address: IpAddr, window: Duration, now: Instant) -> u32 {
        let address = subscriber(address);
        let mut windows = self.windows.lock();
        if windows.len() >= ADDRESSES_MAX && !windows.contains_key(&address) {
            windows.retain(|_, old| !old.is_over(window, now));
            if windows.len() >= ADDRESSES_MAX {
                let oldest = windows.iter().min_by_key(|(_, window)| window.begun).map(|(address, _)| *address);
                oldest.and_then(|oldest| windows.remove(&oldest));
            }
        }
        let entry = windows.entry(address).or_insert(Window { begun: now, failures: 0 });
        if entry.is_over(window, now) {
            *entry = Window { begun: now, failures: 0 };
        }
        entry.failures = entry.failures.saturating_add(1);
        entry.failures
    }
}

impl Window {
    fn is_over(&self, length: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.begun) >= length
    }
}

/// Returns what stands for all addresses that one subscriber can take.
fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_that_has_failed_too_often_waits_for_the_end_of_its_window_and_no_other_does() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for count in 1..=3 {
            assert!(throttle.admits(ip("10.0.0.1"), Some(3), WINDOW, now));
            assert_eq!(throttle.failed(ip("10.0.0.1"), WINDOW, now + WINDOW / 2), count);
        }
        let later = now + WINDOW;
        assert!(!throttle.admits(ip("10.0.0.1"), Some(3), WINDOW, later));
        assert!(!throttle.admits(ip("::ffff:10.0.0.1"), Some(3), WINDOW, later));
        assert!(throttle.admits(ip("10.0.0.2"), Some(3), WINDOW, later));
        assert!(throttle.admits(ip("10.0.0.1"), None, WINDOW, later));
        assert!(throttle.admits(ip("10.0.0.1"), Some(3), WINDOW, later + WINDOW / 2));
        assert_eq!(throttle.failed(ip("10.0.0.1"), WINDOW, later + WINDOW), 1);
    }

    #[test]
    fn all_addresses_of_one_subscriber_count_as_one() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        throttle.failed(ip("2001:db8:1:2:3:4:5:6"), WINDOW, now);
        assert!(!throttle.admits(ip("2001:db8:1:2::9"), Some(1), WINDOW, now));
        assert!(throttle.admits(ip("2001:db8:1:3::9"), Some(1), WINDOW, now));
    }

    #[test]
    fn a_crowd_of_addresses_stays_within_the_bound_and_pushes_out_the_oldest() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for number in 0..ADDRESSES_MAX as u32 + 10 {
            throttle.failed(IpAddr::from(number.to_be_bytes()), WINDOW, now + Duration::from_micros(number.into()));
        }
        assert_eq!(throttle.windows.lock().len(), ADDRESSES_MAX);
        let now = now + WINDOW / 2;
        assert!(throttle.admits(IpAddr::from(5u32.to_be_bytes()), Some(1), WINDOW, now));
        assert!(!throttle.admits(IpAddr::from(10_005u32.to_be_bytes()), Some(1), WINDOW, now));
    }
}
