//! What files mean.

use std::net::SocketAddr;

use super::*;
use crate::config::lb::{Balance, Builtin, Hash, HashKey, PathMatch, Piece, Servers, Target, Variable};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_short_front_has_the_documented_defaults() {
    let lb = load_lb(FRONT);
    assert_eq!(lb.client.header_timeout, seconds(10));
    assert_eq!(lb.client.header_max_size, 64 << 10);
    assert_eq!(lb.client.max_body_size, Some(20 << 20));
    assert_eq!(lb.listeners[0].max_connections, 20_000);
    assert!(lb.threads >= 1 && lb.access_log.enabled && lb.trusted_proxies.is_empty());
    let upstream = &lb.upstreams[0];
    assert_eq!((&upstream.balance, upstream.tries), (&Balance::RoundRobin, 3));
    assert_eq!((upstream.connect_timeout, upstream.keepalive_timeout), (seconds(2), seconds(4)));
    assert_eq!(upstream.health_check, None);
    let route = &lb.routes[0];
    assert_eq!((&*route.name, route.needs_database, route.max_body_size), ("/", true, None));
    assert_eq!(route.websocket_idle_timeout, seconds(3_600));
}

#[test]
fn a_short_pool_has_the_documented_defaults() {
    let pool = load_pool(POOL);
    assert_eq!(pool.listen.addresses, ["127.0.0.1:6432".parse::<SocketAddr>().unwrap()]);
    assert_eq!((pool.listen.port, &pool.listen.unix, pool.listen.reuse_port), (6432, &None, false));
    assert_eq!(pool.tcp, pool::Tcp::default());
    assert_eq!((pool.auth_type, pool.pool_mode), (pool::AuthType::ScramSha256, pool::PoolMode::Transaction));
    assert_eq!((pool.max_client_conn, pool.default_pool_size, pool.threads), (1_000, 20, 1));
    assert_eq!(pool.query_wait_timeout, Some(seconds(120)));
    assert_eq!((pool.query_timeout, pool.max_db_connections), (None, None));
    assert_eq!(pool.max_packet_size, i32::MAX as u32);
    assert_eq!(pool.databases[0].port, 5432);
    assert_eq!(pool.track_extra_parameters, ["IntervalStyle"]);
}

#[test]
fn the_core_of_a_front_is_read() {
    let lb = load_lb(
        "\
listeners: [{ address: '*:8080' }, { address: '[::1]:8081', max_connections: 5 }]
threads: 2
trusted_proxies: [10.0.0.0/8, 192.0.2.1, '2001:db8::/32']
client_max_body_size: 0
upstreams:
  django:
    servers:
      - { name: web-1, address: 127.0.0.1:8001, weight: 3, max_fails: 0 }
      - { address: 'web:8000', backup: true }
    health_check: { interval: 1s, host: localhost, database: arena_db, status: [204, 300-301] }
  sticky: { balance: ip_hash, servers_of: django }
  own: { balance: ip_hash, servers: [{ address: 127.0.0.1:8001 }, { address: 127.0.0.1:8002, backup: true }] }
routes:
  - { host: WS.example.com, path_prefix: /ws/, upstream: sticky, websocket_idle_timeout: 1h30m }
  - { path: /db/connections/, builtin: db_connections, allow: [127.0.0.0/8] }
  - { path_prefix: /up/, upstream: django, client_max_body_size: 250m, read_timeout: 500ms, needs_database: false }
  - { path_prefix: /any/, upstream: django, client_max_body_size: 0 }
",
    );
    assert_eq!(lb.listeners[0].address, "0.0.0.0:8080".parse().unwrap());
    assert_eq!(lb.listeners[1].max_connections, 5);
    assert_eq!(lb.trusted_proxies[1].to_string(), "192.0.2.1/32");
    assert_eq!(lb.client.max_body_size, None);
    let Servers::Own(servers) = &lb.upstreams[0].servers else { panic!() };
    assert_eq!((&*servers[0].name, servers[0].weight, servers[0].max_fails), ("web-1", 3, 0));
    // The name stays as written; of its addresses the IPv4 one is taken.
    assert_eq!((&*servers[1].name, servers[1].address), ("web:8000", "10.0.0.7:8000".parse().unwrap()));
    let check = lb.upstreams[0].health_check.as_ref().unwrap();
    assert_eq!((check.interval, check.down_interval), (seconds(1), Duration::from_millis(250)));
    assert_eq!(check.status, [204..=204, 300..=301]);
    assert_eq!(lb.upstreams[1].servers, Servers::Of("django".into()));
    let Servers::Own(servers) = &lb.upstreams[2].servers else { panic!() };
    assert!(servers[1].backup, "ip_hash takes backups too");
    assert_eq!((&*lb.routes[0].name, lb.routes[0].host.as_deref()), ("ws.example.com/ws/", Some("ws.example.com")));
    assert_eq!(lb.routes[0].websocket_idle_timeout, seconds(5_400));
    assert_eq!(lb.routes[1].target, Target::Builtin(Builtin::DbConnections));
    assert_eq!(lb.routes[1].path, PathMatch::Exact("/db/connections/".into()));
    assert_eq!(lb.routes[2].max_body_size, Some(Some(250 << 20)));
    assert_eq!(lb.routes[2].read_timeout, Some(Duration::from_millis(500)));
    assert!(!lb.routes[2].needs_database);
    assert_eq!(lb.routes[3].max_body_size, Some(None));
}

#[test]
fn every_way_to_choose_is_read_with_what_it_goes_by() {
    let read = |text: &str| {
        let file = FRONT.replace("  django:\n", &format!("  django:\n    {text}\n"));
        load_lb(&file).upstreams[0].balance.clone()
    };
    for (text, expected) in [
        ("balance: least_conn", Balance::LeastConn),
        ("balance: random", Balance::Random),
        ("balance: ewma", Balance::Ewma),
        ("balance: consistent_hash", Balance::ConsistentHash(Hash::default())),
    ] {
        assert_eq!(read(text), expected);
    }
    let with = |hash: &str| match read(&format!("balance: consistent_hash\n    hash: {{ {hash} }}")) {
        Balance::ConsistentHash(hash) => hash,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        with("key: path, balance_factor: 0"),
        Hash { key: HashKey::Path, balance_factor: None, ..Hash::default() }
    );
    assert_eq!(with("key: 'header:X-Tenant'").key, HashKey::Header(http::HeaderName::from_static("x-tenant")));
    assert_eq!(with("key: 'cookie:sessionid'").key, HashKey::Cookie("sessionid".into()));
    let narrow = with("ipv4_prefix: 24, ipv6_prefix: 48");
    assert_eq!((narrow.ipv4_prefix, narrow.ipv6_prefix), (24, 48));
}

#[test]
fn the_core_of_a_pool_is_read() {
    let pool = load_pool(
        "\
pool:
  listen_addr: '*'
  listen_port: 7432
  auth_type: md5
  admin_users: a, b
  stats_users: [b]
  query_wait_timeout: 0
  reserve_pool_timeout: 0
  query_timeout: 30
  max_db_connections: 40
  ignore_startup_parameters: extra_float_digits, search_path
databases:
  b_db: { dbname: real, host: db.example.com, user: app, password: x, pool_size: 3, pool_mode: session }
  a_db: { host: '::1' }
  '*': { host: 127.0.0.1, port: 5433 }
users:
  a: { password: x, pool_size: 4 }
  b: { password: y }
",
    );
    assert_eq!(
        pool.listen.addresses,
        ["0.0.0.0:7432", "[::]:7432"].map(|address| address.parse::<SocketAddr>().unwrap())
    );
    assert_eq!((pool.query_wait_timeout, pool.reserve_pool_timeout), (None, None));
    assert_eq!((pool.query_timeout, pool.max_db_connections), (Some(seconds(30)), Some(40)));
    assert_eq!((&pool.admin_users[..], pool.stats_users[0].as_str()), (&["a".to_owned(), "b".to_owned()][..], "b"));
    assert_eq!(pool.ignore_startup_parameters, ["extra_float_digits", "search_path"]);
    let names: Vec<&str> = pool.databases.iter().map(|database| &*database.name).collect();
    assert_eq!(names, ["b_db", "a_db", "*"], "in the order of the file");
    assert_eq!(pool.databases[0].pool_mode, Some(pool::PoolMode::Session));
    assert_eq!(pool.users[0].pool_size, Some(4));
}

#[test]
fn sizes_limits_and_servers_are_read_as_pgbouncer_reads_them() {
    let pool = load_pool(
        "\
pool:
  default_pool_size: 0
  min_pool_size: 50
  server_lifetime: 0
  server_check_query: ''
  max_user_connections: 7
databases:
  a_db:
    host: 10.0.0.1, 10.0.0.2
    load_balance_hosts: disable
    pool_size: 0
    reserve_pool: 3
    max_db_connections: 0
    server_lifetime: 0
    server_idle_timeout: 0
    timezone: UTC
    connect_query: |
      SELECT 1;
      SELECT 2
users:
  a: { password: x, pool_size: 0, reserve_pool_size: 2, max_user_connections: 0 }
",
    );
    assert_eq!((pool.default_pool_size, pool.min_pool_size, pool.server_lifetime), (0, 50, Duration::ZERO));
    assert_eq!((&pool.servers.check_query, pool.servers.max_user_connections), (&None, Some(7)));
    let database = &pool.databases[0];
    assert_eq!(
        (&*database.host, database.pool_size, database.reserve_pool_size),
        ("10.0.0.1,10.0.0.2", Some(0), Some(3))
    );
    // PgBouncer 1.26 shows the general values for these zeros, in SHOW DATABASES and SHOW USERS.
    assert_eq!((database.max_db_connections, database.servers.lifetime), (None, None));
    assert_eq!(pool.users[0].max_user_connections, None);
    assert_eq!((pool.users[0].pool_size, pool.users[0].reserve_pool_size), (Some(0), Some(2)));
    assert_eq!(database.servers.load_balance_hosts, pool::LoadBalance::Disable);
    assert_eq!(database.servers.idle_timeout, Some(Duration::ZERO));
    assert_eq!(database.servers.startup, [("TimeZone".to_owned(), "UTC".to_owned())]);
    assert_eq!(database.servers.connect_query.as_deref(), Some("SELECT 1;\nSELECT 2\n"));
    assert_eq!(load_pool(POOL).servers, pool::Servers::default());
}

#[test]
fn json_is_yaml() {
    let json = "{\n\t\"listeners\": [{\"address\": \"127.0.0.1:80\"}],\n\t\"upstreams\": {\"d\": {\"servers\": \
                [{\"address\": \"127.0.0.1:1\", \"weight\": 2}]}},\n\t\"routes\": [{\"path_prefix\": \"\\/\", \
                \"upstream\": \"d\", \"needs_database\": false, \"host\": null}]\n}\n";
    let lb = load_lb(json);
    assert_eq!((&*lb.routes[0].name, lb.routes[0].needs_database), ("/", false));
}

#[test]
fn aliases_and_a_byte_order_mark_are_followed() {
    let text = FRONT.replace("{ name: web-1, address: 127.0.0.1:8001 }", "&one { address: 127.0.0.1:8001 }");
    let text = text.replace("routes:", "  other: { servers: [*one] }\nroutes:");
    let lb = load_lb(&format!("\u{feff}{text}"));
    assert_eq!(lb.upstreams[0].servers, lb.upstreams[1].servers);
}

#[test]
fn the_need_of_open_files_grows_with_clients_and_servers() {
    let config = load(Some(FRONT), Some(POOL)).unwrap();
    // 2 × 20,000 clients, 1 check; 1,000 clients, 1 database × 1 user × 20 and its probe.
    assert_eq!(open_files_needed(&config), 256 + 40_000 + 1 + 1_000 + 20 + 1);
    let config = load(None, Some(&POOL.replace("127.0.0.1 }", "h, pool_size: 0 }"))).unwrap();
    assert_eq!(open_files_needed(&config), 256 + 1_000 + 1_000 + 1, "no more servers than clients");
    let config = load(None, Some(&POOL.replace("127.0.0.1 }", "h, pool_size: 50, max_db_connections: 30 }"))).unwrap();
    assert_eq!(open_files_needed(&config), 256 + 1_000 + 30 + 1);
}

/// Takes passwords out of a pool, as printing does.
fn without_secrets(pool: &pool::Pool) -> pool::Pool {
    let hidden = secret::Secret::new("(hidden)");
    let mut pool = pool.clone();
    for user in &mut pool.users {
        user.secret = pool::UserSecret::Plain(hidden.clone());
    }
    for database in &mut pool.databases {
        database.password = database.password.take().map(|_| hidden.clone());
    }
    pool
}

#[test]
fn what_is_printed_reads_back_without_the_secrets() {
    let lb = include_str!("../../../lb.yaml");
    let text = include_str!("../../../pool.yaml");
    let text = text.replace(
        "databases:\n",
        "databases:\n  other: { host: 'h,i', user: u, password: hunter2, max_db_connections: 3, connect_query: 'a', timezone: UTC, server_lifetime: 1h }\n",
    );
    let config = load(Some(lb), Some(&text)).unwrap_or_else(|errors| panic!("{errors}"));
    let printed = print(&config);
    assert!(!printed.contains("hunter2"), "{printed}");
    let (front, back) = printed.split_once("---\n").unwrap();
    let again = load(Some(front), Some(back)).unwrap_or_else(|errors| panic!("{errors}\n{printed}"));
    assert_eq!(again.lb, config.lb);
    assert_eq!(again.pool.as_deref(), Some(&without_secrets(config.pool.as_ref().unwrap())));
    assert_eq!((again.admin, again.shutdown), (config.admin, config.shutdown));
}

#[test]
fn users_of_two_places_are_put_together() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pool.yaml");
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("userlist.txt", "\"app\" \"listed\"\n\"both\" \"listed\"\n");
    write("secret", "mounted\n");
    write("forced", "forced");
    let text = "\
pool: { auth_file: userlist.txt }
databases: { a: { host: h, user: batch, password_file: forced } }
users:
  app: { pool_size: 3 }
  both: { password: written }
  batch: { pool_size: 4 }
  mounted: { password_file: secret }
  rotated: { passwords: [old, new] }
  single: { passwords: [one] }
";
    write("pool.yaml", text);
    let sources = Sources { lb: None, pool: Some(file) };
    let pool = Config::load(&sources, &surroundings()).unwrap_or_else(|errors| panic!("{errors}")).pool.unwrap();
    let plain = |text: &str| pool::UserSecret::Plain(secret::Secret::new(text));
    let users: Vec<_> = pool.users.iter().map(|user| (&*user.name, &user.secret, user.pool_size)).collect();
    let several = pool::UserSecret::Several(["old", "new"].map(secret::Secret::new).to_vec());
    let expected = [
        ("app", &plain("listed"), Some(3)),
        ("both", &plain("written"), None),
        ("batch", &pool::UserSecret::Absent, Some(4)),
        ("mounted", &plain("mounted"), None),
        ("rotated", &several, None),
        ("single", &plain("one"), None),
    ];
    assert_eq!(users, expected);
    assert_eq!(pool.databases[0].password, Some(secret::Secret::new("forced")));
}

#[test]
fn users_that_are_looked_up_need_not_be_known() {
    let pool = load_pool(
        "pool: { auth_user: lookup, auth_dbname: names, admin_users: ops, log_connections: 0, auth_query_cache_ttl: 0 }\n\
         databases: { a: { host: h, auth_query: 'SELECT a, b FROM c($1)' } }\nusers: { app: { pool_size: 3 } }\n",
    );
    let lookup = &pool.access.lookup;
    assert_eq!((lookup.user.as_deref(), lookup.dbname.as_deref()), (Some("lookup"), Some("names")));
    assert_eq!(lookup.query, pool::access::DEFAULT_AUTH_QUERY);
    assert!(lookup.cache_ttl.is_zero() && !pool.access.log.connections && pool.access.log.disconnections);
    assert_eq!(pool.databases[0].lookup.query.as_deref(), Some("SELECT a, b FROM c($1)"));
}

#[test]
fn rules_and_maps_are_read_beside_the_file_and_their_mistakes_stand_in_them() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("pool.yaml", &format!("pool: {{ auth_type: hba, auth_hba_file: hba, auth_ident_file: ident }}\n{POOL}"));
    write("ident", "team root arena_user\n");
    write("hba", "local all @who peer map=team\nhost all all all scram-sha-256\n");
    write("who", "arena_user\n");
    let sources = Sources { lb: None, pool: Some(dir.path().join("pool.yaml")) };
    let load = || Config::load(&sources, &surroundings());
    let pool = load().unwrap_or_else(|errors| panic!("{errors}")).pool.unwrap();
    assert_eq!(pool.access.hba.as_ref().unwrap().rules().len(), 2);
    write("hba", "host all all all scram-sha-256\nhosts all all all trust\n");
    let expected =
        format!("{}:2:1: must begin with local, host, hostssl or hostnossl", dir.path().join("hba").display());
    assert_eq!(lines(load()), [expected]);
    write("hba", "hostssl all all all cert\n");
    let expected = format!(
        "{}:1:7: pool: line 1 of auth_hba_file asks for certificates: that needs client_tls_sslmode and client_tls_ca_file",
        dir.path().join("pool.yaml").display()
    );
    assert_eq!(lines(load()), [expected]);
}

#[test]
fn header_values_that_may_be_secrets_are_never_shown() {
    let hidden = "Bearer hunter2";
    let text = FRONT.replace(
        "  django:\n",
        "  django:\n    health_check: { headers: { Authorization: hunter2, X-Key: '${KEY}', X-Open: shown } }\n",
    ) + "request_headers: { set: { Authorization: Bearer hunter2, X-Key: '${KEY}', X-Open: shown } }\n";
    let surroundings = Surroundings::new(|_| Some(hidden.into()), |_, _| Ok(Vec::new()));
    let config = Config::from_texts(Some(&text), None, &surroundings).unwrap_or_else(|errors| panic!("{errors}"));
    for shown in [print(&config), format!("{config:?}")] {
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("shown"), "{shown}");
    }
}

#[test]
fn a_dollar_is_written_twice_and_read_back() {
    let text = format!("{FRONT}response_headers: {{ set: {{ X-Price: 'cost: 5$$ at $host$$$request_id' }} }}\n");
    let lb = load_lb(&text);
    let (_, value) = &lb.headers.response.set[0];
    let text = |text: &str| Piece::Text(text.into());
    let expected =
        [text("cost: 5$ at "), Piece::Variable(Variable::Host), text("$"), Piece::Variable(Variable::RequestId)];
    assert_eq!(*value.pieces, expected);
    assert_eq!(value.to_string(), "cost: 5$$ at $host$$$request_id");
}
