//! Several processes behind one address: a cancel request that comes to the wrong one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bookend::config::pool::{AuthType, Peer, Peers, Pool};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_postgres::SimpleQueryMessage;

use crate::{
    process::{Process, free_port},
    support::*,
};

fn trusting(cluster: &Cluster) -> Pool {
    Pool { auth_type: AuthType::Trust, ..config(cluster) }
}

fn peer(id: u16, port: u16) -> Peer {
    Peer { id, host: "127.0.0.1".into(), port, pool_size: None, tls: false }
}

/// Gives a pool a number, and peers.
fn introduce(pooled: &Pooled, id: u16, all: &[Peer]) {
    let pool = Pool { peers: Peers { id, all: all.to_vec() }, ..(*pooled.pooler.config()).clone() };
    pooled.pooler.reload(&Arc::new(pool));
}

/// Three pools that know each other, and themselves.
async fn group(cluster: &Cluster) -> [Pooled; 3] {
    let pools = [start(trusting(cluster)).await, start(trusting(cluster)).await, start(trusting(cluster)).await];
    let all: Vec<_> = (1..).zip(&pools).map(|(id, pooled)| peer(id, pooled.port)).collect();
    for (id, pooled) in (1..).zip(&pools) {
        introduce(pooled, id, &all);
    }
    pools
}

fn count(pooled: &Pooled, result: &str) -> f64 {
    pooled.metric_of("bookend_pool_cancel_requests_total", result)
}

/// The rows of a table of the console.
async fn rows(port: u16, sql: &str) -> Vec<Vec<String>> {
    let console = postgres::connect(port, "pgbouncer", "").await.unwrap();
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|at| row.get(at).unwrap_or_default().to_owned()).collect())
        }
        _ => None,
    };
    console.simple_query(sql).await.unwrap().into_iter().filter_map(row).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_that_comes_to_another_process_stops_the_query() {
    let cluster = postgres::shared();
    let pools = group(&cluster).await;
    for version in [0x30000, 0x30002] {
        for (id, maker) in (1..).zip(&pools) {
            let mut session = keyed(maker.port, version, "").await;
            assert_eq!(session.key[1..3], u16::to_le_bytes(id), "as PgBouncer writes it");
            for by in &pools {
                session.sleep().await;
                let sqlstate = session.cancelled_by(by.port).await;
                assert_eq!(sqlstate.as_deref(), Some("57014"), "of {} by {}", maker.port, by.port);
            }
        }
    }
    for pooled in &pools {
        let enough = || count(pooled, "forwarded") >= 4.0 && count(pooled, "sent") >= 6.0;
        eventually("all are counted", enough).await;
        assert_eq!([count(pooled, "forward_failed"), count(pooled, "forward_exhausted")], [0.0, 0.0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_another_process_that_nobody_has_stops_nobody_and_goes_no_further() {
    let cluster = postgres::shared();
    let pools = group(&cluster).await;
    let mut session = keyed(pools[0].port, 0x30000, "").await;
    session.sleep().await;
    let mut guess = session.key.clone();
    guess[3] ^= 1;
    cancel(pools[1].port, &guess).await;
    // Of a peer that is not in the list.
    guess[1] = 9;
    cancel(pools[1].port, &guess).await;
    session.still_sleeps().await;
    assert_eq!([count(&pools[1], "forwarded"), count(&pools[1], "unknown_key")], [1.0, 1.0]);
    assert_eq!([count(&pools[0], "forwarded"), count(&pools[0], "unknown_key")], [0.0, 1.0]);
}

/// Takes what a peer would, and lets a test answer.
struct Fake {
    listener: TcpListener,
    port: u16,
}

impl Fake {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        Self { listener, port }
    }

    /// Reads a packet.
    async fn packet(&self) -> (tokio::net::TcpStream, Vec<u8>) {
        let (mut stream, _) =
            tokio::time::timeout(5 * SECOND, self.listener.accept()).await.expect("one comes").unwrap();
        let length = stream.read_u32().await.unwrap();
        let mut rest = vec![0; length as usize - 4];
        stream.read_exact(&mut rest).await.unwrap();
        (stream, [&length.to_be_bytes()[..], &rest].concat())
    }
}

/// The frames are those that PgBouncer 1.26.1 sent when it was asked the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_passed_on_as_pgbouncer_does_and_with_a_ttl_of_zero_not_at_all() {
    let cluster = postgres::shared();
    let (pooled, fake) = (start(trusting(&cluster)).await, Fake::new().await);
    introduce(&pooled, 4660, &[peer(2, fake.port)]);
    let key = |last| [0x11, 2, 0, 0x44, 0x55, 0x66, 0x77, last];
    for (asked, passed) in [(0x83, 0x82), (0x82, 0x81), (0x81, 0x80)] {
        let request = tokio::spawn({
            let port = pooled.port;
            async move { cancel(port, &key(asked)).await }
        });
        let (stream, packet) = fake.packet().await;
        assert_eq!(packet, [&[0, 0, 0, 0x10, 0x04, 0xd2, 0x16, 0x2e][..], &key(passed)].concat());
        assert!(!request.is_finished(), "whoever cancels waits for the end");
        drop(stream);
        request.await.unwrap();
    }
    cancel(pooled.port, &key(0x80)).await;
    assert_eq!([count(&pooled, "forwarded"), count(&pooled, "forward_exhausted")], [3.0, 1.0]);
    let nobody = tokio::time::timeout(SECOND / 5, fake.listener.accept()).await;
    assert!(nobody.is_err(), "a fourth one came");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_hold_each_other_for_a_third_do_not_pass_a_request_on_for_ever() {
    let cluster = postgres::shared();
    let pools = [start(trusting(&cluster)).await, start(trusting(&cluster)).await];
    introduce(&pools[0], 1, &[peer(3, pools[1].port)]);
    introduce(&pools[1], 2, &[peer(3, pools[0].port)]);
    cancel(pools[0].port, &[0x11, 3, 0, 0x44, 0x55, 0x66, 0x77, 0x83]).await;
    assert_eq!([count(&pools[0], "forwarded"), count(&pools[1], "forwarded")], [2.0, 1.0]);
    assert_eq!([count(&pools[0], "forward_exhausted"), count(&pools[1], "forward_exhausted")], [0.0, 1.0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_down_ends_the_request_and_nothing_else() {
    let cluster = postgres::shared();
    let pooled = start(trusting(&cluster)).await;
    introduce(&pooled, 1, &[peer(2, free_port())]);
    let began = Instant::now();
    cancel(pooled.port, &[0x11, 2, 0, 0x44, 0x55, 0x66, 0x77, 0x83]).await;
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!([count(&pooled, "forwarded"), count(&pooled, "forward_failed")], [0.0, 1.0]);
    let mut session = keyed(pooled.port, 0x30000, "").await;
    session.sleep().await;
    assert_eq!(session.cancelled_by(pooled.port).await.as_deref(), Some("57014"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_to_a_slow_peer_are_bounded_in_number_and_time_and_are_shown() {
    let cluster = postgres::shared();
    let fake = Fake::new().await;
    let pool = Pool { cancel_wait_timeout: SECOND, max_client_conn: 1, ..trusting(&cluster) };
    let pooled = start(pool).await;
    introduce(&pooled, 1, &[peer(1, pooled.port), Peer { pool_size: Some(2), ..peer(2, fake.port) }]);
    let began = Instant::now();
    let requests: Vec<_> = (0..5u8)
        .map(|nth| {
            let port = pooled.port;
            tokio::spawn(async move { cancel(port, &[0x11, 2, 0, nth, 0x55, 0x66, 0x77, 0x83]).await })
        })
        .collect();
    let (mut one, _) = fake.packet().await;
    let (_two, _) = fake.packet().await;
    // They take nobody's place: the one client that may be here comes in.
    let mut session = keyed(pooled.port, 0x30000, "").await;
    session.send("SELECT 1").await;
    assert_eq!(session.sqlstate().await, None);
    let host = "127.0.0.1".to_owned();
    assert_eq!(
        rows(pooled.port, "SHOW PEERS").await,
        [
            ["1".to_owned(), host.clone(), pooled.port.to_string(), "5".into()],
            ["2".into(), host, fake.port.to_string(), "2".into()]
        ]
    );
    assert_eq!(rows(pooled.port, "SHOW PEER_POOLS").await, [["2", "2", "3", "2", "0"]]);
    let third = tokio::time::timeout(SECOND / 5, fake.listener.accept()).await;
    assert!(third.is_err(), "no more than two at a time");
    // One is dealt with, and a third one gets its place.
    one.shutdown().await.unwrap();
    let (_three, _) = fake.packet().await;
    for request in requests {
        request.await.unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!([count(&pooled, "forwarded"), count(&pooled, "forward_failed")], [1.0, 4.0]);
    eventually("nothing is left of them", || pooled.pooler.registry().client_count() == 1).await;
    assert_eq!(rows(pooled.port, "SHOW PEER_POOLS").await, [["2", "0", "0", "0", "0"]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_were_given_under_another_number_are_good_after_a_reload() {
    let cluster = postgres::shared();
    let pooled = start(trusting(&cluster)).await;
    let mut before = keyed(pooled.port, 0x30000, "").await;
    introduce(&pooled, 7, &[peer(7, pooled.port)]);
    let mut after = keyed(pooled.port, 0x30000, "").await;
    introduce(&pooled, 8, &[peer(7, free_port()), peer(8, pooled.port)]);
    for session in [&mut before, &mut after] {
        session.sleep().await;
        assert_eq!(session.cancelled_by(pooled.port).await.as_deref(), Some("57014"));
    }
    assert_eq!(after.key[1..3], [7, 0]);
}

/// The case that PgBouncer's manual shows: one port, and a Unix socket of each process's own for the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_share_a_port_pass_cancels_on_by_their_unix_sockets() {
    let cluster = postgres::shared();
    let sockets = tempfile::tempdir().unwrap();
    let port = free_port();
    let folder = |id: u16| sockets.path().join(id.to_string());
    let peers: String =
        (1..=3).map(|id| format!("  {id}: {{ host: {}, port: {port} }}\n", folder(id).display())).collect();
    let mut processes = Vec::new();
    for id in 1..=3 {
        std::fs::create_dir(folder(id)).unwrap();
        let settings = format!(
            "auth_type: trust\nso_reuseport: true\npeer_id: {id}\nunix_socket_dir: {}\n---\npeers:\n{peers}",
            folder(id).display()
        );
        processes.push(Process::start(&cluster, port, &settings).await);
    }
    let mut makers = std::collections::HashSet::new();
    for _ in 0..24 {
        let mut session = keyed(port, 0x30000, "").await;
        makers.insert(session.key[1]);
        session.sleep().await;
        // To whomever the kernel gives it.
        assert_eq!(session.cancelled_by(port).await.as_deref(), Some("57014"));
    }
    assert!(makers.len() > 1, "the kernel dealt all clients to one process");
    assert_eq!(rows(port, "SHOW PEER_POOLS").await.len(), 2);
}
