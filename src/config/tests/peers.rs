//! `peer_id` and `peers:`, in YAML and in an ini.

use super::*;

fn with(lines: &str) -> String {
    format!("{POOL}{lines}")
}

#[test]
fn peers_have_the_documented_defaults_and_the_order_of_their_numbers() {
    let pool = load_pool(&with(
        "pool: { peer_id: 2 }\npeers:\n  10: { host: /run/bookend-10, port: 5555, pool_size: 0, tls: true }\n  2: { host: web-2 }\n",
    ));
    let expected = [
        pool::Peer { id: 2, host: "web-2".into(), port: 6432, pool_size: None, tls: false },
        pool::Peer { id: 10, host: "/run/bookend-10".into(), port: 5555, pool_size: Some(0), tls: true },
    ];
    assert_eq!((pool.peers.id, &pool.peers.all[..]), (2, &expected[..]));
    assert_eq!(load_pool(POOL).peers, pool::Peers::default());
}

#[test]
fn an_ini_has_them_as_pgbouncer_does() {
    let text = "[databases]\ndb = host=h\n[peers]\n1 = host=host1.example.com\n2 = host=/tmp/pgbouncer-2 port=5555 pool_size=-1\n\
                [pgbouncer]\npeer_id = 1\n";
    let peers = load_pool(text).peers;
    let peer = |id, host: &str, port| pool::Peer { id, host: host.into(), port, pool_size: None, tls: false };
    let expected = vec![peer(1, "host1.example.com", 6432), peer(2, "/tmp/pgbouncer-2", 5555)];
    assert_eq!(peers, pool::Peers { id: 1, all: expected });
    // There peers without a number are no error: PgBouncer ignores them.
    assert_eq!(load_pool(&text.replace("peer_id = 1", "")).peers.id, 0);
}

#[test]
fn wrong_peers() {
    let table = [
        ("pool: { peer_id: 16384 }", "5:18: pool.peer_id: must be 0..=16383, got 16384"),
        (
            "peers: { 1: { host: a } }",
            "5:8: peers: peers has no effect without pool.peer_id, the number of this process among them",
        ),
        (
            "pool: { peer_id: 1 }\npeers: { a: { host: b } }",
            "6:13: peers.a: a peer's name must be its peer_id, 1 to 16383",
        ),
        (
            "pool: { peer_id: 1 }\npeers: { 0: { host: b } }",
            "6:13: peers.0: a peer's name must be its peer_id, 1 to 16383",
        ),
        ("pool: { peer_id: 1 }\npeers: { 2: { host: b }, 02: { host: c } }", "6:8: peers: peer 2 is there twice"),
        ("pool: { peer_id: 1 }\npeers: { 2: {} }", "6:13: peers.2.host: is missing (e.g. host: 10.0.0.7)"),
        ("pool: { peer_id: 1 }\npeers: { 2: { host: 'b,c' } }", "6:21: peers.2.host: must be one host, got b,c"),
        (
            "pool: { peer_id: 1 }\npeers: { 2: { host: b, prot: 1 } }",
            "6:24: peers.2.prot: unknown key (did you mean port?)",
        ),
        (
            "pool: { peer_id: 1, server_tls_sslmode: disable }\npeers: { 2: { host: b, tls: true } }",
            "6:29: peers.2.tls: needs server_tls_sslmode: prefer or more",
        ),
    ];
    for (lines, message) in table {
        assert_eq!(pool_errors(&with(lines)), [format!("pool.yaml:{message}")]);
    }
}

#[test]
fn what_is_printed_means_the_same() {
    let text = with("pool: { peer_id: 2 }\npeers:\n  1: { host: a, pool_size: 3 }\n  2: { host: /run/b }\n");
    let config = load(None, Some(&text)).unwrap_or_else(|errors| panic!("{errors}"));
    let again = load_pool(&print(&config).replace("(hidden)", "hunter2"));
    assert_eq!((again.peers.id, again.peers.all.len()), (2, 2));
    assert_eq!(again.peers, config.pool.unwrap().peers);
}
