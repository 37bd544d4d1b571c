//! WebSockets through the front, by a real client and by hand.

use std::{sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Bytes, Message,
        protocol::{
            CloseFrame, Role,
            frame::{Frame, coding::CloseCode, coding::Data, coding::OpCode},
        },
    },
};

use crate::{
    front::{Rig, free_port, lb, route},
    http::{Client, PATIENCE, Script, ask, eventually, get, header},
};

const HANDSHAKE: &str = "GET /ws/ HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const AGREES: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nConnection: Upgrade\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nX-Odd:  kept \r\n\r\n";

/// A server that sends back every message, and the handshake's head first.
async fn echo() -> Script {
    Script::start(|mut served| async move {
        let Some(head) = served.head().await else { return };
        served.send(AGREES.as_bytes()).await;
        let stream = served.io.into_inner();
        let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
        let _ = socket.send(Message::text(head)).await;
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() || message.is_binary() {
                let _ = socket.send(message).await;
            }
        }
    })
    .await
}

/// Connects by hand and returns the socket after the 101, and its head.
async fn open(rig: &Rig) -> (WebSocketStream<TcpStream>, String) {
    let mut client = Client::connect(rig.address).await;
    client.send(HANDSHAKE).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    let left = client.io.buffer().to_vec();
    let stream = client.io.into_inner();
    (WebSocketStream::from_partially_read(stream, left, Role::Client, None).await, head)
}

/// The answer is the server's, byte for byte, and the request's id.
fn assert_agrees(head: &str) {
    let lines = head.strip_prefix(AGREES.trim_end_matches("\r\n")).unwrap_or_else(|| panic!("{head}"));
    let id = lines.strip_prefix("\r\nx-request-id: ").and_then(|id| id.strip_suffix("\r\n\r\n"));
    assert!(id.is_some_and(|id| id.len() == 32), "{head}");
}

async fn next(socket: &mut WebSocketStream<TcpStream>) -> Message {
    tokio::time::timeout(PATIENCE, socket.next()).await.expect("a message in time").expect("a message").unwrap()
}

#[tokio::test]
async fn a_handshake_written_for_a_proxy_reaches_the_server_as_one_for_a_server() {
    let server = echo().await;
    let rig = Rig::start(lb(&[server.address])).await;
    let mut client = Client::connect(rig.address).await;
    client.send(HANDSHAKE.replace("GET /ws/", "GET http://a/ws/")).await;
    assert!(client.head().await.starts_with("HTTP/1.1 101"));
    let left = client.io.buffer().to_vec();
    let mut socket = WebSocketStream::from_partially_read(client.io.into_inner(), left, Role::Client, None).await;
    let seen = next(&mut socket).await.into_text().unwrap();
    assert!(seen.starts_with("GET /ws/ HTTP/1.1\r\n"), "{seen}");
}

#[tokio::test]
async fn messages_of_every_kind_go_both_ways() {
    let server = echo().await;
    let rig = Rig::start(lb(&[server.address])).await;
    let (mut socket, head) = open(&rig).await;
    assert_agrees(&head);
    let seen = next(&mut socket).await.into_text().unwrap();
    assert_eq!(header(&seen, "connection"), Some("Upgrade"));
    assert_eq!(header(&seen, "sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    assert_eq!(header(&seen, "x-forwarded-for"), Some("127.0.0.1"));

    let large = Bytes::from((0..300_000u32).map(|n| (n % 251) as u8).collect::<Vec<_>>());
    for message in [Message::text("hello"), Message::binary(large), Message::text("")] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(next(&mut socket).await, message);
    }
    socket.send(Message::Ping(Bytes::from_static(b"p"))).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::Pong(Bytes::from_static(b"p")));
    // In fragments, with a ping between them.
    for (data, code, end) in [("he", Data::Text, false), ("l", Data::Continue, false), ("lo", Data::Continue, true)] {
        let frame = Frame::message(data, OpCode::Data(code), end);
        socket.send(Message::Frame(frame)).await.unwrap();
        if !end {
            socket.send(Message::Ping(Bytes::new())).await.unwrap();
        }
    }
    let mut messages = Vec::new();
    while messages.last() != Some(&Message::text("hello")) {
        messages.push(next(&mut socket).await);
    }
    let close = CloseFrame { code: CloseCode::Library(4321), reason: "done".into() };
    socket.close(Some(close.clone())).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::Close(Some(close)));
    let line = rig.log.find("websocket", |line| line["websocket"] == true).await;
    assert_eq!((line["status"].as_u64(), line["uri"].as_str()), (Some(101), Some("/ws/")));
    assert!(line["bytes_in"].as_u64() > Some(300_000) && line["bytes_out"].as_u64() > Some(300_000), "{line}");
    eventually("nothing is left", || rig.metric("bookend_websockets_open", &[]) == 0.0).await;
    eventually("its place is free", || rig.metric("bookend_client_connections_open", &[]) == 0.0).await;
}

#[tokio::test]
async fn bytes_sent_too_early_on_either_side_are_not_lost() {
    let server = Script::start(|mut served| async move {
        served.head().await;
        served.send([AGREES.as_bytes(), b"\x82\x03abc"].concat().as_slice()).await;
        let mut early = [0; 9];
        served.io.read_exact(&mut early).await.unwrap();
        served.send(&[&b"\x82\x09"[..], &early].concat()).await;
    })
    .await;
    let rig = Rig::start(lb(&[server.address])).await;
    let mut client = Client::connect(rig.address).await;
    client.send([HANDSHAKE.as_bytes(), b"\x82\x83\0\0\0\0xyz"].concat()).await;
    assert_agrees(&client.head().await);
    assert_eq!(client.rest().await, b"\x82\x03abc\x82\x09\x82\x83\0\0\0\0xyz");
}

#[tokio::test]
async fn a_side_that_finishes_still_hears_the_other() {
    let server = Script::start(|mut served| async move {
        served.head().await;
        served.send(AGREES.as_bytes()).await;
        let mut all = Vec::new();
        served.io.read_to_end(&mut all).await.unwrap();
        served.send(&all).await;
    })
    .await;
    let rig = Rig::start(lb(&[server.address])).await;
    let mut client = Client::connect(rig.address).await;
    client.send(HANDSHAKE).await;
    client.head().await;
    client.send(b"all of it").await;
    client.io.get_mut().shutdown().await.unwrap();
    assert_eq!(client.rest().await, b"all of it");
}

#[tokio::test]
async fn whatever_is_no_handshake_stays_http() {
    let server = Script::mirror().await;
    let rig = Rig::start(lb(&[server.address])).await;
    for lines in [
        "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        "Upgrade: websocket\r\nConnection: keep-alive\r\n",
        "Upgrade: foo\r\nConnection: upgrade\r\n",
    ] {
        let mut client = Client::connect(rig.address).await;
        // The second request must be seen as one, not as bytes of a tunnel.
        client.send(format!("GET /1 HTTP/1.1\r\nHost: a\r\n{lines}\r\n{}", get("/2"))).await;
        let first = client.answer().await;
        assert_eq!((first.status, header(&first.body, "upgrade")), (200, None), "{lines}");
        assert!(client.answer().await.body.starts_with("GET /2 "), "{lines}");
    }
    let post = HANDSHAKE.replace("GET", "POST");
    assert_eq!(header(&ask(rig.address, post).await.body, "upgrade"), None);
    let no_key = HANDSHAKE.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "");
    assert_eq!(ask(rig.address, no_key).await.status, 400);
}

#[tokio::test]
async fn a_server_that_refuses_is_heard_and_the_connection_goes_on() {
    let server = Script::start(|mut served| async move {
        while let Some(head) = served.head().await {
            if head.contains("websocket") {
                let chunked = "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\nX-Why: not you\r\n\r\n";
                served.send(format!("{chunked}2\r\nno\r\n0\r\n\r\n").as_bytes()).await;
            } else {
                served.answer("200 OK", "here").await;
            }
        }
    })
    .await;
    let rig = Rig::start(lb(&[server.address])).await;
    let mut client = Client::connect(rig.address).await;
    let answer = client.ask(HANDSHAKE).await;
    assert_eq!((answer.status, &*answer.body, answer.header("x-why")), (403, "no", Some("not you")));
    assert_eq!(client.ask(get("/")).await.body, "here");
    let line = rig.log.find("the refusal", |line| line["status"] == 403).await;
    assert_eq!((line["server"].as_str(), line["attempts"].as_u64()), (Some("web-1"), Some(1)));
}

#[tokio::test]
async fn a_refusal_that_breaks_off_is_seen_to_be_broken_off() {
    let server = Script::start(|mut served| async move {
        served.head().await;
        served.send(b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n").await;
    })
    .await;
    let rig = Rig::start(lb(&[server.address])).await;
    let mut client = Client::connect(rig.address).await;
    client.send(HANDSHAKE).await;
    client.head().await;
    assert_eq!(client.rest().await, b"2\r\nno\r\n");
}

#[tokio::test]
async fn an_answer_that_is_none_is_a_502() {
    for answer in ["HTTP/1.1 101 Other\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", "garbage\r\n\r\n"] {
        let server = Script::start(move |mut served| async move {
            served.head().await;
            served.send(answer.as_bytes()).await;
            served.head().await;
        })
        .await;
        let rig = Rig::start(lb(&[server.address])).await;
        assert_eq!(ask(rig.address, HANDSHAKE).await.status, 502, "{answer}");
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_passed_over() {
    let server = echo().await;
    let rig = Rig::start(lb(&[free_port(), server.address])).await;
    for _ in 0..3 {
        open(&rig).await;
    }
    let nobody = Rig::start(lb(&[free_port()])).await;
    assert_eq!(ask(nobody.address, HANDSHAKE).await.status, 502);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_a_504_and_a_client_that_leaves_is_noticed() {
    let server = Script::start(|mut served| async move {
        served.head().await;
        assert!(served.head().await.is_none(), "the connection is closed");
    })
    .await;
    let mut config = lb(&[server.address]);
    let mut slow = route("/slow/");
    slow.read_timeout = Some(Duration::from_secs(600));
    config.routes.push(slow);
    config.upstreams[0].read_timeout = Duration::from_millis(200);
    let rig = Rig::start(config).await;
    assert_eq!(ask(rig.address, HANDSHAKE).await.status, 504);
    let mut client = Client::connect(rig.address).await;
    client.send(HANDSHAKE.replace("/ws/", "/slow/")).await;
    eventually("it was asked", || server.requests() == 2).await;
    drop(client);
    rig.log.find("the reason", |line| line["reason"] == "client_gone").await;
}

#[tokio::test]
async fn leaving_says_1001_to_both_sides_and_ends() {
    let server = echo().await;
    let rig = Rig::start(lb(&[server.address])).await;
    let mut sockets = Vec::new();
    for _ in 0..5 {
        let (mut socket, _) = open(&rig).await;
        next(&mut socket).await;
        sockets.push(socket);
    }
    assert_eq!(rig.metric("bookend_websockets_open", &[]), 5.0);
    rig.leave(Duration::from_secs(4));
    for socket in &mut sockets {
        let Message::Close(Some(close)) = next(socket).await else { panic!("a close frame") };
        assert_eq!(close.code, CloseCode::Away);
        // Answers the close and waits for the end.
        assert!(tokio::time::timeout(PATIENCE, socket.next()).await.unwrap().is_none_or(|last| last.is_err()));
    }
    rig.ended().await;
    rig.log.find("the reason", |line| line["reason"] == "draining" && line["websocket"] == true).await;
}

#[tokio::test]
async fn a_reload_does_not_touch_what_is_open() {
    let server = echo().await;
    let rig = Rig::start(lb(&[server.address])).await;
    let (mut socket, _) = open(&rig).await;
    next(&mut socket).await;
    let mut other = rig.lb.clone();
    other.routes[0].websocket_idle_timeout = Duration::from_millis(1);
    other.upstreams = lb(&[free_port()]).upstreams;
    rig.front.reload(&Arc::new(other)).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    socket.send(Message::text("still here")).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::text("still here"));
}

#[tokio::test]
async fn a_quiet_one_ends_after_the_routes_idle_timeout() {
    let server = echo().await;
    let mut config = lb(&[server.address]);
    config.routes[0].websocket_idle_timeout = Duration::from_millis(300);
    let rig = Rig::start(config).await;
    let (mut socket, _) = open(&rig).await;
    next(&mut socket).await;
    assert!(matches!(next(&mut socket).await, Message::Close(_)));
    rig.log.find("the reason", |line| line["reason"] == "idle").await;
}
