//! Which server gets a request, and what becomes of it when that server does not take it.

use std::time::Duration;

use bookend::config::{
    lb::{Balance, Hash, HashKey, Servers, Sticky},
    secret::Secret,
};

use crate::{
    front::{Rig, free_port, lb},
    http::{Answer, Client, Script, ask, eventually, get},
};

#[tokio::test]
async fn requests_are_spread_evenly_over_servers_and_connections_are_reused() {
    let servers = [Script::saying("a").await, Script::saying("b").await, Script::saying("c").await];
    let rig = Rig::start(lb(&servers.each_ref().map(|server| server.address))).await;
    let mut client = Client::connect(rig.address).await;
    for _ in 0..30 {
        assert_eq!(client.ask(get("/")).await.status, 200);
    }
    for server in &servers {
        assert_eq!((server.requests(), server.connections()), (10, 1));
    }
    assert_eq!(rig.metric("bookend_http_requests_total", &[("server", "web-2"), ("status", "2xx")]), 10.0);
}

#[tokio::test]
async fn a_refused_connection_goes_to_another_server_whatever_the_request() {
    let server = Script::saying("here").await;
    let rig = Rig::start(lb(&[free_port(), server.address])).await;
    for request in [get("/"), "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab".into()] {
        for _ in 0..2 {
            assert_eq!(ask(rig.address, &request).await.body, "here");
        }
    }
    let line = rig.log.find("two attempts", |line| line["attempts"] == 2).await;
    assert_eq!((line["server"].as_str(), line["status"].as_u64()), (Some("web-2"), Some(200)));
    assert!(rig.metric("bookend_http_retries_total", &[("reason", "connect_refused")]) >= 2.0);
}

#[tokio::test]
async fn a_reused_connection_found_closed_costs_nothing() {
    // Each connection serves one request and closes when the next arrives, as a server does that was just restarted.
    let server = Script::start(|mut served| async move {
        served.request().await;
        served.answer("200 OK", "here").await;
        served.head().await;
    })
    .await;
    let rig = Rig::start(lb(&[server.address])).await;
    for _ in 0..4 {
        assert_eq!(ask(rig.address, get("/")).await.status, 200);
    }
    assert_eq!(rig.metric("bookend_server_failures_total", &[]), 0.0);
}

#[tokio::test]
async fn an_idle_server_connection_is_given_up_before_the_server_does() {
    let server = Script::saying("here").await;
    let mut config = lb(&[server.address]);
    config.upstreams[0].keepalive_timeout = Duration::from_millis(100);
    let rig = Rig::start(config).await;
    ask(rig.address, get("/")).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    ask(rig.address, get("/")).await;
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn without_any_server_the_answer_is_503_and_says_when_to_come_back() {
    let rig = Rig::start({
        let mut config = lb(&[free_port()]);
        config.upstreams[0].health_check = Some(crate::front::check());
        config
    })
    .await;
    eventually("checked once", || rig.ready.is_ready()).await;
    let mut client = Client::connect(rig.address).await;
    for _ in 0..2 {
        // On one connection: being told to come back is no reason to make the client connect anew.
        let answer = client.ask("GET / HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\n\r\n").await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")));
        assert!(answer.body.contains("\"reason\":\"no_server\""), "{}", answer.body);
    }
}

#[tokio::test]
async fn a_reload_moves_new_requests_and_keeps_what_runs() {
    let (old, new) = (Script::saying("old").await, Script::saying("new").await);
    let rig = Rig::start(lb(&[old.address])).await;
    let mut client = Client::connect(rig.address).await;
    assert_eq!(client.ask(get("/")).await.body, "old");
    let mut next = rig.lb.clone();
    next.upstreams = lb(&[new.address]).upstreams;
    let summary = rig.front.reload(&std::sync::Arc::new(next)).await;
    assert_eq!(summary.changed, ["upstream django: server web-1 changed"]);
    assert_eq!(client.ask(get("/")).await.body, "new", "on the same client connection");
}

/// Holds a request at whichever server gets it.
async fn busy() -> Script {
    Script::start(|mut served| async move {
        while let Some((head, _)) = served.request().await {
            if head.contains("/slow") {
                std::future::pending::<()>().await;
            }
            served.answer("200 OK", "here").await;
        }
    })
    .await
}

#[tokio::test]
async fn least_conn_passes_over_a_server_that_is_busy() {
    let servers = [busy().await, busy().await];
    let mut config = lb(&servers.each_ref().map(|server| server.address));
    config.upstreams[0].balance = Balance::LeastConn;
    let rig = Rig::start(config).await;
    let mut slow = Client::connect(rig.address).await;
    slow.send(get("/slow")).await;
    eventually("it is there", || servers.iter().map(|server| server.requests()).sum::<usize>() == 1).await;
    let (held, free) = if servers[0].requests() == 1 { (0, 1) } else { (1, 0) };
    for _ in 0..10 {
        assert_eq!(ask(rig.address, get("/")).await.status, 200);
    }
    assert_eq!((servers[held].requests(), servers[free].requests()), (1, 10));
}

#[tokio::test]
async fn a_cookie_leads_to_one_server_and_stays_there() {
    let servers = [Script::saying("a").await, Script::saying("b").await, Script::saying("c").await];
    let mut config = lb(&servers.each_ref().map(|server| server.address));
    let hash = Hash { key: HashKey::Cookie("sessionid".into()), ..Hash::default() };
    config.upstreams[0].balance = Balance::ConsistentHash(hash);
    let rig = Rig::start(config).await;
    let mut seen = std::collections::HashSet::new();
    for session in 0..12 {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: a=b; sessionid=s{session}\r\n\r\n");
        let first = ask(rig.address, &request).await.body;
        for _ in 0..3 {
            assert_eq!(ask(rig.address, &request).await.body, first);
        }
        seen.insert(first);
    }
    assert_eq!(seen.len(), 3, "and different ones to different servers");
}

#[tokio::test]
async fn a_server_that_the_file_calls_down_gets_nothing() {
    let servers = [Script::saying("a").await, Script::saying("b").await];
    let mut config = lb(&servers.each_ref().map(|server| server.address));
    if let Servers::Own(own) = &mut config.upstreams[0].servers {
        own[0].down = true;
    }
    let rig = Rig::start(config).await;
    for _ in 0..6 {
        assert_eq!(ask(rig.address, get("/")).await.body, "b");
    }
}

fn sticky() -> Sticky {
    Sticky { cookie: "server".into(), secret: Some(Secret::new("0123456789abcdef")), ..Sticky::default() }
}

fn with_cookie(cookie: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: a=b; {cookie}\r\n\r\n")
}

/// Returns the cookie that an answer brings, without what is said about it.
fn given(answer: &Answer) -> Option<String> {
    Some(answer.header("set-cookie")?.split(';').next()?.to_owned())
}

/// A server that closes each connection behind its answer: once it does not listen any more it is gone.
async fn saying_once(body: &'static str) -> Script {
    Script::start(move |mut served| async move {
        served.request().await;
        served.answer("200 OK", body).await;
    })
    .await
}

#[tokio::test]
async fn a_cookie_of_ours_keeps_a_browser_at_its_server_until_that_one_fails() {
    let servers = [saying_once("a").await, saying_once("b").await, saying_once("c").await];
    let mut config = lb(&servers.each_ref().map(|server| server.address));
    config.upstreams[0].sticky = Some(sticky());
    let rig = Rig::start(config).await;
    let first = ask(rig.address, get("/")).await;
    assert!(first.header("set-cookie").unwrap().ends_with("; Path=/; HttpOnly; SameSite=Lax"));
    let cookie = given(&first).unwrap();
    for _ in 0..6 {
        let again = ask(rig.address, with_cookie(&cookie)).await;
        assert_eq!((&again.body, given(&again)), (&first.body, None));
    }
    for made_up in ["server=web-1", "server=", "server=00000000000000000000000000000000", "other=1"] {
        assert!(given(&ask(rig.address, with_cookie(made_up)).await).is_some(), "{made_up}");
    }
    let [a, b, c] = servers;
    let mut all = vec![("a", a), ("b", b), ("c", c)];
    all.retain(|(body, _)| *body != first.body); // it goes away
    for _ in 0..3 {
        assert_ne!(ask(rig.address, with_cookie(&cookie)).await.body, first.body);
    }
    let moved = ask(rig.address, with_cookie(&cookie)).await;
    let new = given(&moved).expect("its server is ejected by now: another cookie");
    assert_ne!(new, cookie);
    for _ in 0..4 {
        assert_eq!(ask(rig.address, with_cookie(&new)).await.body, moved.body);
    }
}

#[tokio::test]
async fn a_browser_keeps_its_cookie_when_its_server_is_only_full() {
    let servers = [busy().await, busy().await];
    let mut config = lb(&servers.each_ref().map(|server| server.address));
    config.upstreams[0].sticky = Some(sticky());
    if let Servers::Own(own) = &mut config.upstreams[0].servers {
        own.iter_mut().for_each(|server| server.max_conns = Some(1));
    }
    let rig = Rig::start(config).await;
    let cookie = given(&ask(rig.address, get("/")).await).unwrap();
    let own = usize::from(servers[1].requests() == 1);
    let mut slow = Client::connect(rig.address).await;
    slow.send(with_cookie(&cookie).replace("GET / ", "GET /slow ")).await;
    eventually("its server has it", || servers[own].requests() == 2).await;
    let meanwhile = ask(rig.address, with_cookie(&cookie)).await;
    assert_eq!((meanwhile.status, given(&meanwhile)), (200, None));
    assert_eq!(servers[1 - own].requests(), 1, "the other one has answered");
}

/// With a secret of the file, and with one drawn at the start: a server is known by its name.
#[tokio::test]
async fn a_browser_keeps_its_server_over_a_reload() {
    for secret in [Some(Secret::new("0123456789abcdef")), None] {
        let servers = [Script::saying("a").await, Script::saying("b").await, Script::saying("c").await];
        let addresses = servers.each_ref().map(|server| server.address);
        let mut config = lb(&addresses);
        config.upstreams[0].sticky = Some(Sticky { secret: secret.clone(), ..sticky() });
        let rig = Rig::start(config).await;
        let first = ask(rig.address, get("/")).await;
        let cookie = given(&first).unwrap();
        let mut next = rig.lb.clone();
        if let Servers::Own(own) = &mut next.upstreams[0].servers {
            own.rotate_left(1);
            own[0].weight = 7;
        }
        rig.front.reload(&std::sync::Arc::new(next)).await;
        for _ in 0..6 {
            let again = ask(rig.address, with_cookie(&cookie)).await;
            assert_eq!((&again.body, given(&again)), (&first.body, None), "{secret:?}");
        }
    }
}
