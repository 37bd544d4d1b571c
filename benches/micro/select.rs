//! Which server a request goes to: every way there is, with few and many servers, all up and some down.

use std::{hint::black_box, net::IpAddr};

use bookend::{
    config::lb::{Balance, Hash},
    proxy::upstream::{
        select::{Candidates, Key, Select, Selector, Weighted, hash},
        warm::WHOLE,
    },
};
use criterion::Criterion;

/// Servers that may be asked as a function says, each with a little to do.
struct Servers<'a>(&'a dyn Fn(usize) -> bool);

impl Candidates for Servers<'_> {
    fn may_ask(&self, index: usize) -> bool {
        (self.0)(index)
    }

    fn tried(&self) -> usize {
        0
    }

    fn in_flight(&self, index: usize) -> usize {
        index % 7
    }

    fn share(&self, _: usize) -> u32 {
        WHOLE
    }

    fn expected(&self, index: usize) -> f64 {
        0.01 * (index % 5) as f64
    }

    fn draw(&self, end: u64) -> u64 {
        rand::random_range(0..end.max(1))
    }
}

pub fn benches(criterion: &mut Criterion) {
    let ways = [
        Balance::IpHash,
        Balance::RoundRobin,
        Balance::LeastConn,
        Balance::Random,
        Balance::Ewma,
        Balance::ConsistentHash(Hash::default()),
    ];
    let clients: [IpAddr; 2] = ["203.0.113.77".parse().unwrap(), "2001:db8::17:42".parse().unwrap()];
    for balance in ways {
        for servers in [3, 10, 100] {
            let names: Vec<String> = (0..servers).map(|server| format!("web-{server}")).collect();
            let weighted: Vec<_> = names.iter().map(|name| Weighted { name, weight: 1 }).collect();
            let selector = Selector::new(&balance, &weighted);
            let key = |client| Key { client, hash: Some(hash(b"a session's key")) };
            // A third is down; for ip_hash among them whoever the first client's hash names, so that it hashes again.
            let first = selector.pick(&Servers(&|_| true), &key(clients[0])).unwrap();
            let down = |index: usize| index % 3 == first % 3;
            let states: [(&str, &dyn Fn(usize) -> bool); 2] = [("all_up", &|_| true), ("third_down", &|i| !down(i))];
            for (state, may_ask) in states {
                let candidates = Servers(may_ask);
                for (family, client) in [("v4", clients[0]), ("v6", clients[1])] {
                    if balance != Balance::IpHash && family == "v6" {
                        continue; // the client decides nothing
                    }
                    criterion.bench_function(&format!("{}/{servers}/{state}/{family}", balance.word()), |bencher| {
                        bencher.iter(|| selector.pick(black_box(&candidates), &black_box(key(client))));
                    });
                }
            }
        }
    }
}
