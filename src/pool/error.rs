//! The one place that chooses what the pool itself says to a client: severity, SQLSTATE, text and metric label.
//!
//! `Display` is the message the client sees, so nothing in here may hold a secret, an address of a server, or text from another
//! client. A limit's text begins with the word PgBouncer uses for it (people grep for `query_wait_timeout`), and its hint
//! names the setting to change. Errors of PostgreSQL are forwarded as they are and never pass through here; what a failed
//! server login said does, through [`ServerError`].

mod kind;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, net::IpAddr, time::Duration};

pub use self::kind::Kind;
use crate::pool::{
    server::error::ServerError,
    wire::backend::{self, Report, Severity},
};

/// Everything the pool tells a client by itself.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PoolError {
    // --- before the login is complete ---
    /// The peer hung up or its socket failed; there is nobody to tell.
    #[error("client closed the connection")]
    ClientGone,
    /// The peer began a TLS handshake without asking first; it could not read an ErrorResponse.
    #[error("direct TLS connections are not accepted here")]
    DirectTls,
    #[error("TLS handshake failed: {why}")]
    TlsHandshake { why: String },
    /// `client_tls_sslmode` is `require` or more.
    #[error("SSL required")]
    TlsRequired,
    #[error("client_login_timeout: login was not complete within {}", Short(*.limit))]
    LoginTimeout { limit: Duration },
    /// A startup packet that cannot be read; `why` is ours, never the peer's bytes.
    #[error("invalid startup packet: {why}")]
    StartupPacket { why: &'static str },
    /// Bytes followed an SSLRequest or GSSENCRequest before it was answered (the shape of CVE-2021-3935).
    #[error("received unencrypted data after an encryption request")]
    EarlyData,
    #[error("unsupported frontend protocol {major}.{minor}: server supports 3.0")]
    ProtocolVersion { major: u16, minor: u16 },
    #[error("no PostgreSQL user name specified in startup packet")]
    NoUserName,
    #[error("invalid parameter name in startup packet: \"{name}\"")]
    StartupParameter { name: String },
    /// PostgreSQL's words.
    #[error("invalid value for parameter \"replication\"")]
    Replication,
    #[error("no more connections allowed (max_client_conn)")]
    TooManyClients { limit: usize },
    #[error("client connections exceeded (max_db_client_connections)")]
    TooManyDatabaseClients { limit: u32 },
    #[error("client connections exceeded (max_user_client_connections)")]
    TooManyUserClients { limit: u32 },
    /// Wrong password, unknown user, forbidden method: the same words for all of them.
    #[error("password authentication failed for user \"{user}\"")]
    Authentication { user: String },
    /// A certificate or a system user that is not the user's.
    #[error("{method} authentication failed for user \"{user}\"")]
    Identity { method: &'static str, user: String },
    /// No line of `auth_hba_file` lets the client in, or one keeps it out.
    #[error("{what}")]
    NotAdmitted { what: Box<str> },
    /// `auth_query` failed; why is for the log alone: who has not proven anything must not read of the server.
    #[error("auth_query failed: the user could not be looked up")]
    AuthQuery,
    #[error("auth_failure_limit: too many failed logins from this address within {}", Short(*.window))]
    TooManyFailures { limit: u32, window: Duration },
    /// A malformed message of the authentication exchange.
    #[error("malformed authentication message: {why}")]
    AuthenticationProtocol { why: &'static str },
    /// Said only to a client that has proven who it is.
    #[error("no such database: {database}")]
    NoDatabase { database: String },
    /// Said only to a user that has proven who it is.
    #[error("user \"{user}\" may not use the console")]
    ConsoleDenied { user: String },
    #[error("database \"{database}\" is disabled")]
    DatabaseDisabled { database: String },

    // --- waiting for a server ---
    #[error("query_wait_timeout: no server connection became free within {}{}", Short(*.limit), Because(.login))]
    QueryWaitTimeout { limit: Duration, login: Option<ServerError> },
    /// No server could be logged in and nobody may wait for one.
    #[error("server login failed: {0}")]
    ServerLogin(ServerError),

    // --- while talking ---
    #[error("query timeout: no answer from the server within {}", Short(*.limit))]
    QueryTimeout { limit: Duration },
    #[error("transaction timeout: the transaction lasted longer than {}", Short(*.limit))]
    TransactionTimeout { limit: Duration },
    #[error("idle transaction timeout: nothing was sent within a transaction for {}", Short(*.limit))]
    IdleTransactionTimeout { limit: Duration },
    #[error("client_idle_timeout: nothing was sent for {}", Short(*.limit))]
    ClientIdleTimeout { limit: Duration },
    /// The server's connection ended under a client that was using it.
    #[error("server conn crashed? the connection to the server was lost")]
    ServerGone,
    #[error("protocol violation: {why}")]
    Protocol { why: &'static str },
    /// The server answered what nobody asked; nothing more of it can be trusted.
    #[error("lost synchronization with the server: {why}")]
    ServerProtocol { why: &'static str },
    /// The server refused the settings that the client asked for when it connected, or has set since; `message` is the
    /// server's.
    #[error("settings of this connection refused by the server: {message}")]
    ParametersRefused { sqlstate: String, message: String },
    /// `pool_mode: statement`: a request ended inside a transaction. PgBouncer's words.
    #[error("transaction blocks not allowed in statement pooling mode")]
    TransactionBlock,
    /// `disable_pqexec`. PgBouncer's words.
    #[error("PQexec disallowed")]
    SimpleQuery,
    #[error("packet too large: {len} bytes (max_packet_size {limit})")]
    PacketTooLarge { len: u64, limit: u64 },
    #[error("message too large to be held: {len} bytes (max_held_message {limit})")]
    HeldMessageTooLarge { len: u64, limit: u64 },
    #[error("prepared statement \"{name}\" does not exist")]
    NoPreparedStatement { name: String },
    #[error("prepared statement \"{name}\" already exists")]
    DuplicatePreparedStatement { name: String },
    /// PostgreSQL's words: the columns of a statement's result are others than its client was told.
    #[error("cached plan must not change result type")]
    ResultTypeChanged,
    #[error("too many prepared statements on this connection (limit {limit}, {bytes} bytes of text)")]
    TooManyPreparedStatements { limit: usize, bytes: usize },
    #[error("no room for another prepared statement (max_statement_memory {limit})")]
    StatementMemory { limit: usize },

    // --- listening, without a server of its own ---
    #[error("notification_queue: more than {limit} bytes of notifications wait for this connection")]
    NotificationQueue { limit: usize },
    #[error("the connection that listens for this one was lost: notifications may be missing")]
    ListenLost,
    #[error("the connection that listens for this one was closed by {command}: notifications may be missing")]
    ListenClosed { command: &'static str },
    #[error("a notification cannot be told in this connection's client_encoding")]
    NotificationEncoding,

    // --- ends that the operator asked for ---
    #[error("terminating connection due to administrator command")]
    Shutdown,
    #[error("admin forced disconnect")]
    Killed,
    #[error("database configuration changed")]
    DatabaseRemoved,

    // --- ours ---
    #[error("internal error in the pool")]
    Internal,
}

impl PoolError {
    /// Says that `auth_hba_file` does not let a client in, in PostgreSQL's words (ClientAuthentication in auth.c). No address:
    /// by a Unix socket.
    pub fn not_admitted(rejected: bool, address: Option<IpAddr>, user: &str, database: &str, tls: bool) -> Self {
        let verdict = if rejected { "auth_hba_file rejects connection" } else { "no auth_hba_file entry" };
        let host = address.map_or_else(|| "[local]".to_owned(), |address| address.to_string());
        let encryption = if tls { "SSL encryption" } else { "no encryption" };
        let what = format!("{verdict} for host \"{host}\", user \"{user}\", database \"{database}\", {encryption}");
        Self::NotAdmitted { what: what.into() }
    }

    /// Returns the SQLSTATE (PostgreSQL documentation, appendix A). A failed server login keeps the server's own.
    pub fn sqlstate(&self) -> &str {
        match self {
            // The class says "too many connections", which is what clients and their retry rules look for.
            Self::TooManyClients { .. }
            | Self::TooManyDatabaseClients { .. }
            | Self::TooManyUserClients { .. }
            | Self::QueryWaitTimeout { login: None, .. } => "53300",
            Self::QueryWaitTimeout { login: Some(e), .. } => e.sqlstate().unwrap_or("53300"),
            Self::ServerLogin(e) => e.sqlstate().unwrap_or("08001"),
            Self::ClientGone | Self::ServerGone | Self::ListenLost => "08006",
            Self::LoginTimeout { .. }
            | Self::NoUserName
            | Self::TlsRequired
            | Self::Identity { .. }
            | Self::NotAdmitted { .. } => "28000",
            // A class that says: try again.
            Self::AuthQuery => "57P03",
            Self::TooManyFailures { .. } => "53400",
            Self::ProtocolVersion { .. } | Self::ResultTypeChanged => "0A000",
            Self::Replication => "22023",
            Self::StartupParameter { .. } => "42704",
            Self::Authentication { .. } => "28P01",
            Self::NoDatabase { .. } => "3D000",
            Self::ConsoleDenied { .. } => "42501",
            Self::DatabaseDisabled { .. } | Self::DatabaseRemoved => "57P03",
            Self::QueryTimeout { .. } => "57014",
            Self::TransactionTimeout { .. } => "25P04",
            Self::IdleTransactionTimeout { .. } => "25P03",
            Self::ClientIdleTimeout { .. } => "57P05",
            Self::HeldMessageTooLarge { .. } => "54000",
            Self::NoPreparedStatement { .. } => "26000",
            Self::DuplicatePreparedStatement { .. } => "42P05",
            Self::TooManyPreparedStatements { .. } | Self::StatementMemory { .. } | Self::NotificationQueue { .. } => {
                "53400"
            }
            Self::NotificationEncoding => "22P05",
            Self::ServerProtocol { .. } => "08P01",
            Self::ParametersRefused { sqlstate, .. } => sqlstate,
            Self::Shutdown | Self::Killed | Self::ListenClosed { .. } => "57P01",
            Self::Internal => "XX000",
            Self::DirectTls
            | Self::TlsHandshake { .. }
            | Self::StartupPacket { .. }
            | Self::EarlyData
            | Self::AuthenticationProtocol { .. }
            | Self::Protocol { .. }
            | Self::TransactionBlock
            | Self::SimpleQuery
            | Self::PacketTooLarge { .. } => "08P01",
        }
    }

    /// Returns whether the connection can go on after this.
    pub fn severity(&self) -> Severity {
        match self {
            Self::NoPreparedStatement { .. }
            | Self::DuplicatePreparedStatement { .. }
            | Self::ResultTypeChanged
            | Self::TooManyPreparedStatements { .. }
            | Self::StatementMemory { .. } => Severity::Error,
            _ => Severity::Fatal,
        }
    }

    /// Returns the text for the client.
    pub fn message(&self) -> String {
        self.to_string()
    }

    /// Returns what to change, where the text alone does not say it.
    pub fn hint(&self) -> Option<Cow<'static, str>> {
        let hint = match self {
            Self::DirectTls => "use sslnegotiation=postgres",
            Self::TlsRequired => "connect with sslmode=require, or set client_tls_sslmode to prefer",
            Self::LoginTimeout { .. } => "raise client_login_timeout, or look at what delays the client",
            Self::ProtocolVersion { .. } => "use a client that speaks protocol 3",
            Self::Replication => "valid values are: \"false\", 0, \"true\", 1, \"database\"",
            Self::TooManyClients { limit } => {
                return Some(format!("raise max_client_conn (now {limit}), or open fewer connections").into());
            }
            Self::TooManyDatabaseClients { limit } => {
                return Some(
                    format!("raise max_db_client_connections (now {limit}), or open fewer connections").into(),
                );
            }
            Self::TooManyUserClients { limit } => {
                return Some(
                    format!("raise max_user_client_connections (now {limit}), or open fewer connections").into(),
                );
            }
            Self::AuthQuery => "the pool's log says why; look at auth_user, auth_query and the server",
            Self::TooManyFailures { limit, .. } => {
                return Some(
                    format!("wait, or raise auth_failure_limit (now {limit}) or lower auth_failure_window").into(),
                );
            }
            Self::NoDatabase { .. } => "add it to databases:, or a \"*\" entry",
            Self::ConsoleDenied { .. } => "add the user to admin_users or stats_users",
            Self::QueryWaitTimeout { login: None, .. } => {
                "raise default_pool_size (or the database's pool_size, reserve_pool_size, max_db_connections) or \
                 query_wait_timeout, and look for long transactions"
            }
            Self::QueryWaitTimeout { login: Some(e), .. } | Self::ServerLogin(e) => {
                return Some(e.hint().unwrap_or("look at the database's host, port, user and password").into());
            }
            Self::QueryTimeout { .. } => "raise query_timeout",
            Self::TransactionTimeout { .. } => "raise transaction_timeout, or make the transaction shorter",
            Self::IdleTransactionTimeout { .. } => "raise idle_transaction_timeout, or end the transaction earlier",
            Self::ClientIdleTimeout { .. } => "raise client_idle_timeout, or close idle connections earlier",
            Self::TransactionBlock => "use pool_mode: transaction",
            Self::SimpleQuery => "disable_pqexec leaves the extended query protocol alone",
            Self::PacketTooLarge { .. } => "raise max_packet_size",
            Self::HeldMessageTooLarge { .. } => "raise max_held_message, or send the value as a parameter",
            Self::TooManyPreparedStatements { .. } => "close statements that are not needed any more",
            Self::StatementMemory { .. } => "raise max_statement_memory, or write values as parameters",
            Self::NotificationQueue { .. } => {
                "raise notification_queue, or look for long transactions of connections that listen"
            }
            Self::ListenLost | Self::ListenClosed { .. } => "connect and LISTEN again, and look for what was missed",
            Self::NotificationEncoding => "connections that listen should have client_encoding UTF8",
            Self::NoPreparedStatement { .. } => "statements made by SQL PREPARE need pool_mode: session",
            _ => return None,
        };
        Some(hint.into())
    }

    /// Returns the function of PostgreSQL's that would have said it, where drivers look for that (pgjdbc's
    /// `willHealViaReparse`).
    fn routine(&self) -> Option<&'static str> {
        matches!(self, Self::ResultTypeChanged).then_some("RevalidateCachedQuery")
    }

    /// Appends the ErrorResponse that says this.
    pub fn write(&self, out: &mut Vec<u8>) {
        let (message, hint) = (self.message(), self.hint());
        let report = Report {
            severity: self.severity(),
            sqlstate: self.sqlstate(),
            message: &message,
            detail: None,
            hint: hint.as_deref(),
        };
        backend::error_response_of(out, &report, self.routine());
    }

    /// Returns true when the peer cannot be told: the connection is only closed.
    pub fn is_silent(&self) -> bool {
        matches!(self, Self::ClientGone | Self::DirectTls | Self::TlsHandshake { .. })
    }
}

/// Appends what a client is told that waits for a server: PgBouncer's words.
pub fn write_queued(out: &mut Vec<u8>) {
    let report = Report {
        severity: Severity::Notice,
        sqlstate: "00000",
        message: "No server connection available in postgres backend, client being queued",
        detail: None,
        hint: None,
    };
    backend::notice_response(out, &report);
}

/// A duration as the configuration writes it: `30s`, `250ms`.
struct Short(Duration);

impl std::fmt::Display for Short {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.subsec_millis() {
            0 => write!(f, "{}s", self.0.as_secs()),
            _ => write!(f, "{}ms", self.0.as_millis()),
        }
    }
}

/// The last failed login behind a wait that ran out, if there was one.
struct Because<'a>(&'a Option<ServerError>);

impl std::fmt::Display for Because<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(e) => write!(f, "; the last server login failed: {e}"),
            None => Ok(()),
        }
    }
}
