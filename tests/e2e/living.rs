//! SIGHUP and SIGTERM under load.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use tokio_tungstenite::{connect_async, tungstenite::Message};

use crate::support::{
    Deployment,
    bookend::Settings,
    eventually,
    load::{Load, get},
    python::client,
    turn,
};

#[test]
fn a_reload_under_load_is_noticed_by_nobody() {
    let _turn = turn();
    let deployment = Deployment::start();
    let bookend = &deployment.bookend;
    let load = Load::start(20, &bookend.url("/api/items/2/"));
    let dsn = deployment.stack.postgres.dsn(bookend.pool_port);
    let transactions = std::thread::spawn(move || client("restart.py", &[&dsn, "10", "6"]));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (mut socket, _) =
        runtime.block_on(connect_async(format!("ws://127.0.0.1:{}/ws/feed/", bookend.front_port))).unwrap();
    let original = bookend.file("lb.yaml");
    for round in 0..4 {
        let extra = format!("  - {{ path: /round-{round}/, upstream: django }}\n");
        bookend.write_file("lb.yaml", &(original.clone() + &extra));
        bookend.signal(libc::SIGHUP);
        let applied = format!("bookend_config_reloads_total{{result=\"applied\"}} {}", round + 1);
        eventually("the reload is applied", Duration::from_secs(5), || {
            get(&bookend.admin("/metrics"))?.text().contains(&applied).then_some(())
        });
        let message = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(5), socket.next()).await });
        assert!(matches!(message, Ok(Some(Ok(Message::Text(_))))), "the WebSocket goes on: {message:?}");
    }
    let tally = load.finish();
    assert_eq!(tally.failures(), Vec::<String>::new());
    let seen = transactions.join().unwrap();
    assert_eq!(
        (&seen["open_failed"], &seen["wrong"], &seen["idle_clients_disturbed"]),
        (&0.into(), &0.into(), &0.into()),
        "{seen}"
    );
}

#[test]
fn a_bad_file_changes_nothing_and_says_where_it_is_wrong() {
    let _turn = turn();
    let deployment = Deployment::start();
    let bookend = &deployment.bookend;
    bookend.write_file("lb.yaml", &bookend.file("lb.yaml").replace("balance: round_robin", "balance: round_robbin"));
    bookend.signal(libc::SIGHUP);
    let log = eventually("the error is logged", Duration::from_secs(5), || {
        let log = bookend.log();
        log.contains("round_robbin").then_some(log)
    });
    assert!(log.contains("lb.yaml:8:14: upstreams.django.balance"), "file, line, column and key: {log}");
    assert_eq!(get(&bookend.url("/api/items/1/")).unwrap().status, 200);
    let metrics = get(&bookend.admin("/metrics")).unwrap().text();
    assert!(
        metrics.lines().any(|line| line.starts_with("bookend_config_reloads_total{")
            && line.contains("rejected")
            && line.ends_with(" 1")),
        "{metrics}"
    );
}

#[test]
fn a_stop_finishes_what_is_in_flight_says_goodbye_to_websockets_and_leaves_early() {
    let _turn = turn();
    let settings = Settings { grace_period: "8s", ..Settings::default() };
    let mut deployment = Deployment::with(&settings);
    let slow = deployment.bookend.url("/api/slow/?seconds=2");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let url = format!("ws://127.0.0.1:{}/ws/echo/", deployment.bookend.front_port);
    let (mut socket, _) = runtime.block_on(connect_async(url)).unwrap();
    let in_flight = std::thread::spawn(move || get(&slow));
    eventually("the slow request holds a server", Duration::from_secs(5), || {
        let page = get(&deployment.bookend.admin("/db/connections/"))?.json();
        (page["connections"]["default"]["active_connections"].as_u64()? >= 1).then_some(())
    });
    let began = Instant::now();
    deployment.bookend.signal(libc::SIGTERM);
    let goodbye = runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(9), async {
            while let Some(message) = socket.next().await {
                if let Ok(Message::Close(frame)) = message {
                    return frame;
                }
            }
            None
        })
        .await
    });
    assert_eq!(u16::from(goodbye.unwrap().expect("a close frame with a code").code), 1001);
    drop(socket);
    let answer = in_flight.join().unwrap().expect("the request in flight is answered");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let status = deployment.bookend.wait_exit(Duration::from_secs(10));
    assert!(status.success(), "{status}: {}", deployment.bookend.log());
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_stop_under_load_answers_every_request_it_took() {
    let _turn = turn();
    let mut deployment = Deployment::start();
    let load = Load::start(20, &deployment.bookend.url("/api/items/3/"));
    eventually("the load runs", Duration::from_secs(20), || (load.good() > 300).then_some(()));
    let dsn = deployment.stack.postgres.dsn(deployment.bookend.pool_port);
    let transactions = std::thread::spawn(move || client("leaving.py", &[&dsn, "20"]));
    std::thread::sleep(Duration::from_secs(2));
    deployment.bookend.signal(libc::SIGTERM);
    assert!(deployment.bookend.wait_exit(Duration::from_secs(12)).success(), "{}", deployment.bookend.log());
    let tally = load.finish();
    // After the listener has closed a client is refused; what was taken before is answered whole.
    let failures: Vec<_> = tally.failures().into_iter().filter(|failure| failure != "no answer").collect();
    assert_eq!(failures, Vec::<String>::new());
    let answered = deployment.bookend.access_log().lines().filter(|line| line.contains("\"status\":200")).count();
    assert!(u64::try_from(answered).unwrap() >= tally.good.load(std::sync::atomic::Ordering::Relaxed));
    let seen = transactions.join().unwrap();
    assert_eq!(seen["cut_in_transaction"], 0, "{seen}");
    assert!(seen["good"].as_u64().unwrap() > 50, "{seen}");
    assert_eq!(seen["told"], 20, "each client is told 57P01: {seen}");
}

#[test]
fn a_stop_with_nothing_in_flight_is_quick_and_frees_the_ports() {
    let _turn = turn();
    let mut deployment = Deployment::start();
    let front = deployment.bookend.front_port;
    let mut idle = TcpStream::connect(("127.0.0.1", front)).unwrap();
    idle.write_all(b"GET /nodb/ HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut chunk = [0; 4096];
    assert!(idle.read(&mut chunk).unwrap() > 0);
    let began = Instant::now();
    deployment.bookend.signal(libc::SIGTERM);
    assert!(deployment.bookend.wait_exit(Duration::from_secs(5)).success());
    // Django's persistent connections on the pool are idle: they are told to go, not waited for.
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert!(TcpStream::connect(("127.0.0.1", front)).is_err());
}
