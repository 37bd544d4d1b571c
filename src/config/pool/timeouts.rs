//! Timeouts that an entry of `users:` or `databases:` may have of its own.

use std::time::Duration;

use crate::config::section::Section;

/// A timeout of an entry: `None` when it has none of its own, `Some(None)` for "never".
pub type Own = Option<Option<Duration>>;

/// Those of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UserTimeouts {
    pub query: Own,
    pub query_wait: Own,
    pub transaction: Own,
    pub idle_transaction: Own,
    pub client_idle: Own,
}

impl UserTimeouts {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        Self {
            query: section.own_timeout("query_timeout"),
            query_wait: section.own_timeout("query_wait_timeout"),
            transaction: section.own_timeout("transaction_timeout"),
            idle_transaction: section.own_timeout("idle_transaction_timeout"),
            client_idle: section.own_timeout("client_idle_timeout"),
        }
    }
}
