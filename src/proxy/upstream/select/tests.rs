use std::{cell::Cell, net::Ipv4Addr};

use proptest::prelude::*;

use super::*;
use crate::{
    config::lb::{Hash, HashKey},
    proxy::upstream::warm::WHOLE,
};

const KEY: Key = Key { client: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), hash: None };

/// Servers that may be asked as a function says, with so much in flight.
struct Fake<'a> {
    may_ask: &'a dyn Fn(usize) -> bool,
    in_flight: &'a [usize],
    share: &'a [u32],
    expected: &'a [f64],
    draws: Cell<u64>,
}

fn fake<'a>(may_ask: &'a dyn Fn(usize) -> bool) -> Fake<'a> {
    Fake { may_ask, in_flight: &[], share: &[], expected: &[], draws: Cell::new(1) }
}

impl Candidates for Fake<'_> {
    fn may_ask(&self, index: usize) -> bool {
        (self.may_ask)(index)
    }

    fn tried(&self) -> usize {
        0
    }

    fn in_flight(&self, index: usize) -> usize {
        self.in_flight.get(index).copied().unwrap_or(0)
    }

    fn share(&self, index: usize) -> u32 {
        self.share.get(index).copied().unwrap_or(WHOLE)
    }

    fn expected(&self, index: usize) -> f64 {
        self.expected.get(index).copied().unwrap_or(1.0)
    }

    fn draw(&self, end: u64) -> u64 {
        let draw = hash(&self.draws.get().to_le_bytes());
        self.draws.set(self.draws.get() + 1);
        draw % end.max(1)
    }
}

fn pick(selector: &impl Select, may_ask: impl Fn(usize) -> bool) -> Option<usize> {
    selector.pick(&fake(&may_ask), &KEY)
}

fn balances() -> [Balance; 6] {
    let hash = Hash { key: HashKey::ClientIp, ..Hash::default() };
    let hashed = Balance::ConsistentHash(hash);
    [Balance::RoundRobin, Balance::LeastConn, Balance::IpHash, Balance::Random, hashed, Balance::Ewma]
}

fn selector(balance: &Balance, weights: &[u32]) -> Selector {
    let names: Vec<String> = (0..weights.len()).map(|index| format!("web-{index}")).collect();
    let servers: Vec<_> = names.iter().zip(weights).map(|(name, &weight)| Weighted { name, weight }).collect();
    Selector::new(balance, &servers)
}

fn picks(selector: &impl Select, count: usize) -> Vec<usize> {
    (0..count).filter_map(|_| pick(selector, |_| true)).collect()
}

#[test]
fn no_server_that_may_be_asked_gives_none() {
    for balance in balances() {
        for weights in [&[][..], &[1], &[3, 1]] {
            assert_eq!(pick(&selector(&balance, weights), |_| false), None, "{balance:?} {weights:?}");
        }
    }
}

#[test]
fn the_rotation_is_smooth() {
    // The example of the commit that brought it to nginx (52327e0627f4): { 5, 1, 1 }.
    assert_eq!(picks(&RoundRobin::new(&[5, 1, 1]), 7), [0, 0, 1, 0, 2, 0, 0]);
    assert_eq!(picks(&RoundRobin::new(&[1, 1, 1]), 6), [0, 1, 2, 0, 1, 2]);
}

#[test]
fn a_server_with_a_share_of_its_weight_gets_that_share() {
    let share = [WHOLE / 4, WHOLE, WHOLE];
    for balance in [Balance::RoundRobin, Balance::Random] {
        let selector = selector(&balance, &[1, 1, 1]);
        let seen = Fake { share: &share, ..fake(&|_| true) };
        let own = (0..9000).filter(|_| selector.pick(&seen, &KEY) == Some(0)).count();
        // One in nine in turn; a second draw of two evens random a little.
        assert!((900..=1700).contains(&own), "{balance:?}: {own}");
    }
}

/// Nothing ends, everybody is as fast: what each has is its weight's share. nginx's ip_hash goes by the client alone.
#[test]
fn what_is_in_flight_goes_by_weight_and_by_the_share_of_a_server_that_warms_up() {
    for balance in balances().into_iter().filter(|balance| *balance != Balance::IpHash) {
        for (weights, share, expected) in
            [([1, 3, 2], [WHOLE; 3], [500, 1500, 1000]), ([1, 1, 1], [WHOLE / 2, WHOLE, WHOLE], [600, 1200, 1200])]
        {
            let selector = selector(&balance, &weights);
            let mut in_flight = [0; 3];
            for key in 0..3000 {
                let seen = Fake { in_flight: &in_flight, share: &share, draws: Cell::new(key * 7), ..fake(&|_| true) };
                in_flight[selector.pick(&seen, &hashed(key)).unwrap()] += 1;
            }
            for (got, expected) in in_flight.into_iter().zip(expected) {
                let off = got.abs_diff(expected) * 100 / expected;
                assert!(off <= 10, "{balance:?} {weights:?} {share:?}: {in_flight:?}");
            }
        }
    }
}

#[test]
fn least_conn_takes_who_has_least_for_its_weight_and_turns_among_equals() {
    let least = LeastConn::new(&[1, 1, 2, 1]);
    let with = |in_flight| Fake { in_flight, ..fake(&|_| true) };
    let picks = |seen: &Fake<'_>| (0..4).filter_map(|_| least.pick(seen, &KEY)).collect::<Vec<_>>();
    assert_eq!(picks(&with(&[3, 2, 5, 4])), [1; 4]);
    assert_eq!(picks(&with(&[3, 3, 5, 4])), [2; 4], "five over two is less than three");
    let mut turns = picks(&with(&[1, 2, 2, 1]));
    turns.sort_unstable();
    assert_eq!(turns.iter().filter(|&&index| index == 1).count(), 0);
    turns.dedup();
    assert_eq!(turns, [0, 2, 3], "those with as little take turns");
}

#[test]
fn random_takes_the_better_of_two() {
    let seen = Fake { in_flight: &[0, 50, 50, 50], ..fake(&|_| true) };
    let random = Random::new(&[1, 1, 1, 1], Measure::InFlight);
    let idle = (0..4000).filter(|_| random.pick(&seen, &KEY) == Some(0)).count();
    // It wins whenever it is drawn: one half of all pairs.
    assert!((1800..=2200).contains(&idle), "{idle}");
}

#[test]
fn ewma_takes_the_faster_of_two_and_counts_what_it_has_to_do() {
    let ewma = Random::new(&[1, 1], Measure::Latency);
    let fast_and_slow = [0.010, 0.100];
    let with = |in_flight| Fake { in_flight, expected: &fast_and_slow, ..fake(&|_| true) };
    assert_eq!(ewma.pick(&with(&[0, 0]), &KEY), Some(0));
    assert_eq!(ewma.pick(&with(&[8, 0]), &KEY), Some(0), "nine times 10 ms is still less than 100 ms");
    assert_eq!(ewma.pick(&with(&[10, 0]), &KEY), Some(1));
}

fn hashed(key: u64) -> Key {
    Key { hash: Some(hash(&key.to_le_bytes())), ..KEY }
}

#[test]
fn keys_are_spread_by_weight_and_stay_where_they_are_when_another_server_goes() {
    let weights = [1, 2, 1];
    let selector = selector(&Balance::ConsistentHash(Hash { balance_factor: None, ..Hash::default() }), &weights);
    let mut counts = [0; 3];
    for key in 0..8000 {
        let before = selector.pick(&fake(&|_| true), &hashed(key)).unwrap();
        counts[before] += 1;
        let without = selector.pick(&fake(&|index| index != 1), &hashed(key)).unwrap();
        assert!(before == without || before == 1);
    }
    for (count, weight) in counts.into_iter().zip(weights) {
        assert!((1800 * weight..=2200 * weight).contains(&count), "{counts:?}");
    }
}

/// Two instances, or one before and after it was upgraded, agree: these are the places of today.
#[test]
fn a_key_has_the_same_server_in_every_process() {
    let selector = selector(&Balance::ConsistentHash(Hash::default()), &[1, 1, 1, 1]);
    let places: Vec<usize> = (0..16).filter_map(|key| selector.pick(&fake(&|_| true), &hashed(key))).collect();
    assert_eq!(places, PLACES);
}

const PLACES: [usize; 16] = [0, 1, 2, 0, 3, 0, 3, 1, 2, 1, 3, 1, 0, 0, 2, 3];

#[test]
fn a_key_that_everybody_asks_for_does_not_drown_its_server() {
    let selector = selector(&Balance::ConsistentHash(Hash::default()), &[1, 1, 1]);
    let mut in_flight = [0; 3];
    for _ in 0..300 {
        let picked = selector.pick(&Fake { in_flight: &in_flight, ..fake(&|_| true) }, &hashed(1)).unwrap();
        in_flight[picked] += 1;
    }
    let most = in_flight.into_iter().max().unwrap();
    assert!((145..=151).contains(&most), "{in_flight:?}: half as much again as the fair share is the bound");
}

#[test]
fn a_failed_server_comes_back_gently() {
    let rotation = RoundRobin::new(&[4, 4]);
    rotation.failed(0, 1);
    // Effective weight 0, then 1, 2, 3, 4: it owes at first what the other one gains.
    let first = picks(&rotation, 8);
    assert!(first.iter().filter(|&&index| index == 0).count() < 4, "{first:?}");
    let later = picks(&rotation, 80);
    assert_eq!(later.iter().filter(|&&index| index == 0).count(), 40, "{later:?}");
}

#[test]
fn failures_never_take_the_weight_below_nothing_nor_count_without_a_limit() {
    let rotation = RoundRobin::new(&[2, 2]);
    for _ in 0..10 {
        rotation.failed(0, 3);
        rotation.failed(1, 0);
    }
    rotation.failed(7, 1);
    assert!(picks(&rotation, 20).contains(&0));
}

/// What nginx itself answered: `set NAME server:weight[:down]…` and `NAME address server` in the order they were asked.
const TABLE: &str = include_str!("../../../../tests/data/ip_hash_nginx.tsv");

#[test]
fn ip_hash_agrees_with_nginx_on_every_row() {
    let mut servers: Vec<(&str, bool)> = Vec::new();
    let mut selector = IpHash::new(&[]);
    let mut rows = 0;
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let columns: Vec<&str> = line.split('\t').collect();
        if columns[0] == "set" {
            let listed = columns[2].split(' ').map(|server| server.split(':').collect::<Vec<_>>());
            servers = listed.clone().map(|server| (server[0], server.len() == 3)).collect();
            selector = IpHash::new(&listed.map(|server| server[1].parse().unwrap()).collect::<Vec<u32>>());
            continue;
        }
        let key = Key { client: columns[1].parse().unwrap(), ..KEY };
        let may_ask = |index: usize| !servers[index].1;
        let picked = selector.pick(&fake(&may_ask), &key).unwrap();
        assert_eq!(servers[picked].0, columns[2], "{line}");
        rows += 1;
    }
    assert!(rows >= 500, "{rows} rows");
}

#[test]
fn ip_hash_keeps_a_client_and_its_neighbours_on_one_server() {
    let selector = IpHash::new(&[1, 1, 1]);
    let at = |octet| {
        let key = Key { client: IpAddr::V4(Ipv4Addr::new(192, 0, 2, octet)), ..KEY };
        selector.pick(&fake(&|_| true), &key)
    };
    assert!((0..=255).all(|octet| at(octet) == at(0)));
}

#[test]
fn clients_of_other_servers_stay_when_one_goes_down() {
    let selector = IpHash::new(&[1, 2, 1]);
    for third in 0..=255 {
        let key = Key { client: IpAddr::V4(Ipv4Addr::new(10, 1, third, 1)), ..KEY };
        let before = selector.pick(&fake(&|_| true), &key);
        let after = selector.pick(&fake(&|index| index != 1), &key);
        assert!(before == after || before == Some(1));
    }
}

proptest! {
    #[test]
    fn a_whole_cycle_gives_every_server_exactly_its_weight(weights in prop::collection::vec(1_u32..20, 1..8)) {
        let rotation = RoundRobin::new(&weights);
        let total: u32 = weights.iter().sum();
        for _cycle in 0..3 {
            let mut counts = vec![0; weights.len()];
            for index in picks(&rotation, total as usize) {
                counts[index] += 1;
            }
            prop_assert_eq!(&counts, &weights);
        }
    }

    #[test]
    fn a_server_that_may_not_be_asked_is_never_picked_and_one_that_may_always_is(
        weights in prop::collection::vec(1_u32..1000, 1..8),
        rounds in prop::collection::vec((any::<u8>(), any::<u32>(), any::<bool>()), 1..60),
    ) {
        for balance in balances() {
            let selector = selector(&balance, &weights);
            for &(allowed, client, fails) in &rounds {
                let may_ask = |index: usize| allowed & (1 << index) != 0;
                let key = Key { client: IpAddr::V4(client.into()), hash: Some(client.into()) };
                let picked = selector.pick(&fake(&may_ask), &key);
                prop_assert_eq!(picked.is_some(), (0..weights.len()).any(may_ask));
                if let Some(index) = picked {
                    prop_assert!(may_ask(index));
                    if fails {
                        selector.failed(index, 2);
                    }
                }
            }
        }
    }
}
