//! `pool:` of `pool.yaml`: PgBouncer's names, with the defaults of a pool for Django.

use std::{sync::Arc, time::Duration};

use crate::config::{
    lb::process,
    pool::{
        MAX_POOL_SIZE, Peers, Pool, PoolMode, Probe, daemon, listen, peers, require_auth, servers, sessions, tls, user,
    },
    reading::{Reading, Spot},
    section::Section,
};

const SECOND: Duration = Duration::from_secs(1);

/// Reads the settings into a pool that has no databases and users yet, with the places of its addresses.
pub(super) fn read(reading: &Reading<'_>, section: &mut Section<'_>, auth: user::Auth<'_>) -> (Pool, Vec<Spot>) {
    let (listen, spots) = listen::read(section);
    let pool = Pool {
        listen,
        tcp: listen::read_tcp(section),
        threads: process::read_threads(section, Some(1)),
        auth_type: auth.auth_type,
        client_tls: tls::read_client(reading, section, &auth),
        server_tls: tls::read_server(reading, section).map(Arc::new),
        server_require_auth: require_auth::read(section),
        access: auth.access,
        admin_users: auth.admin_users,
        stats_users: auth.stats_users,
        pool_mode: user::read_pool_mode(section).unwrap_or(PoolMode::Transaction),
        max_client_conn: section.integer("max_client_conn", 1_000, 1..=1_000_000),
        max_db_client_connections: section.limit("max_db_client_connections", u32::MAX),
        max_user_client_connections: section.limit("max_user_client_connections", u32::MAX),
        default_pool_size: section.integer("default_pool_size", 20, 0..=MAX_POOL_SIZE),
        min_pool_size: section.integer("min_pool_size", 0, 0..=MAX_POOL_SIZE),
        reserve_pool_size: section.integer("reserve_pool_size", 0, 0..=MAX_POOL_SIZE),
        reserve_pool_timeout: section.timeout("reserve_pool_timeout", Some(5 * SECOND)),
        max_db_connections: section.limit("max_db_connections", u32::MAX),
        query_wait_timeout: section.timeout("query_wait_timeout", Some(120 * SECOND)),
        server_idle_timeout: section.timeout("server_idle_timeout", Some(600 * SECOND)),
        server_lifetime: servers::span(section, "server_lifetime", 3_600 * SECOND),
        server_connect_timeout: section.duration("server_connect_timeout", 15 * SECOND),
        server_login_retry: section.duration("server_login_retry", 15 * SECOND),
        query_timeout: section.timeout("query_timeout", None),
        transaction_timeout: section.timeout("transaction_timeout", None),
        idle_transaction_timeout: section.timeout("idle_transaction_timeout", None),
        client_idle_timeout: section.timeout("client_idle_timeout", None),
        client_login_timeout: section.duration("client_login_timeout", 60 * SECOND),
        rollback_timeout: section.duration("rollback_timeout", 5 * SECOND),
        cancel_wait_timeout: section.duration("cancel_wait_timeout", 10 * SECOND),
        max_prepared_statements: section.integer("max_prepared_statements", 200, 0..=1_000_000),
        prepare_unnamed_statements: section.flag("prepare_unnamed_statements", true),
        max_statement_memory: section.size("max_statement_memory", 64 << 20, 1 << 20..=1 << 40) as usize,
        max_packet_size: section.size("max_packet_size", i32::MAX as u64, 16 << 10..=i32::MAX as u64) as u32,
        max_held_message: section.size("max_held_message", 16 << 20, 16 << 10..=1 << 30) as usize,
        spill_buffer: section.size("spill_buffer", 256 << 10, 0..=1 << 30) as usize,
        spill_memory: section.size("spill_memory", 64 << 20, 0..=1 << 40) as usize,
        ignore_startup_parameters: parameters(section, "ignore_startup_parameters", &[]),
        track_extra_parameters: parameters(section, "track_extra_parameters", &["IntervalStyle"]),
        scram_iterations: section.integer("scram_iterations", 4_096, 1..=1_000_000),
        stats_period: section.duration("stats_period", 60 * SECOND),
        servers: servers::read(section),
        sessions: sessions::read(section),
        probe: probe(section),
        peers: Peers { id: peers::read_id(section), all: Vec::new() },
        daemon: daemon::read(reading, section),
        databases: Vec::new(),
        users: auth.users,
    };
    (pool, spots)
}

fn parameters(section: &mut Section<'_>, key: &'static str, default: &[&str]) -> Vec<String> {
    match section.get(key) {
        Some(field) => user::names(&field).into_iter().map(|(name, _)| name).collect(),
        None => default.iter().map(|name| (*name).to_owned()).collect(),
    }
}

fn probe(settings: &mut Section<'_>) -> Probe {
    let mut section = settings.section("probe");
    let probe = Probe {
        interval: section.duration("interval", 2 * SECOND),
        down_interval: section.duration("down_interval", SECOND / 2),
        timeout: section.duration("timeout", SECOND),
        rise: section.integer("rise", 1, 1..=1_000),
        fall: section.integer("fall", 2, 1..=1_000),
    };
    section.finish();
    probe
}
