//! Bad input gets a clear refusal and disturbs nobody.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    process::Command,
    time::Duration,
};

use crate::support::{
    Deployment,
    load::{get, parse, raw},
    python::client,
    shared,
};

fn front(deployment: &Deployment) -> String {
    format!("127.0.0.1:{}", deployment.bookend.front_port)
}

fn status(deployment: &Deployment, request: &str) -> u16 {
    let answer = raw(&front(deployment), request.as_bytes()).expect("an answer");
    parse(&answer).unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&answer))).status
}

fn all_is_well(deployment: &Deployment) {
    assert_eq!(get(&deployment.bookend.url("/api/items/1/")).unwrap().status, 200);
    let postgres = &deployment.stack.postgres;
    let seen =
        client("thousand.py", &[&postgres.dsn(deployment.bookend.pool_port), &postgres.dsn(postgres.port), "5", "2"]);
    assert_eq!((&seen["wrong"], &seen["failed"]), (&0.into(), &0.into()), "{seen}");
}

fn pool(deployment: &Deployment, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", deployment.bookend.pool_port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(bytes).unwrap();
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[test]
fn both_length_and_transfer_encoding_are_refused() {
    let deployment = shared();
    let smuggled =
        "POST /echo/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(status(&deployment, smuggled), 400);
    all_is_well(&deployment);
}

#[test]
fn an_oversized_header_is_431() {
    let deployment = shared();
    let huge = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-Big: {}\r\n\r\n", "x".repeat(70_000));
    assert_eq!(status(&deployment, &huge), 431);
    let many: String = (0..150).map(|index| format!("X-{index}: y\r\n")).collect();
    assert_eq!(status(&deployment, &format!("GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n")), 431);
    all_is_well(&deployment);
}

#[test]
fn a_body_longer_than_declared_never_becomes_part_of_a_request() {
    let deployment = shared();
    let request =
        "POST /upload/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhelloGET /status/418/ HTTP/9.9\r\n\r\n";
    let answer = raw(&front(&deployment), request.as_bytes()).unwrap_or_default();
    let text = String::from_utf8_lossy(&answer);
    assert!(!text.contains("418"), "{text}");
    assert!(text.is_empty() || text.contains(" 400 ") || text.contains(" 200 "), "{text}");
    all_is_well(&deployment);
}

#[test]
fn a_garbage_startup_packet_is_refused() {
    let deployment = shared();
    for garbage in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), &[0xff; 64], &[0; 8], b"\x00\x00\x00\x09\x00\x03\x00\x00x"] {
        let answer = pool(&deployment, garbage);
        assert!(answer.is_empty() || answer[0] == b'E', "{answer:?}");
    }
    all_is_well(&deployment);
}

#[test]
fn a_two_gigabyte_length_field_takes_no_memory() {
    let deployment = shared();
    let before = deployment.bookend.resident_kib();
    let answer = pool(&deployment, b"\x7f\xff\xff\xff\x00\x03\x00\x00user\x00");
    assert!(answer.is_empty() || answer[0] == b'E', "{answer:?}");
    assert!(deployment.bookend.resident_kib() < before + 8 * 1024);
    all_is_well(&deployment);
}

#[test]
fn half_a_message_and_then_a_close_leaves_the_pool_clean() {
    let deployment = shared();
    let postgres = &deployment.stack.postgres;
    let seen = client("half_message.py", &[&postgres.dsn(deployment.bookend.pool_port), "60"]);
    assert_eq!(seen["cut"], 60, "{seen}");
    all_is_well(&deployment);
}

#[test]
fn every_mistake_in_the_files_is_named_at_once() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(
        directory.path().join("lb.yaml"),
        "listeners:\n  - addres: 127.0.0.1:1\nupstreams:\n  django:\n    balance: round_robbin\n    servers:\n      - { address: 127.0.0.1:2, weight: 0 }\nroutes:\n  - { path_prefix: /, upstream: djnago }\n",
    )
    .unwrap();
    fs::write(
        directory.path().join("pool.yaml"),
        "pool:\n  listen_port: 99999\n  default_pool_sise: 3\ndatabases: {}\n",
    )
    .unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_bookend")).arg("check").current_dir(directory.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    for expected in [
        "lb.yaml:2:5: listeners[0].addres",
        "lb.yaml:5:14: upstreams.django.balance",
        "lb.yaml:7:41: upstreams.django.servers[0].weight",
        "lb.yaml:9:33: routes[0].upstream",
        "pool.yaml:2:16: pool.listen_port",
        "pool.yaml:3:3: pool.default_pool_sise",
        "default_pool_size",
    ] {
        assert!(said.contains(expected), "{expected} in:\n{said}");
    }
}
