use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{http::exchange, *};
use crate::config::lb::CheckKind;
use crate::health::{
    board::{Board, DatabaseState},
    drain,
    ready::Ready,
};
use crate::proxy::upstream::{passive::Limits, warm::WHOLE};

fn settings() -> HealthCheck {
    HealthCheck {
        path: "/health/".into(),
        host: Some("localhost".into()),
        interval: Duration::from_secs(2),
        down_interval: Duration::from_millis(500),
        timeout: Duration::from_secs(1),
        rise: 2,
        fall: 3,
        status: vec![200..=399],
        database: None,
        max_body: 1000,
        ..HealthCheck::default()
    }
}

/// What a check makes of a server that says this and closes.
async fn judged(answer: impl AsRef<[u8]>) -> Outcome {
    let (client, mut server) = tokio::io::duplex(64 * 1024);
    let answer = answer.as_ref().to_vec();
    tokio::spawn(async move { server.write_all(&answer).await });
    exchange(client, b"GET / HTTP/1.1\r\n\r\n", &settings()).await
}

#[tokio::test]
async fn an_answer_that_is_no_http_or_none_is_told_apart() {
    assert_eq!(judged("").await, Outcome::NoConnection);
    assert_eq!(judged("HTTP/1.1 200").await, Outcome::NoConnection);
    assert_eq!(judged("SSH-2.0-OpenSSH_9.2\r\n").await, Outcome::NotHttp);
    assert_eq!(judged("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nab").await, Outcome::NotHttp);
    assert_eq!(judged("HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nab").await, Outcome::NotHttp);
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(100_000));
    assert_eq!(judged(endless).await, Outcome::NotHttp);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_success() {
    for cut in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfour",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfour",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n0\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nfour\r\n",
    ] {
        assert_eq!(judged(cut).await, Outcome::BodyCut(200), "{cut:?}");
    }
}

#[tokio::test]
async fn a_body_longer_than_allowed_is_not_read_to_its_end() {
    let body = "x".repeat(1001);
    for long in [
        "HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n{body}\r\n0\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\n\r\n{body}"),
    ] {
        assert_eq!(judged(&long).await, Outcome::BodyTooLarge(200), "{long:.80}");
    }
}

#[tokio::test]
async fn whole_answers_are_judged_by_their_status() {
    for whole in [
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfour",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nfour",
        "HTTP/1.0 200 OK\r\n\r\nfour",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n4;x=y\r\nfour\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n0\r\nTrailer: x\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ] {
        assert_eq!(judged(whole).await, Outcome::Passed(200), "{whole:?}");
    }
    assert_eq!(judged("HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n").await, Outcome::Passed(204));
    assert_eq!(judged("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n").await, Outcome::Passed(302));
    assert_eq!(judged("HTTP/1.1 503 Down\r\nContent-Length: 2\r\n\r\nno").await, Outcome::WrongStatus(503));
    assert_eq!(judged("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await, Outcome::WrongStatus(400));
}

#[tokio::test]
async fn an_answer_may_come_in_any_pieces() {
    let answer =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n";
    for piece in [1, 2, 3, 7] {
        let (client, mut server) = tokio::io::duplex(piece);
        tokio::spawn(async move {
            let mut request = [0; 10];
            server.read_exact(&mut request).await.unwrap();
            for part in answer.chunks(piece) {
                server.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
            // Stays open: the end is known without it.
            std::future::pending::<()>().await;
        });
        assert_eq!(exchange(client, b"0123456789", &settings()).await, Outcome::Passed(200), "pieces of {piece}");
    }
}

#[test]
fn the_request_names_host_and_program_and_closes() {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 8001));
    let text = |check: &HealthCheck| String::from_utf8(http::request(check, address)).unwrap();
    let request = text(&settings());
    assert!(request.starts_with("GET /health/ HTTP/1.1\r\nHost: localhost\r\n"), "{request}");
    assert!(request.contains("\r\nUser-Agent: bookend-health-check\r\n"), "{request}");
    assert!(request.contains("\r\nConnection: close\r\n"), "{request}");
    assert!(text(&HealthCheck { host: None, ..settings() }).contains("\r\nHost: 127.0.0.1:8001\r\n"));
}

#[test]
fn what_a_look_teaches_depends_on_the_database() {
    let both = |success| Lesson { alive: Some(success), passing: Some(success) };
    for (outcome, serving, down) in [
        (Outcome::Passed(200), both(true), both(true)),
        (
            Outcome::WrongStatus(503),
            Lesson { alive: Some(true), passing: Some(false) },
            Lesson { alive: Some(true), passing: None },
        ),
        (
            Outcome::BodyCut(200),
            Lesson { alive: Some(true), passing: Some(false) },
            Lesson { alive: Some(true), passing: None },
        ),
        (Outcome::TimedOut, both(false), Lesson { alive: None, passing: None }),
        (Outcome::NoConnection, both(false), both(false)),
        (Outcome::NotHttp, both(false), both(false)),
    ] {
        assert_eq!(outcome.lesson(Serving::Up), serving, "{outcome:?}");
        assert_eq!(outcome.lesson(Serving::Unknown), serving, "{outcome:?}");
        assert_eq!(outcome.lesson(Serving::Down), down, "{outcome:?}");
    }
}

fn endpoint(address: SocketAddr) -> Arc<Endpoint> {
    Arc::new(Endpoint::new("up".into(), "web-1".into(), address, Arc::default()))
}

fn around(drain: &Drain) -> Surroundings {
    Surroundings { runtime: tokio::runtime::Handle::current(), drain: drain.clone() }
}

/// A server that answers every connection with `status` and counts them.
async fn server(status: u16) -> (SocketAddr, Arc<AtomicU64>) {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicU64::new(0));
    let seen = connections.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            seen.fetch_add(1, Ordering::Relaxed);
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").as_bytes()).await;
        }
    });
    (address, connections)
}

async fn eventually(what: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !what() {
        assert!(Instant::now() < deadline, "did not happen in time");
        time::sleep(Duration::from_millis(5)).await;
    }
}

fn quick() -> HealthCheck {
    HealthCheck { interval: Duration::from_millis(20), down_interval: Duration::from_millis(10), ..settings() }
}

#[tokio::test]
async fn readiness_waits_for_the_first_look_whatever_it_finds() {
    let (_control, drain) = drain::channel();
    let ready = Ready::default();
    let latch = Arc::new(ready.latch("first health checks"));
    let (up, _) = server(200).await;
    let nobody = {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        listener.local_addr().unwrap()
    };
    let (good, bad) = (endpoint(up), endpoint(nobody));
    for one in [&good, &bad] {
        one.check_by(Plan::new(quick(), None), false, Some(latch.clone()), &around(&drain));
        assert_eq!(one.facts.load().passing, Health::Unproven);
    }
    drop(latch);
    assert!(!ready.is_ready());
    good.checked_once().await;
    bad.checked_once().await;
    eventually(|| ready.is_ready()).await;
    assert_eq!(good.facts.load(), Facts { alive: Health::Up, passing: Health::Up });
    assert_eq!(bad.facts.load(), Facts { alive: Health::Down, passing: Health::Down });
    assert_eq!(bad.last_check().unwrap().outcome, Outcome::NoConnection);
}

#[tokio::test]
async fn a_server_that_answers_503_for_its_database_stays_alive_and_is_not_blamed() {
    let (_control, drain) = drain::channel();
    let board = Board::default();
    board.database("db").publish(Serving::Down, DatabaseState::default());
    let (address, _) = server(503).await;
    let endpoint = endpoint(address);
    endpoint.facts.store(Facts { alive: Health::Up, passing: Health::Up });
    endpoint.check_by(Plan::new(quick(), Some(board.database("db"))), true, None, &around(&drain));
    eventually(|| endpoint.check_counts().1 > 5).await;
    assert_eq!(endpoint.facts.load(), Facts { alive: Health::Up, passing: Health::Up });
    board.database("db").publish(Serving::Up, DatabaseState::default());
    eventually(|| endpoint.facts.load().passing == Health::Down).await;
    assert_eq!(endpoint.facts.load().alive, Health::Up);
}

#[tokio::test]
async fn the_same_plan_keeps_its_task_and_another_keeps_what_is_known() {
    let (_control, drain) = drain::channel();
    let (address, connections) = server(200).await;
    let endpoint = endpoint(address);
    let slow = HealthCheck { interval: Duration::from_secs(600), ..settings() };
    endpoint.check_by(Plan::new(slow.clone(), None), false, None, &around(&drain));
    endpoint.checked_once().await;
    endpoint.check_by(Plan::new(slow.clone(), None), true, None, &around(&drain));
    time::sleep(Duration::from_millis(50)).await;
    assert_eq!(connections.load(Ordering::Relaxed), 1, "the running task was left alone");
    endpoint.check_by(Plan::new(HealthCheck { fall: 9, ..slow }, None), true, None, &around(&drain));
    assert_eq!(endpoint.facts.load().passing, Health::Up);
    eventually(|| connections.load(Ordering::Relaxed) == 2).await;
}

#[tokio::test]
async fn a_server_that_served_unchecked_is_up_until_a_check_says_otherwise() {
    let (_control, drain) = drain::channel();
    let (address, _) = server(500).await;
    let endpoint = endpoint(address);
    endpoint.check_by(Plan::new(quick(), None), true, None, &around(&drain));
    assert_eq!(endpoint.facts.load().passing, Health::Up);
    eventually(|| endpoint.facts.load().passing == Health::Down).await;
    assert!(endpoint.check_counts().1 >= 3, "it took `fall` failures");
}

#[test]
fn a_server_that_its_check_brings_up_again_is_no_longer_ejected_and_begins_slowly() {
    let endpoint = endpoint(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
    let limits = Limits { max_fails: 1, fail_timeout: Duration::from_secs(10) };
    endpoint.checks.state.lock().minds = Some(Minds::new(NonZeroU32::MIN, NonZeroU32::MIN));
    let learn = |outcome| endpoint.learn(outcome, Duration::ZERO, Serving::Up);
    learn(Outcome::Passed(200));
    let now = std::time::Instant::now();
    endpoint.passive.failed(limits, now);
    learn(Outcome::Passed(200));
    assert!(endpoint.passive.ejected(limits, now), "one more good check proves nothing new");
    let share = || endpoint.warmth.share(Duration::from_secs(1000), std::time::Instant::now());
    assert_eq!(share(), WHOLE, "its first check is no coming back");
    learn(Outcome::NoConnection);
    learn(Outcome::Passed(200));
    assert!(!endpoint.passive.ejected(limits, now));
    assert_eq!(share(), WHOLE / 16);
}

#[tokio::test]
async fn checks_end_when_the_process_drains_or_the_server_goes() {
    let (control, drain) = drain::channel();
    let (address, _) = server(200).await;
    let (stays, goes) = (endpoint(address), endpoint(address));
    for one in [&stays, &goes] {
        one.check_by(Plan::new(settings(), None), false, None, &around(&drain));
        one.checked_once().await;
    }
    assert_eq!(drain.in_flight(), 2);
    goes.stop_checks();
    eventually(|| drain.in_flight() == 1).await;
    control.advance(drain::Phase::Draining { deadline: Instant::now() + Duration::from_secs(30) });
    time::timeout(Duration::from_secs(10), drain.idle()).await.unwrap();
}

#[tokio::test]
async fn a_server_that_hangs_is_given_up_after_the_timeout() {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let check = HealthCheck { timeout: Duration::from_millis(50), ..settings() };
    let address = listener.local_addr().unwrap();
    assert_eq!(http::look(address, &http::request(&check, address), &check).await, Outcome::TimedOut);
}

/// What a check that expects something makes of an answer.
async fn expecting(check: HealthCheck, answer: &'static str) -> Outcome {
    let (client, mut server) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move { server.write_all(answer.as_bytes()).await });
    exchange(client, b"GET / HTTP/1.1\r\n\r\n", &check).await
}

#[tokio::test]
async fn a_body_must_have_the_text_that_is_expected_wherever_it_is_cut() {
    let check = HealthCheck { expect_body: Some("all is well".into()), ..settings() };
    for good in [
        "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n<all is well>",
        "HTTP/1.1 200 OK\r\n\r\n<all is well>",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n<all \r\n8\r\nis well>\r\n0\r\n\r\n",
    ] {
        assert_eq!(expecting(check.clone(), good).await, Outcome::Passed(200), "{good}");
    }
    for bad in ["HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell", "HTTP/1.1 204 No Content\r\n\r\n"] {
        let outcome = expecting(check.clone(), bad).await;
        assert!(matches!(outcome, Outcome::WrongBody(_)), "{outcome:?}");
    }
    let wrong = "HTTP/1.1 500 No\r\nContent-Length: 11\r\n\r\nall is well";
    assert_eq!(expecting(check, wrong).await, Outcome::WrongStatus(500));
}

#[tokio::test]
async fn an_answer_must_have_the_headers_that_are_expected() {
    let pair =
        |name: &'static str, value| (::http::HeaderName::from_static(name), ::http::HeaderValue::from_static(value));
    let check = HealthCheck { expect_headers: vec![pair("x-ready", "yes"), pair("x-role", "web")], ..settings() };
    let good = "HTTP/1.1 200 OK\r\nX-Role: web\r\nX-Ready: no\r\nX-READY:  yes \r\nContent-Length: 0\r\n\r\n";
    assert_eq!(expecting(check.clone(), good).await, Outcome::Passed(200));
    let bad = "HTTP/1.1 200 OK\r\nX-Role: web\r\nX-Ready: yes!\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(expecting(check, bad).await, Outcome::WrongHeader(200));
}

#[test]
fn a_check_asks_with_the_headers_of_the_file() {
    let pair =
        |name: &'static str, value| (::http::HeaderName::from_static(name), ::http::HeaderValue::from_static(value));
    let headers = vec![pair("x-forwarded-proto", "https"), pair("user-agent", "probe")];
    let request = http::request(&HealthCheck { headers, ..settings() }, (Ipv4Addr::LOCALHOST, 80).into());
    let expected = "GET /health/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAccept: */*\r\n\
                    x-forwarded-proto: https\r\nuser-agent: probe\r\n\r\n";
    assert_eq!(String::from_utf8(request).unwrap(), expected);
}

#[tokio::test]
async fn by_tcp_a_server_that_accepts_is_well_and_is_asked_nothing() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let check = HealthCheck { kind: CheckKind::Tcp, ..settings() };
    assert_eq!(http::look(address, b"never", &check).await, Outcome::Connected);
    let mut said = Vec::new();
    listener.accept().await.unwrap().0.read_to_end(&mut said).await.unwrap();
    assert_eq!(said, b"");
    drop(listener);
    assert_eq!(http::look(address, b"never", &check).await, Outcome::NoConnection);
}

#[test]
fn a_result_that_speaks_against_what_is_held_is_soon_followed_by_another_look() {
    let seconds = Duration::from_secs;
    let check = HealthCheck { interval: seconds(10), down_interval: seconds(4), ..settings() };
    let fast = HealthCheck { fast_interval: Some(seconds(1)), ..check.clone() };
    for (well, good, plain, quick) in
        [(true, true, 10, 10), (true, false, 10, 1), (false, true, 4, 1), (false, false, 4, 4)]
    {
        assert_eq!(Plan::new(check.clone(), None).pause(well, good), seconds(plain));
        assert_eq!(Plan::new(fast.clone(), None).pause(well, good), seconds(quick), "well={well} good={good}");
    }
}

#[tokio::test]
async fn a_server_that_is_up_to_begin_with_serves_before_its_first_check() {
    let (_control, drain) = drain::channel();
    let around = Surroundings { runtime: tokio::runtime::Handle::current(), drain };
    for (initially_up, expected) in [(false, Health::Unproven), (true, Health::Up)] {
        let address = (Ipv4Addr::LOCALHOST, 1).into();
        let server = Arc::new(Endpoint::new("up".into(), "web-1".into(), address, Arc::default()));
        server.check_by(Plan::new(HealthCheck { initially_up, ..settings() }, None), false, None, &around);
        assert_eq!(server.facts().passing, expected);
    }
}
