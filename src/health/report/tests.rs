use std::{net::SocketAddr, time::Duration};

use super::*;
use crate::health::board::{PinnedClient, PoolCensus, Role};

/// A pool of two databases whose clients are given.
struct Census {
    counts: PoolCounts,
    clients: Vec<ClientCount>,
}

impl PoolCensus for Census {
    fn databases(&self) -> Vec<(Arc<str>, PoolCounts)> {
        vec![("arena_db".into(), self.counts), ("arena_db_read".into(), PoolCounts::default())]
    }

    fn clients(&self) -> Vec<ClientCount> {
        self.clients.clone()
    }

    fn pinned(&self) -> Vec<PinnedClient> {
        let pinned = |id, seconds| PinnedClient {
            database: "arena_db_read".into(),
            id,
            address: "10.0.0.5".parse().unwrap(),
            application_name: "web-1".into(),
            reasons: vec!["temp", "listen"],
            age: Duration::from_secs(seconds),
        };
        vec![pinned(7, 90), pinned(9, 5)]
    }

    fn pool_mode(&self) -> &'static str {
        "transaction"
    }
}

fn client(address: &str, application_name: &str, total: u32, active: u32) -> ClientCount {
    ClientCount {
        address: address.parse().unwrap(),
        application_name: application_name.into(),
        total,
        active,
        idle: total - active,
        waiting: 0,
    }
}

fn server(name: &str, address: &str) -> ServerName {
    ServerName { name: name.into(), address: address.parse::<SocketAddr>().unwrap() }
}

/// A board with a pool on it; the pool lives as long as the second value.
fn board(counts: PoolCounts, clients: Vec<ClientCount>) -> (Board, Arc<dyn PoolCensus>) {
    let board = Board::default();
    let census: Arc<dyn PoolCensus> = Arc::new(Census { counts, clients });
    board.publish_pool(Arc::downgrade(&census));
    (board, census)
}

const BUSY: PoolCounts = PoolCounts { total: 45, active: 8, idle: 37, waiting: 0, max: 50, clients: 200 };

#[test]
fn the_shape_is_the_one_that_scripts_read() {
    let (board, _pool) = board(BUSY, vec![client("10.0.0.5", "", 4, 1)]);
    board.publish_servers(vec![server("web-1", "10.0.0.5:8001")]);
    board.database("arena_db").publish(
        Serving::Up,
        DatabaseState {
            role: Role::Primary,
            latency: Some(Duration::from_micros(1_500)),
            server_connections: Some(47),
            server_max_connections: Some(100),
            error: None,
        },
    );
    let mut page = connections(&board, "bookend-1");
    let advice = page["recommendations"].take();
    assert_eq!(
        page,
        json!({
            "container": "bookend-1",
            "connections": { "default": {
                "total_connections": 45, "active_connections": 8, "idle_connections": 37, "waiting_clients": 0,
                "max_connections": 50, "using_pgbouncer": true
            } },
            "databases": {
                "arena_db": {
                    "role": "primary", "up": true, "error": null, "latency_ms": 1.5, "clients": 200,
                    "total_connections": 45, "active_connections": 8, "idle_connections": 37, "waiting_clients": 0,
                    "max_connections": 50, "server_connections": 47, "server_max_connections": 100,
                    "pinned_clients": 0, "pinned": []
                },
                "arena_db_read": {
                    "role": "unknown", "up": null, "error": null, "latency_ms": null, "clients": 0,
                    "total_connections": 0, "active_connections": 0, "idle_connections": 0, "waiting_clients": 0,
                    "max_connections": 0, "server_connections": null, "server_max_connections": null,
                    "pinned_clients": 2, "pinned": [
                        { "client": 7, "address": "10.0.0.5", "application_name": "web-1",
                          "reasons": ["temp", "listen"], "seconds": 90 },
                        { "client": 9, "address": "10.0.0.5", "application_name": "web-1",
                          "reasons": ["temp", "listen"], "seconds": 5 },
                    ]
                }
            },
            "clients": { "web-1": {
                "address": "10.0.0.5", "total_connections": 4, "active_connections": 1, "idle_connections": 3, "waiting": 0
            } },
            "pgbouncer": { "enabled": true, "pool_mode": "transaction", "implementation": "bookend" },
            "recommendations": null
        })
    );
    assert!(advice[0].as_str().unwrap().contains("37 of 45 server connections to arena_db are idle"), "{advice}");
}

#[test]
fn without_a_pool_the_page_says_so() {
    let page = connections(&Board::default(), "bookend-1");
    assert_eq!(page["pgbouncer"], json!({ "enabled": false }));
    assert_eq!(page["connections"], json!({}));
    assert_eq!(page["recommendations"], json!([]));
}

#[test]
fn a_client_is_named_by_its_application_name_first() {
    let clients = vec![client("127.0.0.1", "web-2", 3, 1), client("127.0.0.1", "web-1", 2, 0)];
    let (board, _pool) = board(BUSY, clients);
    board.publish_servers(vec![server("web-1", "127.0.0.1:8001"), server("web-2", "127.0.0.1:8002")]);
    let clients = super::clients(&board);
    assert_eq!(clients["web-2"]["total_connections"], 3);
    assert_eq!(clients["web-1"]["total_connections"], 2);
}

#[test]
fn an_address_that_two_servers_share_names_neither() {
    let (board, _pool) = board(BUSY, vec![client("127.0.0.1", "", 3, 1), client("127.0.0.1", "psql", 1, 0)]);
    board.publish_servers(vec![server("web-1", "127.0.0.1:8001"), server("web-2", "127.0.0.1:8002")]);
    let clients = super::clients(&board);
    assert_eq!(clients.as_object().unwrap().keys().collect::<Vec<_>>(), ["127.0.0.1"]);
    assert_eq!(clients["127.0.0.1"]["total_connections"], 4);
}

#[test]
fn a_name_a_client_made_up_is_never_a_key() {
    let clients = (0..100).map(|n| client("10.1.1.1", &format!("made up {n}"), 1, 0)).collect();
    let (board, _pool) = board(BUSY, clients);
    assert_eq!(super::clients(&board).as_object().unwrap().len(), 1);
}

#[test]
fn an_ipv4_client_on_an_ipv6_socket_is_the_same_client() {
    let (board, _pool) = board(BUSY, vec![client("::ffff:10.0.0.5", "", 1, 0)]);
    board.publish_servers(vec![server("web-1", "10.0.0.5:8001")]);
    assert_eq!(super::clients(&board)["web-1"]["address"], "10.0.0.5");
}

fn advice(counts: PoolCounts, serving: Serving, state: DatabaseState) -> Vec<String> {
    advice::recommendations(&[Database {
        name: "arena_db".into(),
        counts,
        serving,
        state: Arc::new(state),
        pinned: vec![],
    }])
}

fn up(server_connections: u32, server_max_connections: u32) -> DatabaseState {
    DatabaseState {
        role: Role::Primary,
        server_connections: Some(server_connections),
        server_max_connections: Some(server_max_connections),
        ..DatabaseState::default()
    }
}

#[test]
fn nothing_is_recommended_when_all_is_well() {
    let counts = PoolCounts { total: 10, active: 6, idle: 4, waiting: 0, max: 20, clients: 50 };
    assert_eq!(advice(counts, Serving::Up, up(12, 100)), Vec::<String>::new());
}

#[test]
fn waiting_clients_ask_for_a_larger_pool_if_the_server_has_room() {
    let full = PoolCounts { total: 20, active: 20, idle: 0, waiting: 7, max: 20, clients: 90 };
    let said = advice(full, Serving::Up, up(25, 100));
    assert!(said[0].contains("7 clients of arena_db wait while all 20"), "{said:?}");
    assert!(said[0].contains("raise default_pool_size (PostgreSQL has room for 72 more)"), "{said:?}");
    let said = advice(full, Serving::Up, up(97, 100));
    assert!(said[0].contains("PostgreSQL has no connections left"), "{said:?}");
    assert!(said[1].contains("97 of its max_connections = 100"), "{said:?}");
}

#[test]
fn a_database_that_is_down_is_said_with_its_error_and_nothing_guessed() {
    let counts = PoolCounts { waiting: 9, max: 20, ..PoolCounts::default() };
    let state = DatabaseState { error: Some("connection refused".into()), ..DatabaseState::default() };
    assert_eq!(advice(counts, Serving::Down, state), ["database arena_db is down: connection refused"]);
}

#[test]
fn a_pool_larger_than_its_server_is_told_before_it_hurts() {
    let counts = PoolCounts { total: 2, active: 1, idle: 1, waiting: 0, max: 100, clients: 2 };
    let said = advice(counts, Serving::Up, up(5, 100));
    assert!(said[0].contains("may open 100 connections to arena_db"), "{said:?}");
    assert!(said[0].contains("allows 97"), "{said:?}");
}

#[test]
fn a_slow_probe_and_an_unknown_role_are_told() {
    let state = DatabaseState { latency: Some(Duration::from_millis(250)), ..DatabaseState::default() };
    let said = advice(PoolCounts::default(), Serving::Up, state);
    assert!(said[0].contains("primary or a replica is not known"), "{said:?}");
    assert!(said[1].contains("250 ms"), "{said:?}");
}
