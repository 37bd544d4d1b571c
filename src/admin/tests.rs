//! Requests as bytes, through pingora's own server loop, over a socket on loopback.

use std::{
    os::fd::AsRawFd,
    sync::atomic::{AtomicUsize, Ordering},
};

use pingora::{
    apps::ServerApp,
    protocols::{GetSocketDigest, SocketDigest, l4::stream::Stream},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::*;
use crate::health::control::{DrainError, ReloadSummary};

#[derive(Default)]
struct Process {
    reloads: AtomicUsize,
}

impl Control for Process {
    fn reload(&self) -> Result<ReloadSummary, Vec<String>> {
        if self.reloads.fetch_add(1, Ordering::Relaxed) == 0 {
            return Ok(ReloadSummary {
                changed: vec!["upstream django: server web-4 added".into()],
                needs_restart: vec!["lb.yaml listeners".into()],
            });
        }
        Err(vec!["lb.yaml:3:5: listeners[0].address: not an address".into()])
    }

    fn drain(&self, name: &str) -> Result<usize, DrainError> {
        match name {
            "web-1" => Ok(3),
            _ => Err(DrainError::Unknown { name: name.into(), known: vec!["web-1".into()] }),
        }
    }

    fn undrain(&self, name: &str) -> Result<(), DrainError> {
        self.drain(name).map(drop)
    }

    fn pause(&self, _: bool) -> bool {
        false
    }
}

/// Serves one connection on loopback; returns the client's end.
async fn connect() -> TcpStream {
    let mut pages = Pages::new();
    pages.insert("/live", Arc::new(|| Page::text(200, "live\n")));
    pages.insert("/ready", Arc::new(|| Page::json_with(503, &json!({ "ready": false }))));
    let admin = Arc::new(Admin::new(pages, Arc::new(Process::default())));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    tokio::spawn(async move {
        // As pingora's listener does (listeners/l4.rs, accept).
        let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
        let mut stream: Stream = stream.into();
        stream.set_socket_digest(digest);
        let (_stop, shutdown) = watch::channel(false);
        admin.process_new(Box::new(stream), &shutdown).await;
    });
    client
}

/// Sends one request that ends its connection; returns the whole answer.
async fn ask(request: &str) -> String {
    let mut client = connect().await;
    client.write_all(format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = client.read_to_string(&mut answer);
    tokio::time::timeout(Duration::from_secs(5), read).await.expect("an answer").unwrap();
    answer
}

fn body(answer: &str) -> serde_json::Value {
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[tokio::test]
async fn a_page_is_shown_with_its_status_and_type() {
    let answer = ask("GET /live HTTP/1.1").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.to_lowercase().contains("content-type: text/plain; charset=utf-8\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nlive\n"), "{answer}");
    assert!(ask("GET /ready HTTP/1.1").await.starts_with("HTTP/1.1 503 "));
}

#[tokio::test]
async fn head_has_the_header_of_get_and_no_body() {
    let answer = ask("HEAD /live HTTP/1.1").await;
    assert!(answer.to_lowercase().contains("content-length: 5\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_allowed_are_said_so() {
    assert!(ask("GET /secret HTTP/1.1").await.starts_with("HTTP/1.1 404 "));
    let answer = ask("DELETE /live HTTP/1.1").await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    assert!(answer.to_lowercase().contains("allow: get, head\r\n"), "{answer}");
}

#[tokio::test]
async fn a_reload_answers_with_what_changed_or_with_every_error() {
    let answer = ask("POST /reload HTTP/1.1\r\nContent-Length: 0").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(body(&answer)["changed"][0], "upstream django: server web-4 added");
    assert_eq!(body(&answer)["needs_restart"][0], "lb.yaml listeners");
}

#[tokio::test]
async fn a_drain_answers_with_what_is_left_or_with_the_names_there_are() {
    let answer = ask("POST /drain/web-1 HTTP/1.1\r\nContent-Length: 0").await;
    assert_eq!(body(&answer), json!({ "draining": "web-1", "in_flight": 3 }));
    let answer = ask("POST /drain/web-9 HTTP/1.1\r\nContent-Length: 0").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert_eq!(body(&answer)["error"], "no server is named web-9; servers: web-1");
}

#[tokio::test]
async fn a_request_from_a_web_page_gives_no_orders() {
    let answer = ask("POST /reload HTTP/1.1\r\nOrigin: https://example.com\r\nContent-Length: 0").await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
}

#[tokio::test]
async fn a_connection_is_kept_for_the_next_request() {
    let mut client = connect().await;
    for _ in 0..3 {
        client.write_all(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"live\n") {
            let mut buffer = [0; 512];
            let read = tokio::time::timeout(Duration::from_secs(5), client.read(&mut buffer)).await.unwrap().unwrap();
            assert_ne!(read, 0, "closed after {:?}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&buffer[..read]);
        }
    }
}

#[tokio::test]
async fn a_request_body_is_not_taken_for_the_next_request() {
    let mut client = connect().await;
    let smuggled = "POST /drain/web-1 HTTP/1.1\r\nHost: x\r\n\r\n";
    let request = format!("POST /reload HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{smuggled}", smuggled.len());
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(5), client.read_to_string(&mut answer)).await.expect("closed").unwrap();
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
}

#[tokio::test]
async fn a_client_that_says_nothing_is_closed() {
    tokio::time::pause();
    let mut client = connect().await;
    client.write_all(b"GET /live HTT").await.unwrap();
    let begin = tokio::time::Instant::now();
    assert_eq!(client.read(&mut [0; 16]).await.unwrap_or(0), 0);
    assert!(begin.elapsed() >= HEADER_TIMEOUT && begin.elapsed() < HEADER_TIMEOUT * 2, "{:?}", begin.elapsed());
}
