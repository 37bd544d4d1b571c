//! `/db/connections/`: who uses the database, seen from both sides of Django.
//!
//! The shape is one that scripts read (`.connections.default`, `.pgbouncer`); what both halves know together is added to
//! it. A client of the pool belongs to a replica when it says so (`application_name` is the name of a configured server),
//! else when exactly one configured server has its address; else it stands under its address. A name a client made up is
//! never a key, so the page cannot be grown from outside.

mod advice;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use serde_json::{Map, Value, json};

use crate::{
    health::board::{Board, ClientCount, DatabaseState, PinnedClient, PoolCounts, ServerName, Serving},
    telemetry::view::{Page, View},
};

/// Clients listed that keep their connections, those who have done so longest; they are counted all.
const PINNED_MAX: usize = 100;

/// One database as the page needs it: what the pool counts and what its probe saw.
#[derive(Debug, Clone)]
struct Database {
    name: Arc<str>,
    counts: PoolCounts,
    serving: Serving,
    state: Arc<DatabaseState>,
    pinned: Vec<PinnedClient>,
}

/// Returns the whole page. `container` is the host name of this process.
pub fn connections(board: &Board, container: &str) -> Value {
    let Some(pool) = board.pool() else {
        return json!({
            "container": container,
            "connections": {},
            "databases": {},
            "clients": {},
            "pgbouncer": { "enabled": false },
            "recommendations": [],
        });
    };
    let pinned = pool.pinned();
    let databases: Vec<Database> = pool
        .databases()
        .into_iter()
        .map(|(name, counts)| {
            let entry = board.database(&name);
            let own = |client: &&PinnedClient| client.database == name;
            let pinned = pinned.iter().filter(own).cloned().collect();
            Database { name, counts, serving: entry.serving(), state: entry.state(), pinned }
        })
        .collect();
    let mut connections = Map::new();
    if let Some(first) = databases.first() {
        connections.insert("default".into(), default_connections(&first.counts));
    }
    let by_name: Map<String, Value> =
        databases.iter().map(|database| (database.name.to_string(), database_value(database))).collect();
    json!({
        "container": container,
        "connections": connections,
        "databases": by_name,
        "clients": clients(board),
        "pgbouncer": { "enabled": true, "pool_mode": pool.pool_mode(), "implementation": "bookend" },
        "recommendations": advice::recommendations(&databases),
    })
}

fn default_connections(counts: &PoolCounts) -> Value {
    json!({
        "total_connections": counts.total,
        "active_connections": counts.active,
        "idle_connections": counts.idle,
        "waiting_clients": counts.waiting,
        "max_connections": counts.max,
        "using_pgbouncer": true,
    })
}

fn database_value(database: &Database) -> Value {
    let Database { counts, serving, state, pinned, .. } = database;
    json!({
        "role": state.role.as_str(),
        "up": match serving {
            Serving::Up => Some(true),
            Serving::Down => Some(false),
            Serving::Unknown => None,
        },
        "error": state.error,
        "latency_ms": state.latency.map(|latency| (latency.as_secs_f64() * 1e6).round() / 1e3),
        "clients": counts.clients,
        "total_connections": counts.total,
        "active_connections": counts.active,
        "idle_connections": counts.idle,
        "waiting_clients": counts.waiting,
        "max_connections": counts.max,
        "server_connections": state.server_connections,
        "server_max_connections": state.server_max_connections,
        "pinned_clients": pinned.len(),
        "pinned": pinned.iter().take(PINNED_MAX).map(pinned_value).collect::<Vec<_>>(),
    })
}

fn pinned_value(client: &PinnedClient) -> Value {
    json!({
        "client": client.id,
        "address": client.address.to_string(),
        "application_name": client.application_name,
        "reasons": client.reasons,
        "seconds": client.age.as_secs(),
    })
}

/// Returns the pool's clients by replica: the `clients` object of this page, and of `/status`.
pub fn clients(board: &Board) -> Value {
    let Some(pool) = board.pool() else { return json!({}) };
    let servers = board.servers();
    let mut replicas: BTreeMap<String, Replica> = BTreeMap::new();
    for count in pool.clients() {
        let key = match attribute(&servers, &count) {
            Some(name) => name.to_string(),
            None => count.address.to_string(),
        };
        replicas.entry(key).or_insert_with(|| Replica::at(count.address)).add(&count);
    }
    replicas.into_iter().map(|(name, replica)| (name, replica.value())).collect::<Map<_, _>>().into()
}

/// Names the server a client belongs to, if it is certain.
fn attribute<'a>(servers: &'a [ServerName], client: &ClientCount) -> Option<&'a Arc<str>> {
    if let Some(server) = servers.iter().find(|server| *server.name == *client.application_name) {
        return Some(&server.name);
    }
    let mut there = servers.iter().filter(|server| server.address.ip().to_canonical() == client.address.to_canonical());
    match (there.next(), there.next()) {
        (Some(only), None) => Some(&only.name),
        _ => None,
    }
}

/// One replica's database connections.
struct Replica {
    address: IpAddr,
    total: u32,
    active: u32,
    idle: u32,
    waiting: u32,
}

impl Replica {
    fn at(address: IpAddr) -> Self {
        Self { address: address.to_canonical(), total: 0, active: 0, idle: 0, waiting: 0 }
    }

    fn add(&mut self, count: &ClientCount) {
        self.total += count.total;
        self.active += count.active;
        self.idle += count.idle;
        self.waiting += count.waiting;
    }

    fn value(&self) -> Value {
        json!({
            "address": self.address.to_string(),
            "total_connections": self.total,
            "active_connections": self.active,
            "idle_connections": self.idle,
            "waiting": self.waiting,
        })
    }
}

/// The page, for the admin listener and the front's `builtin: db_connections`.
pub struct ConnectionsView {
    board: Arc<Board>,
    container: String,
}

impl ConnectionsView {
    /// Shows what `board` knows; `container` is the host name of this process.
    pub fn new(board: Arc<Board>, container: String) -> Self {
        Self { board, container }
    }
}

impl View for ConnectionsView {
    fn render(&self) -> Page {
        Page::json(&connections(&self.board, &self.container))
    }
}

#[cfg(test)]
mod tests;
