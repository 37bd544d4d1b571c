//! What `pool.yaml` says, checked: the database half of the process.
//!
//! Keys have PgBouncer's names and meanings, so that its documentation is ours too. A timeout of `0` means "never" and is
//! `None` here; a limit of `0` is `None` as well, and the general one counts. A pool's size of `0` is PgBouncer's "no limit".

pub mod access;
pub mod daemon;
mod database;
mod databases;
mod foreign;
pub mod hba;
mod listen;
mod notify;
mod password;
mod peers;
mod require_auth;
mod servers;
mod sessions;
mod settings;
mod timeouts;
mod tls;
mod user;
pub mod userlist;

use std::{sync::Arc, time::Duration};

use self::databases::Databases;
pub use self::{
    access::{Access, Logged, Lookup, OwnLookup},
    listen::{Group, Listen, Tcp, UnixSocket, unix_socket_path},
    notify::Notifications,
    password::classify,
    peers::{Peer, Peers},
    require_auth::{Asked, RequireAuth},
    servers::{DatabaseServers, LoadBalance, Protocol, Servers},
    sessions::Sessions,
    timeouts::{Own, UserTimeouts},
};
pub(super) use self::{database::FALLBACK, servers::EMPTY_QUERY};
use crate::{
    config::{
        field::Field,
        ini,
        lb::process::{self, Process},
        node::Node,
        reading::{Reading, Spot},
        secret::Secret,
    },
    tls::{Accept, Connect},
};

/// Connections that one pool of a database and user may be told to open at most.
const MAX_POOL_SIZE: u64 = 10_000;

/// The whole of `pool.yaml`.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    pub listen: Listen,
    pub tcp: Tcp,
    /// Worker threads of the pool. Default 1: both sockets of a transaction then live on one reactor.
    pub threads: usize,
    pub auth_type: AuthType,
    pub access: Access,
    /// `client_tls_sslmode` and what goes with it. `None`: clients are told that there is no TLS.
    pub client_tls: Option<ClientTls>,
    /// `server_tls_sslmode` and what goes with it. `None`: servers are not asked for TLS. Default: `prefer`.
    pub server_tls: Option<Arc<ServerTls>>,
    /// `server_require_auth`
    pub server_require_auth: RequireAuth,
    pub admin_users: Vec<String>,
    pub stats_users: Vec<String>,
    pub pool_mode: PoolMode,
    /// Default 1,000.
    pub max_client_conn: usize,
    /// Clients of one database, of all users together.
    pub max_db_client_connections: Option<u32>,
    /// Clients of one user, of all databases together.
    pub max_user_client_connections: Option<u32>,
    /// Default 20. 0: no limit.
    pub default_pool_size: u32,
    pub min_pool_size: u32,
    pub reserve_pool_size: u32,
    /// Default 5 s. `None`: the reserve is never used.
    pub reserve_pool_timeout: Option<Duration>,
    pub max_db_connections: Option<u32>,
    /// Default 120 s.
    pub query_wait_timeout: Option<Duration>,
    /// Default 600 s.
    pub server_idle_timeout: Option<Duration>,
    /// Default 3,600 s; each server's own is jittered by up to 20 %. Zero: a connection is used once.
    pub server_lifetime: Duration,
    /// Default 15 s: TCP connect and login.
    pub server_connect_timeout: Duration,
    /// Longest pause between failed logins; the first is 100 ms. Default 15 s as in PgBouncer.
    pub server_login_retry: Duration,
    pub query_timeout: Option<Duration>,
    pub transaction_timeout: Option<Duration>,
    pub idle_transaction_timeout: Option<Duration>,
    pub client_idle_timeout: Option<Duration>,
    /// Default 60 s.
    pub client_login_timeout: Duration,
    /// How long an abandoned transaction may take to roll back before its server is closed. Default 5 s.
    pub rollback_timeout: Duration,
    /// Default 10 s.
    pub cancel_wait_timeout: Duration,
    /// Per server; 0 turns named statements off (forwarded untouched). Default 200.
    pub max_prepared_statements: usize,
    /// Statements without a name are prepared once for each server too. Default true.
    pub prepare_unnamed_statements: bool,
    /// Bytes of all prepared statements' texts, for the whole process. Default 64 MiB.
    pub max_statement_memory: usize,
    /// Bytes of one protocol message. Default 2^31 - 1.
    pub max_packet_size: u32,
    /// Bytes of messages that must be held whole (Parse, Bind headers, parameters). Default 16 MiB.
    pub max_held_message: usize,
    /// Bytes of answers kept for a client that does not take them, so that its server need not wait. 0: none. Default 256 KiB.
    pub spill_buffer: usize,
    /// The same of all clients together. Default 64 MiB.
    pub spill_memory: usize,
    /// Startup parameters that are accepted and ignored.
    pub ignore_startup_parameters: Vec<String>,
    /// Reported parameters that are kept per client beside the standard ones.
    pub track_extra_parameters: Vec<String>,
    /// Default 4,096.
    pub scram_iterations: u32,
    /// Window of the averages in SHOW STATS. Default 60 s.
    pub stats_period: Duration,
    /// What else there is to say about server connections.
    pub servers: Servers,
    pub sessions: Sessions,
    /// `peer_id` and `peers`
    pub peers: Peers,
    pub probe: Probe,
    pub daemon: daemon::Daemon,
    /// In the order of the file; the first is `default` in `/db/connections/`. Names are unique.
    pub databases: Vec<Database>,
    /// `users:` and `auth_file`; `users:` wins.
    pub users: Vec<User>,
}

/// TLS towards clients.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientTls {
    pub mode: SslMode,
    pub files: TlsFiles,
    pub accept: Accept,
}

/// TLS towards PostgreSQL.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerTls {
    pub mode: SslMode,
    /// `server_tls_sslnegotiation: direct`: begun at once, not asked for (PostgreSQL 17).
    pub direct: bool,
    pub files: TlsFiles,
    pub connect: Connect,
}

/// The files as pool.yaml names them; what they hold has been read.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TlsFiles {
    pub key: Option<String>,
    pub cert: Option<String>,
    pub ca: Option<String>,
    /// PgBouncer's word for the versions: `secure`, or a list.
    pub protocols: Option<String>,
}

/// PostgreSQL's degrees of TLS. `disable` is the absence of a mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// If the other side asks for it (clients).
    Allow,
    /// If the other side can.
    Prefer,
    Require,
    /// And the other side shows a certificate that `ca_file` vouches for.
    VerifyCa,
    /// And it is made out for the host (servers; of clients it is `verify-ca`).
    VerifyFull,
}

impl SslMode {
    /// Returns whether nothing is said in plain text.
    pub fn is_required(self) -> bool {
        self >= Self::Require
    }

    /// Returns PostgreSQL's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// How clients prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthType {
    ScramSha256,
    Md5,
    /// The password in clear text.
    Plain,
    /// By a certificate that is made out for the user.
    Cert,
    /// By being that user of the system, at the other end of a Unix socket.
    Peer,
    /// Each as `auth_hba_file` says.
    Hba,
    /// Not at all; but the user must exist.
    Trust,
    /// Not at all, whoever it is: every database has a user of its own.
    Any,
}

impl AuthType {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::ScramSha256, Self::Md5, Self::Plain, Self::Cert, Self::Peer, Self::Hba, Self::Trust, Self::Any];

    /// Returns PgBouncer's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::ScramSha256 => "scram-sha-256",
            Self::Md5 => "md5",
            Self::Plain => "plain",
            Self::Cert => "cert",
            Self::Peer => "peer",
            Self::Hba => "hba",
            Self::Trust => "trust",
            Self::Any => "any",
        }
    }

    /// Returns whether every client must prove that it knows a password.
    pub fn asks_for_password(self) -> bool {
        matches!(self, Self::ScramSha256 | Self::Md5 | Self::Plain)
    }
}

/// When a client's server goes back to the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolMode {
    Session,
    Transaction,
    /// As Transaction, and transactions of more than one request are refused.
    Statement,
}

/// The pool's own look at each database. `probe: {interval, down_interval, timeout, rise, fall}` in `pool:`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Default 2 s.
    pub interval: Duration,
    /// While the database is down or not proven yet. Default 500 ms.
    pub down_interval: Duration,
    /// Default 1 s.
    pub timeout: Duration,
    /// Default 1.
    pub rise: u32,
    /// Default 2.
    pub fall: u32,
}

/// One entry of `databases:`.
#[derive(Debug, Clone, PartialEq)]
pub struct Database {
    /// The name clients ask for; `*` is the fallback for every other name.
    pub name: Arc<str>,
    /// The name on the server. Default: the name clients ask for.
    pub dbname: Option<String>,
    pub host: String,
    pub port: u16,
    /// `user`: every client's server connection logs in as this user instead.
    pub user: Option<String>,
    pub password: Option<Secret>,
    pub pool_size: Option<u32>,
    pub min_pool_size: Option<u32>,
    pub reserve_pool_size: Option<u32>,
    pub max_db_connections: Option<u32>,
    pub max_db_client_connections: Option<u32>,
    pub pool_mode: Option<PoolMode>,
    pub servers: DatabaseServers,
    pub query_wait_timeout: Own,
    /// `auth_user`, `auth_query` and `auth_dbname` of its own.
    pub lookup: OwnLookup,
}

/// One user that may log in.
#[derive(Debug, Clone, PartialEq)]
pub struct User {
    pub name: String,
    pub secret: UserSecret,
    pub pool_size: Option<u32>,
    pub reserve_pool_size: Option<u32>,
    pub pool_mode: Option<PoolMode>,
    /// Server connections in all databases.
    pub max_user_connections: Option<u32>,
    pub timeouts: UserTimeouts,
    /// Clients of this name in all databases.
    pub max_user_client_connections: Option<u32>,
}

impl User {
    /// Returns a user for whom everything else is as in general.
    pub fn new(name: impl Into<String>, secret: UserSecret) -> Self {
        Self {
            name: name.into(),
            secret,
            pool_size: None,
            reserve_pool_size: None,
            pool_mode: None,
            max_user_connections: None,
            timeouts: UserTimeouts::default(),
            max_user_client_connections: None,
        }
    }
}

/// What is known of a user's password.
#[derive(Debug, Clone, PartialEq)]
pub enum UserSecret {
    Plain(Secret),
    /// 32 hex digits after `md5`, over password and user name.
    Md5(Secret),
    /// `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`
    Scram(Secret),
    /// Passwords any of which is right: while one replaces another.
    Several(Vec<Secret>),
    /// Nothing here: the entry has settings alone. `auth_query` may know more.
    Absent,
}

/// What was read of a file, and what the checks beyond it need.
pub(super) struct Found {
    pub pool: Pool,
    pub process: Process,
    /// The place of each address.
    pub listen: Vec<Spot>,
}

/// Reads the tree of `pool.yaml`. The values count only if `reading` has no errors at the end.
pub(super) fn read(reading: &Reading<'_>, root: &Node) -> Found {
    let mut file = Field::root(reading, root).section();
    let mut section = file.section("pool");
    let auth = user::read(reading, &mut file, &mut section);
    let (mut pool, listen) = settings::read(reading, &mut section, auth);
    pool.databases = database::read(reading, &mut file);
    pool.peers.all = peers::read(&mut file, pool.peers.id, pool.server_tls.is_some());
    let process = process::read(&mut file);
    ini::settle(&mut section);
    let settings = section.asked();
    section.finish_with(foreign::setting);
    file.finish_with(|key| settings.contains(&key).then(|| "unknown key (it belongs under pool:)".into()));
    Found { pool, process, listen }
}
