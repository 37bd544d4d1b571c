//! Recommendations: what to change and why, from what was measured just now.
//!
//! Each rule is one function from a database to at most one sentence, so that a rule is easy to doubt, test and remove.
//! A rule names the number it saw and the key it would turn; it says nothing when it does not know.

use super::Database;
use crate::health::board::{Role, Serving};

/// A server is near its limit from this share on.
const NEAR_LIMIT: f64 = 0.9;
/// Connections below this many are never called too many.
const FEW: u32 = 10;
/// Idle connections are many from this share on.
const MOSTLY_IDLE: f64 = 0.8;
/// PostgreSQL keeps this many connections for superusers (`superuser_reserved_connections`).
const SUPERUSER_RESERVED: u32 = 3;
/// A probe's round trip that a query would notice.
const SLOW_PROBE_MS: u128 = 100;

/// Returns what to change, database by database, the most urgent first.
pub(super) fn recommendations(databases: &[Database]) -> Vec<String> {
    const RULES: [fn(&Database) -> Option<String>; 7] =
        [down, waiting, server_nearly_full, larger_than_the_server, role_unknown, slow, mostly_idle];
    databases.iter().flat_map(|database| RULES.iter().filter_map(move |rule| rule(database))).collect()
}

fn down(database: &Database) -> Option<String> {
    (database.serving == Serving::Down).then(|| {
        let error = database.state.error.as_deref().unwrap_or("the probe failed");
        format!("database {} is down: {error}", database.name)
    })
}

fn waiting(database: &Database) -> Option<String> {
    let counts = &database.counts;
    if counts.waiting == 0 || database.serving == Serving::Down {
        return None;
    }
    let name = &database.name;
    if counts.total < counts.max {
        return Some(format!(
            "{} clients of {name} wait although {} of {} server connections may still be opened: look for failed logins in \
             the log, or raise min_pool_size so that connections are open before they are needed",
            counts.waiting,
            counts.max - counts.total,
            counts.max,
        ));
    }
    Some(match room_on_the_server(database) {
        Some(0) => format!(
            "{} clients of {name} wait and PostgreSQL has no connections left to give: shorten transactions, or raise \
             max_connections in postgresql.conf and then default_pool_size",
            counts.waiting,
        ),
        Some(room) => format!(
            "{} clients of {name} wait while all {} server connections are in use: raise default_pool_size (PostgreSQL has \
             room for {room} more) or shorten transactions",
            counts.waiting, counts.max,
        ),
        None => format!(
            "{} clients of {name} wait while all {} server connections are in use: raise default_pool_size or shorten \
             transactions",
            counts.waiting, counts.max,
        ),
    })
}

/// How many connections the server could still give to ordinary users; `None` when not known.
fn room_on_the_server(database: &Database) -> Option<u32> {
    let max = database.state.server_max_connections?.saturating_sub(SUPERUSER_RESERVED);
    Some(max.saturating_sub(database.state.server_connections?))
}

fn server_nearly_full(database: &Database) -> Option<String> {
    let (used, max) = (database.state.server_connections?, database.state.server_max_connections?);
    (f64::from(used) >= f64::from(max) * NEAR_LIMIT).then(|| {
        format!(
            "the PostgreSQL server of {} has {used} of its max_connections = {max} in use, {} of them from this pool: raise \
             max_connections or close other clients' connections",
            database.name, database.counts.total,
        )
    })
}

fn larger_than_the_server(database: &Database) -> Option<String> {
    let max = database.state.server_max_connections?;
    let usable = max.saturating_sub(SUPERUSER_RESERVED);
    (database.counts.max > usable).then(|| {
        format!(
            "the pool may open {} connections to {}, but its PostgreSQL server allows {usable} (max_connections = {max}, less \
             {SUPERUSER_RESERVED} for superusers): lower default_pool_size or set max_db_connections",
            database.counts.max, database.name,
        )
    })
}

fn role_unknown(database: &Database) -> Option<String> {
    (database.serving == Serving::Up && database.state.role == Role::Unknown).then(|| {
        format!(
            "database {} serves, but whether it is a primary or a replica is not known: its probe's user must be allowed to \
             call pg_is_in_recovery()",
            database.name,
        )
    })
}

fn slow(database: &Database) -> Option<String> {
    let latency = database.state.latency?.as_millis();
    (database.serving == Serving::Up && latency >= SLOW_PROBE_MS).then(|| {
        format!(
            "the last probe of {} took {latency} ms for a query without work: look at the server's load and the network in \
             between",
            database.name,
        )
    })
}

fn mostly_idle(database: &Database) -> Option<String> {
    let counts = &database.counts;
    let many = counts.total >= FEW && f64::from(counts.idle) >= f64::from(counts.total) * MOSTLY_IDLE;
    (many && counts.waiting == 0).then(|| {
        format!(
            "{} of {} server connections to {} are idle now: if that stays so, a lower default_pool_size or \
             server_idle_timeout gives the memory back to PostgreSQL",
            counts.idle, counts.total, database.name,
        )
    })
}
