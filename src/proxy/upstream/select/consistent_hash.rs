//! The same key to the same server, as far as that server has room.
//!
//! Rendezvous hashing: key and server make a number, and the best number wins, so that a server that comes or goes moves its
//! own share of the keys and no other. With weights it is `-ln(number) / weight`, and the least wins ("Weighted rendezvous
//! hashing", Schindelhauer and Schomaker 2005). Compared with a ring of points it is exact, needs no table, and costs one
//! pass over a few dozen servers. Servers are known by their names: address and place in the file may change.
//!
//! A popular key must not drown its server: one that has `balance_factor` percent of its fair share of what is in flight is
//! passed over for the key's next one ("Consistent hashing with bounded loads", Mirrokni, Thorup and Zadimoghaddam 2016;
//! HAProxy's `hash-balance-factor`).
//!
//! The hash is SipHash-2-4 with a fixed key: all instances, before and after a restart, send a key to the same server.

use std::hash::Hasher;

use siphasher::sip::SipHasher24;

use super::{Candidates, Key, Measure, Random, Select, Weighted};

/// The servers' numbers, and the bound.
#[derive(Debug)]
pub struct ConsistentHash {
    servers: Box<[Server]>,
    balance_factor: Option<u32>,
    /// For requests without a key.
    otherwise: Random,
}

#[derive(Debug)]
struct Server {
    id: u64,
    weight: u32,
}

/// Returns the number of some bytes.
pub fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher24::new();
    hasher.write(bytes);
    hasher.finish()
}

impl ConsistentHash {
    /// Returns it for these servers.
    pub fn new(servers: &[Weighted<'_>], balance_factor: Option<u32>) -> Self {
        let weights: Vec<u32> = servers.iter().map(|server| server.weight).collect();
        Self {
            servers: servers
                .iter()
                .map(|server| Server { id: hash(server.name.as_bytes()), weight: server.weight })
                .collect(),
            balance_factor,
            otherwise: Random::new(&weights, Measure::InFlight),
        }
    }

    fn weight(&self, candidates: &dyn Candidates, index: usize) -> u64 {
        u64::from(self.servers[index].weight) * u64::from(candidates.share(index))
    }

    /// Returns how badly a server fits a key.
    fn distance(&self, candidates: &dyn Candidates, index: usize, key: u64) -> f64 {
        let mut both = [0; 16];
        both[..8].copy_from_slice(&key.to_le_bytes());
        both[8..].copy_from_slice(&self.servers[index].id.to_le_bytes());
        // Of (0, 1]: 53 bits are what a double holds, and the logarithm of 0 is none.
        let number = ((hash(&both) >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        -number.ln() / self.weight(candidates, index) as f64
    }

    /// Returns the nearest of those that fit.
    fn nearest(&self, candidates: &dyn Candidates, key: u64, fits: impl Fn(usize) -> bool) -> Option<usize> {
        let those = (0..self.servers.len()).filter(|&index| candidates.may_ask(index) && fits(index));
        let distances = those.map(|index| (index, self.distance(candidates, index, key)));
        distances.min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(index, _)| index)
    }
}

impl Select for ConsistentHash {
    fn pick(&self, candidates: &dyn Candidates, key: &Key) -> Option<usize> {
        let Some(hash) = key.hash else { return self.otherwise.pick(candidates, key) };
        let Some(factor) = self.balance_factor else { return self.nearest(candidates, hash, |_| true) };
        let (mut work, mut weights) = (1, 0);
        for index in (0..self.servers.len()).filter(|&index| candidates.may_ask(index)) {
            work += candidates.in_flight(index) as u64;
            weights += self.weight(candidates, index);
        }
        let has_room = |index: usize| {
            let bound = (u128::from(work) * u128::from(factor) * u128::from(self.weight(candidates, index)))
                .div_ceil(u128::from(weights).max(1) * 100);
            (candidates.in_flight(index) as u128) < bound
        };
        // Somebody has room, unless the numbers have changed since they were added up.
        self.nearest(candidates, hash, has_room).or_else(|| self.nearest(candidates, hash, |_| true))
    }

    fn failed(&self, _: usize, _: u32) {}
}
