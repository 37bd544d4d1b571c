//! How one of several servers is chosen. Pure: weights, who may be asked, what they are doing and the key come in, an index
//! goes out.
//!
//! A way of choosing is a file with a type that implements [`Select`] and a line in [`Selector`]. It never learns why a
//! server may not be asked (down, ejected, full, tried already): [`Candidates::may_ask`] says yes or no. Calls go through an
//! enum rather than a box, so that picking stays a jump in the same cache lines.

mod consistent_hash;
mod ip_hash;
mod least_conn;
mod random;
mod round_robin;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use crate::config::lb::Balance;

pub use consistent_hash::{ConsistentHash, hash};
pub use ip_hash::IpHash;
pub use least_conn::LeastConn;
pub use random::{Measure, Random};
pub use round_robin::RoundRobin;

/// The servers to choose from as they are now; their order and number is the one the selector was made with.
pub trait Candidates {
    /// Returns whether the server with this index may be asked for this request.
    fn may_ask(&self, index: usize) -> bool;

    /// Returns how many servers this request was already sent to.
    fn tried(&self) -> usize;

    /// Returns the requests and WebSockets at a server.
    fn in_flight(&self, index: usize) -> usize;

    /// Returns how much of its weight a server has, of [`super::warm::WHOLE`].
    fn share(&self, index: usize) -> u32;

    /// Returns the seconds that a server's answer is expected to take.
    fn expected(&self, index: usize) -> f64;

    /// Returns a random number below `end`, 0 if that is 0.
    fn draw(&self, end: u64) -> u64;
}

/// What of a request may decide.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    pub client: IpAddr,
    /// Of what the upstream's `hash` asks for; `None` where the request lacks it.
    pub hash: Option<u64>,
}

/// A server as a selector knows it.
#[derive(Debug, Clone, Copy)]
pub struct Weighted<'a> {
    pub name: &'a str,
    pub weight: u32,
}

/// A way of choosing a server.
pub trait Select: Send + Sync {
    /// Returns the index of a server that may be asked, `None` if no server may.
    fn pick(&self, candidates: &dyn Candidates, key: &Key) -> Option<usize>;

    /// Learns that the server failed a request. `max_fails` is its limit, 0 = failures do not count.
    fn failed(&self, index: usize, max_fails: u32);
}

/// Every way there is.
#[derive(Debug)]
pub enum Selector {
    RoundRobin(RoundRobin),
    LeastConn(LeastConn),
    IpHash(IpHash),
    Random(Random),
    ConsistentHash(ConsistentHash),
}

impl Selector {
    /// Returns a selector over these servers, in this order.
    pub fn new(balance: &Balance, servers: &[Weighted<'_>]) -> Self {
        let weights: Vec<u32> = servers.iter().map(|server| server.weight).collect();
        match balance {
            Balance::RoundRobin => Self::RoundRobin(RoundRobin::new(&weights)),
            Balance::LeastConn => Self::LeastConn(LeastConn::new(&weights)),
            Balance::IpHash => Self::IpHash(IpHash::new(&weights)),
            Balance::Random => Self::Random(Random::new(&weights, Measure::InFlight)),
            Balance::Ewma => Self::Random(Random::new(&weights, Measure::Latency)),
            Balance::ConsistentHash(hash) => Self::ConsistentHash(ConsistentHash::new(servers, hash.balance_factor)),
        }
    }
}

impl Select for Selector {
    fn pick(&self, candidates: &dyn Candidates, key: &Key) -> Option<usize> {
        match self {
            Self::RoundRobin(selector) => selector.pick(candidates, key),
            Self::LeastConn(selector) => selector.pick(candidates, key),
            Self::IpHash(selector) => selector.pick(candidates, key),
            Self::Random(selector) => selector.pick(candidates, key),
            Self::ConsistentHash(selector) => selector.pick(candidates, key),
        }
    }

    fn failed(&self, index: usize, max_fails: u32) {
        match self {
            Self::RoundRobin(selector) => selector.failed(index, max_fails),
            Self::LeastConn(selector) => selector.failed(index, max_fails),
            Self::IpHash(selector) => selector.failed(index, max_fails),
            Self::Random(selector) => selector.failed(index, max_fails),
            Self::ConsistentHash(selector) => selector.failed(index, max_fails),
        }
    }
}
