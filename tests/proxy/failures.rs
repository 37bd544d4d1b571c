//! Servers that refuse, die and dawdle: what the client sees, and that nothing is done twice.

use std::time::Duration;

use bookend::config::lb::PathMatch;

use crate::{
    front::{Rig, free_port, lb},
    http::{Client, Script, ask, get},
};

/// A server that reads a request and hangs up.
async fn hangs_up() -> Script {
    Script::start(|mut served| async move {
        served.request().await;
    })
    .await
}

#[tokio::test]
async fn a_get_whose_server_dies_before_answering_goes_to_another() {
    let (dies, lives) = (hangs_up().await, Script::saying("here").await);
    let rig = Rig::start(lb(&[dies.address, lives.address])).await;
    assert_eq!(ask(rig.address, get("/")).await.body, "here");
    assert_eq!((dies.requests(), lives.requests()), (1, 1));
}

#[tokio::test]
async fn a_post_whose_server_dies_is_not_sent_again() {
    let (dies, lives) = (hangs_up().await, Script::saying("here").await);
    let rig = Rig::start(lb(&[dies.address, lives.address])).await;
    for request in ["POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab", "POST / HTTP/1.1\r\nHost: a\r\n\r\n"] {
        assert_eq!(ask(rig.address, request).await.status, 502);
        assert_eq!(ask(rig.address, get("/")).await.body, "here");
    }
    assert_eq!(dies.requests(), 2);
    rig.log.find("the reason", |line| line["reason"] == "reset_before_answer" && line["method"] == "POST").await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_seen_to_be_broken_off() {
    for head in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let server = Script::start(move |mut served| async move {
            served.request().await;
            served.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n5\r\nabc").as_bytes()).await;
        })
        .await;
        let rig = Rig::start(lb(&[server.address])).await;
        let mut client = Client::connect(rig.address).await;
        client.send(get("/")).await;
        assert!(client.head().await.starts_with("HTTP/1.1 200"));
        let rest = client.rest().await;
        assert!(!rest.ends_with(b"0\r\n\r\n") && rest.len() < 100, "{}", rest.escape_ascii());
        rig.log.find("the reason", |line| line["reason"] == "reset_within_answer" && line["status"] == 200).await;
        assert_eq!(server.requests(), 1);
    }
}

#[tokio::test]
async fn a_slow_server_is_a_504_and_not_asked_again() {
    let slow = Script::start(|mut served| async move {
        served.request().await;
        std::future::pending::<()>().await;
    })
    .await;
    let other = Script::saying("here").await;
    let mut config = lb(&[slow.address, other.address]);
    config.upstreams[0].read_timeout = Duration::from_millis(200);
    let rig = Rig::start(config).await;
    let answer = ask(rig.address, get("/")).await;
    assert_eq!(answer.status, 504);
    assert_eq!((slow.requests(), other.requests()), (1, 0));
    rig.log.find("the reason", |line| line["reason"] == "read_timeout").await;
}

#[tokio::test]
async fn refusing_servers_are_a_502() {
    let rig = Rig::start(lb(&[free_port(), free_port()])).await;
    let answer = ask(rig.address, get("/")).await;
    assert_eq!(answer.status, 502);
    assert!(answer.body.contains("<h1>") && answer.header("x-request-id").is_some());
    let line = rig.log.find("the reason", |line| line["reason"] == "connect_refused").await;
    assert_eq!(line["attempts"], 2);
}

#[tokio::test]
async fn an_answer_that_is_no_http_is_a_502() {
    for nonsense in ["hello\r\n\r\n", "HTTP/1.1 101 Why\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"] {
        let server = Script::start(move |mut served| async move {
            served.request().await;
            served.send(nonsense.as_bytes()).await;
            served.head().await;
        })
        .await;
        let rig = Rig::start(lb(&[server.address])).await;
        assert_eq!(ask(rig.address, get("/")).await.status, 502, "{nonsense}");
    }
}

#[tokio::test]
async fn what_no_route_takes_is_our_404_and_reaches_no_server() {
    let server = Script::saying("here").await;
    let mut config = lb(&[server.address]);
    config.routes[0].path = PathMatch::Prefix("/app/".into());
    config.routes[0].host = Some("example.com".into());
    let rig = Rig::start(config).await;
    let mut client = Client::connect(rig.address).await;
    for (path, host, status) in
        [("/app/x", "example.com", 200), ("/other", "example.com", 404), ("/app/x", "other.com", 404)]
    {
        let answer = client.ask(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(answer.status, status, "{host}{path}");
    }
    assert_eq!(server.requests(), 1);
    rig.log.find("the reason", |line| line["reason"] == "path_unknown").await;
    rig.log.find("the reason", |line| line["reason"] == "host_unknown").await;
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_server() {
    let (freed, was_freed) = tokio::sync::oneshot::channel();
    let freed = std::sync::Mutex::new(Some(freed));
    let server = Script::start(move |mut served| {
        let freed = freed.lock().unwrap().take();
        async move {
            served.request().await;
            // The end of the connection.
            assert!(served.head().await.is_none());
            let _ = freed.unwrap().send(());
        }
    })
    .await;
    let rig = Rig::start(lb(&[server.address])).await;
    let mut client = Client::connect(rig.address).await;
    client.send(get("/")).await;
    crate::http::eventually("the request arrives", || server.requests() == 1).await;
    drop(client);
    tokio::time::timeout(crate::http::PATIENCE, was_freed).await.unwrap().unwrap();
    let line = rig.log.find("the reason", |line| line["reason"] == "client_gone").await;
    assert_eq!(line["status"], 499);
}
