//! What each mistake is answered with, to the letter.

use super::*;

/// Adds lines to the upstream of [`FRONT`].
fn upstream(lines: &str) -> Vec<String> {
    lb_errors(&FRONT.replace("routes:", &format!("    {lines}\nroutes:")))
}

fn settings(lines: &str) -> Vec<String> {
    pool_errors(&format!("pool:\n  {lines}\n{POOL}"))
}

fn database(entry: &str) -> Vec<String> {
    pool_errors(&POOL.replace("{ host: 127.0.0.1 }", entry))
}

#[test]
fn every_error_of_a_file_comes_at_once() {
    let text = "\
listeners:
  - { address: nowhere, max_connections: 0 }
treads: 4
upstreams:
  django:
    balance: round-robin
    servers:
      - { name: web-1, address: 127.0.0.1:8001, weight: 0 }
      - { name: web-1, address: 127.0.0.1:8001 }
      - { addres: 127.0.0.1:8003 }
    health_check: { path: health, interval: 0, status: [200-199, ok] }
  ws: { servers_of: djnago }
routes:
  - { path_prefix: ws/, upstream: ws }
  - { path_prefix: /, upstream: web }
";
    let expected = "\
lb.yaml:2:16: listeners[0].address: must be an address and a port such as 0.0.0.0:8080, got nowhere
lb.yaml:2:42: listeners[0].max_connections: must be 1..=10000000, got 0
lb.yaml:3:1: treads: unknown key (did you mean threads?)
lb.yaml:6:14: upstreams.django.balance: must be round_robin or least_conn or ip_hash or random or consistent_hash or ewma, got round-robin (did you mean round_robin?)
lb.yaml:8:57: upstreams.django.servers[0].weight: must be 1..=65535, got 0
lb.yaml:9:17: upstreams.django.servers[1].name: the name web-1 is used twice, first on line 8
lb.yaml:9:33: upstreams.django.servers[1].address: the address 127.0.0.1:8001 is used twice, first on line 8
lb.yaml:10:9: upstreams.django.servers[2].address: is missing (e.g. address: 127.0.0.1:8001)
lb.yaml:10:11: upstreams.django.servers[2].addres: unknown key (did you mean address?)
lb.yaml:11:27: upstreams.django.health_check.path: must start with /, got health
lb.yaml:11:45: upstreams.django.health_check.interval: must be longer than 0, got 0
lb.yaml:11:57: upstreams.django.health_check.status[0]: must be a status such as 204 or a range such as 200-399, got 200-199
lb.yaml:11:66: upstreams.django.health_check.status[1]: must be a status such as 204 or a range such as 200-399, got ok
lb.yaml:12:21: upstreams.ws.servers_of: must be the name of an upstream, got djnago (did you mean django?)
lb.yaml:14:20: routes[0].path_prefix: must start with /, got ws/
lb.yaml:15:33: routes[1].upstream: must be the name of an upstream, got web";
    assert_eq!(lb_errors(text).join("\n"), expected);
}

#[test]
fn broken_yaml_keeps_its_line_and_column() {
    let errors = lb_errors("listeners:\n  - address: 1\n   port: 2\n");
    let expected = "lb.yaml:3:4: not YAML: did not find expected '-' indicator, while parsing a block collection at line 2 column 3";
    assert_eq!(errors, [expected]);
    assert_eq!(lb_errors("a: 'x\n").len(), 1);
    let errors = lb_errors("a: 1\n---\nb: 2\n");
    assert_eq!(
        errors,
        ["lb.yaml: not YAML: deserializing from YAML containing more than one document is not supported"]
    );
}

#[test]
fn a_key_given_twice_is_an_error_with_both_places() {
    let errors = lb_errors(&format!("{FRONT}listeners: []\nthreads: 1\nthreads: 2\n"));
    let expected = [
        "lb.yaml:7:1: duplicate key listeners, first on line 1",
        "lb.yaml:9:1: duplicate key threads, first on line 8",
    ];
    assert_eq!(errors, expected);
}

#[test]
fn what_is_not_utf8_is_told_by_its_place() {
    let error = load::utf8(Path::new("lb.yaml"), b"a: 1\nb: \xffx".to_vec()).unwrap_err();
    assert_eq!(error.to_string(), "lb.yaml:2:4: is not UTF-8 text");
}

#[test]
fn an_alias_bomb_and_a_deep_nest_are_refused() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let inside = vec![format!("*a{}", level - 1); 9].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{inside}]\n"));
    }
    let errors = lb_errors(&bomb);
    assert!(errors[0].ends_with("is too large once aliases are followed"), "{errors:?}");
    let errors = lb_errors(&format!("a: {}{}", "[".repeat(100), "]".repeat(100)));
    assert_eq!(errors, ["lb.yaml:1:67: is nested deeper than 64 levels"]);
    assert_eq!(lb_errors("a: &a [*a]\n"), ["lb.yaml:1:8: an alias may not stand inside what it names"]);
}

#[test]
fn an_empty_file_says_what_it_needs() {
    let expected = [
        "lb.yaml:1:1: listeners: is missing (e.g. listeners: [{ address: 0.0.0.0:8080 }])",
        "lb.yaml:1:1: routes: is missing (e.g. routes: [{ path_prefix: /, upstream: django }])",
    ];
    assert_eq!(lb_errors("# nothing yet\n"), expected);
    let expected = [
        "pool.yaml:1:1: has nobody who may log in: give users, or pool.auth_file, or pool.auth_user and pool.auth_query",
        "pool.yaml:1:1: databases: is missing (e.g. databases: { arena_db: { host: 127.0.0.1 } })",
    ];
    assert_eq!(pool_errors(""), expected);
    assert_eq!(lb_errors("[]"), ["lb.yaml:1:1: must be a mapping, got a list"]);
}

#[test]
fn timeouts_of_zero_are_refused_where_they_make_no_sense() {
    let keys = ["connect_timeout", "read_timeout", "send_timeout", "keepalive_timeout"];
    for key in keys {
        let errors = upstream(&format!("{key}: 0"));
        assert!(errors[0].ends_with(&format!("{key}: must be longer than 0, got 0")), "{errors:?}");
    }
    for key in ["client_header_timeout", "client_body_timeout", "keepalive_timeout", "send_timeout"] {
        assert_eq!(lb_errors(&format!("{FRONT}{key}: 0s")).len(), 1, "{key}");
    }
    assert_eq!(settings("server_connect_timeout: 0").len(), 1);
}

#[test]
fn units_and_words_are_explained() {
    let table = [
        (
            "client_max_body_size: 20MB",
            "client_max_body_size: is ambiguous: write KiB, MiB or GiB (steps of 1,024), got 20MB",
        ),
        ("client_header_max_size: 1MiB", "client_header_max_size: must be 1KiB..=512KiB, got 1MiB"),
        ("max_headers: 257", "max_headers: must be 1..=256, got 257"),
        (
            "send_timeout: soon",
            "send_timeout: must be a duration such as 250ms, 30s, 10m or 1h (a bare number is seconds), got soon",
        ),
        ("threads: many", "threads: must be 1..=1024 or auto, got many"),
        ("access_log: { enabled: yes }", "access_log.enabled: must be true or false, got yes"),
        ("access_log: off", "access_log: must be a mapping, got off"),
        ("trusted_proxies: 10.0.0.0/8", "trusted_proxies: must be a list, got 10.0.0.0/8"),
    ];
    for (line, message) in table {
        let errors = lb_errors(&format!("{FRONT}{line}\n"));
        assert!(errors.len() == 1 && errors[0].ends_with(message), "{errors:?}");
    }
}

#[test]
fn settings_of_pgbouncer_that_are_not_offered_are_named() {
    let table = [
        (
            "client_tls_ciphers: secure",
            "2:3: pool.client_tls_ciphers: client_tls_ciphers is PgBouncer's; not offered here",
        ),
        (
            "auth_type: pam",
            "2:14: pool.auth_type: pam is PgBouncer's; not offered here (scram-sha-256 with auth_query for passwords of \
             PostgreSQL, or cert)",
        ),
        (
            "pool_mode: statements",
            "2:14: pool.pool_mode: must be transaction or session or statement, got statements (did you mean statement?)",
        ),
        ("default_pool_sze: 5", "2:3: pool.default_pool_sze: unknown key (did you mean default_pool_size?)"),
    ];
    for (line, message) in table {
        assert_eq!(settings(line), [format!("pool.yaml:{message}")]);
    }
    let errors = pool_errors(&format!("{POOL}max_client_conn: 5\n"));
    assert_eq!(errors, ["pool.yaml:5:1: max_client_conn: unknown key (it belongs under pool:)"]);
}

#[test]
fn wrong_settings_of_the_pool() {
    let table = [
        ("listen_port: 65536", "2:16: pool.listen_port: must be 0..=65535, got 65536"),
        ("max_client_conn: 0", "2:20: pool.max_client_conn: must be 1..=1000000, got 0"),
        ("min_pool_size: 10001", "2:18: pool.min_pool_size: must be 0..=10000, got 10001"),
        (
            "server_check_query: <emtpy>",
            "2:23: pool.server_check_query: must be a query, or <empty>, got <emtpy> (did you mean <empty>?)",
        ),
        (
            "server_check_delay: -1",
            "2:23: pool.server_check_delay: must be a duration such as 250ms, 30s, 10m or 1h (a bare number is seconds), got -1",
        ),
        ("max_packet_size: 1", "2:20: pool.max_packet_size: must be 16KiB..=2147483647, got 1"),
        (
            "query_wait_timeout: 1.0000s",
            "2:23: pool.query_wait_timeout: must be a duration such as 250ms, 30s, 10m or 1h (a \
         bare number is seconds), got 1.0000s",
        ),
        (
            "admin_users: [arena_usr]",
            "2:17: pool.admin_users[0]: user arena_usr is neither in users nor in auth_file (did \
         you mean arena_user?)",
        ),
        (
            "stats_users: postgres, arena_user",
            "2:16: pool.stats_users: user postgres is neither in users nor in auth_file",
        ),
    ];
    for (line, message) in table {
        assert_eq!(settings(line), [format!("pool.yaml:{message}")]);
    }
}

#[test]
fn wrong_databases() {
    let table = [
        ("{}", "2:13: databases.arena_db.host: is missing (e.g. host: 127.0.0.1)"),
        (
            "{ host: 'a,b:1' }",
            "2:21: databases.arena_db.host: must be a host name or an address, without a port, or several with commas \
             between them, got a,b:1",
        ),
        (
            "{ host: a, load_balance_hosts: disabled }",
            "2:44: databases.arena_db.load_balance_hosts: must be round-robin or disable, got disabled (did you mean disable?)",
        ),
        ("{ host: a, connect_query: '' }", "2:39: databases.arena_db.connect_query: must not be empty"),
        (
            "{ host: 'a:5432' }",
            "2:21: databases.arena_db.host: must be a host name or an address, without a port, or several with commas \
             between them, got a:5432",
        ),
        ("{ host: a, port: 0 }", "2:30: databases.arena_db.port: must be 1..=65535, got 0"),
        (
            "{ host: a, password: hunter2 }",
            "2:34: databases.arena_db.password: has no meaning without user (clients' own passwords are in users)",
        ),
    ];
    for (entry, message) in table {
        assert_eq!(database(entry), [format!("pool.yaml:{message}")]);
    }
    let errors = pool_errors(&POOL.replace("arena_db", "pgbouncer"));
    assert!(errors[0].contains("is the name of the console"), "{errors:?}");
}

#[test]
fn a_user_needs_a_secret_that_the_auth_type_can_use() {
    let md5 = "md5d41d8cd98f00b204e9800998ecf8427e";
    let user = |auth: &str, entry: &str| {
        pool_errors(&format!("pool: {{ auth_type: {auth} }}\n{}", POOL.replace("{ password: hunter2 }", entry)))
    };
    let at = "pool.yaml:5";
    assert_eq!(user("md5", "{}"), [format!("{at}:15: users.arena_user: has no password, and auth_type is not trust")]);
    assert_eq!(user("trust", "{}"), [""; 0]);
    assert_eq!(
        user("scram-sha-256", &format!("{{ password: {md5} }}")),
        [format!("{at}:27: users.arena_user.password: has an md5 hash, which auth_type scram-sha-256 cannot use")]
    );
    assert_eq!(user("md5", &format!("{{ password: {md5} }}")), [""; 0]);
}

#[test]
fn ways_to_log_in_say_what_they_need() {
    let table = [
        ("auth_type: hba", "2:3: pool: auth_type: hba needs auth_hba_file"),
        ("auth_type: cert", "2:14: pool.auth_type: cert needs client_tls_sslmode: verify-full (or verify-ca)"),
        ("auth_type: any", "4:13: databases.arena_db: has no user, and auth_type: any needs one"),
        ("auth_query: SELECT 1", "2:15: pool.auth_query: must be a query that has $1 where the user's name belongs"),
        ("log_connections: 2", "2:20: pool.log_connections: must be 1 or 0 or true or false, got 2"),
    ];
    for (line, message) in table {
        assert_eq!(settings(line), [format!("pool.yaml:{message}")]);
    }
}

#[test]
fn passwords_and_their_files_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("two-lines");
    std::fs::write(&file, "hunter2\nhunter3\n").unwrap();
    let file = file.display();
    let verifier = "SCRAM-SHA-256$4096:c2FsdHNhbHQ=$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:\
                    AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    let plain = "must be a password in plain text: which of several a client means shows only after the salt of a hash or \
                 verifier has been sent";
    let table = [
        (
            "{ password: hunter2, passwords: [a] }".to_owned(),
            "passwords: of password, passwords and password_file only one can be given".to_owned(),
        ),
        (format!("{{ passwords: [hunter2, '{verifier}'] }}"), format!("passwords[1]: {plain}")),
        ("{ passwords: [md5d41d8cd98f00b204e9800998ecf8427e, hunter2] }".into(), format!("passwords[0]: {plain}")),
        ("{ passwords: [hunter2, ''] }".into(), "passwords[1]: must not be empty".into()),
        ("{ passwords: [] }".into(), "passwords: must be 1 to 8 passwords".into()),
        (format!("{{ password_file: '{file}' }}"), format!("password_file: {file} must hold one line, the password")),
        (
            "{ password_file: /nowhere }".into(),
            "password_file: /nowhere cannot be read: No such file or directory (os error 2)".into(),
        ),
    ];
    for (entry, message) in table {
        let errors = pool_errors(&POOL.replace("{ password: hunter2 }", &entry));
        assert!(
            errors.len() == 1 && errors[0].ends_with(&format!(" users.arena_user.{message}")),
            "{entry}: {errors:?}"
        );
        assert!(!errors[0].contains("hunter"), "{errors:?}");
    }
}

#[test]
fn a_password_is_never_in_an_error() {
    let entries = [
        "{ password: [hunter2] }",
        "{ password: { hunter2: hunter2 } }",
        "{ password: SCRAM-SHA-256$hunter2 }",
        "{ password: 'hunter2${' }",
        "{ password: '${NONE}hunter2' }",
        "hunter2",
        "[hunter2]",
    ];
    for entry in entries {
        let errors = pool_errors(&POOL.replace("{ password: hunter2 }", entry)).join("\n");
        assert!(!errors.is_empty());
        if entry != "hunter2" {
            assert!(!errors.contains("hunter2"), "{errors}");
        }
    }
    let errors = database("{ host: a, password: hunter2, user: [] }").join("\n");
    assert!(!errors.contains("hunter2") && !errors.is_empty(), "{errors}");
}
