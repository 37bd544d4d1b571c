//! nginx's `ip_hash`, byte for byte, so that a client keeps its server when this program takes nginx's place.
//!
//! The rule (ngx_http_upstream_ip_hash_module.c): over the first three octets of an IPv4 address, or all sixteen of an
//! IPv6 one (also when it carries an IPv4 address), `hash = (hash * 113 + octet) % 6271` from 89; the hash modulo the sum of
//! the weights picks a server. If that one may not be asked the octets are hashed again from where the hash stands, up to
//! twenty times, and then round robin decides. One server alone is round robin from the start. Servers that are down keep
//! their share of the hash, so that nobody else's clients move.

use std::net::IpAddr;

use super::{Candidates, Key, RoundRobin, Select};

const SEED: u32 = 89;
const FACTOR: u32 = 113;
const MODULUS: u32 = 6271;
const REHASHES_MAX: usize = 20;

/// The shares of the hash, and the rotation for those it cannot place.
#[derive(Debug)]
pub struct IpHash {
    weights: Box<[u32]>,
    /// At most 65,535 for each server.
    total: u64,
    otherwise: RoundRobin,
}

impl IpHash {
    /// Returns a hash over servers with these weights, in the order of nginx's `server` lines.
    pub fn new(weights: &[u32]) -> Self {
        Self {
            weights: weights.into(),
            total: weights.iter().copied().map(u64::from).sum(),
            otherwise: RoundRobin::new(weights),
        }
    }

    fn server_at(&self, hash: u32) -> Option<usize> {
        let mut place = u64::from(hash).checked_rem(self.total)?;
        self.weights.iter().position(|&weight| {
            let weight = u64::from(weight);
            let here = place < weight;
            place = place.wrapping_sub(weight);
            here
        })
    }
}

impl Select for IpHash {
    fn pick(&self, candidates: &dyn Candidates, key: &Key) -> Option<usize> {
        if self.weights.len() < 2 {
            return self.otherwise.pick(candidates, key);
        }
        let mut hash = SEED;
        // nginx goes on hashing where the last try stopped; starting over passes the servers tried so far once more, and
        // that does not count.
        for _ in 0..=REHASHES_MAX + candidates.tried() {
            hash = rehash(hash, key.client);
            match self.server_at(hash) {
                Some(index) if candidates.may_ask(index) => return Some(index),
                _ => {}
            }
        }
        self.otherwise.pick(candidates, key)
    }

    fn failed(&self, index: usize, max_fails: u32) {
        self.otherwise.failed(index, max_fails);
    }
}

fn rehash(hash: u32, client: IpAddr) -> u32 {
    let step = |hash: u32, octet: &u8| (hash * FACTOR + u32::from(*octet)) % MODULUS;
    match client {
        IpAddr::V4(address) => address.octets()[..3].iter().fold(hash, step),
        IpAddr::V6(address) => address.octets().iter().fold(hash, step),
    }
}
