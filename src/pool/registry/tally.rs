//! How many logged-in clients there are of one database, or of one user, and a place among them.
//!
//! A place is taken and its limit looked at in one step, so that a storm of logins cannot overshoot it. The limit is an
//! argument: a reload changes it for those who come, and who is here stays.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// Of what clients are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// By the name they asked for.
    Database,
    /// By the name they logged in with, whoever their servers are logged in as.
    User,
}

/// One such number.
#[derive(Debug, Default)]
pub struct Tally {
    here: AtomicU32,
}

impl Tally {
    /// Returns how many there are.
    pub fn count(&self) -> u32 {
        self.here.load(Ordering::Relaxed)
    }

    /// Takes a place, unless `limit` are taken. Given back when it is dropped.
    pub fn take(self: &Arc<Self>, limit: Option<u32>) -> Option<Place> {
        let limit = limit.unwrap_or(u32::MAX);
        let one_more = |here: u32| (here < limit).then_some(here + 1);
        self.here.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Place(self.clone()))
    }
}

/// A client's place.
#[derive(Debug)]
pub struct Place(Arc<Tally>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.here.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_place_is_taken_once_and_given_back() {
        let tally = Arc::new(Tally::default());
        let first = tally.take(Some(1)).unwrap();
        assert!(tally.take(Some(1)).is_none());
        assert_eq!(tally.count(), 1);
        drop(first);
        assert!(tally.take(Some(1)).is_some());
    }

    #[test]
    fn a_lower_limit_sends_nobody_away_and_a_higher_one_lets_more_in() {
        let tally = Arc::new(Tally::default());
        let _here: Vec<_> = (0..5).map(|_| tally.take(None).unwrap()).collect();
        assert!(tally.take(Some(3)).is_none());
        assert!(tally.take(Some(6)).is_some());
    }

    #[test]
    fn a_storm_does_not_overshoot() {
        let tally = Arc::new(Tally::default());
        let taken: usize = std::thread::scope(|scope| {
            let take = || {
                let places: Vec<_> = (0..100).filter_map(|_| tally.take(Some(150))).collect();
                let count = places.len();
                std::mem::forget(places);
                count
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((taken, tally.count()), (150, 150));
    }
}
