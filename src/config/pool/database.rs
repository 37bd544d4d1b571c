//! `databases:` of `pool.yaml`.

use std::net::IpAddr;

use crate::config::{
    address::is_host_name,
    field::Field,
    node::Value,
    pool::{Database, MAX_POOL_SIZE, foreign, user},
    section::Section,
};

/// PgBouncer's fallback: the entry for every name that has none.
pub(in crate::config) const FALLBACK: &str = "*";
/// The console.
const RESERVED: &str = "pgbouncer";
const POSTGRESQL_PORT: u16 = 5432;

/// What an entry without sizes of its own has.
pub(super) struct Sizes {
    pub pool_size: u32,
    pub min_pool_size: u32,
}

pub(super) fn read(file: &mut Section<'_>, sizes: &Sizes) -> Vec<Database> {
    let example = "{ arena_db: { host: 127.0.0.1 } }";
    let Some(field) = file.require("databases", example) else { return Vec::new() };
    let entries = field.entries();
    if matches!(&field.node.value, Value::Map(entries) if entries.is_empty()) {
        field.error("must name at least one database");
    }
    entries.iter().map(|(name, field)| database(name, field, sizes)).collect()
}

fn database(name: &str, field: &Field<'_>, sizes: &Sizes) -> Database {
    if name == RESERVED {
        field.error("pgbouncer is the name of the console; give the database another one, and dbname: pgbouncer");
    }
    // PostgreSQL cuts names at 63 bytes (NAMEDATALEN); a client asking for a longer one would never match.
    if name.is_empty() || name.len() > 63 || name.chars().any(char::is_control) {
        field.error("a database's name must have 1 to 63 bytes and no control characters");
    }
    let mut section = field.section();
    let host = section.require("host", "127.0.0.1");
    let login = section.get("user");
    let password = section.get("password");
    if let (None, Some(password)) = (&login, &password) {
        password.error("has no meaning without user (clients' own passwords are in users)");
    }
    let text = |field: Option<Field<'_>>| field.and_then(|field| field.text().map(str::to_owned));
    let read_size = |field: Field<'_>, least| field.integer(least..=MAX_POOL_SIZE);
    let min_pool_size = section.get("min_pool_size");
    let min_place = min_pool_size.clone();
    let database = Database {
        name: name.into(),
        dbname: text(section.get("dbname")),
        host: host.and_then(|host| read_host(&host)).unwrap_or_default(),
        port: section.integer("port", POSTGRESQL_PORT, 1..=65_535),
        user: text(login),
        password: password.and_then(|password| password.secret()),
        pool_size: section.get("pool_size").and_then(|field| read_size(field, 1)),
        min_pool_size: min_pool_size.and_then(|field| read_size(field, 0)),
        reserve_pool_size: section.get("reserve_pool_size").and_then(|field| read_size(field, 0)),
        // No `0` here: an absent key already means what `pool.max_db_connections` says.
        max_db_connections: section.get("max_db_connections").and_then(|field| read_size(field, 1)),
        pool_mode: user::read_pool_mode(&mut section),
    };
    section.finish_with(foreign::entry);
    let (min, size) =
        (database.min_pool_size.unwrap_or(sizes.min_pool_size), database.pool_size.unwrap_or(sizes.pool_size));
    if let (true, Some(field)) = (min > size, &min_place) {
        field.reject(&format!("must not be more than the pool's size of {size}"));
    }
    database
}

/// Reads a host: one, by TCP or a Unix socket. A name is resolved when a connection is opened, so that a failover by DNS is followed.
fn read_host(field: &Field<'_>) -> Option<String> {
    let text = field.text()?;
    // A folder of Unix sockets, or the beginning of an abstract one's name.
    if text.starts_with('/') || (text.starts_with('@') && text.len() > 1) {
        return Some(text.to_owned());
    }
    if text.contains(',') {
        field.error("several hosts are PgBouncer's; not offered here");
        return None;
    }
    if text.parse::<IpAddr>().is_err() && !is_host_name(text) {
        field.reject("must be a host name or an address, without a port");
        return None;
    }
    Some(text.to_owned())
}
