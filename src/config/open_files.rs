//! How many files the process may have open at once under a configuration.

use crate::config::{
    Config,
    lb::{Lb, Servers},
    pool::Pool,
};

/// Standard streams, libraries, event loops, timers, the listeners, the admin's clients.
const BASE: u64 = 256;

/// Returns the most files (sockets nearly all) that `config` lets the process open: what the limit of open files must
/// allow, or clients see errors before any limit of the configuration is reached.
pub fn open_files_needed(config: &Config) -> u64 {
    BASE + config.lb.as_deref().map_or(0, front) + config.pool.as_deref().map_or(0, pool)
}

/// A client of the front has its own connection, and holds one to a server while a request or WebSocket lasts; checks
/// have one for each server.
fn front(lb: &Lb) -> u64 {
    let clients: u64 = lb.listeners.iter().map(|listener| listener.max_connections as u64).sum();
    let checks: u64 = lb
        .upstreams
        .iter()
        .map(|upstream| match &upstream.servers {
            Servers::Own(servers) => servers.len() as u64,
            Servers::Of(_) => 0,
        })
        .sum();
    clients.saturating_mul(2).saturating_add(checks)
}

/// Clients, each database's servers, and one probe for each database. As PgBouncer's documentation of `max_client_conn`
/// puts it: clients + pool size * databases * users.
fn pool(pool: &Pool) -> u64 {
    let servers = pool.databases.iter().map(|database| {
        let users = if database.user.is_some() { 1 } else { pool.users.len().max(1) as u64 };
        let reserve = database.reserve_pool_size.unwrap_or(pool.reserve_pool_size);
        let size = match database.pool_size.unwrap_or(pool.default_pool_size) {
            // No limit of its own: no more than there are clients to wait for them.
            0 => pool.max_client_conn as u64,
            size => u64::from(size) + u64::from(reserve),
        };
        let limit = database.max_db_connections.or(pool.max_db_connections).map_or(u64::MAX, u64::from);
        users.saturating_mul(size).min(limit).saturating_add(1)
    });
    servers.fold(pool.max_client_conn as u64, u64::saturating_add)
}
