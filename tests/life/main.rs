//! The real binary from start to end, without Django or PostgreSQL: ports, signals, reloads, the commands that talk to it.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

mod process;
mod upstream;

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use process::{Process, eventually, free_port};
use upstream::Upstream;

/// Sends one request and returns the connection, the answer unread.
fn request(port: u16, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    stream
}

fn answer(mut stream: TcpStream) -> String {
    let mut text = String::new();
    // A reset after the answer is an end too.
    let _ = stream.read_to_string(&mut text);
    text
}

#[test]
fn a_port_in_use_is_one_clear_line_and_exit_code_1_at_once() {
    let upstream = Upstream::start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let began = Instant::now();
    let mut process = Process::spawn(&Process::config(port, free_port(), upstream.port(), "", ""));
    assert_eq!(process.wait(Duration::from_secs(10)).code(), Some(1));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let log = process.log();
    assert!(
        log.contains(&format!(
            "cannot listen on 127.0.0.1:{port} ({} listeners[0].address): address in use\n",
            process.lb()
        )),
        "{log}"
    );
}

#[test]
fn a_signal_in_the_first_moment_is_not_the_end() {
    let upstream = Upstream::start();
    let mut process = Process::spawn(&Process::config(free_port(), free_port(), upstream.port(), "", ""));
    // As early as a handler can be expected at all: before the files are read the process has caught its signals.
    eventually("signals are caught", || process.catches(libc::SIGHUP).then_some(()));
    process.signal(libc::SIGHUP);
    process.ready();
    eventually("the early reload is done", || process.log().contains("configuration reloaded").then_some(()));
    process.signal(libc::SIGTERM);
    assert!(process.wait(Duration::from_secs(5)).success());
}

#[test]
fn ready_means_that_there_is_a_server_to_send_to() {
    let port = free_port();
    let process = Process::spawn(&Process::config(free_port(), free_port(), port, "", ""));
    eventually("the first look is over", || process.log().contains("server is down").then_some(()));
    let missing = eventually("only the server is missing", || {
        Some(process.admin("/ready")).filter(|page| !page.contains("first health checks"))
    });
    assert!(
        missing.starts_with("HTTP/1.1 503 ") && missing.contains("upstream django: no server is up yet"),
        "{missing}"
    );
    let _upstream = Upstream::start_on(port);
    process.ready();
    assert!(answer(request(process.front, "/")).contains("hello"));
}

#[test]
fn a_bad_file_changes_nothing_and_both_ways_to_reload_say_why() {
    let upstream = Upstream::start();
    let process = Process::start(&upstream, "", "");
    let good = fs::read_to_string(process.lb()).unwrap();
    fs::write(process.lb(), good.replace("path_prefix", "path_prefex")).unwrap();
    process.signal(libc::SIGHUP);
    eventually("the log says why", || process.log().contains("path_prefex").then_some(()));
    let (code, said) = process.command(&["reload"]);
    assert_eq!(code, 1);
    assert!(said.contains("path_prefex") && said.contains("nothing was changed"), "{said}");
    assert!(answer(request(process.front, "/")).contains("hello"));
    let metrics = process.admin("/metrics");
    assert!(metrics.contains("bookend_config_reloads_total{result=\"rejected\"} 2\n"), "{metrics}");
    assert!(metrics.contains("bookend_config_last_reload_successful 0\n"));
    fs::write(process.lb(), good).unwrap();
    assert_eq!(process.command(&["reload"]), (0, "nothing changed\n".into()));
}

#[test]
fn what_takes_a_restart_is_named_and_keeps_its_running_value() {
    let upstream = Upstream::start();
    let process = Process::start(&upstream, "", "");
    let elsewhere = free_port();
    let text = fs::read_to_string(process.lb()).unwrap();
    fs::write(process.lb(), text.replace(&process.front.to_string(), &elsewhere.to_string())).unwrap();
    let (code, said) = process.command(&["reload"]);
    assert_eq!(code, 0);
    assert!(said.contains("takes a restart: lb.yaml listeners"), "{said}");
    assert!(answer(request(process.front, "/")).contains("hello"));
    assert!(TcpStream::connect(("127.0.0.1", elsewhere)).is_err());
}

#[test]
fn a_stop_waits_for_the_request_in_flight_and_no_longer() {
    let upstream = Upstream::start();
    let mut process = Process::start(&upstream, "", "");
    let slow = request(process.front, "/slow");
    eventually("the request is with its server", || (upstream.held() == 1).then_some(()));
    process.signal(libc::SIGTERM);
    eventually("nothing new is accepted", || TcpStream::connect(("127.0.0.1", process.front)).is_err().then_some(()));
    assert!(process.admin("/ready").contains("shutting down"), "admin still answers");
    assert!(process.is_alive());
    upstream.release();
    assert!(answer(slow).contains("hello"));
    let began = Instant::now();
    assert!(process.wait(Duration::from_secs(5)).success(), "{}", process.log());
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[test]
fn a_second_signal_cuts_at_once() {
    let upstream = Upstream::start();
    let mut process = Process::start(&upstream, "", "");
    let _slow = request(process.front, "/slow");
    eventually("the request is with its server", || (upstream.held() == 1).then_some(()));
    process.signal(libc::SIGTERM);
    eventually("it drains", || process.log().contains("draining").then_some(()));
    process.signal(libc::SIGINT);
    let began = Instant::now();
    assert!(process.wait(Duration::from_secs(5)).success());
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[test]
fn the_grace_period_is_the_longest_it_takes() {
    let upstream = Upstream::start();
    let mut process = Process::start(&upstream, "shutdown: { grace_period: 1s }", "");
    let _slow = request(process.front, "/slow");
    eventually("the request is with its server", || (upstream.held() == 1).then_some(()));
    let began = Instant::now();
    process.signal(libc::SIGTERM);
    process.wait(Duration::from_secs(10));
    assert!((Duration::from_secs(1)..Duration::from_secs(4)).contains(&began.elapsed()), "{:?}", began.elapsed());
}

#[test]
fn readiness_goes_before_the_listeners() {
    let upstream = Upstream::start();
    let mut process = Process::start(&upstream, "shutdown: { pre_stop_delay: 2s }", "");
    assert_eq!(process.command(&["healthcheck"]).0, 0);
    process.signal(libc::SIGTERM);
    eventually("readiness is off", || process.admin("/ready").contains("shutting down").then_some(()));
    assert_eq!(process.command(&["healthcheck"]).0, 1);
    assert!(answer(request(process.front, "/")).contains("hello"), "still served");
    assert!(process.wait(Duration::from_secs(10)).success());
}

#[test]
fn a_drained_server_gets_nothing_new_until_it_is_taken_back() {
    let (one, two) = (Upstream::start(), Upstream::start());
    let second = format!("      - {{ name: web-2, address: 127.0.0.1:{} }}", two.port());
    let process = Process::start(&one, "", &second);
    let (code, said) = process.command(&["drain", "web-1"]);
    assert_eq!((code, said.as_str()), (0, "web-1 gets no new requests; 0 in flight\n"));
    let before = one.requests();
    for _ in 0..10 {
        assert!(answer(request(process.front, "/")).contains("hello"));
    }
    assert_eq!(one.requests(), before);
    assert!(two.requests() >= 10);
    let (code, said) = process.command(&["reload"]);
    assert_eq!((code, said.as_str()), (0, "server django/web-1 gets requests again\n"));
    for _ in 0..10 {
        answer(request(process.front, "/"));
    }
    assert!(one.requests() > before);
    let (code, said) = process.command(&["drain", "web-9"]);
    assert_eq!(code, 1);
    assert!(said.contains("no server is named web-9"), "{said}");
}

#[test]
fn lines_that_still_gather_are_written_before_the_end() {
    let upstream = Upstream::start();
    let mut process = Process::start(&upstream, "", "");
    for _ in 0..3 {
        assert!(answer(request(process.front, "/last")).contains("hello"));
    }
    process.signal(libc::SIGTERM);
    assert!(process.wait(Duration::from_secs(5)).success());
    assert_eq!(process.access_log().lines().filter(|line| line.contains("\"uri\":\"/last\"")).count(), 3);
}

#[test]
fn memory_is_taken_by_the_page_and_not_by_2_mib() {
    let process = Process::start(&Upstream::start(), "", "");
    let status = process.proc("status");
    assert!(status.contains("THP_enabled:\t0\n"), "{status}");
    // What was touched before `main` is small as well.
    let memory = process.proc("smaps_rollup");
    let huge = memory.lines().find(|line| line.starts_with("AnonHugePages:")).unwrap();
    assert_eq!(huge.split_whitespace().nth(1), Some("0"), "{memory}");
}
