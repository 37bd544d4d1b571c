//! Streams and large bodies pass through without being collected.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::support::{load::parse, shared};

const MIB: usize = 1 << 20;

#[test]
fn each_server_sent_event_arrives_when_it_is_sent() {
    let deployment = shared();
    let mut stream = TcpStream::connect(("127.0.0.1", deployment.bookend.front_port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
        .write_all(b"GET /stream/sse/?n=4&interval=0.4 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut arrivals = Vec::new();
    for line in BufReader::new(stream).lines() {
        if line.unwrap().starts_with("data:") {
            arrivals.push(Instant::now());
        }
    }
    assert_eq!(arrivals.len(), 4);
    let spread = arrivals[3] - arrivals[0];
    assert!(spread > Duration::from_millis(900), "the events came together, within {spread:?}");
}

#[test]
fn a_200_mb_upload_arrives_whole_and_leaves_memory_flat() {
    let deployment = shared();
    let bookend = &deployment.bookend;
    let size = 200 * MIB;
    let before = bookend.resident_kib();
    let mut stream = TcpStream::connect(("127.0.0.1", bookend.front_port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(stream, "POST /upload/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n")
        .unwrap();
    let mut digest = <sha2::Sha256 as sha2::Digest>::new();
    let mut peak = before;
    for index in 0..200_usize {
        let chunk = vec![u8::try_from(index % 251).unwrap(); MIB];
        sha2::Digest::update(&mut digest, &chunk);
        stream.write_all(&chunk).unwrap();
        peak = peak.max(bookend.resident_kib());
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = parse(&answer).expect("a whole answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let expected: String = sha2::Digest::finalize(digest).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(answer.json()["sha256"], expected);
    assert!(peak - before < 24 * 1024, "memory grew from {before} to {peak} KiB");
}

#[test]
fn a_body_over_the_route_limit_is_refused_at_once() {
    let deployment = shared();
    let head = format!("POST /echo/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", 21 * MIB);
    let answer =
        crate::support::load::raw(&format!("127.0.0.1:{}", deployment.bookend.front_port), head.as_bytes()).unwrap();
    assert_eq!(parse(&answer).unwrap().status, 413);
}
