//! The board: who is up, as seen from the other half of the process.
//!
//! Entries are made once per name and live as long as the process, so a reader keeps the `Arc` and asks an atomic per
//! request; reloads change what is written into an entry, never the entry itself.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Weak,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

/// Whether a database serves, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Serving {
    /// Not looked at yet, or nobody here pools a database of this name.
    Unknown = 0,
    Up = 1,
    Down = 2,
}

/// What a PostgreSQL server is to its cluster (`pg_is_in_recovery()`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    #[default]
    Unknown,
    Primary,
    Replica,
}

impl Role {
    /// Returns the name used on pages and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Primary => "primary",
            Self::Replica => "replica",
        }
    }
}

/// What the pool saw when it last looked at a database, and its own counts for it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DatabaseState {
    pub role: Role,
    /// Round trip of the last successful probe.
    pub latency: Option<Duration>,
    /// Client backends on the PostgreSQL server (everyone's, not only ours).
    pub server_connections: Option<u32>,
    /// The server's `max_connections`.
    pub server_max_connections: Option<u32>,
    /// Why it is down, in words for the operator; never a secret.
    pub error: Option<String>,
}

/// The pool's own connections for one database at this moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolCounts {
    /// Server connections open.
    pub total: u32,
    /// Of those, leased to a client.
    pub active: u32,
    pub idle: u32,
    /// Clients waiting for a server connection.
    pub waiting: u32,
    /// The most server connections this pool may open (default_pool_size and reserve, or max_db_connections).
    pub max: u32,
    /// Clients logged in to this database.
    pub clients: u32,
}

/// One database on the board.
#[derive(Debug)]
pub struct DatabaseEntry {
    name: Arc<str>,
    serving: AtomicU8,
    state: ArcSwap<DatabaseState>,
}

impl DatabaseEntry {
    /// Returns the name in pool.yaml.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Returns whether the database serves. One atomic load: made for every request.
    pub fn serving(&self) -> Serving {
        match self.serving.load(Ordering::Relaxed) {
            1 => Serving::Up,
            2 => Serving::Down,
            _ => Serving::Unknown,
        }
    }

    /// Returns what was last seen.
    pub fn state(&self) -> Arc<DatabaseState> {
        self.state.load_full()
    }

    /// Publishes what a probe saw.
    pub fn publish(&self, serving: Serving, state: DatabaseState) {
        self.state.store(Arc::new(state));
        self.serving.store(serving as u8, Ordering::Relaxed);
    }
}

/// A group of pool clients with one address and application name, and what they are doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCount {
    pub address: IpAddr,
    pub application_name: String,
    pub total: u32,
    /// Holding a server.
    pub active: u32,
    pub idle: u32,
    /// Waiting for a server.
    pub waiting: u32,
}

/// A client of the pool that keeps its server connection between transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedClient {
    pub database: Arc<str>,
    /// Its number in SHOW CLIENTS.
    pub id: u64,
    pub address: IpAddr,
    pub application_name: String,
    pub reasons: Vec<&'static str>,
    /// For how long.
    pub age: Duration,
}

/// What the pool can say of itself on demand. Walks the pool's tables: for pages, never per request.
pub trait PoolCensus: Send + Sync {
    /// Databases in the order of pool.yaml, with the pool's counts.
    fn databases(&self) -> Vec<(Arc<str>, PoolCounts)>;
    /// Clients grouped by address and application name.
    fn clients(&self) -> Vec<ClientCount>;
    /// Clients that keep their server connections, longest first.
    fn pinned(&self) -> Vec<PinnedClient>;
    /// `transaction` or `session`.
    fn pool_mode(&self) -> &'static str;
}

/// A server of the front, as the pool's pages name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerName {
    pub name: Arc<str>,
    pub address: SocketAddr,
}

/// The board itself; one per process, shared by `Arc`.
#[derive(Default)]
pub struct Board {
    databases: Mutex<HashMap<Arc<str>, Arc<DatabaseEntry>>>,
    servers: ArcSwap<Vec<ServerName>>,
    pool: Mutex<Option<Weak<dyn PoolCensus>>>,
}

impl Board {
    /// Returns the entry of a database, made on first mention.
    pub fn database(&self, name: &str) -> Arc<DatabaseEntry> {
        let mut databases = self.databases.lock();
        if let Some(entry) = databases.get(name) {
            return entry.clone();
        }
        let name: Arc<str> = name.into();
        let entry = Arc::new(DatabaseEntry {
            name: name.clone(),
            serving: AtomicU8::new(Serving::Unknown as u8),
            state: ArcSwap::default(),
        });
        databases.insert(name, entry.clone());
        entry
    }

    /// Publishes the front's servers (all upstreams, each once).
    pub fn publish_servers(&self, servers: Vec<ServerName>) {
        self.servers.store(Arc::new(servers));
    }

    /// Returns the front's servers.
    pub fn servers(&self) -> Arc<Vec<ServerName>> {
        self.servers.load_full()
    }

    /// Announces the pool. Held weakly: the pool owns itself.
    pub fn publish_pool(&self, pool: Weak<dyn PoolCensus>) {
        *self.pool.lock() = Some(pool);
    }

    /// Returns the pool, when one runs.
    pub fn pool(&self) -> Option<Arc<dyn PoolCensus>> {
        self.pool.lock().as_ref().and_then(Weak::upgrade)
    }
}
