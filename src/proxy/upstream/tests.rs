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
    queue_limit: 2,
    queue_timeout: Duration::from_secs(5),
};
const UP: Facts = Facts { alive: Health::Up, passing: Health::Up };
const DOWN: Facts = Facts { alive: Health::Down, passing: Health::Down };
const ANSWERS_503: Facts = Facts { alive: Health::Up, passing: Health::Down };

/// Servers that are all up; `b` marks backups.
fn servers(kinds: &str, database: Option<&Board>) -> Arc<Servers> {
    let queue = Arc::new(Queue::default());
    let member = |(index, kind): (usize, char)| {
        let port = u16::try_from(8001 + index).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let endpoint = Arc::new(Endpoint::new("up".into(), format!("web-{index}").into(), address, queue.clone()));
        endpoint.facts.store(UP);
        Member {
            endpoint,
            weight: 1,
            backup: kind == 'b',
            limits: LIMITS,
            slow_start: Duration::ZERO,
            max_conns: None,
            down: false,
        }
    };
    Arc::new(Servers {
        members: kinds.chars().enumerate().map(member).collect(),
        queue: queue.clone(),
        checked: true,
        database: database.map(|board| board.database("db")),
    })
}

fn cluster(balance: Balance, servers: &Arc<Servers>) -> Cluster {
    Cluster::new("up".into(), balance, None, servers.clone(), SETTINGS, None)
}

fn ask(needs_database: bool) -> Ask {
    Ask {
        client: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
        needs_database,
        hash: None,
        sticky: None,
        priority: QueuePriority::Normal,
    }
}

fn balances() -> [Balance; 6] {
    let hash = Balance::ConsistentHash(lb::Hash::default());
    [Balance::RoundRobin, Balance::LeastConn, Balance::IpHash, Balance::Random, hash, Balance::Ewma]
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
    for balance in balances() {
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
    for balance in balances() {
        let servers = servers("ppb", None);
        let cluster = cluster(balance.clone(), &servers);
        let now = Instant::now();
        for _ in 0..10 {
            assert_ne!(pick(&cluster, &Tried::default(), now), Ok(2), "{balance:?}");
        }
        servers.members[0].endpoint.facts.store(DOWN);
        assert_eq!(pick(&cluster, &Tried::default(), now), Ok(1), "{balance:?}");
        cluster.failed(1, now);
        assert_eq!(pick(&cluster, &Tried::default(), now), Ok(2), "{balance:?}");
    }
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
    let kept = Cluster::new("up".into(), Balance::RoundRobin, None, servers.clone(), SETTINGS, Some(&first));
    assert_eq!(pick(&kept, &Tried::default(), Instant::now()), Ok(1));
    let mut members = servers.members.clone();
    members[0].weight = 5;
    let changed = Arc::new(Servers { members, queue: Arc::default(), checked: true, database: None });
    let anew = Cluster::new("up".into(), Balance::RoundRobin, None, changed, SETTINGS, Some(&kept));
    assert_eq!(pick(&anew, &Tried::default(), Instant::now()), Ok(0));
}

fn with_max_conns(kinds: &str, max_conns: usize) -> Arc<Servers> {
    let mut servers = Arc::into_inner(servers(kinds, None)).unwrap();
    servers.members.iter_mut().for_each(|member| member.max_conns = Some(max_conns));
    Arc::new(servers)
}

#[test]
fn a_full_server_is_passed_over_and_no_backup_takes_its_place() {
    let cluster = cluster(Balance::RoundRobin, &with_max_conns("ppb", 1));
    let now = Instant::now();
    let take = || cluster.pick(&ask(true), &Tried::default(), now);
    let (first, second) = (take().unwrap(), take().unwrap());
    assert_ne!(first.index, second.index);
    assert_eq!(take().map(|_| ()), Err(NoServer::Full));
    let index = first.index;
    drop(first);
    assert_eq!(take().unwrap().index, index);
    cluster.failed(0, now);
    cluster.failed(1, now);
    assert_eq!(take().unwrap().index, 2, "ejected is another matter");
}

#[tokio::test(start_paused = true)]
async fn who_comes_later_does_not_overtake_and_who_waits_too_long_is_refused() {
    let cluster = Arc::new(cluster(Balance::LeastConn, &with_max_conns("p", 1)));
    let held = cluster.pick(&ask(true), &Tried::default(), Instant::now()).unwrap();
    let wait = || {
        let cluster = cluster.clone();
        tokio::spawn(async move { cluster.wait(&ask(true), &Tried::default()).await })
    };
    let (first, second) = (wait(), wait());
    tokio::task::yield_now().await;
    assert_eq!(cluster.wait(&ask(true), &Tried::default()).await.map(|_| ()), Err(NoServer::QueueFull));
    drop(held);
    assert_eq!(cluster.pick(&ask(true), &Tried::default(), Instant::now()).map(|_| ()), Err(NoServer::Full));
    let _first = first.await.unwrap().unwrap();
    assert_eq!(second.await.unwrap().map(|_| ()), Err(NoServer::QueueTimeout));
    assert!(cluster.servers().queue.is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_another_server_than_the_one_that_failed_it_keeps_nobody_from_that_one() {
    let cluster = Arc::new(cluster(Balance::LeastConn, &with_max_conns("pp", 1)));
    let held = cluster.pick(&ask(true), &tried(&[0]), Instant::now()).unwrap();
    let own = cluster.clone();
    let again = tokio::spawn(async move { own.wait(&ask(true), &tried(&[0])).await });
    tokio::task::yield_now().await;
    assert_eq!(cluster.servers().queue.len(), 1);
    let other = cluster.pick(&ask(true), &Tried::default(), Instant::now()).unwrap();
    assert_eq!(other.index, 0);
    drop(other);
    drop(held);
    assert_eq!(again.await.unwrap().unwrap().index, 1);
}

/// Places become free and are looked for on two threads at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_in_the_line_is_served_however_threads_meet() {
    let settings = Settings { queue_limit: 1000, queue_timeout: Duration::from_secs(20), ..SETTINGS };
    let servers = with_max_conns("pp", 1);
    let cluster = Arc::new(Cluster::new("up".into(), Balance::LeastConn, None, servers, settings, None));
    let clients = (0..24).map(|client: usize| {
        let cluster = cluster.clone();
        tokio::spawn(async move {
            for round in 0..400 {
                // Some have failed at one server and want the other.
                let tried = if (client + round).is_multiple_of(5) { tried(&[round % 2]) } else { Tried::default() };
                let picked = match cluster.pick(&ask(true), &tried, Instant::now()) {
                    Err(NoServer::Full) => cluster.wait(&ask(true), &tried).await,
                    decided => decided,
                };
                let picked = picked.unwrap_or_else(|none| panic!("client {client}, round {round}: {none:?}"));
                if (client + round).is_multiple_of(3) {
                    tokio::task::yield_now().await;
                }
                drop(picked);
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    assert!(cluster.servers().queue.is_empty());
    assert!(cluster.servers().members.iter().all(|member| member.endpoint.in_flight() == 0));
}

/// How much of its weight the first server has.
fn share(servers: &Servers, now: Instant) -> u32 {
    let Member { endpoint, slow_start, .. } = &servers.members[0];
    endpoint.warmth.share(*slow_start, now)
}

#[test]
fn slow_start_begins_when_a_drain_or_an_ejection_ends_and_when_a_server_comes_late() {
    let slow = || {
        let mut servers = Arc::into_inner(servers("pp", None)).unwrap();
        servers.members.iter_mut().for_each(|member| member.slow_start = Duration::from_secs(100));
        Arc::new(servers)
    };
    let now = Instant::now();
    let (drained, ejected, late) = (slow(), slow(), slow());
    assert_eq!(share(&drained, now), warm::WHOLE, "it was there from the beginning");
    drained.members[0].endpoint.set_draining(false);
    assert_eq!(share(&drained, now), warm::WHOLE, "it was not draining");
    drained.members[0].endpoint.set_draining(true);
    drained.members[0].endpoint.set_draining(false);
    assert_eq!(share(&drained, Instant::now()), warm::WHOLE / 16);
    let cluster = cluster(Balance::RoundRobin, &ejected);
    cluster.failed(0, now);
    let trial = now + Duration::from_secs(11);
    while pick(&cluster, &Tried::default(), trial) != Ok(0) {}
    cluster.succeeded(0, trial);
    assert_eq!(share(&ejected, trial), warm::WHOLE / 16);
    late.members[0].endpoint.came_late();
    assert_eq!(share(&late, Instant::now()), warm::WHOLE / 16);
}
