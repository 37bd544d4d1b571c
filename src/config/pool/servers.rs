//! What `pool:` and the entries of `databases:` say about server connections beyond their number.
//!
//! Names and defaults are PgBouncer's. `fail_fast` and a database's `server_idle_timeout` are Bookend's own.

use std::time::Duration;

use crate::config::{
    field::Field,
    section::{Section, nearest},
};

const SECOND: Duration = Duration::from_secs(1);
/// PgBouncer's word for the query that asks nothing.
pub(in crate::config) const EMPTY_QUERY: &str = "<empty>";
/// What a server may be asked for when a connection is opened: PgBouncer's keys, as PostgreSQL spells them.
const STARTUP: [(&str, &str); 4] = [
    ("client_encoding", "client_encoding"),
    ("datestyle", "DateStyle"),
    ("timezone", "TimeZone"),
    ("application_name", "application_name"),
];

/// For all databases: keys of `pool:`.
#[derive(Debug, Clone, PartialEq)]
pub struct Servers {
    /// `server_round_robin`: lend the connection that was idle the longest. Default: the one that was idle the shortest.
    pub round_robin: bool,
    /// `server_check_query`. `None`: no check. Default: the empty query.
    pub check_query: Option<String>,
    /// `server_check_delay`: a connection idle for less is lent without a check. Default 30 s.
    pub check_delay: Duration,
    /// `fail_fast`: who waits for a server is told at once that a login failed. Default: waits on.
    pub fail_fast: bool,
    /// Server connections of one user, in all databases. `None`: no limit.
    pub max_user_connections: Option<u32>,
    /// How long an address of a name is taken for right. Default 15 s.
    pub dns_max_ttl: Duration,
    /// How long a name is not looked up again after that failed. Default 1 s: clients wait for it.
    pub dns_nxdomain_ttl: Duration,
    /// `server_max_protocol_version`: the newest protocol version that a server is asked for. Default 3.2.
    pub max_protocol: Protocol,
    /// When a database that only `*` knows is forgotten. Default 3,600 s. `None`: never.
    pub autodb_idle_timeout: Option<Duration>,
    /// When a pool without clients and connections is forgotten. `None` (default): with its database.
    pub pool_idle_timeout: Option<Duration>,
}

impl Default for Servers {
    fn default() -> Self {
        Self {
            round_robin: false,
            check_query: Some(String::new()),
            check_delay: 30 * SECOND,
            fail_fast: false,
            max_user_connections: None,
            dns_max_ttl: 15 * SECOND,
            dns_nxdomain_ttl: 15 * SECOND,
            max_protocol: Protocol::V3_2,
            autodb_idle_timeout: Some(3_600 * SECOND),
            pool_idle_timeout: None,
        }
    }
}

/// A version of PostgreSQL's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    V3_0,
    /// PostgreSQL 18.
    V3_2,
}

impl Protocol {
    /// Returns libpq's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::V3_0 => "3.0",
            Self::V3_2 => "3.2",
        }
    }
}

/// For one database: keys of its entry.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DatabaseServers {
    /// Which of several hosts a new connection goes to.
    pub load_balance_hosts: LoadBalance,
    /// Run once on each new connection.
    pub connect_query: Option<String>,
    /// What the server is asked for in the startup packet.
    pub startup: Vec<(String, String)>,
    /// `None`: the general one.
    pub lifetime: Option<Duration>,
    /// `None`: the general one. Zero: never.
    pub idle_timeout: Option<Duration>,
}

/// `load_balance_hosts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoadBalance {
    /// The next one each time.
    #[default]
    RoundRobin,
    /// The same one until it fails, then the next.
    Disable,
}

impl LoadBalance {
    /// Returns PgBouncer's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::Disable => "disable",
        }
    }
}

pub(super) fn read(section: &mut Section<'_>) -> Servers {
    let default = Servers::default();
    Servers {
        round_robin: section.flag("server_round_robin", default.round_robin),
        check_query: section.get("server_check_query").map_or(default.check_query, |field| check_query(&field)),
        check_delay: span(section, "server_check_delay", default.check_delay),
        fail_fast: section.flag("fail_fast", default.fail_fast),
        max_user_connections: section.limit("max_user_connections", u32::MAX),
        dns_max_ttl: span(section, "dns_max_ttl", default.dns_max_ttl),
        dns_nxdomain_ttl: span(section, "dns_nxdomain_ttl", default.dns_nxdomain_ttl),
        max_protocol: section.choice(
            "server_max_protocol_version",
            default.max_protocol,
            &[Protocol::V3_2, Protocol::V3_0].map(|version| (version.word(), version)),
        ),
        autodb_idle_timeout: section.timeout("autodb_idle_timeout", default.autodb_idle_timeout),
        pool_idle_timeout: section.timeout("pool_idle_timeout", default.pool_idle_timeout),
    }
}

pub(super) fn read_database(section: &mut Section<'_>) -> DatabaseServers {
    let balance = [LoadBalance::RoundRobin, LoadBalance::Disable].map(|balance| (balance.word(), balance));
    DatabaseServers {
        load_balance_hosts: section.choice("load_balance_hosts", LoadBalance::default(), &balance),
        connect_query: section.get("connect_query").and_then(|field| field.lines().map(str::to_owned)),
        startup: STARTUP
            .into_iter()
            .filter_map(|(key, name)| Some((name.to_owned(), section.get(key)?.text()?.to_owned())))
            .collect(),
        // As PgBouncer reads it: 0 is "not set".
        lifetime: section.timeout("server_lifetime", None),
        idle_timeout: section.get("server_idle_timeout").and_then(|field| field.duration()),
    }
}

/// Reads a duration of which 0 is one like any other.
pub(super) fn span(section: &mut Section<'_>, key: &'static str, default: Duration) -> Duration {
    section.get(key).and_then(|field| field.duration()).unwrap_or(default)
}

fn check_query(field: &Field<'_>) -> Option<String> {
    if field.is("") {
        return None;
    }
    let text = field.lines()?;
    // `<empty>` alone is a word; `<emtpy>` would be a query that PostgreSQL refuses each time.
    if text != EMPTY_QUERY && text.starts_with('<') && nearest(text, [EMPTY_QUERY].into_iter()).is_some() {
        field.reject_unknown("must be a query, or <empty>", [EMPTY_QUERY].into_iter());
        return None;
    }
    Some(if text == EMPTY_QUERY { String::new() } else { text.to_owned() })
}
