use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

const KEY: Key = Key { client: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)) };

fn pick(selector: &impl Select, may_ask: impl Fn(usize) -> bool) -> Option<usize> {
    selector.pick(&Candidates { may_ask: &may_ask, tried: 0 }, &KEY)
}

fn picks(selector: &impl Select, count: usize) -> Vec<usize> {
    (0..count).filter_map(|_| pick(selector, |_| true)).collect()
}

#[test]
fn no_server_that_may_be_asked_gives_none() {
    for balance in [Balance::RoundRobin, Balance::IpHash] {
        for weights in [&[][..], &[1], &[3, 1]] {
            assert_eq!(pick(&Selector::new(balance, weights), |_| false), None, "{balance:?} {weights:?}");
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
        let key = Key { client: columns[1].parse().unwrap() };
        let may_ask = |index: usize| !servers[index].1;
        let picked = selector.pick(&Candidates { may_ask: &may_ask, tried: 0 }, &key).unwrap();
        assert_eq!(servers[picked].0, columns[2], "{line}");
        rows += 1;
    }
    assert!(rows >= 500, "{rows} rows");
}

#[test]
fn ip_hash_keeps_a_client_and_its_neighbours_on_one_server() {
    let selector = IpHash::new(&[1, 1, 1]);
    let at = |octet| {
        let key = Key { client: IpAddr::V4(Ipv4Addr::new(192, 0, 2, octet)) };
        selector.pick(&Candidates { may_ask: &|_| true, tried: 0 }, &key)
    };
    assert!((0..=255).all(|octet| at(octet) == at(0)));
}

#[test]
fn clients_of_other_servers_stay_when_one_goes_down() {
    let selector = IpHash::new(&[1, 2, 1]);
    for third in 0..=255 {
        let key = Key { client: IpAddr::V4(Ipv4Addr::new(10, 1, third, 1)) };
        let before = selector.pick(&Candidates { may_ask: &|_| true, tried: 0 }, &key);
        let after = selector.pick(&Candidates { may_ask: &|index| index != 1, tried: 0 }, &key);
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
        for balance in [Balance::RoundRobin, Balance::IpHash] {
            let selector = Selector::new(balance, &weights);
            for &(allowed, client, fails) in &rounds {
                let may_ask = |index: usize| allowed & (1 << index) != 0;
                let key = Key { client: IpAddr::V4(client.into()) };
                let picked = selector.pick(&Candidates { may_ask: &may_ask, tried: 0 }, &key);
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
