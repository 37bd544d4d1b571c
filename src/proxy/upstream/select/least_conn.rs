//! The server that has the least to do for its weight (nginx's `least_conn`, HAProxy's `leastconn`).
//!
//! What counts is requests and WebSockets in flight, over the weight. Servers that have equally little take turns by smooth
//! weighted round robin (ngx_http_upstream_least_conn_module.c): otherwise the first of the file would get every request of a
//! quiet hour.

use super::{Candidates, Key, RoundRobin, Select};

/// The weights, and the turn of those that have equally little.
#[derive(Debug)]
pub struct LeastConn {
    weights: Box<[u32]>,
    turns: RoundRobin,
}

/// Work over weight, as two numbers so that nothing is rounded.
#[derive(Debug, Clone, Copy)]
struct Load {
    work: u64,
    weight: u64,
}

impl Load {
    fn less_than(self, other: Self) -> bool {
        self.work * other.weight < other.work * self.weight
    }
}

impl LeastConn {
    /// Returns it for servers with these weights.
    pub fn new(weights: &[u32]) -> Self {
        Self { weights: weights.into(), turns: RoundRobin::new(weights) }
    }

    fn load(&self, candidates: &dyn Candidates, index: usize) -> Load {
        let weight = u64::from(self.weights[index]) * u64::from(candidates.share(index));
        Load { work: candidates.in_flight(index) as u64, weight }
    }
}

/// Only those that have least to do.
struct Idlest<'a> {
    all: &'a dyn Candidates,
    of: &'a LeastConn,
    least: Load,
}

impl Candidates for Idlest<'_> {
    fn may_ask(&self, index: usize) -> bool {
        self.all.may_ask(index) && !self.least.less_than(self.of.load(self.all, index))
    }

    fn tried(&self) -> usize {
        self.all.tried()
    }

    fn in_flight(&self, index: usize) -> usize {
        self.all.in_flight(index)
    }

    fn share(&self, index: usize) -> u32 {
        self.all.share(index)
    }

    fn expected(&self, index: usize) -> f64 {
        self.all.expected(index)
    }

    fn draw(&self, end: u64) -> u64 {
        self.all.draw(end)
    }
}

impl Select for LeastConn {
    fn pick(&self, candidates: &dyn Candidates, key: &Key) -> Option<usize> {
        let loads = (0..self.weights.len())
            .filter(|&index| candidates.may_ask(index))
            .map(|index| self.load(candidates, index));
        let least = loads.reduce(|least, load| if load.less_than(least) { load } else { least })?;
        let idlest = Idlest { all: candidates, of: self, least };
        // They may all have been given something meanwhile.
        self.turns.pick(&idlest, key).or_else(|| self.turns.pick(candidates, key))
    }

    fn failed(&self, index: usize, max_fails: u32) {
        self.turns.failed(index, max_fails);
    }
}
