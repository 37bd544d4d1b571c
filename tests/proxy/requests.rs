//! What may come in, and what a server gets of it.

use std::{sync::Arc, time::Duration};

use tokio::io::AsyncReadExt;

use bookend::{
    config::lb::{Builtin, PathMatch, Piece, Redirect, Respond, Route, Target, Template, Variable},
    telemetry::view::Page,
};

use crate::{
    front::{Rig, free_port, lb, route},
    http::{Client, Script, ask, get, header},
};

#[tokio::test]
async fn a_server_is_told_about_the_client_by_us_and_by_nobody_else() {
    let server = Script::mirror().await;
    let rig = Rig::start(lb(&[server.address])).await;
    let answer = ask(
        rig.address,
        "GET /x?y HTTP/1.1\r\nHost: example.com:8080\r\nX-Forwarded-For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n\
         Forwarded: for=6.6.6.6\r\nX-Request-ID: mine-1\r\nConnection: x-secret, X-Forwarded-Proto2\r\nX-Secret: 1\r\n\r\n",
    )
    .await;
    let seen = |name: &str| header(&answer.body, name);
    assert!(answer.body.starts_with("GET /x?y HTTP/1.1\r\n"), "{}", answer.body);
    assert_eq!(seen("host"), Some("example.com:8080"));
    assert_eq!(seen("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen("x-real-ip"), Some("127.0.0.1"));
    assert_eq!(seen("x-forwarded-proto"), Some("http"));
    assert_eq!(seen("x-forwarded-host"), Some("example.com:8080"));
    assert_eq!(seen("x-forwarded-port"), Some(&*rig.address.port().to_string()));
    assert_eq!((seen("x-secret"), seen("forwarded")), (None, None));
    assert_eq!((seen("x-request-id"), answer.header("x-request-id")), (Some("mine-1"), Some("mine-1")));
}

#[tokio::test]
async fn an_old_servers_answer_is_ours_in_its_version() {
    let server = Script::start(|mut served| async move {
        served.request().await;
        served.send(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    })
    .await;
    let rig = Rig::start(lb(&[server.address])).await;
    let answer = ask(rig.address, get("/")).await;
    assert!(answer.head.starts_with("HTTP/1.1 200 OK\r\n"), "{}", answer.head);
    assert_eq!(answer.body, "ok");
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_no_interim_answer() {
    let server = Script::start(|mut served| async move {
        let head = served.head().await.unwrap_or_default();
        served.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await;
        served.answer("200 OK", &head).await;
    })
    .await;
    let rig = Rig::start(lb(&[server.address])).await;
    let answer = ask(rig.address, "GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!((answer.status, header(&answer.body, "expect")), (200, None));
}

#[tokio::test]
async fn a_target_with_a_host_gives_the_server_its_host_header() {
    let server = Script::mirror().await;
    let rig = Rig::start(lb(&[server.address])).await;
    let answer = ask(rig.address, "GET http://a.example/x HTTP/1.0\r\n\r\n").await;
    assert!(answer.body.starts_with("GET /x HTTP/1.1\r\n"), "{}", answer.body);
    assert_eq!(header(&answer.body, "host"), Some("a.example"));
    assert_eq!(header(&answer.body, "x-forwarded-host"), Some("a.example"));
}

#[tokio::test]
async fn a_request_without_an_id_gets_one_that_everyone_sees() {
    let server = Script::mirror().await;
    let rig = Rig::start(lb(&[server.address])).await;
    let answer = ask(rig.address, get("/")).await;
    let id = answer.header("x-request-id").unwrap().to_owned();
    assert_eq!(id.len(), 32);
    assert_eq!(header(&answer.body, "x-request-id"), Some(&*id));
    let line = rig.log.find("the id", |line| line["request_id"] == *id).await;
    assert_eq!((line["status"].as_u64(), line["route"].as_str()), (Some(200), Some("/")));
}

#[tokio::test]
async fn the_largest_header_that_can_be_configured_passes() {
    let server = Script::saying("here").await;
    let mut config = lb(&[server.address]);
    (config.client.header_max_size, config.client.max_headers) = (512 << 10, 256);
    let rig = Rig::start(config).await;
    let lines: String = (1..256).map(|number| format!("X-{number}: {}\r\n", "y".repeat(2_000))).collect();
    let answer = ask(rig.address, format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")).await;
    assert_eq!((answer.status, &*answer.body), (200, "here"));
    let answer = ask(rig.address, format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}X: y\r\n\r\n")).await;
    assert_eq!(answer.status, 431);
}

#[tokio::test]
async fn a_declared_body_over_the_limit_is_refused_before_any_of_it_is_read() {
    let server = Script::saying("here").await;
    let mut config = lb(&[server.address]);
    config.client.max_body_size = Some(10);
    let mut free = route("/free/");
    free.max_body_size = Some(None);
    config.routes.push(free);
    let rig = Rig::start(config).await;
    let post = |path: &str, length: usize| {
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{}", "x".repeat(length))
    };
    assert_eq!(ask(rig.address, post("/", 10)).await.status, 200);
    let answer = ask(rig.address, post("/", 11)).await;
    assert_eq!((answer.status, answer.header("connection")), (413, Some("close")));
    assert_eq!(ask(rig.address, post("/free/", 100)).await.status, 200);
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn a_streamed_body_is_cut_off_at_the_limit() {
    let server = Script::start(|mut served| async move {
        while served.request().await.is_some() {
            served.answer("200 OK", "here").await;
        }
    })
    .await;
    let mut config = lb(&[server.address]);
    config.client.max_body_size = Some(100_000);
    let rig = Rig::start(config).await;
    let mut client = Client::connect(rig.address).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let chunk = format!("{:x}\r\n{}\r\n", 30_000, "x".repeat(30_000));
    for _ in 0..3 {
        client.send(&chunk).await;
    }
    for _ in 0..20 {
        client.send(&chunk).await;
    }
    assert_eq!(client.answer().await.status, 413);
    rig.log.find("the reason", |line| line["reason"] == "body_too_large").await;
    assert_eq!(rig.metric("bookend_server_failures_total", &[]), 0.0, "it was not the server's fault");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_a_408() {
    let server = Script::saying("here").await;
    let mut config = lb(&[server.address]);
    config.client.body_timeout = Duration::from_millis(200);
    let rig = Rig::start(config).await;
    let answer = ask(rig.address, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab").await;
    assert_eq!((answer.status, answer.header("connection")), (408, Some("close")));
}

#[tokio::test]
async fn a_body_with_broken_chunks_is_a_400() {
    let server = Script::saying("here").await;
    let rig = Rig::start(lb(&[server.address])).await;
    for body in ["zz\r\n", "3\nabc\n0\n\n", "3\r\nabcd\r\n0\r\n\r\n"] {
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        assert_eq!(ask(rig.address, request).await.status, 400, "{}", body.escape_debug());
    }
}

#[tokio::test]
async fn a_head_that_could_be_read_in_two_ways_never_reaches_a_server() {
    let server = Script::saying("here").await;
    let rig = Rig::start(lb(&[server.address])).await;
    for (request, status) in [
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: a\n\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        (&format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(70_000)), 431),
        (&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(100)), 431),
        (&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(70_000)), 414),
    ] {
        let answer = ask(rig.address, request).await;
        assert_eq!((answer.status, answer.header("connection")), (status, Some("close")), "{:.50}", request);
    }
    assert_eq!(server.connections(), 0);
    assert_eq!(rig.metric("bookend_http_failures_total", &[("reason", "bad_request")]), 3.0);
}

#[tokio::test]
async fn an_unfinished_head_is_a_408_at_its_deadline() {
    let mut config = lb(&[]);
    config.upstreams[0] = crate::front::upstream("django", &[crate::front::free_port()]);
    config.client.header_timeout = Duration::from_millis(200);
    let rig = Rig::start(config).await;
    assert_eq!(ask(rig.address, "GET / HTTP/1.1\r\nHo").await.status, 408);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = Script::mirror().await;
    let rig = Rig::start(lb(&[server.address])).await;
    let mut client = Client::connect(rig.address).await;
    client.send([get("/1"), get("/2"), get("/3")].concat()).await;
    for number in 1..=3 {
        assert!(client.answer().await.body.starts_with(&format!("GET /{number} ")));
    }
}

#[tokio::test]
async fn a_request_written_for_a_proxy_is_routed_by_its_target() {
    let server = Script::mirror().await;
    let rig = Rig::start(lb(&[server.address])).await;
    let answer = ask(rig.address, "GET http://example.com/x HTTP/1.1\r\nHost: example.com\r\n\r\n").await;
    assert!(answer.body.starts_with("GET /x HTTP/1.1\r\n"), "{}", answer.body);
    let forged = ask(rig.address, "GET http://other.com/x HTTP/1.1\r\nHost: example.com\r\n\r\n").await;
    assert_eq!(forged.status, 400);
}

#[tokio::test]
async fn a_path_reaches_the_server_as_it_came() {
    let server = Script::start(|mut served| async move {
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = served.io.read_u8().await else { return };
                head.push(byte);
            }
            let line = head.split(|byte| *byte == b'\r').next().unwrap();
            served.answer("200 OK", &hex(line)).await;
        }
    })
    .await;
    let rig = Rig::start(lb(&[server.address])).await;
    for path in [&b"/a%2Fb/../c//d;e?x=%zz&y[]=1"[..], b"/a'()*!$,:@~^{|}\\"] {
        let request = [b"GET ", path, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        let answer = ask(rig.address, request).await;
        let expected = hex(&[b"GET ", path, b" HTTP/1.1"].concat());
        assert_eq!((answer.status, answer.body), (200, expected), "{}", path.escape_ascii());
    }
    let odd: Vec<u8> = (b'!'..=b'~').filter(|byte| !b"#".contains(byte)).collect();
    for path in [[b"/", &odd[..]].concat(), [b"/?", &odd[..]].concat()] {
        let answer = ask(rig.address, [b"GET ", &path[..], b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat()).await;
        assert_eq!(answer.status, 200, "{}", path.escape_ascii());
    }
    let seen = ask(rig.address, b"GET /<a>?\xff HTTP/1.1\r\nHost: a\r\n\r\n").await.body;
    assert_eq!(seen, hex(b"GET /%3Ca%3E?%FF HTTP/1.1"));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn interim_answers_are_passed_on() {
    let server = Script::start(|mut served| async move {
        served.head().await;
        served.send(b"HTTP/1.1 100 Continue\r\n\r\n").await;
        let mut body = [0; 3];
        served.io.read_exact(&mut body).await.unwrap();
        served.answer("200 OK", "thanks").await;
    })
    .await;
    let rig = Rig::start(lb(&[server.address])).await;
    let mut client = Client::connect(rig.address).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 100"));
    client.send("abc").await;
    assert_eq!(client.answer().await.body, "thanks");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_given_up() {
    let server = Script::start(|mut served| async move {
        served.request().await;
        served.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n").await;
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..95 {
            served.send(&piece).await;
        }
    })
    .await;
    let mut config = lb(&[server.address]);
    config.client.send_timeout = Duration::from_millis(300);
    let rig = Rig::start(config).await;
    let mut client = Client::connect(rig.address).await;
    client.send(get("/")).await;
    let line = rig.log.find("the reason", |line| line["reason"] == "client_too_slow").await;
    assert_eq!(line["status"], 200);
    assert!(client.rest().await.len() < 100_000_000);
}

#[tokio::test]
async fn an_http_1_0_client_gets_no_chunks() {
    let server = Script::start(|mut served| async move {
        while served.request().await.is_some() {
            served.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").await;
        }
    })
    .await;
    let rig = Rig::start(lb(&[server.address])).await;
    for line in ["", "Connection: keep-alive\r\n"] {
        let mut client = Client::connect(rig.address).await;
        client.send(format!("GET / HTTP/1.0\r\n{line}\r\n")).await;
        let head = client.head().await;
        assert!(header(&head, "transfer-encoding").is_none(), "{head}");
        assert_eq!(client.rest().await, b"abc");
    }
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let server = Script::saying("here").await;
    let mut config = lb(&[server.address]);
    config.listeners[0].max_connections = 2;
    let rig = Rig::start(config).await;
    let mut open = Client::connect(rig.address).await;
    assert_eq!(open.ask(get("/")).await.status, 200);
    let mut second = Client::connect(rig.address).await;
    assert_eq!(second.ask(get("/")).await.status, 200);
    let mut third = Client::connect(rig.address).await;
    assert!(third.head().await.starts_with("HTTP/1.1 503"));
    drop(second);
    crate::http::eventually("a place is free", || rig.metric("bookend_client_connections_open", &[]) == 1.0).await;
    assert_eq!(ask(rig.address, get("/")).await.status, 200);
    assert!(rig.metric("bookend_client_connections_refused_total", &[("reason", "limit")]) >= 1.0);
}

#[tokio::test]
async fn pages_of_our_own_are_shown_to_those_who_may() {
    let mut config = lb(&[crate::front::free_port()]);
    let page = |path: &str, allow: &str| {
        let mut page = route(path);
        page.path = PathMatch::Exact(path.into());
        page.target = Target::Builtin(Builtin::DbConnections);
        page.allow = vec![allow.parse().unwrap()];
        page
    };
    config.routes = vec![page("/mine", "127.0.0.0/8"), page("/theirs", "10.0.0.0/8")];
    let rig = Rig::start(config).await;
    let mut client = Client::connect(rig.address).await;
    assert_eq!(client.ask(get("/mine")).await.status, 404, "not there yet");
    rig.pages.set(Builtin::DbConnections, Arc::new(|| Page::json(&serde_json::json!({"a": 1}))));
    let answer = client.ask(get("/mine?x")).await;
    let shown: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((answer.status, &shown), (200, &serde_json::json!({"a": 1})));
    assert_eq!(client.ask(get("/theirs")).await.status, 403);
    client.send("HEAD /mine HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(header(&client.head().await, "content-length"), answer.header("content-length"));
    assert_eq!(client.ask("POST /mine HTTP/1.1\r\nHost: a\r\n\r\n").await.status, 405);
}

#[tokio::test]
async fn while_the_database_is_down_only_what_needs_it_is_refused() {
    use bookend::health::board::{DatabaseState, Serving};
    let server = Script::saying("here").await;
    let mut config = lb(&[server.address]);
    let mut check = crate::front::check();
    check.database = Some("arena_db".into());
    config.upstreams[0].health_check = Some(check);
    let mut without = route("/static/");
    without.needs_database = false;
    config.routes.push(without);
    let rig = Rig::start(config).await;
    rig.board.database("arena_db").publish(Serving::Up, DatabaseState::default());
    crate::http::eventually("checked once", || rig.ready.is_ready()).await;
    assert_eq!(ask(rig.address, get("/")).await.status, 200);
    rig.board.database("arena_db").publish(Serving::Down, DatabaseState::default());
    let answer = ask(rig.address, get("/")).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")));
    assert_eq!(ask(rig.address, get("/static/x")).await.status, 200);
    rig.log.find("the reason", |line| line["reason"] == "database_down").await;
}

#[tokio::test]
async fn a_redirect_leads_to_where_the_file_says_with_path_and_query() {
    let server = Script::saying("never").await;
    let mut config = lb(&[server.address]);
    let text = |text: &str| Piece::Text(text.into());
    let to = Template::from(vec![text("https://example.com"), Piece::Variable(Variable::RequestUri)]);
    let target = Target::Redirect(Redirect { to, status: 308 });
    config.routes = vec![Route { host: Some("*.example.com".into()), target, ..route("/") }];
    let rig = Rig::start(config).await;
    let mut client = Client::connect(rig.address).await;
    for request in [
        "GET /a%20b/?c=d HTTP/1.1\r\nHost: www.example.com\r\n\r\n".to_owned(),
        "GET http://x.example.com/a%20b/?c=d HTTP/1.1\r\nHost: x.example.com\r\n\r\n".into(),
    ] {
        let answer = client.ask(&request).await;
        assert_eq!((answer.status, answer.header("location")), (308, Some("https://example.com/a%20b/?c=d")));
        assert_eq!(answer.header("cache-control"), None, "it may be kept");
    }
    let bare = client.ask("GET http://www.example.com?c=d HTTP/1.1\r\nHost: www.example.com\r\n\r\n").await;
    assert_eq!(bare.header("location"), Some("https://example.com/?c=d"));
    assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: example.org\r\n\r\n").await.status, 404);
    let post = "POST /a HTTP/1.1\r\nHost: www.example.com\r\nContent-Length: 2\r\n\r\nab";
    let answer = Client::connect(rig.address).await.ask(post).await;
    assert_eq!(
        (answer.header("location"), answer.header("connection")),
        (Some("https://example.com/a"), Some("close"))
    );
    assert_eq!(server.requests(), 0);
    assert_eq!(rig.metric("bookend_http_requests_total", &[("status", "3xx")]), 4.0);
}

#[tokio::test]
async fn a_fixed_answer_needs_no_server() {
    let mut config = lb(&[free_port()]);
    let respond = |status, body: &str, retry_after| {
        let (body, content_type) = (body.into(), "text/x-own".into());
        Target::Respond(Respond { status, body, content_type, retry_after })
    };
    let closed = respond(503, "Back at noon.", Some(Duration::from_secs(600)));
    config.routes = vec![Route { target: closed, ..route("/") }];
    config.routes.push(Route { target: respond(204, "", None), ..route("/nothing/") });
    let rig = Rig::start(config).await;
    let mut client = Client::connect(rig.address).await;
    let answer = client.ask(get("/any")).await;
    assert_eq!((answer.status, &*answer.body), (503, "Back at noon."));
    assert_eq!(answer.header("content-type"), Some("text/x-own"));
    assert_eq!((answer.header("retry-after"), answer.header("cache-control")), (Some("600"), Some("no-store")));
    client.send("HEAD /any HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(header(&client.head().await, "content-length"), Some("13"));
    client.send(get("/nothing/")).await;
    let nothing = client.head().await;
    assert!(nothing.starts_with("HTTP/1.1 204"), "{nothing}");
    assert_eq!((header(&nothing, "content-length"), header(&nothing, "transfer-encoding")), (None, None), "{nothing}");
    assert_eq!(client.ask(get("/any")).await.status, 503, "what follows is an answer of its own");
}

#[tokio::test]
async fn headers_are_changed_for_all_routes_and_for_one_and_on_our_own_answers_too() {
    let server = Script::mirror().await;
    let mut config = lb(&[server.address]);
    let text = |text: &str| Template::from(vec![Piece::Text(text.into())]);
    let variable = |variable| Template::from(vec![Piece::Variable(variable)]);
    let name = |name: &'static str| http::HeaderName::from_static(name);
    config.headers.request.remove = vec![name("x-debug")];
    config.headers.request.set = vec![(name("x-own"), variable(Variable::RemoteAddr))];
    config.headers.response.set = vec![(name("x-frame-options"), text("DENY")), (name("x-all"), text("1"))];
    let mut own = Route { ..route("/own/") };
    own.headers.request.set = vec![(name("host"), text("inside.example"))];
    own.headers.response.set = vec![(name("x-frame-options"), text("SAMEORIGIN"))];
    config.routes.push(own);
    config.routes.push(Route { allow: vec!["192.0.2.0/24".parse().unwrap()], ..route("/closed/") });
    let rig = Rig::start(config).await;
    let mut client = Client::connect(rig.address).await;
    let asked = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Debug: 1\r\nX-Own: forged\r\n\r\n");
    let answer = client.ask(asked("/")).await;
    assert_eq!((header(&answer.body, "x-own"), header(&answer.body, "x-debug")), (Some("127.0.0.1"), None));
    assert_eq!((answer.header("x-frame-options"), answer.header("x-all")), (Some("DENY"), Some("1")));
    let answer = client.ask(asked("/own/")).await;
    assert_eq!(
        (header(&answer.body, "host"), header(&answer.body, "x-own")),
        (Some("inside.example"), Some("127.0.0.1"))
    );
    assert_eq!((answer.header("x-frame-options"), answer.header("x-all")), (Some("SAMEORIGIN"), Some("1")));
    let refused = client.ask(asked("/closed/")).await;
    assert_eq!((refused.status, refused.header("x-all")), (403, Some("1")));
}

#[tokio::test]
async fn a_prefix_that_led_to_a_server_is_not_shown_to_it() {
    let server = Script::mirror().await;
    let mut config = lb(&[server.address]);
    config.routes.push(Route { strip_prefix: Some("/api".into()), ..route("/api/") });
    let rig = Rig::start(config).await;
    let mut client = Client::connect(rig.address).await;
    for (asked, seen) in
        [("/api/a%20b?c=/api", "/a%20b?c=/api"), ("/%61pi/", "/"), ("http://a/api/x", "/x"), ("/apiary", "/apiary")]
    {
        let forged = format!("GET {asked} HTTP/1.1\r\nHost: a\r\nX-Forwarded-Prefix: /evil\r\n\r\n");
        let answer = client.ask(forged).await;
        assert!(answer.body.starts_with(&format!("GET {seen} HTTP/1.1\r\n")), "{asked}: {}", answer.body);
        let expected = (asked != "/apiary").then_some("/api");
        assert_eq!(header(&answer.body, "x-forwarded-prefix"), expected, "{asked}");
    }
    let line = rig.log.find("the path as it came", |line| line["uri"] == "/api/a%20b?c=/api").await;
    assert_eq!(line["route"], "/api/");
}

#[tokio::test]
async fn who_is_denied_is_refused_though_its_network_is_allowed() {
    let server = Script::saying("here").await;
    let mut config = lb(&[server.address]);
    config.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    let net = |text: &str| vec![text.parse().unwrap()];
    config.routes = vec![
        Route { allow: net("192.0.2.0/24"), deny: net("192.0.2.7/32"), ..route("/both/") },
        Route { deny: net("192.0.2.0/24"), ..route("/denied/") },
    ];
    let rig = Rig::start(config).await;
    let mut client = Client::connect(rig.address).await;
    for (path, from, expected) in [
        ("/both/", "192.0.2.1", 200),
        ("/both/", "192.0.2.7", 403),
        ("/both/", "198.51.100.1", 403),
        ("/denied/", "192.0.2.1", 403),
        ("/denied/", "::ffff:192.0.2.1", 403),
        ("/denied/", "198.51.100.1", 200),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {from}\r\n\r\n");
        assert_eq!(client.ask(request).await.status, expected, "{path} from {from}");
    }
}
