use std::{
    net::{IpAddr, Ipv4Addr},
    sync::mpsc,
    time::{SystemTime, UNIX_EPOCH},
};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn line() -> Line<'static> {
    Line {
        time: UNIX_EPOCH + Duration::from_millis(1_795_442_952_345),
        request_id: "id-1",
        client: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        method: "GET",
        host: Some(b"a.example"),
        uri: b"/items/?page=2",
        protocol: "HTTP/1.1",
        route: Some("/"),
        upstream: Some("django"),
        server: Some(("web-1", "127.0.0.1:8001".parse().unwrap())),
        attempts: 2,
        status: 200,
        bytes_in: 3,
        bytes_out: 1234,
        total: Duration::from_micros(12_345),
        queued: Some(Duration::from_millis(3)),
        connect: Some(Duration::from_micros(210)),
        first_byte: Some(Duration::from_millis(1007)),
        reason: None,
        user_agent: Some(b"curl/8"),
        referer: None,
        websocket: false,
    }
}

fn parsed(line: &Line<'_>) -> Value {
    let mut out = Vec::new();
    line.write(&mut out);
    assert_eq!(out.iter().filter(|&&byte| byte == b'\n').count(), 1);
    assert_eq!(out.last(), Some(&b'\n'));
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn a_line_says_everything_once() {
    assert_eq!(
        parsed(&line()),
        json!({
            "time": "2026-11-23T14:09:12.345Z", "request_id": "id-1", "client": "192.0.2.1", "method": "GET",
            "host": "a.example", "uri": "/items/?page=2", "protocol": "HTTP/1.1", "status": 200, "route": "/",
            "upstream": "django", "server": "web-1", "server_address": "127.0.0.1:8001", "attempts": 2, "bytes_in": 3,
            "bytes_out": 1234, "total_seconds": 0.012345, "queue_seconds": 0.003, "connect_seconds": 0.000210, "first_byte_seconds": 1.007,
            "user_agent": "curl/8"
        })
    );
}

#[test]
fn a_websocket_and_a_reason_are_said_when_there_are_any() {
    let value = parsed(&Line { websocket: true, reason: Some("client_gone"), ..line() });
    assert_eq!(value["websocket"], true);
    assert_eq!(value["reason"], "client_gone");
    assert!(parsed(&line()).get("websocket").is_none());
}

#[test]
fn what_a_client_sent_cannot_leave_its_field() {
    let evil = b"x\",\"status\":500,\"y\":\"\\\n\r\t\x00\x1b[2J\x7f\xc2\x9b2J\xff\xc3";
    let value = parsed(&Line { uri: evil, host: Some(evil), user_agent: Some(evil), referer: Some(evil), ..line() });
    assert_eq!(value["status"], 200);
    let mut out = Vec::new();
    Line { uri: evil, ..line() }.write(&mut out);
    let text = String::from_utf8(out).unwrap();
    assert!(!text.trim_end().contains(char::is_control), "{text:?}");
    assert!(value["uri"].as_str().unwrap().ends_with("\\xff\\xc3"), "{value}");
}

#[test]
fn long_texts_are_cut() {
    let long = vec![b'a'; 100_000];
    let value = parsed(&Line { uri: &long, user_agent: Some(&long), ..line() });
    assert_eq!(value["uri"].as_str().unwrap().chars().count(), 4097);
    assert_eq!(value["user_agent"].as_str().unwrap().chars().count(), 1025);
}

#[test]
fn dates_are_right_around_leap_days() {
    for (seconds, expected) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_399, "2000-02-28T23:59:59.000Z"),
        (951_782_400, "2000-02-29T00:00:00.000Z"),
        (951_868_800, "2000-03-01T00:00:00.000Z"),
        (1_709_164_800, "2024-02-29T00:00:00.000Z"),
        (1_767_225_599, "2025-12-31T23:59:59.000Z"),
        (4_107_542_400, "2100-03-01T00:00:00.000Z"),
    ] {
        let value = parsed(&Line { time: UNIX_EPOCH + Duration::from_secs(seconds), ..line() });
        assert_eq!(value["time"], expected);
    }
    assert_eq!(
        parsed(&Line { time: SystemTime::UNIX_EPOCH - Duration::from_secs(9), ..line() })["time"],
        "1970-01-01T00:00:00.000Z"
    );
}

proptest! {
    #[test]
    fn any_bytes_make_one_valid_line(uri: Vec<u8>, agent: Vec<u8>) {
        parsed(&Line { uri: &uri, user_agent: Some(&agent), ..line() });
    }

    #[test]
    fn text_comes_back_as_it_was(text in "\\PC{0,100}") {
        let value = parsed(&Line { uri: text.as_bytes(), ..line() });
        prop_assert_eq!(value["uri"].as_str().unwrap(), text);
    }
}

/// Passes each write on, and waits for permission before it returns.
struct Output {
    written: mpsc::Sender<Vec<u8>>,
    permits: mpsc::Receiver<io::Result<()>>,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.written.send(bytes.to_vec());
        self.permits.recv().unwrap_or(Ok(())).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Bench {
    log: AccessLog,
    written: mpsc::Receiver<Vec<u8>>,
    permits: mpsc::Sender<io::Result<()>>,
    dropped: IntCounter,
}

fn bench(lines_max: usize) -> Bench {
    let (written_sender, written) = mpsc::channel();
    let (permits, permits_receiver) = mpsc::channel();
    let dropped = IntCounter::new("dropped", "for the test").unwrap();
    let out = Output { written: written_sender, permits: permits_receiver };
    Bench { log: AccessLog::start(out, lines_max, dropped.clone()).unwrap(), written, permits, dropped }
}

fn count(batch: &[u8]) -> usize {
    batch.iter().filter(|&&byte| byte == b'\n').count()
}

const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn a_blocked_output_delays_nobody_and_drops_what_is_too_much() {
    let bench = bench(5);
    bench.log.write(&line());
    assert_eq!(count(&bench.written.recv_timeout(PATIENCE).unwrap()), 1);
    // The writer hangs in its write from here on.
    for _ in 0..8 {
        bench.log.write(&line());
    }
    assert_eq!(bench.dropped.get(), 3);
    bench.permits.send(Ok(())).unwrap();
    assert_eq!(count(&bench.written.recv_timeout(PATIENCE).unwrap()), 5, "what waited is written at once");
    drop(bench.permits);
    assert!(bench.log.close(PATIENCE));
}

#[test]
fn closing_waits_for_the_last_line_but_not_for_ever() {
    let bench = bench(5);
    bench.log.write(&line());
    bench.written.recv_timeout(PATIENCE).unwrap();
    assert!(!bench.log.close(Duration::from_millis(20)), "the output is blocked");
    bench.permits.send(Ok(())).unwrap();
    assert!(bench.log.close(PATIENCE));
    bench.log.write(&line());
    assert_eq!(bench.dropped.get(), 1, "a line after the end is counted");
}

#[test]
fn an_output_nobody_reads_costs_the_lines_and_nothing_else() {
    let bench = bench(5);
    for _ in 0..2 {
        bench.permits.send(Err(io::ErrorKind::BrokenPipe.into())).unwrap();
        bench.log.write(&line());
        bench.written.recv_timeout(PATIENCE).unwrap();
    }
    assert!(bench.log.close(PATIENCE));
    assert_eq!(bench.dropped.get(), 2);
}

#[test]
fn only_the_first_line_after_a_rest_wakes_the_writer() {
    let mut waiting = Waiting::default();
    assert!(waiting.add(b"1\n", 1000), "it rests");
    assert!(!waiting.add(b"2\n", 1000), "it is on its way");
    waiting.writer = Writer::Gathers;
    for _ in 2..499 {
        assert!(!waiting.add(b"x\n", 1000), "it has a timer");
    }
    assert!(waiting.add(b"500\n", 1000), "half of what may wait is enough");
    assert!(!waiting.add(b"501\n", 1000), "and said once");
    waiting.writer = Writer::Gathers;
    assert!(waiting.add(&vec![b'x'; BYTES_ENOUGH], usize::MAX), "so are the bytes of one write");
    assert!(Waiting { closed: true, ..Waiting::default() }.is_enough(1000), "at the end nothing gathers");
}

#[test]
fn half_of_what_may_wait_is_written_without_waiting_for_more() {
    let bench = bench(2);
    // One line of two: were it left to gather, a burst would find half of the room.
    let begun = Instant::now();
    for _ in 0..5 {
        bench.permits.send(Ok(())).unwrap();
        bench.log.write(&line());
        bench.written.recv_timeout(PATIENCE).unwrap();
    }
    assert!(begun.elapsed() < 5 * GATHER, "{:?}", begun.elapsed());
}

#[test]
fn closing_writes_the_lines_that_still_gather() {
    let bench = bench(1_000_000);
    drop(bench.permits);
    for _ in 0..3 {
        bench.log.write(&line());
    }
    assert!(bench.log.close(PATIENCE));
    assert_eq!(bench.written.try_iter().map(|batch| count(&batch)).sum::<usize>(), 3);
    assert!(bench.log.close(Duration::ZERO), "it stays written");
}

#[test]
fn lines_of_many_threads_are_all_written_and_whole_and_each_threads_in_order() {
    const LINES: u64 = 2_000;
    let bench = bench(1_000_000);
    drop(bench.permits);
    thread::scope(|scope| {
        for server in ["a", "b", "c"] {
            let log = &bench.log;
            scope.spawn(move || {
                for number in 0..LINES {
                    log.write(&Line { method: server, bytes_in: number, ..line() });
                }
            });
        }
    });
    assert!(bench.log.close(PATIENCE));
    let written = bench.written.try_iter().collect::<Vec<_>>().concat();
    let lines: Vec<Value> =
        written.split_inclusive(|&byte| byte == b'\n').map(|line| serde_json::from_slice(line).unwrap()).collect();
    for server in ["a", "b", "c"] {
        let numbers =
            lines.iter().filter(|line| line["method"] == server).map(|line| line["bytes_in"].as_u64().unwrap());
        assert!(numbers.eq(0..LINES));
    }
    assert_eq!(bench.dropped.get(), 0);
}

/// Takes a few bytes at a time, and every other time none yet.
struct Narrow {
    taken: Vec<u8>,
    full: bool,
}

impl Write for Narrow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.full = !self.full;
        if self.full {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let some = bytes.len().min(7);
        self.taken.extend_from_slice(&bytes[..some]);
        Ok(some)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.full = !self.full;
        if self.full { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    }
}

#[test]
fn an_output_that_is_full_for_a_moment_gets_every_line_whole() {
    let mut narrow = Narrow { taken: Vec::new(), full: false };
    write_whole(&mut narrow, b"a line of the log\nanother\n").unwrap();
    assert_eq!(narrow.taken, b"a line of the log\nanother\n");
}

/// Says which thread writes.
struct WhoWrites(mpsc::Sender<String>);

impl Write for WhoWrites {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let thread = std::fs::read_link("/proc/thread-self").unwrap();
        let _ = self.0.send(format!("/proc/{}/status", thread.display()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn while_nothing_is_logged_the_writer_sleeps() {
    let (sender, receiver) = mpsc::channel();
    let log = AccessLog::start(WhoWrites(sender), 100, IntCounter::new("dropped", "for the test").unwrap()).unwrap();
    log.write(&line());
    let status = receiver.recv_timeout(PATIENCE).unwrap();
    while !log.shared.waiting.lock().is_written() {
        thread::yield_now();
    }
    let switches = || {
        let text = std::fs::read_to_string(&status).unwrap();
        let line = text.lines().find(|line| line.starts_with("voluntary_ctxt_switches:")).unwrap().to_owned();
        line.split_whitespace().last().unwrap().parse::<u64>().unwrap()
    };
    let begun = switches();
    thread::sleep(4 * GATHER);
    // One is its falling asleep.
    assert!(switches() <= begun + 1);
    assert!(log.close(PATIENCE));
}
