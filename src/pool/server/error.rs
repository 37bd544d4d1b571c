//! Why a server connection could not be opened.
//!
//! `Display` may be shown to a client that waited for the connection, so it says neither address nor secret; addresses are
//! fields of the log line of the one who opens the connection. Values are small and clone, because every waiter of a pool
//! is told the same last error.

/// Longest server text that is kept, in bytes.
const MESSAGE_LEN_MAX: usize = 512;

/// A connection to PostgreSQL that did not come to its first ReadyForQuery.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    #[error("the server's host name could not be resolved")]
    Resolve { why: String },
    #[error("the server could not be reached ({why})")]
    Connect { why: String },
    /// `server_connect_timeout` ran out.
    #[error("the server did not finish the login within server_connect_timeout")]
    Timeout,
    #[error("the server closed the connection during login")]
    Closed,
    /// The server's own ErrorResponse. Its fields are all optional (CVE-2026-6666).
    #[error("{message}")]
    Refused { sqlstate: Option<String>, message: String },
    /// `connect_query` failed: the server would serve, but not as it is to be.
    #[error("connect_query failed: {message}")]
    ConnectQuery { sqlstate: Option<String>, message: String },
    #[error("the server broke the protocol during login: {why}")]
    Protocol { why: &'static str },
    #[error("the server does not offer TLS (server_tls_sslmode asks for it)")]
    NoTls,
    /// Its certificate did not pass, or the handshake failed.
    #[error("TLS with the server failed: {why}")]
    Tls { why: String },
    /// SCRAM was begun and the server did not prove that it knows the password.
    #[error("the server did not prove that it knows the password")]
    Unproven,
    #[error("the server asks for an authentication method that is not supported ({method})")]
    Method { method: &'static str },
    /// Against `server_require_auth`.
    #[error("the server asks for {asked}, which server_require_auth does not allow")]
    NotAllowed { asked: &'static str },
    /// What is known of the user's password does not suffice for what the server asks.
    #[error("no usable password for server user \"{user}\": {why}")]
    Credential { user: String, why: &'static str },
}

impl ServerError {
    /// Builds [`ServerError::Refused`] from an ErrorResponse, bounded and on one line.
    pub fn refused(sqlstate: Option<&str>, message: Option<&str>) -> Self {
        let message = message.unwrap_or("the server refused the login without saying why");
        let mut end = message.len().min(MESSAGE_LEN_MAX);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        let message = message[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let sqlstate =
            sqlstate.filter(|s| s.len() == 5 && s.bytes().all(|b| b.is_ascii_alphanumeric())).map(str::to_owned);
        Self::Refused { sqlstate, message }
    }

    /// Returns the server's SQLSTATE if it gave one.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Refused { sqlstate, .. } | Self::ConnectQuery { sqlstate, .. } => sqlstate.as_deref(),
            _ => None,
        }
    }

    /// Returns true when the same login may well succeed a little later: starting up, shutting down, full, unreachable.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Resolve { .. } | Self::Connect { .. } | Self::Timeout | Self::Closed => true,
            // cannot_connect_now, admin_shutdown, crash_shutdown; class 53 is insufficient resources.
            Self::Refused { sqlstate: Some(s), .. } => {
                matches!(s.as_str(), "57P03" | "57P01" | "57P02") || s.starts_with("53")
            }
            Self::Refused { sqlstate: None, .. }
            | Self::ConnectQuery { .. }
            | Self::Protocol { .. }
            | Self::NoTls
            | Self::Tls { .. }
            | Self::Unproven
            | Self::Method { .. }
            | Self::NotAllowed { .. }
            | Self::Credential { .. } => false,
        }
    }

    /// Returns whether the server said that the password is not the user's.
    pub fn is_wrong_password(&self) -> bool {
        self.sqlstate() == Some("28P01")
    }

    /// Returns what the operator can change.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Resolve { .. } | Self::Connect { .. } => {
                Some("look at the database's host and port, and at the server")
            }
            Self::Timeout => Some("raise server_connect_timeout, or look at the server"),
            Self::NoTls => Some("set ssl = on in the server's postgresql.conf, or server_tls_sslmode to prefer"),
            Self::Tls { .. } => Some("look at server_tls_ca_file, and at the names in the server's certificate"),
            Self::ConnectQuery { .. } => Some("look at the database's connect_query"),
            Self::NotAllowed { .. } => {
                Some("look at who answers at the database's host and port, and at its pg_hba.conf")
            }
            Self::Credential { .. } => Some("set password under users: or the database's user and password"),
            Self::Refused { sqlstate: Some(s), .. } if s == "53300" => {
                Some("lower max_db_connections or the pool sizes, or raise the server's max_connections")
            }
            _ => None,
        }
    }

    /// Returns the metric label.
    pub fn kind(&self) -> ServerErrorKind {
        match self {
            Self::Resolve { .. } => ServerErrorKind::Resolve,
            Self::Connect { .. } => ServerErrorKind::Connect,
            Self::Timeout => ServerErrorKind::Timeout,
            Self::Closed => ServerErrorKind::Closed,
            Self::Refused { .. } | Self::ConnectQuery { .. } => ServerErrorKind::Refused,
            Self::Protocol { .. } => ServerErrorKind::Protocol,
            Self::NoTls | Self::Tls { .. } => ServerErrorKind::Tls,
            Self::Unproven | Self::Method { .. } | Self::NotAllowed { .. } | Self::Credential { .. } => {
                ServerErrorKind::Authentication
            }
        }
    }
}

/// The label a failed server login counts under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServerErrorKind {
    Resolve,
    Connect,
    Timeout,
    Closed,
    Refused,
    Protocol,
    Tls,
    Authentication,
}

impl ServerErrorKind {
    /// Every label.
    pub const ALL: [Self; 8] = [
        Self::Resolve,
        Self::Connect,
        Self::Timeout,
        Self::Closed,
        Self::Refused,
        Self::Protocol,
        Self::Tls,
        Self::Authentication,
    ];

    /// Returns the label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Refused => "refused",
            Self::Protocol => "protocol",
            Self::Tls => "tls",
            Self::Authentication => "authentication",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_without_any_field_still_has_words() {
        let e = ServerError::refused(None, None);
        assert_eq!(e.sqlstate(), None);
        assert!(!e.to_string().is_empty());
    }

    #[test]
    fn server_text_is_bounded_and_on_one_line() {
        let e = ServerError::refused(Some("not a state"), Some(&"é\n".repeat(9_000)));
        assert_eq!(e.sqlstate(), None);
        assert!(e.to_string().len() <= MESSAGE_LEN_MAX && !e.to_string().contains('\n'));
    }

    #[test]
    fn a_server_that_is_starting_up_is_tried_again_and_a_wrong_password_is_told_apart() {
        assert!(ServerError::refused(Some("57P03"), None).is_transient());
        assert!(ServerError::refused(Some("53300"), None).is_transient());
        assert!(!ServerError::refused(Some("28P01"), None).is_transient());
    }
}
