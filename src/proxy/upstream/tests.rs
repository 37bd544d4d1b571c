use std::net::{Ipv4Addr, SocketAddr};

use super::{passive::Limits, standing::Facts, *};
use crate::health::{
    board::{Board, DatabaseState},
    threshold::Health,
};

const LIMITS: Limits = Limits { max_fails: 1, fail_timeout: Duration::from_secs(10) };
const SETTINGS: Settings = Settings {
    connect_timeout: Duration::from_secs(2),
    read_timeout: Duration::from_secs(60),
    send_timeout: Duration::from_secs(60),
    keepalive_timeout: Duration::from_secs(4),
    tries: 3,
};
const UP: Facts = Facts { alive: Health::Up, passing: Health::Up };
const DOWN: Facts = Facts { alive: Health::Down, passing: Health::Down };
const ANSWERS_503: Facts = Facts { alive: Health::Up, passing: Health::Down };

/// Servers that are all up; `b` marks backups.
fn servers(kinds: &str, database: Option<&Board>) -> Arc<Servers> {
    let member = |(index, kind): (usize, char)| {
        let port = u16::try_from(8001 + index).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let endpoint = Arc::new(Endpoint::new("up".into(), format!("web-{index}").into(), address));
        endpoint.facts.store(UP);
        Member { endpoint, weight: 1, backup: kind == 'b', limits: LIMITS, slow_start: Duration::ZERO, down: false }
    };
    Arc::new(Servers {
        members: kinds.chars().enumerate().map(member).collect(),
        checked: true,
        database: database.map(|board| board.database("db")),
    })
}

fn cluster(balance: Balance, servers: &Arc<Servers>) -> Cluster {
    Cluster::new("up".into(), balance, servers.clone(), SETTINGS, None)
}

fn ask(needs_database: bool) -> Ask {
    Ask { client: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), needs_database, hash: None }
}

fn pick(cluster: &Cluster, tried: &Tried, now: Instant) -> Result<usize, NoServer> {
    cluster.pick(&ask(true), tried, now).map(|picked| picked.index)
}

fn tried(indexes: &[usize]) -> Tried {
    let mut tried = Tried::default();
    indexes.iter().for_each(|&index| tried.insert(index));
    tried
}

#[test]
fn servers_that_are_down_unproven_or_draining_are_never_asked() {
    let servers = servers("ppp", None);
    let cluster = cluster(Balance::RoundRobin, &servers);
    servers.members[0].endpoint.facts.store(DOWN);
    servers.members[1].endpoint.facts.store(Facts { alive: Health::Unproven, passing: Health::Unproven });
    servers.members[2].endpoint.set_draining(true);
    assert_eq!(pick(&cluster, &Tried::default(), Instant::now()), Err(NoServer::NoneUp));
    servers.members[2].endpoint.set_draining(false);
    assert_eq!(pick(&cluster, &Tried::default(), Instant::now()), Ok(2));
}

#[test]
fn a_second_try_goes_elsewhere_until_all_were_tried() {
    for balance in [Balance::RoundRobin, Balance::IpHash] {
        let cluster = cluster(balance, &servers("ppp", None));
        let mut tried = Tried::default();
        for _ in 0..3 {
            let index = pick(&cluster, &tried, Instant::now()).unwrap();
            assert!(!tried.contains(index));
            tried.insert(index);
        }
        assert_eq!(pick(&cluster, &tried, Instant::now()), Err(NoServer::AllTried));
    }
}

#[test]
fn backups_are_asked_only_when_no_other_is_up() {
    let servers = servers("ppb", None);
    let cluster = cluster(Balance::RoundRobin, &servers);
    let now = Instant::now();
    for _ in 0..10 {
        assert_ne!(pick(&cluster, &Tried::default(), now), Ok(2));
    }
    servers.members[0].endpoint.facts.store(DOWN);
    assert_eq!(pick(&cluster, &Tried::default(), now), Ok(1));
    cluster.failed(1, now);
    assert_eq!(pick(&cluster, &Tried::default(), now), Ok(2));
}

#[test]
fn ip_hash_uses_backups_in_turn_once_no_other_is_up() {
    let servers = servers("bppb", None);
    let cluster = cluster(Balance::IpHash, &servers);
    let now = Instant::now();
    servers.members[1].endpoint.facts.store(DOWN);
    assert!((0..10).all(|_| pick(&cluster, &Tried::default(), now) == Ok(2)));
    servers.members[2].endpoint.facts.store(DOWN);
    let asked: Vec<_> = (0..4).map(|_| pick(&cluster, &Tried::default(), now)).collect();
    assert_eq!(asked, [Ok(0), Ok(3), Ok(0), Ok(3)]);
    servers.members[2].endpoint.facts.store(UP);
    assert!((0..10).all(|_| pick(&cluster, &Tried::default(), now) == Ok(2)));
}

#[test]
fn servers_that_are_only_ejected_are_tried_when_nobody_else_is_left() {
    let servers = servers("ppb", None);
    let cluster = cluster(Balance::RoundRobin, &servers);
    let now = Instant::now();
    (0..3).for_each(|index| cluster.failed(index, now));
    servers.members[1].endpoint.facts.store(DOWN);
    assert_eq!(pick(&cluster, &Tried::default(), now), Ok(0));
    assert_eq!(pick(&cluster, &tried(&[0]), now), Ok(2));
    assert_eq!(pick(&cluster, &tried(&[0, 2]), now), Err(NoServer::AllTried), "the one that is down stays out");
}

#[test]
fn an_ejected_server_gets_one_trial_after_its_time() {
    let servers = servers("pp", None);
    let cluster = cluster(Balance::RoundRobin, &servers);
    let now = Instant::now();
    cluster.failed(0, now);
    assert!((0..5).all(|_| pick(&cluster, &Tried::default(), now) == Ok(1)));
    let later = now + Duration::from_secs(11);
    let asked: Vec<_> = (0..5).map(|_| pick(&cluster, &Tried::default(), later).unwrap()).collect();
    assert_eq!(asked.iter().filter(|&&index| index == 0).count(), 1, "{asked:?}");
    cluster.succeeded(0, later);
    assert_eq!(servers.members[0].endpoint.recent_failures(), 0);
}

#[test]
fn a_database_that_is_down_takes_no_server_down() {
    let board = Board::default();
    let servers = servers("pp", Some(&board));
    let cluster = cluster(Balance::RoundRobin, &servers);
    servers.members[0].endpoint.facts.store(ANSWERS_503);
    servers.members[1].endpoint.facts.store(DOWN);
    board.database("db").publish(Serving::Down, DatabaseState::default());
    let now = Instant::now();
    assert_eq!(cluster.pick(&ask(true), &Tried::default(), now).map(|_| ()), Err(NoServer::DatabaseDown));
    for _ in 0..3 {
        assert_eq!(cluster.pick(&ask(false), &Tried::default(), now).map(|picked| picked.index), Ok(0));
    }
    board.database("db").publish(Serving::Up, DatabaseState::default());
    assert_eq!(cluster.pick(&ask(false), &Tried::default(), now).map(|_| ()), Err(NoServer::NoneUp));
}

#[test]
fn requests_in_flight_are_counted_until_the_guard_is_dropped() {
    let servers = servers("p", None);
    let (http, websocket) = (cluster(Balance::RoundRobin, &servers), cluster(Balance::IpHash, &servers));
    let now = Instant::now();
    let first = http.pick(&ask(true), &Tried::default(), now).unwrap();
    let second = websocket.pick(&ask(true), &Tried::default(), now).unwrap();
    assert_eq!(first.endpoint.counts().in_flight, 2, "upstreams that share a server share the count");
    drop(first);
    let endpoint = second.endpoint.clone();
    drop(second);
    assert_eq!((endpoint.counts().in_flight, endpoint.counts().picked), (0, 2));
}

#[test]
fn a_failure_seen_by_one_upstream_ejects_for_all_that_share_the_server() {
    let servers = servers("pp", None);
    let (http, websocket) = (cluster(Balance::RoundRobin, &servers), cluster(Balance::IpHash, &servers));
    let now = Instant::now();
    http.failed(0, now);
    assert_eq!(servers.members[0].endpoint.counts().ejections, 1);
    assert!((0..5).all(|_| pick(&websocket, &Tried::default(), now) == Ok(1)));
}

#[test]
fn a_rotation_goes_on_over_the_same_servers_and_begins_anew_over_others() {
    let servers = servers("ppp", None);
    let first = cluster(Balance::RoundRobin, &servers);
    assert_eq!(pick(&first, &Tried::default(), Instant::now()), Ok(0));
    let kept = Cluster::new("up".into(), Balance::RoundRobin, servers.clone(), SETTINGS, Some(&first));
    assert_eq!(pick(&kept, &Tried::default(), Instant::now()), Ok(1));
    let mut members = servers.members.clone();
    members[0].weight = 5;
    let changed = Arc::new(Servers { members, checked: true, database: None });
    let anew = Cluster::new("up".into(), Balance::RoundRobin, changed, SETTINGS, Some(&kept));
    assert_eq!(pick(&anew, &Tried::default(), Instant::now()), Ok(0));
}
