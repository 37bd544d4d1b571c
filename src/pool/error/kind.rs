//! The labels that errors count under: few, and all there from the start.

use super::PoolError;

/// The label an error counts under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    ClientGone,
    LoginTimeout,
    Tls,
    Protocol,
    TooManyClients,
    TooManyDatabaseClients,
    TooManyUserClients,
    Authentication,
    AuthQuery,
    AuthFailureLimit,
    NoDatabase,
    QueryWaitTimeout,
    ServerLogin,
    QueryTimeout,
    TransactionTimeout,
    IdleTransactionTimeout,
    ClientIdleTimeout,
    ServerGone,
    TooLarge,
    PreparedStatement,
    NotificationQueue,
    ListenLost,
    Shutdown,
    Killed,
    Internal,
}

impl Kind {
    /// Every label, so that all series exist from the start.
    pub const ALL: [Self; 25] = [
        Self::ClientGone,
        Self::LoginTimeout,
        Self::Tls,
        Self::Protocol,
        Self::TooManyClients,
        Self::TooManyDatabaseClients,
        Self::TooManyUserClients,
        Self::Authentication,
        Self::AuthQuery,
        Self::AuthFailureLimit,
        Self::NoDatabase,
        Self::QueryWaitTimeout,
        Self::ServerLogin,
        Self::QueryTimeout,
        Self::TransactionTimeout,
        Self::IdleTransactionTimeout,
        Self::ClientIdleTimeout,
        Self::ServerGone,
        Self::TooLarge,
        Self::PreparedStatement,
        Self::NotificationQueue,
        Self::ListenLost,
        Self::Shutdown,
        Self::Killed,
        Self::Internal,
    ];

    /// Returns the label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientGone => "client_gone",
            Self::LoginTimeout => "client_login_timeout",
            Self::Tls => "tls",
            Self::Protocol => "protocol",
            Self::TooManyClients => "max_client_conn",
            Self::TooManyDatabaseClients => "max_db_client_connections",
            Self::TooManyUserClients => "max_user_client_connections",
            Self::Authentication => "authentication",
            Self::AuthQuery => "auth_query",
            Self::AuthFailureLimit => "auth_failure_limit",
            Self::NoDatabase => "no_database",
            Self::QueryWaitTimeout => "query_wait_timeout",
            Self::ServerLogin => "server_login",
            Self::QueryTimeout => "query_timeout",
            Self::TransactionTimeout => "transaction_timeout",
            Self::IdleTransactionTimeout => "idle_transaction_timeout",
            Self::ClientIdleTimeout => "client_idle_timeout",
            Self::ServerGone => "server_gone",
            Self::TooLarge => "too_large",
            Self::PreparedStatement => "prepared_statement",
            Self::NotificationQueue => "notification_queue",
            Self::ListenLost => "listen_lost",
            Self::Shutdown => "shutdown",
            Self::Killed => "killed",
            Self::Internal => "internal",
        }
    }
}

impl PoolError {
    /// Returns the metric label.
    pub fn kind(&self) -> Kind {
        match self {
            Self::ClientGone => Kind::ClientGone,
            Self::LoginTimeout { .. } => Kind::LoginTimeout,
            Self::TooManyClients { .. } => Kind::TooManyClients,
            Self::TooManyDatabaseClients { .. } => Kind::TooManyDatabaseClients,
            Self::TooManyUserClients { .. } => Kind::TooManyUserClients,
            Self::NoUserName
            | Self::Authentication { .. }
            | Self::Identity { .. }
            | Self::NotAdmitted { .. }
            | Self::ConsoleDenied { .. } => Kind::Authentication,
            Self::AuthQuery => Kind::AuthQuery,
            Self::TooManyFailures { .. } => Kind::AuthFailureLimit,
            Self::NoDatabase { .. } | Self::DatabaseDisabled { .. } | Self::DatabaseRemoved => Kind::NoDatabase,
            Self::QueryWaitTimeout { .. } => Kind::QueryWaitTimeout,
            Self::ServerLogin(_) => Kind::ServerLogin,
            Self::QueryTimeout { .. } => Kind::QueryTimeout,
            Self::TransactionTimeout { .. } => Kind::TransactionTimeout,
            Self::IdleTransactionTimeout { .. } => Kind::IdleTransactionTimeout,
            Self::ClientIdleTimeout { .. } => Kind::ClientIdleTimeout,
            Self::ServerGone => Kind::ServerGone,
            Self::PacketTooLarge { .. } | Self::HeldMessageTooLarge { .. } => Kind::TooLarge,
            Self::NoPreparedStatement { .. }
            | Self::DuplicatePreparedStatement { .. }
            | Self::ResultTypeChanged
            | Self::TooManyPreparedStatements { .. }
            | Self::StatementMemory { .. } => Kind::PreparedStatement,
            Self::ServerProtocol { .. } => Kind::ServerGone,
            Self::NotificationQueue { .. } => Kind::NotificationQueue,
            Self::ListenLost | Self::ListenClosed { .. } | Self::NotificationEncoding => Kind::ListenLost,
            Self::ParametersRefused { .. } => Kind::Protocol,
            Self::Shutdown => Kind::Shutdown,
            Self::Killed => Kind::Killed,
            Self::Internal => Kind::Internal,
            // A client that should have TLS and does not get to have it: certificates, versions, modes.
            Self::DirectTls | Self::TlsHandshake { .. } | Self::TlsRequired => Kind::Tls,
            Self::StartupPacket { .. }
            | Self::EarlyData
            | Self::ProtocolVersion { .. }
            | Self::StartupParameter { .. }
            | Self::Replication
            | Self::AuthenticationProtocol { .. }
            | Self::TransactionBlock
            | Self::SimpleQuery
            | Self::Protocol { .. } => Kind::Protocol,
        }
    }
}
