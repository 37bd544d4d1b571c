//! Bytes go through as they come, in both directions.

use std::time::Duration;

use tokio::{io::AsyncReadExt, sync::mpsc};

use crate::{
    front::{Rig, lb},
    http::{Client, PATIENCE, Script, chunk, header},
};

#[tokio::test]
async fn each_event_of_a_stream_arrives_before_the_next_is_sent() {
    let (seen, was_seen) = mpsc::channel::<()>(1);
    let was_seen = std::sync::Arc::new(tokio::sync::Mutex::new(was_seen));
    let server = Script::start(move |mut served| {
        let was_seen = was_seen.clone();
        async move {
            served.request().await;
            served
                .send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
                .await;
            for number in 0..5 {
                let event = format!("data: {number}\n\n");
                served.send(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await;
                was_seen.lock().await.recv().await;
            }
            served.send(b"0\r\n\r\n").await;
        }
    })
    .await;
    let rig = Rig::start(lb(&[server.address])).await;
    let mut client = Client::connect(rig.address).await;
    client.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.head().await;
    for number in 0..5 {
        let event = tokio::time::timeout(PATIENCE, chunk(&mut client.io)).await.unwrap().unwrap().unwrap();
        assert_eq!(event, format!("data: {number}\n\n").into_bytes());
        seen.send(()).await.unwrap();
    }
    assert_eq!(chunk(&mut client.io).await, Some(None));
}

#[tokio::test]
async fn an_answer_of_known_length_arrives_as_it_is_made() {
    let (seen, was_seen) = mpsc::channel::<()>(1);
    let was_seen = std::sync::Arc::new(tokio::sync::Mutex::new(was_seen));
    let server = Script::start(move |mut served| {
        let was_seen = was_seen.clone();
        async move {
            served.request().await;
            served.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n").await;
            for _ in 0..3 {
                was_seen.lock().await.recv().await;
                served.send(b"x").await;
            }
        }
    })
    .await;
    let rig = Rig::start(lb(&[server.address])).await;
    let mut client = Client::connect(rig.address).await;
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    tokio::time::timeout(PATIENCE, client.head()).await.expect("the head comes first");
    for _ in 0..3 {
        seen.send(()).await.unwrap();
        let byte = tokio::time::timeout(PATIENCE, client.io.read_u8()).await.expect("each byte as it is made");
        assert_eq!(byte.unwrap(), b'x');
    }
}

#[tokio::test]
async fn a_body_reaches_the_server_while_the_client_still_sends_it() {
    let (arrived, mut has_arrived) = mpsc::channel::<u8>(8);
    let server = Script::start(move |mut served| {
        let arrived = arrived.clone();
        async move {
            served.head().await;
            for _ in 0..3 {
                arrived.send(served.io.read_u8().await.unwrap()).await.unwrap();
            }
            served.answer("200 OK", "").await;
        }
    })
    .await;
    let rig = Rig::start(lb(&[server.address])).await;
    let mut client = Client::connect(rig.address).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n").await;
    for byte in *b"abc" {
        client.send([byte]).await;
        assert_eq!(tokio::time::timeout(PATIENCE, has_arrived.recv()).await.unwrap(), Some(byte));
    }
    assert_eq!(client.answer().await.status, 200);
}

/// 64 MiB up and 64 MiB down, and the process does not grow by a quarter of one of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_do_not_pile_up() {
    const SIZE: usize = 64 * 1024 * 1024;
    let server = Script::start(|mut served| async move {
        served.head().await;
        let mut buffer = vec![0; 64 * 1024];
        let mut left = SIZE;
        while left > 0 {
            let read = served.io.read(&mut buffer).await.unwrap();
            assert!(read > 0);
            left -= read;
        }
        served.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes()).await;
        for _ in 0..SIZE / buffer.len() {
            served.send(&buffer).await;
        }
    })
    .await;
    let mut config = lb(&[server.address]);
    config.client.max_body_size = None;
    let rig = Rig::start(config).await;
    let before = resident();
    let mut client = Client::connect(rig.address).await;
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n")).await;
    let piece = vec![b'x'; 256 * 1024];
    for _ in 0..SIZE / piece.len() {
        client.send(&piece).await;
    }
    let head = client.head().await;
    assert_eq!(header(&head, "content-length"), Some(&*SIZE.to_string()));
    let (mut left, mut buffer) = (SIZE, vec![0; 64 * 1024]);
    while left > 0 {
        let read = tokio::time::timeout(PATIENCE, client.io.read(&mut buffer)).await.unwrap().unwrap();
        assert!(read > 0);
        left -= read;
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < SIZE / 4, "grew by {} MiB", grown / 1024 / 1024);
}

#[tokio::test]
async fn a_server_that_answers_before_the_body_ends_is_heard() {
    let server = Script::start(|mut served| async move {
        served.head().await;
        served.answer("403 Forbidden", "no").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    })
    .await;
    let rig = Rig::start(lb(&[server.address])).await;
    let mut client = Client::connect(rig.address).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (403, Some("close")));
}

fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
