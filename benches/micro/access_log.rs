//! A line of the access log: formatted, and handed to the log.

use std::{
    hint::black_box,
    io,
    time::{Duration, UNIX_EPOCH},
};

use bookend::{
    proxy::{
        access_log::{AccessLog, Line},
        metrics::Metrics,
    },
    telemetry::metrics::Registry,
};
use criterion::Criterion;

fn line() -> Line<'static> {
    Line {
        time: UNIX_EPOCH + Duration::from_millis(1_795_442_952_345),
        request_id: "4bf92f3577b34da6a3ce929d0e0e4736",
        client: "203.0.113.77".parse().unwrap(),
        method: "GET",
        host: Some(b"shop.example.com"),
        uri: b"/items/?page=2&order=-created",
        protocol: "HTTP/1.1",
        route: Some("/"),
        upstream: Some("django"),
        server: Some(("web-1", "127.0.0.1:8001".parse().unwrap())),
        attempts: 1,
        status: 200,
        bytes_in: 0,
        bytes_out: 18_234,
        total: Duration::from_micros(12_345),
        queued: None,
        connect: None,
        first_byte: Some(Duration::from_micros(11_872)),
        reason: None,
        user_agent: Some(b"Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"),
        referer: Some(b"https://shop.example.com/items/"),
        websocket: false,
    }
}

pub fn benches(criterion: &mut Criterion) {
    let escaped = Line { uri: "/suche/?q=\"Käse\"".as_bytes(), user_agent: Some(b"a\xffb\\c\x1b"), ..line() };
    for (name, line) in [("plain", line()), ("escaped", escaped)] {
        let mut out = Vec::with_capacity(4096);
        criterion.bench_function(&format!("access_log/format/{name}"), |bencher| {
            bencher.iter(|| {
                out.clear();
                black_box(&line).write(&mut out);
                out.len()
            });
        });
    }
    // The writer's thread runs beside it and its output costs nothing. Lines are dropped when it does not keep up, which is
    // the log's bound at work; the queue is made long enough that a sample of the benchmark does not reach it.
    let metrics = Metrics::register(&Registry::new()).unwrap();
    let log = AccessLog::start(io::sink(), 1 << 24, metrics.access_log_dropped().clone()).unwrap();
    let line = line();
    criterion.bench_function("access_log/write", |bencher| bencher.iter(|| log.write(black_box(&line))));
    assert!(log.close(Duration::from_secs(10)));
    assert_eq!(metrics.access_log_dropped().get(), 0);
}
