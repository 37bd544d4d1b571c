//! `pool.yaml` from its checked values.

use super::{HIDDEN, Yaml};
use crate::config::{
    pool::{
        Database, EMPTY_QUERY, Listen, Own, Peer, Pool, PoolMode, Servers, Sessions, SslMode, TlsFiles, User,
        UserSecret,
    },
    units::format_duration,
};

pub(super) fn pool(pool: &Pool) -> Yaml {
    let mut map = Yaml::map();
    map.put("pool", settings(pool));
    let mut databases = Yaml::map();
    for entry in &pool.databases {
        databases.put(&entry.name, database(entry));
    }
    map.put("databases", databases);
    let mut peers = Yaml::map();
    for entry in &pool.peers.all {
        peers.put(&entry.id.to_string(), peer(entry));
    }
    map.put("peers", peers);
    let mut users = Yaml::map();
    for entry in &pool.users {
        users.put(&entry.name, user(entry));
    }
    map.put("users", users);
    map
}

pub(super) fn settings(pool: &Pool) -> Yaml {
    // PgBouncer writes "never" and "no limit" as 0.
    let timeout = |timeout: Option<_>| Yaml::Text(timeout.map_or("0".to_owned(), format_duration));
    let mut map = Yaml::map();
    put_listen(&mut map, pool);
    map.put("threads", pool.threads);
    put_access(&mut map, pool);
    let client = pool.client_tls.as_ref().map(|tls| (tls.mode, &tls.files));
    let server = pool.server_tls.as_ref().map(|tls| (tls.mode, &tls.files));
    put_tls(
        &mut map,
        client,
        [
            "client_tls_sslmode",
            "client_tls_key_file",
            "client_tls_cert_file",
            "client_tls_ca_file",
            "client_tls_protocols",
        ],
    );
    put_tls(
        &mut map,
        server,
        [
            "server_tls_sslmode",
            "server_tls_key_file",
            "server_tls_cert_file",
            "server_tls_ca_file",
            "server_tls_protocols",
        ],
    );
    let direct = pool.server_tls.as_ref().is_some_and(|tls| tls.direct);
    map.put("server_tls_sslnegotiation", if direct { "direct" } else { "postgres" });
    map.put("server_require_auth", Yaml::list(pool.server_require_auth.words(), Yaml::text));
    map.put("admin_users", Yaml::list(&pool.admin_users, Yaml::text));
    map.put("stats_users", Yaml::list(&pool.stats_users, Yaml::text));
    map.put("pool_mode", mode(pool.pool_mode));
    map.put("max_client_conn", pool.max_client_conn);
    map.put("max_db_client_connections", pool.max_db_client_connections.unwrap_or(0));
    map.put("max_user_client_connections", pool.max_user_client_connections.unwrap_or(0));
    map.put("default_pool_size", pool.default_pool_size);
    map.put("min_pool_size", pool.min_pool_size);
    map.put("reserve_pool_size", pool.reserve_pool_size);
    map.put("reserve_pool_timeout", timeout(pool.reserve_pool_timeout));
    map.put("max_db_connections", pool.max_db_connections.unwrap_or(0));
    map.put("query_wait_timeout", timeout(pool.query_wait_timeout));
    map.put("server_idle_timeout", timeout(pool.server_idle_timeout));
    map.put("server_lifetime", pool.server_lifetime);
    map.put("server_connect_timeout", pool.server_connect_timeout);
    map.put("server_login_retry", pool.server_login_retry);
    map.put("query_timeout", timeout(pool.query_timeout));
    map.put("transaction_timeout", timeout(pool.transaction_timeout));
    map.put("idle_transaction_timeout", timeout(pool.idle_transaction_timeout));
    map.put("client_idle_timeout", timeout(pool.client_idle_timeout));
    map.put("client_login_timeout", pool.client_login_timeout);
    map.put("rollback_timeout", pool.rollback_timeout);
    map.put("cancel_wait_timeout", pool.cancel_wait_timeout);
    map.put("max_prepared_statements", pool.max_prepared_statements);
    map.put("prepare_unnamed_statements", pool.prepare_unnamed_statements);
    map.put("max_statement_memory", Yaml::size(pool.max_statement_memory as u64));
    map.put("max_packet_size", Yaml::size(pool.max_packet_size.into()));
    map.put("max_held_message", Yaml::size(pool.max_held_message as u64));
    map.put("spill_buffer", Yaml::size(pool.spill_buffer as u64));
    map.put("spill_memory", Yaml::size(pool.spill_memory as u64));
    map.put("ignore_startup_parameters", Yaml::list(&pool.ignore_startup_parameters, Yaml::text));
    map.put("track_extra_parameters", Yaml::list(&pool.track_extra_parameters, Yaml::text));
    map.put("scram_iterations", pool.scram_iterations);
    map.put("stats_period", pool.stats_period);
    put_servers(&mut map, &pool.servers);
    put_sessions(&mut map, &pool.sessions);
    map.put("peer_id", u32::from(pool.peers.id));
    let mut probe = Yaml::map();
    probe.put("interval", pool.probe.interval);
    probe.put("down_interval", pool.probe.down_interval);
    probe.put("timeout", pool.probe.timeout);
    probe.put("rise", pool.probe.rise);
    probe.put("fall", pool.probe.fall);
    map.put("probe", probe);
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| Yaml::text(path.display()));
    map.put("logfile", path(&pool.daemon.logfile));
    map.put("pidfile", path(&pool.daemon.pidfile));
    map.put("user", pool.daemon.user.as_deref());
    map.put("verbose", u32::from(pool.daemon.verbose));
    map
}

fn put_listen(map: &mut Yaml, pool: &Pool) {
    let Listen { addresses, port, unix, backlog, reuse_port } = &pool.listen;
    // The usual case as PgBouncer writes it.
    if addresses.iter().all(|address| address.port() == *port) {
        map.put("listen_addr", Yaml::list(addresses, |address| Yaml::text(address.ip())));
    } else {
        map.put("listen", Yaml::list(addresses, Yaml::text));
    }
    map.put("listen_port", u32::from(*port));
    map.put("listen_backlog", *backlog);
    map.put("so_reuseport", *reuse_port);
    map.put("unix_socket_dir", unix.as_ref().map(|unix| unix.dir.as_str()));
    map.put("unix_socket_mode", unix.as_ref().map(|unix| Yaml::Text(format!("{:04o}", unix.mode))));
    map.put("unix_socket_group", unix.as_ref().and_then(|unix| Some(unix.group.as_ref()?.name.as_str())));
    let tcp = &pool.tcp;
    // 0 is the kernel's own.
    let time = |time: Option<_>| Yaml::Text(time.map_or("0".to_owned(), format_duration));
    map.put("tcp_keepalive", tcp.keepalive);
    map.put("tcp_keepidle", time(tcp.keepidle));
    map.put("tcp_keepintvl", time(tcp.keepintvl));
    map.put("tcp_keepcnt", tcp.keepcnt.unwrap_or(0));
    map.put("tcp_user_timeout", time(tcp.user_timeout));
    map.put("tcp_socket_buffer", Yaml::size(tcp.socket_buffer.unwrap_or(0) as u64));
    map.put("tcp_defer_accept", time(tcp.defer_accept));
}

fn put_servers(map: &mut Yaml, servers: &Servers) {
    let timeout = |timeout: Option<_>| Yaml::Text(timeout.map_or("0".to_owned(), format_duration));
    map.put("server_round_robin", servers.round_robin);
    let check = match servers.check_query.as_deref() {
        None => "",
        Some("") => EMPTY_QUERY,
        Some(query) => query,
    };
    map.put("server_check_query", check);
    map.put("server_check_delay", servers.check_delay);
    map.put("fail_fast", servers.fail_fast);
    map.put("max_user_connections", servers.max_user_connections.unwrap_or(0));
    map.put("dns_max_ttl", servers.dns_max_ttl);
    map.put("dns_nxdomain_ttl", servers.dns_nxdomain_ttl);
    map.put("server_max_protocol_version", servers.max_protocol.word());
    map.put("autodb_idle_timeout", timeout(servers.autodb_idle_timeout));
    map.put("pool_idle_timeout", timeout(servers.pool_idle_timeout));
}

fn put_sessions(map: &mut Yaml, sessions: &Sessions) {
    map.put("disable_pqexec", sessions.disable_pqexec);
    map.put("query_wait_notify", own(Some(sessions.query_wait_notify)));
    map.put("server_reset_query", sessions.reset_query.as_str());
    map.put("server_reset_query_always", sessions.reset_query_always);
    map.put("server_fast_close", sessions.fast_close);
    map.put("application_name_add_host", sessions.application_name_add_host);
    let listening = &sessions.notifications;
    map.put("notifications", listening.word());
    map.put("max_notification_channels", listening.channels_max);
    map.put("notification_queue", Yaml::size(listening.queue as u64));
}

fn put_access(map: &mut Yaml, pool: &Pool) {
    let access = &pool.access;
    map.put("auth_type", pool.auth_type.word());
    map.put("auth_hba_file", access.hba_file.as_deref());
    map.put("auth_ident_file", access.ident_file.as_deref());
    map.put("auth_user", access.lookup.user.as_deref());
    map.put("auth_query", access.lookup.query.as_str());
    map.put("auth_dbname", access.lookup.dbname.as_deref());
    map.put("auth_query_cache_ttl", access.lookup.cache_ttl);
    map.put("auth_query_cache_size", access.lookup.cache_size);
    map.put("auth_failure_limit", access.failure_limit.unwrap_or(0));
    map.put("auth_failure_window", access.failure_window);
    map.put("log_connections", access.log.connections);
    map.put("log_disconnections", access.log.disconnections);
    map.put("log_pooler_errors", access.log.pooler_errors);
}

fn put_tls(map: &mut Yaml, tls: Option<(SslMode, &TlsFiles)>, keys: [&str; 5]) {
    let files = tls.map(|(_, files)| files.clone()).unwrap_or_default();
    map.put(keys[0], tls.map_or("disable", |(mode, _)| mode.word()));
    map.put(keys[1], files.key.as_deref());
    map.put(keys[2], files.cert.as_deref());
    map.put(keys[3], files.ca.as_deref());
    map.put(keys[4], files.protocols.as_deref());
}

fn peer(peer: &Peer) -> Yaml {
    let mut map = Yaml::map();
    map.put("host", peer.host.as_str());
    map.put("port", u32::from(peer.port));
    map.put("pool_size", peer.pool_size);
    map.put("tls", peer.tls);
    map
}

fn database(database: &Database) -> Yaml {
    let mut map = Yaml::map();
    map.put("dbname", database.dbname.as_deref());
    map.put("host", database.host.as_str());
    map.put("port", u32::from(database.port));
    map.put("user", database.user.as_deref());
    map.put("password", database.password.as_ref().map(|_| HIDDEN));
    map.put("pool_size", database.pool_size);
    map.put("min_pool_size", database.min_pool_size);
    map.put("reserve_pool_size", database.reserve_pool_size);
    map.put("max_db_connections", database.max_db_connections);
    map.put("max_db_client_connections", database.max_db_client_connections);
    map.put("pool_mode", database.pool_mode.map(mode));
    let servers = &database.servers;
    map.put("load_balance_hosts", servers.load_balance_hosts.word());
    map.put("connect_query", servers.connect_query.as_deref());
    for (name, value) in &servers.startup {
        map.put(&name.to_ascii_lowercase(), value.as_str());
    }
    map.put("server_lifetime", servers.lifetime);
    map.put("server_idle_timeout", servers.idle_timeout);
    map.put("query_wait_timeout", own(database.query_wait_timeout));
    map.put("auth_user", database.lookup.user.as_deref());
    map.put("auth_query", database.lookup.query.as_deref());
    map.put("auth_dbname", database.lookup.dbname.as_deref());
    map
}

fn user(user: &User) -> Yaml {
    let mut map = Yaml::map();
    match &user.secret {
        UserSecret::Absent => {}
        UserSecret::Plain(password) if password.expose().is_empty() => {}
        UserSecret::Several(passwords) => map.put("passwords", Yaml::list(passwords, |_| Yaml::text(HIDDEN))),
        UserSecret::Plain(_) | UserSecret::Md5(_) | UserSecret::Scram(_) => map.put("password", HIDDEN),
    }
    map.put("pool_size", user.pool_size);
    map.put("reserve_pool_size", user.reserve_pool_size);
    map.put("pool_mode", user.pool_mode.map(mode));
    map.put("max_user_connections", user.max_user_connections);
    map.put("query_timeout", own(user.timeouts.query));
    map.put("query_wait_timeout", own(user.timeouts.query_wait));
    map.put("transaction_timeout", own(user.timeouts.transaction));
    map.put("idle_transaction_timeout", own(user.timeouts.idle_transaction));
    map.put("client_idle_timeout", own(user.timeouts.client_idle));
    map.put("max_user_client_connections", user.max_user_client_connections);
    map
}

/// An entry's own timeout: not given, or never, or a time.
fn own(timeout: Own) -> Yaml {
    timeout.map_or(Yaml::Null, |timeout| Yaml::Text(timeout.map_or("0".to_owned(), format_duration)))
}

fn mode(mode: PoolMode) -> &'static str {
    match mode {
        PoolMode::Session => "session",
        PoolMode::Transaction => "transaction",
        PoolMode::Statement => "statement",
    }
}
