//! Lists of hosts, and names that move: one cluster on two addresses of this machine.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bookend::{
    config::pool::{Database, DatabaseServers, LoadBalance, Pool, Servers},
    pool::names::Lookup,
};

use crate::support::*;

/// The address that the server was reached at.
const WHERE: &str = "SELECT host(inet_server_addr())";

/// A resolver that answers what it is told.
#[derive(Default)]
struct Told(Mutex<HashMap<String, Vec<IpAddr>>>);

impl Told {
    fn tell(&self, host: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.0.lock().unwrap().insert(host.into(), addresses);
    }
}

#[async_trait]
impl Lookup for Told {
    async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        self.0.lock().unwrap().get(host).cloned().ok_or_else(|| io::Error::other("not known"))
    }
}

fn at(cluster: &Cluster, host: &str, load_balance_hosts: LoadBalance) -> Database {
    let servers = DatabaseServers { load_balance_hosts, ..DatabaseServers::default() };
    Database { host: host.into(), servers, ..database(cluster, DATABASE) }
}

/// Where as many connections as there are clients with open transactions lead.
async fn places(pooled: &Pooled, count: usize) -> Vec<String> {
    let (mut clients, mut places) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let client = pooled.client().await;
        client.batch_execute("BEGIN").await.unwrap();
        places.push(ask(&client, WHERE).await.unwrap());
        clients.push(client);
    }
    places.sort();
    places
}

/// The rows of a console's answer.
async fn shown(pooled: &Pooled, sql: &str) -> Vec<tokio_postgres::SimpleQueryRow> {
    let console = postgres::connect(pooled.port, "pgbouncer", "").await.unwrap();
    rows(&console, sql).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_go_to_each_host_of_a_list_in_turn() {
    let cluster = postgres::shared();
    let databases = vec![at(&cluster, "127.0.0.1,127.0.0.2", LoadBalance::RoundRobin)];
    let pooled = start(Pool { databases, default_pool_size: 8, ..config(&cluster) }).await;
    // The probe's connections take turns too, every two seconds.
    let places = places(&pooled, 8).await;
    for host in ["127.0.0.1", "127.0.0.2"] {
        assert!(places.iter().filter(|place| *place == host).count() >= 3, "{places:?}");
    }
    for sql in ["SHOW DATABASES", "SHOW POOLS"] {
        let rows = shown(&pooled, sql).await;
        assert!(rows.iter().any(|row| row.get("load_balance_hosts") == Some("round-robin")), "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_balancing_one_host_has_them_all() {
    let cluster = postgres::shared();
    let databases = vec![at(&cluster, "127.0.0.2,127.0.0.1", LoadBalance::Disable)];
    let pooled = start(Pool { databases, ..config(&cluster) }).await;
    assert_eq!(places(&pooled, 3).await, ["127.0.0.2"; 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_not_there_is_passed_over_without_anybody_waiting() {
    let cluster = postgres::shared();
    for balance in [LoadBalance::RoundRobin, LoadBalance::Disable] {
        // Nobody listens on the first.
        let databases = vec![at(&cluster, "127.0.0.3,127.0.0.1", balance)];
        let pooled = start(Pool { databases, ..config(&cluster) }).await;
        let began = std::time::Instant::now();
        assert_eq!(places(&pooled, 3).await, ["127.0.0.1"; 3], "{balance:?}");
        assert!(began.elapsed() < 5 * SECOND, "{:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_moves_takes_its_connections_along_at_their_boundaries() {
    let (cluster, told) = (postgres::shared(), Arc::new(Told::default()));
    told.tell("db.test", &["127.0.0.1"]);
    let servers = Servers { dns_max_ttl: SECOND, ..Servers::default() };
    let databases = vec![at(&cluster, "db.test", LoadBalance::RoundRobin)];
    let pooled = start_with(Pool { databases, servers, ..config(&cluster) }, told.clone()).await;
    let (idle, busy) = (pooled.client().await, pooled.client().await);
    assert_eq!(ask(&idle, WHERE).await.unwrap(), "127.0.0.1");
    busy.batch_execute("BEGIN").await.unwrap();
    told.tell("db.test", &["127.0.0.2"]);
    let outdated = || pooled.pooler.registry().servers().iter().any(|server| server.close_needed());
    eventually("the change is seen", outdated).await;
    assert_eq!(ask(&idle, WHERE).await.unwrap(), "127.0.0.2");
    assert_eq!(ask(&busy, WHERE).await.unwrap(), "127.0.0.1", "a transaction is not interrupted");
    busy.batch_execute("COMMIT").await.unwrap();
    assert_eq!(ask(&busy, WHERE).await.unwrap(), "127.0.0.2");
    assert!(!outdated());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_console_lists_names_with_their_addresses() {
    let (cluster, told) = (postgres::shared(), Arc::new(Told::default()));
    told.tell("db.test", &["127.0.0.1", "127.0.0.2"]);
    let databases = vec![at(&cluster, "db.test", LoadBalance::RoundRobin)];
    let pooled = start_with(Pool { databases, ..config(&cluster) }, told.clone()).await;
    assert_eq!(places(&pooled, 2).await, ["127.0.0.1", "127.0.0.2"], "several answers are used in turn");
    let rows = shown(&pooled, "SHOW DNS_HOSTS").await;
    assert_eq!((rows[0].get("hostname"), rows[0].get("addrs")), (Some("db.test"), Some("127.0.0.1:0,127.0.0.2:0")));
    assert!(rows[0].get("ttl").unwrap().parse::<u32>().unwrap() <= 15);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_is_not_known_yet_keeps_clients_waiting_until_it_is() {
    let (cluster, told) = (postgres::shared(), Arc::new(Told::default()));
    let servers = Servers { dns_nxdomain_ttl: SECOND, ..Servers::default() };
    let databases = vec![at(&cluster, "db.test", LoadBalance::RoundRobin)];
    let pooled = start_with(Pool { databases, servers, ..config(&cluster) }, told.clone()).await;
    let port = pooled.port;
    let coming = tokio::spawn(async move { postgres::connect(port, DATABASE, "").await.unwrap() });
    tokio::time::sleep(SECOND / 2).await;
    told.tell("db.test", &["127.0.0.1"]);
    assert_eq!(ask(&coming.await.unwrap(), "SELECT 1").await.unwrap(), "1");
}
