//! What mistakes in lb.yaml are answered with.

use super::*;

/// Adds lines to the upstream of [`FRONT`].
fn upstream(lines: &str) -> Vec<String> {
    lb_errors(&FRONT.replace("routes:", &format!("    {lines}\nroutes:")))
}

fn servers(list: &str) -> Vec<String> {
    lb_errors(&FRONT.replace("[{ name: web-1, address: 127.0.0.1:8001 }]", list))
}

fn routes(lines: &str) -> Vec<String> {
    lb_errors(&FRONT.replace("  - { path_prefix: /, upstream: django }", lines))
}

#[test]
fn wrong_servers() {
    assert_eq!(servers("[]"), ["lb.yaml:4:14: upstreams.django.servers: must have at least one server"]);
    assert_eq!(
        servers("[{ address: 127.0.0.1:8001, backup: true }]"),
        ["lb.yaml:4:14: upstreams.django.servers: must have at least one server that is not a backup"]
    );
    let at = "lb.yaml:4:26: upstreams.django.servers[0].address:";
    let table = [
        ("127.0.0.1", "must be a host and a port such as 127.0.0.1:8001, got 127.0.0.1"),
        ("127.0.0.1:0", "must have a port of 1..=65535, got 127.0.0.1:0"),
        ("127.0.0.1:70000", "must be a host and a port such as 127.0.0.1:8001, got 127.0.0.1:70000"),
        ("http://web:80", "must be a host and a port such as 127.0.0.1:8001, got http://web:80"),
        ("unix:/run/web.sock", "a Unix socket is not offered; give a host and a port"),
        ("nohost:80", "must resolve (unknown host), got nohost:80"),
        ("silent:80", "must resolve (no answer in time), got silent:80"),
    ];
    for (address, message) in table {
        assert_eq!(servers(&format!("[{{ address: {address} }}]")), [format!("{at} {message}")]);
    }
    let errors = servers("[{ address: 127.0.0.1:8001, weight: 65536, max_fails: -1, fail_timeout: 0s }]");
    assert_eq!(errors.len(), 3, "{errors:?}");
}

#[test]
fn an_upstream_has_its_own_servers_or_anothers() {
    let errors = upstream("servers_of: django");
    let expected = "lb.yaml:5:17: upstreams.django.servers_of: cannot stand beside servers: an upstream has its own or \
                    another one's";
    assert_eq!(errors, [expected]);
    let errors = upstream(
        "tries: 0\n  a: {}\n  b: { servers_of: c }\n  c: { servers_of: django, health_check: {} }\n  d: { servers_of: d }",
    );
    let expected = "\
lb.yaml:5:12: upstreams.django.tries: must be 1..=100, got 0
lb.yaml:6:6: upstreams.a: needs servers, or servers_of with the name of another upstream
lb.yaml:7:20: upstreams.b.servers_of: must name an upstream that has servers of its own, got c
lb.yaml:8:42: upstreams.c.health_check: has no meaning with servers_of: the checks of django count
lb.yaml:9:20: upstreams.d.servers_of: names the upstream itself";
    assert_eq!(errors.join("\n"), expected);
}

#[test]
fn wrong_routes() {
    let table = [
        ("{ path_prefix: / }", "lb.yaml:6:5: routes[0]: needs upstream, or builtin, redirect or respond"),
        ("{ upstream: django }", "lb.yaml:6:5: routes[0]: needs path_prefix, or path for exactly one"),
        (
            "{ path: /a, path_prefix: /b, upstream: django }",
            "lb.yaml:6:30: routes[0].path_prefix: cannot stand beside path: a route has one of the two",
        ),
        (
            "{ path: /a, upstream: django, builtin: live }",
            "lb.yaml:6:44: routes[0].builtin: cannot stand beside upstream: a route has one of the two",
        ),
        (
            "{ path: '/a?b', upstream: django }",
            "lb.yaml:6:13: routes[0].path: must not have a ?: routes are chosen by what stands before it, got /a?b",
        ),
        (
            "{ path: /ä, upstream: django }",
            "lb.yaml:6:13: routes[0].path: must be a path as on the wire: no spaces and #, other letters as %C3%A4, got /ä",
        ),
        (
            "{ path: /, host: 'a.*.example.com', upstream: django }",
            "lb.yaml:6:22: routes[0].host: a wildcard is *. and a domain: *.example.com; for all hosts leave the key out",
        ),
        (
            "{ path: /, host: 'example.com:80', upstream: django }",
            "lb.yaml:6:22: routes[0].host: must be a host name without scheme and port, got example.com:80",
        ),
        (
            "{ path: /, builtin: stats }",
            "lb.yaml:6:25: routes[0].builtin: must be db_connections or status or metrics or live or ready, got stats \
             (did you mean status?)",
        ),
        (
            "{ path: /, builtin: live, read_timeout: 1s }",
            "lb.yaml:6:45: routes[0].read_timeout: has no meaning on a route without an upstream",
        ),
        (
            "{ path: /, upstream: django, allow: [10.0.0.1/8, everyone] }",
            "lb.yaml:6:42: routes[0].allow[0]: has bits set behind its mask (did you mean 10.0.0.0/8?)\n\
             lb.yaml:6:54: routes[0].allow[1]: must be a network such as 10.0.0.0/8, or an address, got everyone",
        ),
    ];
    for (route, expected) in table {
        assert_eq!(routes(&format!("  - {route}")).join("\n"), expected);
    }
}

#[test]
fn the_same_route_twice_is_an_error() {
    let text = "  - { path: /a, upstream: django }\n  - { path_prefix: /a, upstream: django }\n  - { host: A.b, path: /a, \
                upstream: django }\n  - { host: a.B, path: /a, builtin: live }\n";
    let errors = routes(text);
    assert_eq!(errors, ["lb.yaml:9:5: routes[3]: the same host and path as the route on line 8"]);
}

#[test]
fn what_is_hashed_must_be_something_and_mean_something() {
    let read = |text: &str| {
        let file = FRONT.replace("  django:\n", &format!("  django:\n    {text}\n"));
        lines(load(Some(&file), None)).join("\n")
    };
    for key in ["ip", "'header:'", "'header:a b'", "'cookie:'", "'cookie:a;b'", "'query:a'"] {
        let told = read(&format!("balance: consistent_hash\n    hash: {{ key: {key} }}"));
        assert!(told.contains("must be client_ip, path, header:NAME or cookie:NAME"), "{key}: {told}");
    }
    for factor in ["1", "100"] {
        let told = read(&format!("balance: consistent_hash\n    hash: {{ balance_factor: {factor} }}"));
        assert!(told.contains("must be 0, for no bound, or more than 100"), "{told}");
    }
    let told = read("hash: { key: path }");
    assert!(told.contains("hash: has no meaning without balance: consistent_hash"), "{told}");
}

#[test]
fn a_sticky_cookie_must_be_one_that_browsers_take() {
    let read = |text: &str| {
        let file = FRONT.replace("  django:\n", &format!("  django:\n    sticky: {{ {text} }}\n"));
        lines(load(Some(&file), None)).join("\n")
    };
    for (text, told) in [
        ("cookie: 'a b'", "must be a cookie's name"),
        ("secret: short", "must have 16 characters at least"),
        ("path: app", "must be a path such as /app/"),
        ("path: '/;HttpOnly'", "must be a path such as /app/"),
        ("domain: 'a;b'", "must be a domain such as example.com"),
        ("same_site: none", "none needs secure: true beside it"),
        ("same_site: never", "must be strict or lax or none"),
    ] {
        let errors = read(text);
        assert!(errors.contains(told), "{text}: {errors}");
        assert!(!errors.contains("short"), "a secret is not repeated");
    }
}

#[test]
fn a_redirect_says_itself_which_host_it_leads_to() {
    let read = |text: &str| {
        let file = FRONT.replace("upstream: django", text);
        lines(load(Some(&file), None)).join("\n")
    };
    for to in [
        "$request_uri",
        "//evil.example",
        "/$host",
        "/",
        "https://$host$request_uri",
        "/new$request_uri",
        "/$request_uri",
    ] {
        let told = read(&format!("redirect: '{to}'"));
        let refused = ["$request_uri", "//evil.example", "/$host", "/$request_uri"].contains(&to);
        assert_eq!(told.contains("must begin with https://"), refused, "{to}: {told}");
    }
    for to in ["https://", "https://$request_uri", "ftp://a", "example.com", "https://a b", "https://a\\b"] {
        assert!(read(&format!("redirect: '{to}'")).contains("must begin with https://"), "{to}");
    }
    assert!(
        read("redirect: 'https://$hots'")
            .contains("$hots is no variable; there are $host, $request_uri, $remote_addr, $request_id, and $$")
    );
    assert!(read("redirect: { to: 'https://a', status: 304 }").contains("must be 301, 302, 303, 307 or 308"));
    assert!(read("respond: { content_type: \"a\\u00e4\" }").contains("must be a media type"));
    assert!(read("respond: { status: 301 }").contains("must not be a redirect's"));
    assert!(read("respond: { status: 204, body: a }").contains("has no meaning with status 204"));
    assert!(read("upstream: django, respond: {}").contains("respond: cannot stand beside upstream"));
    assert!(read("respond: {}, needs_database: true").contains("has no meaning on a route without an upstream"));
}

#[test]
fn headers_that_frame_messages_are_not_the_files_to_change() {
    let read = |text: &str| lines(load(Some(&format!("{FRONT}{text}\n")), None)).join("\n");
    for name in ["Connection", "content-length", "Transfer-Encoding", "Upgrade", "TE", "Keep-Alive"] {
        let told = read(&format!("response_headers: {{ remove: [{name}] }}"));
        assert!(told.contains("says where a message or its connection ends"), "{name}: {told}");
    }
    assert!(read("request_headers: { set: { 'a b': c } }").contains("is no header's name"));
    assert!(read("request_headers: { set: { a: '$what' } }").contains("$what is no variable"));
    assert!(read("request_headers: { sets: {} }").contains("did you mean set?"));
    assert_eq!(read("response_headers: { set: { X-A: 'b $host' }, add: { X-A: c }, remove: [Server] }"), "");
}

#[test]
fn a_check_by_tcp_asks_for_nothing() {
    let read = |text: &str| {
        let file = FRONT.replace("  django:\n", &format!("  django:\n    health_check: {{ {text} }}\n"));
        lines(load(Some(&file), None)).join("\n")
    };
    for key in [
        "path: /",
        "host: a",
        "headers: { a: b }",
        "status: [200]",
        "expect_body: a",
        "expect_headers: { a: b }",
        "max_body: 1k",
    ] {
        assert!(read(&format!("type: tcp, {key}")).contains("has no meaning with type: tcp"), "{key}");
        assert_eq!(read(&format!("type: http, {key}")), "");
    }
    assert_eq!(read("type: tcp, interval: 1s, fast_interval: 100ms, initial: up"), "");
    assert!(read("headers: { Connection: a }").contains("says where a message or its connection ends"));
    assert!(read("initial: maybe").contains("must be down or up"));
}

#[test]
fn a_prefix_that_is_stripped_is_one_that_the_route_has() {
    let read = |path: &str, strip: &str| {
        let route = format!("path_prefix: {path}, strip_prefix: {strip}, upstream: django");
        lines(load(Some(&FRONT.replace("path_prefix: /, upstream: django", &route)), None)).join("\n")
    };
    for (path, strip) in [("/api/", "/api"), ("/api/", "/api/"), ("/api/v1/", "/api"), ("/", "/")] {
        assert_eq!(read(path, strip), "", "{strip} of {path}");
    }
    for (path, strip) in [("/api/", "/v1"), ("/apiary/", "/api"), ("/", "/api"), ("/a%20b/", "/a%20b")] {
        assert!(read(path, strip).contains("must be what the route's path begins with"), "{strip} of {path}");
    }
}
