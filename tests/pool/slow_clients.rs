//! Clients that ask for much and take nothing, in front of a real PostgreSQL.

use bookend::{
    config::pool::{AuthType, Pool, PoolMode},
    health::drain::Phase,
    pool::wire::{frame, frontend, tag::backend as tag},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::support::*;

/// More than the kernel takes for a connection (`net.ipv4.tcp_wmem`: 4 MiB).
const MUCH: usize = 7 << 20;
const MIB: usize = 1 << 20;

/// A client that reads when it is told to.
struct Slow(TcpStream);

impl Slow {
    async fn login(pooled: &Pooled) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(([127, 0, 0, 1], pooled.port).into()).await.unwrap();
        let parameters = format!("user\0{USER}\0database\0{DATABASE}\0\0");
        let length = u32::try_from(parameters.len() + 8).unwrap();
        let startup = [&length.to_be_bytes()[..], &[0, 3, 0, 0], parameters.as_bytes()].concat();
        stream.write_all(&startup).await.unwrap();
        let mut slow = Self(stream);
        slow.answer().await;
        slow
    }

    async fn ask(&mut self, sql: &str) {
        let mut out = Vec::new();
        frontend::query(&mut out, sql.as_bytes());
        self.0.write_all(&out).await.unwrap();
    }

    async fn ask_much(&mut self) {
        self.ask(&format!("SELECT repeat('x', {MUCH})")).await;
    }

    /// Reads up to a ReadyForQuery; returns the bytes of rows.
    async fn answer(&mut self) -> usize {
        let mut rows = 0;
        loop {
            let mut header = [0; frame::HEADER_LEN];
            self.0.read_exact(&mut header).await.unwrap();
            let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize - 4;
            let mut body = vec![0; length];
            self.0.read_exact(&mut body).await.unwrap();
            match header[0] {
                tag::READY_FOR_QUERY => return rows,
                tag::DATA_ROW => rows += length - 6,
                tag::ERROR_RESPONSE => panic!("{}", String::from_utf8_lossy(&body)),
                _ => {}
            }
        }
    }
}

async fn pool_of_one(cluster: &Cluster, spill_buffer: usize, spill_memory: usize) -> Pooled {
    start(Pool { spill_buffer, spill_memory, ..one(cluster) }).await
}

fn one(cluster: &Cluster) -> Pool {
    Pool {
        auth_type: AuthType::Trust,
        default_pool_size: 1,
        spill_buffer: 16 * MIB,
        query_wait_timeout: Some(SECOND),
        ..config(cluster)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_its_answer_does_not_keep_the_server() {
    let cluster = postgres::shared();
    let pooled = pool_of_one(&cluster, 16 * MIB, 64 * MIB).await;
    let (mut slow, other) = (Slow::login(&pooled).await, pooled.client().await);
    slow.ask_much().await;
    eventually("much is kept for it", || pooled.metric("bookend_pool_spilled_bytes") > 1e6).await;
    for turn in 0..20 {
        assert_eq!(ask(&other, &format!("SELECT {turn}")).await.unwrap(), turn.to_string());
    }
    // What it asks meanwhile is answered behind what it has not taken.
    slow.ask("SELECT 'second'").await;
    assert_eq!(ask(&other, "SELECT 1").await.unwrap(), "1");
    assert_eq!(slow.answer().await, MUCH);
    assert_eq!(slow.answer().await, "second".len());
    eventually("the memory is given back", || pooled.metric("bookend_pool_spilled_bytes") == 0.0).await;
    assert_eq!(pooled.metric("bookend_pool_spill_overflows_total"), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_beyond_the_bound_keeps_the_server_until_it_is_taken() {
    let cluster = postgres::shared();
    let pooled = pool_of_one(&cluster, MIB, 64 * MIB).await;
    let (mut slow, other) = (Slow::login(&pooled).await, pooled.client().await);
    slow.ask_much().await;
    eventually("it does not fit", || pooled.metric("bookend_pool_spill_overflows_total") == 1.0).await;
    let (code, message) = told(&other.batch_execute("SELECT 1").await.unwrap_err());
    assert_eq!(code, "53300", "{message}");
    assert_eq!(slow.answer().await, MUCH);
    let other = pooled.client().await;
    assert_eq!(ask(&other, "SELECT 1").await.unwrap(), "1");
    assert!(pooled.metric("bookend_pool_slow_client_seconds_total") >= 0.9);
    assert_eq!(pooled.metric("bookend_pool_spilled_bytes"), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_together_stay_within_the_memory_of_all() {
    let cluster = postgres::shared();
    let limit = 24 * MIB;
    let config = Pool { spill_memory: limit, default_pool_size: 8, max_db_connections: None, ..one(&cluster) };
    let pooled = start(config).await;
    let mut slow = Vec::new();
    for _ in 0..8 {
        let mut client = Slow::login(&pooled).await;
        client.ask_much().await;
        slow.push(client);
    }
    let full = || pooled.metric("bookend_pool_spill_overflows_total") >= 1.0;
    eventually("not all fits", || {
        assert!(pooled.metric("bookend_pool_spilled_bytes") <= limit as f64);
        full()
    })
    .await;
    let reading = slow.into_iter().map(|mut client| tokio::spawn(async move { client.answer().await }));
    for client in reading.collect::<Vec<_>>() {
        assert_eq!(client.await.unwrap(), MUCH);
    }
    eventually("the memory is given back", || pooled.metric("bookend_pool_spilled_bytes") == 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_nothing_is_idle_killed_and_gives_its_memory_back() {
    let cluster = postgres::shared();
    for timed in [true, false] {
        let client_idle_timeout = timed.then_some(SECOND);
        let pooled = start(Pool { client_idle_timeout, ..one(&cluster) }).await;
        let mut slow = Slow::login(&pooled).await;
        slow.ask_much().await;
        let idle = || pooled.pooler.registry().clients().iter().all(|client| client.link().is_none());
        eventually("it holds no server", || pooled.metric("bookend_pool_spilled_bytes") > 1e6 && idle()).await;
        if !timed {
            let console = postgres::connect(pooled.port, "pgbouncer", "").await.unwrap();
            let id = pooled.pooler.registry().clients().iter().map(|client| client.id()).min().unwrap();
            console.batch_execute(&format!("KILL_CLIENT {id}")).await.unwrap();
            drop(console);
        }
        eventually("it is gone", || pooled.pooler.registry().client_count() == 0).await;
        assert_eq!(pooled.metric("bookend_pool_spilled_bytes"), 0.0);
        assert_eq!(pooled.servers(), 1, "the server is not its any more");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_gives_its_memory_back() {
    let cluster = postgres::shared();
    let pooled = pool_of_one(&cluster, 16 * MIB, 64 * MIB).await;
    let mut slow = Slow::login(&pooled).await;
    slow.ask_much().await;
    eventually("much is kept for it", || pooled.metric("bookend_pool_spilled_bytes") > 1e6).await;
    drop(slow);
    eventually("it is gone", || pooled.pooler.registry().client_count() == 0).await;
    assert_eq!(pooled.metric("bookend_pool_spilled_bytes"), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_lets_a_slow_client_take_its_answer_first() {
    let cluster = postgres::shared();
    let pooled = pool_of_one(&cluster, 16 * MIB, 64 * MIB).await;
    let mut slow = Slow::login(&pooled).await;
    slow.ask_much().await;
    eventually("much is kept for it", || pooled.metric("bookend_pool_spilled_bytes") > 1e6).await;
    pooled.drain.advance(Phase::Draining { deadline: tokio::time::Instant::now() + 30 * SECOND });
    assert_eq!(slow.answer().await, MUCH);
    let mut last = Vec::new();
    timeout(10 * SECOND, slow.0.read_to_end(&mut last)).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&last).contains("57P01"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_session_mode_the_server_stays_and_the_answer_is_whole() {
    let cluster = postgres::shared();
    let pooled = start(Pool { pool_mode: PoolMode::Session, ..one(&cluster) }).await;
    let mut slow = Slow::login(&pooled).await;
    slow.ask_much().await;
    eventually("much is kept for it", || pooled.metric("bookend_pool_spilled_bytes") > 1e6).await;
    assert_eq!(slow.answer().await, MUCH);
    slow.ask("SELECT 'second'").await;
    assert_eq!(slow.answer().await, "second".len());
    eventually("the memory is given back", || pooled.metric("bookend_pool_spilled_bytes") == 0.0).await;
}
