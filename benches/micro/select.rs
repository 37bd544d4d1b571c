//! Which server a request goes to: every way there is, with few and many servers, all up and some down.

use std::{hint::black_box, net::IpAddr};

use bookend::{
    config::lb::Balance,
    proxy::upstream::select::{Candidates, Key, Select, Selector},
};
use criterion::Criterion;

pub fn benches(criterion: &mut Criterion) {
    let ways = [("ip_hash", Balance::IpHash), ("round_robin", Balance::RoundRobin)];
    let clients: [IpAddr; 2] = ["203.0.113.77".parse().unwrap(), "2001:db8::17:42".parse().unwrap()];
    for (name, balance) in ways {
        for servers in [3, 10, 100] {
            let selector = Selector::new(balance, &vec![1; servers]);
            // A third is down; for ip_hash among them whoever the first client's hash names, so that it hashes again.
            let all = Candidates { may_ask: &|_| true, tried: 0 };
            let first = selector.pick(&all, &Key { client: clients[0] }).unwrap();
            let down = |index: usize| index % 3 == first % 3;
            let states: [(&str, &dyn Fn(usize) -> bool); 2] = [("all_up", &|_| true), ("third_down", &|i| !down(i))];
            for (state, may_ask) in states {
                let candidates = Candidates { may_ask, tried: 0 };
                for (family, client) in [("v4", clients[0]), ("v6", clients[1])] {
                    if balance == Balance::RoundRobin && family == "v6" {
                        continue; // the client decides nothing
                    }
                    criterion.bench_function(&format!("{name}/{servers}/{state}/{family}"), |bencher| {
                        bencher.iter(|| selector.pick(black_box(&candidates), &black_box(Key { client })));
                    });
                }
            }
        }
    }
}
