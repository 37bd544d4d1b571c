//! How one of several servers is chosen. Pure: weights, who may be asked and the key come in, an index goes out.
//!
//! A way of choosing is a file with a type that implements [`Select`] and a line in [`Selector`]. It never learns why a
//! server may not be asked (down, ejected, tried already): [`Candidates::may_ask`] says yes or no. Calls go through an enum
//! rather than a box, so that picking stays a jump in the same cache lines.

mod ip_hash;
mod round_robin;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use crate::config::lb::Balance;

pub use ip_hash::IpHash;
pub use round_robin::RoundRobin;

/// The servers to choose from; their order and number is the one the selector was made with.
pub struct Candidates<'a> {
    /// Whether the server with this index may be asked for this request.
    pub may_ask: &'a dyn Fn(usize) -> bool,
    /// Servers this request was already sent to.
    pub tried: usize,
}

/// What of a request may decide.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    pub client: IpAddr,
}

/// A way of choosing a server.
pub trait Select: Send + Sync {
    /// Returns the index of a server that may be asked, `None` if no server may.
    fn pick(&self, candidates: &Candidates<'_>, key: &Key) -> Option<usize>;

    /// Learns that the server failed a request. `max_fails` is its limit, 0 = failures do not count.
    fn failed(&self, index: usize, max_fails: u32);
}

/// Every way there is.
#[derive(Debug)]
pub enum Selector {
    RoundRobin(RoundRobin),
    IpHash(IpHash),
}

impl Selector {
    /// Returns a selector over servers with these weights, in this order.
    pub fn new(balance: Balance, weights: &[u32]) -> Self {
        match balance {
            Balance::RoundRobin => Self::RoundRobin(RoundRobin::new(weights)),
            Balance::IpHash => Self::IpHash(IpHash::new(weights)),
        }
    }
}

impl Select for Selector {
    fn pick(&self, candidates: &Candidates<'_>, key: &Key) -> Option<usize> {
        match self {
            Self::RoundRobin(selector) => selector.pick(candidates, key),
            Self::IpHash(selector) => selector.pick(candidates, key),
        }
    }

    fn failed(&self, index: usize, max_fails: u32) {
        match self {
            Self::RoundRobin(selector) => selector.failed(index, max_fails),
            Self::IpHash(selector) => selector.failed(index, max_fails),
        }
    }
}
