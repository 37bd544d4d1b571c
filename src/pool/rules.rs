//! What pool.yaml means for one (database, user): PgBouncer's order of precedence, in one place. Pure.
//!
//! A user's own value counts before the database's, the database's before the general one.

use std::{sync::Arc, time::Duration};

use crate::{
    config::pool::{Database, Logged, Notifications, Pool, PoolMode, User},
    pool::{
        lease::{Settings, Sizes},
        relay::Limits,
        socket::is_unix,
    },
};

/// The fallback database of `databases:`.
pub const ANY: &str = "*";

/// Everything a session and a store must know of the configuration.
#[derive(Debug, Clone)]
pub struct Rules {
    pub settings: Settings,
    pub limits: Limits,
    pub client_idle_timeout: Option<Duration>,
    pub query_wait_notify: Option<Duration>,
    /// What is run on a server when a client gives it back.
    pub reset_query: Option<Arc<str>>,
    /// What was run on the server when it was opened.
    pub connect_query: Option<Arc<str>>,
    /// A client whose server is to be replaced leaves at its transaction's end, if it would keep it for longer.
    pub fast_close: bool,
    /// How a list of hosts is gone through.
    pub load_balance_hosts: Option<&'static str>,
    pub notifications: Notifications,
    pub log: Logged,
}

impl Rules {
    /// Returns what holds for `user` (the one the servers are logged in as) on `database`.
    pub fn of(pool: &Pool, database: &Database, user: Option<&User>) -> Self {
        let sizes = Sizes {
            pool: no_limit(
                user.and_then(|user| user.pool_size).or(database.pool_size).unwrap_or(pool.default_pool_size),
            ),
            min: database.min_pool_size.unwrap_or(pool.min_pool_size),
            reserve: user
                .and_then(|user| user.reserve_pool_size)
                .or(database.reserve_pool_size)
                .unwrap_or(pool.reserve_pool_size),
            reserve_after: pool.reserve_pool_timeout,
        };
        let mode = mode(pool, database, user);
        let own = user.map(|user| user.timeouts).unwrap_or_default();
        Self {
            settings: Settings {
                sizes,
                query_wait_timeout: own.query_wait.or(database.query_wait_timeout).unwrap_or(pool.query_wait_timeout),
                server_idle_timeout: match database.servers.idle_timeout {
                    Some(timeout) => (!timeout.is_zero()).then_some(timeout),
                    None => pool.server_idle_timeout,
                },
                server_lifetime: lifetime(pool, database),
                server_login_retry: pool.server_login_retry,
                check_delay: pool.servers.check_query.as_ref().map(|_| pool.servers.check_delay),
                round_robin: pool.servers.round_robin,
                fail_fast: pool.servers.fail_fast,
                keep_min: database.user.is_some(),
            },
            limits: Limits {
                mode,
                max_packet_size: pool.max_packet_size,
                max_held_message: pool.max_held_message,
                max_prepared_statements: pool.max_prepared_statements,
                prepare_unnamed_statements: pool.prepare_unnamed_statements,
                query_timeout: own.query.unwrap_or(pool.query_timeout),
                transaction_timeout: own.transaction.unwrap_or(pool.transaction_timeout),
                idle_transaction_timeout: own.idle_transaction.unwrap_or(pool.idle_transaction_timeout),
                client_idle_timeout: own.client_idle.unwrap_or(pool.client_idle_timeout),
                spill_buffer: pool.spill_buffer,
                disable_pqexec: pool.sessions.disable_pqexec,
                rollback_timeout: pool.rollback_timeout,
            },
            query_wait_notify: pool.sessions.query_wait_notify,
            reset_query: reset_query(pool, mode),
            connect_query: database.servers.connect_query.as_deref().map(Into::into),
            fast_close: pool.sessions.fast_close && mode == PoolMode::Session,
            client_idle_timeout: own.client_idle.unwrap_or(pool.client_idle_timeout),
            load_balance_hosts: load_balance(database),
            notifications: pool.sessions.notifications,
            log: pool.access.log,
        }
    }
}

/// Returns how old a server connection gets; zero: it is used once.
pub fn lifetime(pool: &Pool, database: &Database) -> Duration {
    database.servers.lifetime.unwrap_or(pool.server_lifetime)
}

/// Returns how many server connections all pools of a database may have together.
pub fn database_limit(pool: &Pool, database: &Database) -> Option<u32> {
    database.max_db_connections.or(pool.max_db_connections)
}

/// Returns how a list of hosts is gone through, as PgBouncer shows it; `None` for one host.
pub fn load_balance(database: &Database) -> Option<&'static str> {
    (!is_unix(&database.host) && database.host.contains(',')).then(|| database.servers.load_balance_hosts.word())
}

/// Returns how many server connections a user may have in all databases together.
pub fn user_limit(pool: &Pool, user: Option<&User>) -> Option<u32> {
    user.and_then(|user| user.max_user_connections).or(pool.servers.max_user_connections)
}

/// Returns how many clients of a database may be logged in.
pub fn database_clients(pool: &Pool, database: &Database) -> Option<u32> {
    database.max_db_client_connections.or(pool.max_db_client_connections)
}

/// Returns how many clients of a user may be logged in; `None` for the user: one that only the server knows.
pub fn user_clients(pool: &Pool, user: Option<&User>) -> Option<u32> {
    user.and_then(|user| user.max_user_client_connections).or(pool.max_user_client_connections)
}

fn reset_query(pool: &Pool, mode: PoolMode) -> Option<Arc<str>> {
    let run = mode == PoolMode::Session || pool.sessions.reset_query_always;
    (run && !pool.sessions.reset_query.is_empty()).then(|| pool.sessions.reset_query.as_str().into())
}

/// Returns the mode in force.
pub fn mode(pool: &Pool, database: &Database, user: Option<&User>) -> PoolMode {
    user.and_then(|user| user.pool_mode).or(database.pool_mode).unwrap_or(pool.pool_mode)
}

/// Returns the mode's word.
pub fn mode_word(mode: PoolMode) -> &'static str {
    match mode {
        PoolMode::Session => "session",
        PoolMode::Transaction => "transaction",
        PoolMode::Statement => "statement",
    }
}

/// A size of 0 is PgBouncer's "no limit".
fn no_limit(size: u32) -> u32 {
    if size == 0 { u32::MAX } else { size }
}

/// Returns the entry of `databases:` that a client means by `name`, with its name on the server filled in: the entry of
/// that name, or the fallback made out for it.
pub fn resolve(pool: &Pool, name: &str) -> Option<Database> {
    let entry = |wanted: &str| pool.databases.iter().find(|database| &*database.name == wanted);
    let mut found = match entry(name) {
        // `*` itself is nobody's name.
        Some(found) if name != ANY => found.clone(),
        _ => Database { name: name.into(), ..entry(ANY)?.clone() },
    };
    found.dbname.get_or_insert_with(|| name.to_owned());
    Some(found)
}

/// Returns whether pool.yaml names the database itself.
pub fn is_named(pool: &Pool, name: &str) -> bool {
    name != ANY && pool.databases.iter().any(|database| &*database.name == name)
}

/// Returns how many connections all pools of a database may have together at most, as far as that is bounded: for pages.
/// A pool without a limit has no more than there may be clients.
pub fn most(pool: &Pool, database: &Database) -> u32 {
    let clients = u32::try_from(pool.max_client_conn).unwrap_or(u32::MAX);
    let sizes = match Rules::of(pool, database, None).settings.sizes {
        sizes if sizes.pool == u32::MAX => clients,
        sizes => sizes.most(),
    };
    database_limit(pool, database).map_or(sizes, |limit| limit.min(sizes))
}

/// The names of pool.yaml in its order, without the fallback.
pub fn names(pool: &Pool) -> impl Iterator<Item = &Arc<str>> {
    pool.databases.iter().map(|database| &database.name).filter(|name| &***name != ANY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Surroundings};

    const FILE: &str = "pool: { auth_type: trust, query_wait_timeout: 9s, query_timeout: 8s }\n\
        databases: { one: { host: h, query_wait_timeout: 7s }, two: { host: h } }\n\
        users: { ann: { query_wait_timeout: 6s, query_timeout: 0 }, bob: {} }\n";

    fn rules(database: &str, user: &str) -> Rules {
        let nowhere = Surroundings::new(|_| None, |_, _| Err(std::io::Error::other("unknown host")));
        let config = Config::from_texts(None, Some(FILE), &nowhere).unwrap();
        let pool = config.pool.unwrap();
        let database = resolve(&pool, database).unwrap();
        Rules::of(&pool, &database, pool.users.iter().find(|known| known.name == user))
    }

    #[test]
    fn a_users_timeout_counts_before_the_databases_and_that_before_the_general_one() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (database, user, wait) in [("one", "ann", 6), ("two", "ann", 6), ("one", "bob", 7), ("two", "bob", 9)] {
            let rules = rules(database, user);
            assert_eq!(rules.settings.query_wait_timeout, seconds(wait), "{database} {user}");
            let query = if user == "ann" { None } else { seconds(8) };
            assert_eq!(rules.limits.query_timeout, query, "0 is never, for this user as well");
        }
    }
}
