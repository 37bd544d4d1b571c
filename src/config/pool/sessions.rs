//! What `pool:` says about clients' sessions: what they may send, what they are told, and what is left of them.
//!
//! Names, meanings and defaults are PgBouncer's.

use std::time::Duration;

use super::notify::{self, Notifications};
use crate::config::section::Section;

/// Keys of `pool:`.
#[derive(Debug, Clone, PartialEq)]
pub struct Sessions {
    /// Simple queries are refused.
    pub disable_pqexec: bool,
    /// A client that waits so long for a server is told so. Default 5 s. `None`: is not told.
    pub query_wait_notify: Option<Duration>,
    /// `server_reset_query`: run when a session gives its server back. Default `DISCARD ALL`. Empty: nothing is run.
    pub reset_query: String,
    /// `server_reset_query_always`: run after each transaction too, where servers go back then.
    pub reset_query_always: bool,
    /// `server_fast_close`: a session whose server is to be replaced ends at its transaction's end.
    pub fast_close: bool,
    /// A client's address stands behind the `application_name` it logs in with.
    pub application_name_add_host: bool,
    pub notifications: Notifications,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            disable_pqexec: false,
            query_wait_notify: Some(Duration::from_secs(5)),
            reset_query: "DISCARD ALL".into(),
            reset_query_always: false,
            fast_close: false,
            application_name_add_host: false,
            notifications: Notifications::default(),
        }
    }
}

pub(super) fn read(section: &mut Section<'_>) -> Sessions {
    let default = Sessions::default();
    Sessions {
        disable_pqexec: section.flag("disable_pqexec", default.disable_pqexec),
        query_wait_notify: section.timeout("query_wait_notify", default.query_wait_notify),
        reset_query: section.get("server_reset_query").map_or(default.reset_query, |field| {
            if field.is("") { String::new() } else { field.lines().unwrap_or_default().to_owned() }
        }),
        reset_query_always: section.flag("server_reset_query_always", default.reset_query_always),
        fast_close: section.flag("server_fast_close", default.fast_close),
        application_name_add_host: section.flag("application_name_add_host", default.application_name_add_host),
        notifications: notify::read(section),
    }
}
