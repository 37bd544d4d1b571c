//! Two servers at random, and the better of the two: nearly as even as knowing the best of all, and no two balancers that
//! know the same run after the same server ("the power of two choices", Mitzenmacher 2001).
//!
//! `random` measures requests in flight over the weight (nginx's `random two least_conn`), `ewma` what the next answer is
//! expected to take: the server's average time to a first byte, times the requests it has and this one, over the weight. Both
//! draws are by weight and from those that may be asked.

use super::{Candidates, Key, Select};

/// What of two servers is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    InFlight,
    Latency,
}

/// The weights, and what is compared.
#[derive(Debug)]
pub struct Random {
    weights: Box<[u32]>,
    measure: Measure,
}

impl Random {
    /// Returns it for servers with these weights.
    pub fn new(weights: &[u32], measure: Measure) -> Self {
        Self { weights: weights.into(), measure }
    }

    fn weight(&self, candidates: &dyn Candidates, index: usize) -> u64 {
        u64::from(self.weights[index]) * u64::from(candidates.share(index))
    }

    /// Draws one of those that may be asked, but not `except`.
    fn draw(&self, candidates: &dyn Candidates, except: Option<usize>) -> Option<usize> {
        let those = || (0..self.weights.len()).filter(|&index| Some(index) != except && candidates.may_ask(index));
        let total: u64 = those().map(|index| self.weight(candidates, index)).sum();
        let mut place = candidates.draw(total);
        let mut last = None;
        for index in those() {
            let weight = self.weight(candidates, index);
            if place < weight {
                return Some(index);
            }
            place -= weight;
            last = Some(index);
        }
        // One that may be asked now could not be a moment ago, or the other way round.
        last
    }

    fn cost(&self, candidates: &dyn Candidates, index: usize) -> f64 {
        let work = match self.measure {
            Measure::InFlight => candidates.in_flight(index) as f64,
            Measure::Latency => candidates.expected(index) * (candidates.in_flight(index) + 1) as f64,
        };
        work / self.weight(candidates, index).max(1) as f64
    }
}

impl Select for Random {
    fn pick(&self, candidates: &dyn Candidates, _: &Key) -> Option<usize> {
        let first = self.draw(candidates, None)?;
        let Some(second) = self.draw(candidates, Some(first)) else { return Some(first) };
        let better = self.cost(candidates, second) < self.cost(candidates, first);
        Some(if better { second } else { first })
    }

    fn failed(&self, _: usize, _: u32) {}
}
