use std::{net::SocketAddr, time::Duration};

use super::*;

fn listen(settings: &str) -> pool::Listen {
    load_pool(&format!("pool: {{ {settings} }}\n{POOL}")).listen
}

fn addresses(settings: &str) -> Vec<String> {
    listen(settings).addresses.iter().map(SocketAddr::to_string).collect()
}

fn error(settings: &str) -> String {
    pool_errors(&format!("pool: {{ {settings} }}\n{POOL}")).join("; ")
}

#[test]
fn one_port_and_any_number_of_addresses_as_in_pgbouncer() {
    assert_eq!(addresses("listen_addr: '127.0.0.1, ::1', listen_port: 7000"), ["127.0.0.1:7000", "[::1]:7000"]);
    assert_eq!(addresses("listen_addr: [127.0.0.1, web]"), ["127.0.0.1:6432", "[::1]:6432", "10.0.0.7:6432"]);
    assert_eq!(addresses("listen_addr: '*'"), ["0.0.0.0:6432", "[::]:6432"]);
    assert_eq!(addresses("listen_addr: '127.0.0.1,127.0.0.1'"), ["127.0.0.1:6432"]);
}

#[test]
fn addresses_with_ports_of_their_own() {
    assert_eq!(addresses("listen: ['127.0.0.1:7000', '[::1]:7001']"), ["127.0.0.1:7000", "[::1]:7001"]);
    assert_eq!(addresses("listen: '*:7000'"), ["0.0.0.0:7000", "[::]:7000"]);
    assert_eq!(
        error("listen: '127.0.0.1:7000', listen_addr: 127.0.0.1"),
        "pool.yaml:1:17: pool.listen: stands beside listen_addr; give one of them"
    );
    assert!(error("listen: 127.0.0.1").contains("must be an address and a port such as 127.0.0.1:6432"));
}

#[test]
fn addresses_that_are_none_are_named() {
    assert_eq!(
        error("listen_addr: '127.0.0.1,127.0.0.300'"),
        "pool.yaml:1:22: pool.listen_addr: must be an address such as 127.0.0.1, a host name or *, got 127.0.0.300"
    );
    assert!(error("listen_addr: nowhere").contains("must resolve (unknown host), got nowhere"));
    assert!(error("listen_addr: []").contains("names no address, and there is no unix_socket_dir"));
}

#[test]
fn a_unix_socket_beside_the_addresses_or_alone() {
    let listen = listen(
        "listen_addr: '', unix_socket_dir: /run/pg, unix_socket_mode: '0770', unix_socket_group: root, listen_port: 5432",
    );
    assert_eq!(listen.unix_path().as_deref(), Some("/run/pg/.s.PGSQL.5432"));
    assert!(listen.addresses.is_empty());
    let unix = listen.unix.unwrap();
    assert_eq!((unix.mode, unix.group.map(|group| group.gid)), (0o770, Some(0)));
    let beside = load_pool(&format!("pool: {{ unix_socket_dir: '@pool' }}\n{POOL}")).listen;
    assert_eq!((beside.addresses.len(), beside.unix_path().as_deref()), (1, Some("@pool/.s.PGSQL.6432")));
    assert_eq!(beside.unix.unwrap().mode, 0o777);
}

#[test]
fn what_is_wrong_with_a_unix_socket_is_named() {
    let long = "x".repeat(100);
    assert_eq!(
        error(&format!("unix_socket_dir: /{long}")),
        format!(
            "pool.yaml:1:26: pool.unix_socket_dir: makes the socket's name 115 bytes long; the system takes 107: \
             /{long}/.s.PGSQL.6432"
        )
    );
    assert!(error("unix_socket_dir: run").contains("must be a folder (from / on), or @ and a name, got run"));
    assert!(error("unix_socket_mode: 999").contains("must be octal permissions such as 0770, got 999"));
    assert!(error("unix_socket_group: no-such-group").contains("must be a group of this system, got no-such-group"));
}

#[test]
fn what_sockets_are_tuned_to_is_pgbouncers_with_its_units() {
    let text = "tcp_keepalive: 0, tcp_keepidle: 0, tcp_keepintvl: 5, tcp_keepcnt: 3, tcp_user_timeout: 12500, \
                tcp_socket_buffer: 65536, tcp_defer_accept: 0, so_reuseport: 1, listen_backlog: 128";
    let pool = load_pool(&format!("pool: {{ {text} }}\n{POOL}"));
    let expected = pool::Tcp {
        keepalive: false,
        keepidle: None,
        keepintvl: Some(Duration::from_secs(5)),
        keepcnt: Some(3),
        user_timeout: Some(Duration::from_millis(12_500)),
        socket_buffer: Some(65_536),
        defer_accept: None,
    };
    assert_eq!(pool.tcp, expected);
    assert_eq!((pool.listen.reuse_port, pool.listen.backlog), (true, 128));
    assert!(error("tcp_keepidle: 500ms").contains("must be whole seconds, at most 32767"));
}

#[test]
fn the_keys_that_a_restart_is_needed_for_are_named() {
    let before = listen("listen_addr: 127.0.0.1, unix_socket_dir: /run/pg");
    assert!(before.differences(&before).is_empty());
    for (settings, keys) in [
        ("listen_addr: '*', unix_socket_dir: /run/pg", &["listen_addr"][..]),
        ("listen_port: 7000, unix_socket_dir: /run/pg", &["listen_port"]),
        ("listen_addr: 127.0.0.1", &["unix_socket_dir"]),
        (
            "unix_socket_dir: /run/pg, unix_socket_mode: '0700', unix_socket_group: 0",
            &["unix_socket_mode", "unix_socket_group"],
        ),
        ("unix_socket_dir: /run/pg, so_reuseport: true, listen_backlog: 5", &["listen_backlog", "so_reuseport"]),
    ] {
        assert_eq!(before.differences(&listen(settings)), keys, "{settings}");
    }
}

#[test]
fn what_is_printed_is_read_back_the_same() {
    for settings in [
        "listen_addr: '*', unix_socket_dir: /run/pg, unix_socket_mode: '0700', unix_socket_group: root",
        "listen: ['127.0.0.1:7000', '[::1]:7001'], so_reuseport: true",
        "listen_addr: '', unix_socket_dir: '@pool', tcp_keepidle: 0, tcp_user_timeout: 3s",
    ] {
        let config = load(None, Some(&format!("pool: {{ {settings} }}\n{POOL}"))).unwrap();
        let again = load_pool(&print(&config).replace("(hidden)", "hunter2"));
        let pool = config.pool.unwrap();
        assert_eq!((again.listen, again.tcp), (pool.listen.clone(), pool.tcp), "{settings}");
    }
}
