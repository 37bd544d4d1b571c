//! Smooth weighted round robin, as nginx does it (ngx_http_upstream_round_robin.c).
//!
//! Every server that may be asked gains its effective weight; the one with the most is chosen and pays the sum of all gains.
//! Weights 5, 1, 1 give A A B A C A A rather than A A A A A B C. A failure lowers the effective weight by
//! `weight / max_fails`; each later round gives one back, so a server that just failed comes back gently. A server that has
//! only a share of its weight (`slow_start`) gains that share.
//!
//! The three numbers of all servers must move together, so they stand under one lock; it is held for one pass over a few
//! dozen integers and never across an await.

use parking_lot::Mutex;

use super::{Candidates, Key, Select};

/// State of one rotation.
#[derive(Debug)]
pub struct RoundRobin {
    servers: Mutex<Box<[Share]>>,
}

#[derive(Debug, Clone, Copy)]
struct Share {
    weight: i64,
    /// `weight`, less after failures.
    effective: i64,
    /// What the server is owed.
    current: i64,
}

impl RoundRobin {
    /// Returns a rotation at its beginning.
    pub fn new(weights: &[u32]) -> Self {
        let share = |&weight: &u32| Share { weight: weight.into(), effective: weight.into(), current: 0 };
        Self { servers: Mutex::new(weights.iter().map(share).collect()) }
    }
}

impl Select for RoundRobin {
    fn pick(&self, candidates: &dyn Candidates, _: &Key) -> Option<usize> {
        let mut servers = self.servers.lock();
        let mut total = 0;
        let mut best: Option<(usize, i64)> = None;
        for (index, share) in servers.iter_mut().enumerate() {
            if !candidates.may_ask(index) {
                continue;
            }
            let gain = share.effective * i64::from(candidates.share(index));
            share.current += gain;
            total += gain;
            if share.effective < share.weight {
                share.effective += 1;
            }
            if best.is_none_or(|(_, most)| share.current > most) {
                best = Some((index, share.current));
            }
        }
        let (index, _) = best?;
        servers[index].current -= total;
        Some(index)
    }

    fn failed(&self, index: usize, max_fails: u32) {
        if max_fails == 0 {
            return;
        }
        if let Some(share) = self.servers.lock().get_mut(index) {
            share.effective = (share.effective - share.weight / i64::from(max_fails)).max(0);
        }
    }
}
