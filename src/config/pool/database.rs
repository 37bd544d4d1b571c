//! `databases:` of `pool.yaml`.

use std::net::IpAddr;

use crate::config::{
    address::is_host_name,
    field::Field,
    node::Value,
    pool::{Database, MAX_POOL_SIZE, access, servers, user},
    reading::Reading,
    section::Section,
};

/// PgBouncer's fallback: the entry for every name that has none.
pub(in crate::config) const FALLBACK: &str = "*";
/// The console.
const RESERVED: &str = "pgbouncer";
const POSTGRESQL_PORT: u16 = 5432;

pub(super) fn read(reading: &Reading<'_>, file: &mut Section<'_>) -> Vec<Database> {
    let example = "{ arena_db: { host: 127.0.0.1 } }";
    let Some(field) = file.require("databases", example) else { return Vec::new() };
    let entries = field.entries();
    if matches!(&field.node.value, Value::Map(entries) if entries.is_empty()) && !field.reading.is_ini() {
        field.error("must name at least one database");
    }
    entries.iter().map(|(name, field)| database(reading, name, field)).collect()
}

fn database(reading: &Reading<'_>, name: &str, field: &Field<'_>) -> Database {
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
    let (password, password_file) = (section.get("password"), section.get("password_file"));
    if let (Some(_), Some(file)) = (&password, &password_file) {
        file.error("of password and password_file only one can be given");
    }
    if let (None, Some(password)) = (&login, password.as_ref().or(password_file.as_ref())) {
        password.error("has no meaning without user (clients' own passwords are in users)");
    }
    let text = |field: Option<Field<'_>>| field.and_then(|field| field.text().map(str::to_owned));
    let mut size = |key| section.get(key).and_then(|field| field.integer(0..=MAX_POOL_SIZE));
    let (pool_size, min_pool_size) = (size("pool_size"), size("min_pool_size"));
    let (reserve_pool_size, reserve_pool) = (size("reserve_pool_size"), size("reserve_pool"));
    let database = Database {
        name: name.into(),
        dbname: text(section.get("dbname")),
        host: host.and_then(|host| read_host(&host)).unwrap_or_default(),
        port: section.integer("port", POSTGRESQL_PORT, 1..=65_535),
        user: text(login),
        password: match password_file {
            Some(file) => user::read_password_file(reading, &file),
            None => password.and_then(|password| password.secret()),
        },
        pool_size,
        min_pool_size,
        // PgBouncer's older name for the same.
        reserve_pool_size: reserve_pool_size.or(reserve_pool),
        max_db_connections: section.limit("max_db_connections", u32::MAX),
        max_db_client_connections: section.limit("max_db_client_connections", u32::MAX),
        pool_mode: user::read_pool_mode(&mut section),
        servers: servers::read_database(&mut section),
        query_wait_timeout: section.own_timeout("query_wait_timeout"),
        lookup: access::own_lookup(&mut section),
    };
    section.finish();
    database
}

/// Reads a host: by TCP or a Unix socket, or PgBouncer's list of several with commas. Names are resolved when connections are
/// opened, so that a failover by DNS is followed.
pub(super) fn read_host(field: &Field<'_>) -> Option<String> {
    let text = field.text()?;
    // A folder of Unix sockets, or the beginning of an abstract one's name.
    if text.starts_with('/') || (text.starts_with('@') && text.len() > 1) {
        return Some(text.to_owned());
    }
    let hosts: Vec<&str> = text.split(',').map(str::trim).collect();
    if hosts.iter().any(|host| host.parse::<IpAddr>().is_err() && !is_host_name(host)) {
        field.reject("must be a host name or an address, without a port, or several with commas between them");
        return None;
    }
    Some(hosts.join(","))
}
