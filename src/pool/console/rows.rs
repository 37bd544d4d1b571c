//! What the console asks of the pool, as plain values.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;

use super::averages::{Period, Totals};
use crate::{
    health::drain::WaitFor,
    pool::{
        notify,
        peer::Peer,
        pins::{Pins, Reason},
    },
};

/// The pool as the console sees it. Reading walks tables under short locks; it never waits for the network.
#[async_trait]
pub trait Source: Send + Sync {
    fn pools(&self) -> Vec<PoolRow>;
    fn stats(&self) -> Vec<StatsRow>;
    /// Clients that have proven who they are.
    fn clients(&self) -> Vec<SocketRow>;
    /// Connections that have not said (or not proven) who they are.
    fn strangers(&self) -> Vec<SocketRow>;
    fn servers(&self) -> Vec<SocketRow>;
    fn databases(&self) -> Vec<DatabaseRow>;
    fn users(&self) -> Vec<UserRow>;
    /// The host names of servers.
    fn names(&self) -> Vec<NameRow>;
    /// The processes of `peers:`.
    fn peers(&self) -> Vec<PeerRow>;
    /// What is kept for everybody who is here.
    fn memory(&self) -> Vec<MemoryRow>;
    /// `(key, value, default, changeable)`; no secrets.
    fn config(&self) -> Vec<ConfigRow>;
    /// Named databases by `(name, role, whether it serves)`; those not looked at yet are left out.
    fn serving(&self) -> Vec<(Arc<str>, &'static str, bool)>;
    /// Database and reason of each client that keeps its server between transactions; one entry for each reason.
    fn pinned(&self) -> Vec<(Arc<str>, Reason)>;
    /// What each pool listens to for its clients, by database.
    fn listening(&self) -> Vec<(Arc<str>, notify::Census)>;
    /// Whether `PAUSE` without a name is in force.
    fn paused(&self) -> bool;

    /// Stops handing out servers and returns when none of `database` (or of any) is leased. Cancel safe: giving up leaves
    /// the database paused.
    ///
    /// # Errors
    /// A text for the user, e.g. an unknown database.
    async fn pause(&self, database: Option<&str>) -> Result<(), String>;
    /// Undoes `PAUSE` and `KILL`.
    fn resume(&self, database: Option<&str>) -> Result<(), String>;
    /// Closes servers at their next boundary; new ones are opened instead.
    fn reconnect(&self, database: Option<&str>) -> Result<(), String>;
    /// Drops clients and servers at once and pauses the database.
    fn kill(&self, database: Option<&str>) -> Result<(), String>;
    /// Drops one client at once, by its number in SHOW CLIENTS.
    fn kill_client(&self, id: u64) -> Result<(), String>;
    /// Refuses new clients of `database`.
    fn disable(&self, database: &str) -> Result<(), String>;
    /// Undoes `DISABLE`.
    fn enable(&self, database: &str) -> Result<(), String>;
    /// Returns when all servers of `database` (or of any) that were to be closed are. Cancel safe.
    async fn wait_close(&self, database: Option<&str>) -> Result<(), String>;
    /// Asks the process to leave; returns as soon as it is told.
    fn leave(&self, wait_for: WaitFor) -> Result<(), String>;
    /// Reads the configuration again.
    async fn reload(&self) -> Result<(), String>;
    /// Gives a setting another value, until the next reload.
    async fn set(&self, key: &str, value: &str) -> Result<(), String>;
}

/// A row of SHOW POOLS: one (database, user).
#[derive(Debug, Clone, Default)]
pub struct PoolRow {
    pub database: Arc<str>,
    pub user: Arc<str>,
    /// PgBouncer's meaning: linked to a server, or idle with nothing to ask.
    pub cl_active: u32,
    /// Of `cl_active`, those that are idle. Not a column.
    pub cl_idle: u32,
    pub cl_waiting: u32,
    pub cl_active_cancel_req: u32,
    pub cl_waiting_cancel_req: u32,
    pub sv_active: u32,
    pub sv_active_cancel: u32,
    pub sv_being_canceled: u32,
    pub sv_idle: u32,
    /// Idle for so long that they are checked before they are lent.
    pub sv_used: u32,
    pub sv_tested: u32,
    pub sv_login: u32,
    /// How long the first client in the queue has waited.
    pub maxwait: Duration,
    pub pool_mode: &'static str,
    /// Of a list of hosts.
    pub load_balance_hosts: Option<&'static str>,
}

/// A row of SHOW STATS.
#[derive(Debug, Clone)]
pub struct StatsRow {
    pub database: Arc<str>,
    pub total: Totals,
    /// The last whole `stats_period`, which the averages are made of.
    pub period: Period,
}

/// A row of SHOW CLIENTS or SHOW SERVERS.
#[derive(Debug, Clone)]
pub struct SocketRow {
    pub user: Arc<str>,
    pub database: Arc<str>,
    /// PgBouncer's word: active, waiting, idle, new, …
    pub state: &'static str,
    /// PgBouncer's word: none, logical, physical.
    pub replication: &'static str,
    /// The two ends, once connected.
    pub peer: Option<Peer>,
    pub connect_time: SystemTime,
    pub request_time: Option<SystemTime>,
    pub wait: Duration,
    pub close_needed: bool,
    pub id: u64,
    /// The id of the socket on the other side, when linked.
    pub link: Option<u64>,
    /// The backend's process id, for servers.
    pub remote_pid: i32,
    /// Version and cipher; empty without TLS.
    pub tls: String,
    pub application_name: String,
    pub prepared_statements: usize,
    /// Of a client: why it keeps its server between transactions.
    pub pinned: Pins,
}

/// A row of SHOW DATABASES.
#[derive(Debug, Clone)]
pub struct DatabaseRow {
    pub name: Arc<str>,
    pub host: String,
    pub port: u16,
    /// The name on the server.
    pub database: String,
    pub force_user: Option<String>,
    pub pool_size: u32,
    pub min_pool_size: u32,
    pub reserve_pool_size: u32,
    pub server_lifetime: Duration,
    /// The database's own.
    pub pool_mode: Option<&'static str>,
    /// Of a list of hosts.
    pub load_balance_hosts: Option<&'static str>,
    /// 0 = no limit.
    pub max_connections: u32,
    pub current_connections: u32,
    /// 0 = no limit.
    pub max_client_connections: u32,
    pub current_client_connections: u32,
    pub paused: bool,
    pub disabled: bool,
}

/// A row of SHOW USERS.
#[derive(Debug, Clone)]
pub struct UserRow {
    pub name: String,
    pub pool_size: Option<u32>,
    pub reserve_pool_size: Option<u32>,
    pub pool_mode: Option<&'static str>,
    /// 0 = no limit.
    pub max_user_connections: u32,
    pub current_connections: u32,
    /// 0 = no limit.
    pub max_user_client_connections: u32,
    pub current_client_connections: u32,
}

/// A row of SHOW DNS_HOSTS.
#[derive(Debug, Clone)]
pub struct NameRow {
    pub host: Arc<str>,
    /// Until it is looked up again.
    pub ttl: Duration,
    pub addresses: Vec<IpAddr>,
    /// Whether it is being looked up now.
    pub asking: bool,
}

/// A row of SHOW PEERS and SHOW PEER_POOLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRow {
    pub id: u16,
    pub host: String,
    pub port: u16,
    /// Cancel requests to it at a time.
    pub pool_size: u32,
    /// Whether requests may go there: it is another process, and this one belongs to the group.
    pub is_other: bool,
    /// Requests that are not sent yet, those whose connection is being made among them.
    pub waiting: u32,
    pub connecting: u32,
    /// Requests that it has not dealt with yet.
    pub sent: u32,
}

/// A row of SHOW MEM.
#[derive(Debug, Clone)]
pub struct MemoryRow {
    pub name: &'static str,
    /// Bytes of one.
    pub size: usize,
    pub used: usize,
}

/// A row of SHOW CONFIG.
#[derive(Debug, Clone)]
pub struct ConfigRow {
    pub key: String,
    pub value: String,
    pub default: String,
    /// Whether a reload takes it in.
    pub changeable: bool,
}
