use tokio::io::{AsyncReadExt, DuplexStream, duplex};

use super::*;
use crate::{health::drain, proxy::accept::limit::limit};

fn pair() -> (DuplexStream, Conn) {
    let (client, server) = duplex(64 * 1024);
    let (_control, drain) = drain::channel();
    let limit = limit("127.0.0.1:80", 1);
    (client, Conn::new(Box::new(server), limit.admit(drain.token()).unwrap()))
}

fn downstream(conn: Conn) -> (Downstream, Home) {
    let home = Home::default();
    (Downstream::new(Box::new(conn), home.clone()), home)
}

#[tokio::test]
async fn the_engine_never_reads_past_its_request() {
    let (mut client, mut conn) = pair();
    conn.body = Body::of_length(5);
    conn.held.extend_from_slice(b"ab");
    client.write_all(b"cdeGET /next HTTP/1.1\r\n").await.unwrap();
    let (mut downstream, home) = downstream(conn);

    let mut body = [0; 5];
    downstream.read_exact(&mut body).await.unwrap();
    assert_eq!(&body, b"abcde");

    // The next request is there already, and the engine that watches for the client's leaving must not see it.
    let mut probe = [0];
    assert!(futures_util::poll!(std::pin::pin!(downstream.read(&mut probe))).is_pending());
    drop(downstream);
    assert_eq!(&home.take().unwrap().held[..], b"GET /next HTTP/1.1\r\n");
}

#[tokio::test]
async fn a_chunked_body_ends_at_its_last_chunk_in_the_middle_of_a_read() {
    let (mut client, mut conn) = pair();
    conn.body = Body::chunked();
    client.write_all(b"3\r\nabc\r\n0\r\n\r\nGET /").await.unwrap();
    let (mut downstream, home) = downstream(conn);
    let mut body = vec![0; 64];
    let read = downstream.read(&mut body).await.unwrap();
    assert_eq!(&body[..read], b"3\r\nabc\r\n0\r\n\r\n");
    drop(downstream);
    assert_eq!(&home.take().unwrap().held[..], b"GET /");
}

#[tokio::test]
async fn a_malformed_chunk_is_an_error_with_its_reason() {
    let (mut client, mut conn) = pair();
    conn.body = Body::chunked();
    client.write_all(b"zz\r\n").await.unwrap();
    let (mut downstream, _home) = downstream(conn);
    let error = downstream.read(&mut [0; 64]).await.unwrap_err();
    assert_eq!(error.to_string(), "malformed chunked body: chunk size");
}

#[tokio::test]
async fn a_client_that_leaves_while_the_answer_is_made_is_seen() {
    let (client, conn) = pair();
    let (mut downstream, _home) = downstream(conn);
    drop(client);
    assert_eq!(downstream.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn what_was_written_leaves_when_the_engine_waits_for_the_client() {
    let (mut client, conn) = pair();
    let (mut downstream, _home) = downstream(conn);
    downstream.write_all(b"a slow answer").await.unwrap();
    assert!(futures_util::poll!(std::pin::pin!(downstream.read(&mut [0]))).is_pending());
    let mut seen = [0; 16];
    assert!(futures_util::poll!(std::pin::pin!(client.read(&mut seen))).is_ready());
    assert!(seen.starts_with(b"a slow answer"));
}

#[tokio::test]
async fn small_writes_leave_together_at_the_flush() {
    let (mut client, conn) = pair();
    let (mut downstream, _home) = downstream(conn);
    downstream.write_all(b"head ").await.unwrap();
    downstream.write_all(b"body").await.unwrap();
    let mut seen = [0; 16];
    assert!(futures_util::poll!(std::pin::pin!(client.read(&mut seen))).is_pending());
    downstream.flush().await.unwrap();
    assert_eq!(client.read(&mut seen).await.unwrap(), 9);
}

#[tokio::test]
async fn a_large_write_keeps_its_place_after_small_ones() {
    let (mut client, conn) = pair();
    let (mut downstream, _home) = downstream(conn);
    downstream.write_all(b"head").await.unwrap();
    downstream.write_all(&[b'x'; 3 * GATHER_MAX]).await.unwrap();
    downstream.flush().await.unwrap();
    drop(downstream);
    let mut seen = vec![0; 4 + 3 * GATHER_MAX];
    client.read_exact(&mut seen).await.unwrap();
    assert!(seen.starts_with(b"headxxx"));
}

#[tokio::test]
async fn a_connection_taken_away_does_not_come_home() {
    let (_client, mut conn) = pair();
    conn.held.extend_from_slice(b"early");
    let (downstream, home) = downstream(conn);
    let taken = downstream.take().unwrap();
    assert_eq!(&taken.early[..], b"early");
    assert!(home.take().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_given_up_and_one_that_is_slow_is_not() {
    let (mut client, mut conn) = pair();
    conn.send_timeout = Duration::from_secs(60);
    let (mut downstream, _home) = downstream(conn);
    let writer = tokio::spawn(async move {
        let result = downstream.write_all(&vec![b'x'; 1024 * 1024]).await;
        (result, tokio::time::Instant::now())
    });
    // A little every 50 s for far longer than the timeout, then nothing.
    let mut piece = vec![0; 70 * 1024];
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(50)).await;
        client.read_exact(&mut piece[..20 * 1024]).await.unwrap();
    }
    assert!(!writer.is_finished());
    let since = tokio::time::Instant::now();
    let (result, at) = writer.await.unwrap();
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert_eq!((at - since).as_secs(), 60);
}
