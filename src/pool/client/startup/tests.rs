use std::time::Duration;

use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::Instant,
};

use super::{Encryption, First, Replication, StartupRequest, options, packet, read_first};
use crate::pool::{
    client::{deadline::LoginDeadline, refuse::refuse},
    error::PoolError,
    wire::{frame, frontend, read::code},
};

const LIMIT: Duration = Duration::from_secs(60);

fn deadline() -> LoginDeadline {
    LoginDeadline::new(Instant::now(), LIMIT)
}

fn startup(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write_untagged(&mut out, |out| {
        out.extend_from_slice(&version.to_be_bytes());
        for (name, value) in parameters {
            frame::put_cstr(out, name.as_bytes());
            frame::put_cstr(out, value.as_bytes());
        }
        out.push(0);
    });
    out
}

fn special(code: u32) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write_untagged(&mut out, |out| out.extend_from_slice(&code.to_be_bytes()));
    out
}

fn request(parameters: &[(&str, &str)]) -> Result<StartupRequest, PoolError> {
    request_ignoring(parameters, &[])
}

fn request_ignoring(parameters: &[(&str, &str)], ignored: &[String]) -> Result<StartupRequest, PoolError> {
    match packet::parse(&startup(code::PROTOCOL_3_0, parameters)[4..], ignored)? {
        packet::Packet::Startup { request, negotiate: None } => Ok(request),
        other => panic!("{other:?}"),
    }
}

/// Sends `bytes`, closes, and returns what the reader made of it and what it answered.
async fn feed(bytes: &[u8]) -> (Result<First, PoolError>, Vec<u8>) {
    let (mut client, mut server) = duplex(64 * 1024);
    client.write_all(bytes).await.unwrap();
    client.shutdown().await.unwrap();
    let first = read_first(&mut server, &[], Encryption::Unavailable, deadline()).await;
    drop(server);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    (first, answer)
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect()
}

// --- what must be refused ---

#[tokio::test]
async fn an_impossible_length_is_refused_before_anything_grows() {
    for len in [0u32, 4, 7, 10_001, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] {
        let (first, _) = feed(&len.to_be_bytes()).await;
        assert!(matches!(first, Err(PoolError::StartupPacket { .. })), "{len}: {first:?}");
    }
}

#[tokio::test]
async fn garbage_is_refused() {
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\xff\xff\xff\xff\xff\xff\xff\xff", b"SSH-2.0-OpenSSH_9.2\r\n"] {
        let (first, _) = feed(garbage).await;
        assert!(matches!(first, Err(PoolError::StartupPacket { .. })), "{first:?}");
    }
}

#[tokio::test]
async fn a_packet_sent_by_half_and_then_closed_is_a_client_that_left() {
    let whole = startup(code::PROTOCOL_3_0, &[("user", "ann"), ("database", "shop")]);
    for cut in 0..whole.len() {
        let (first, answer) = feed(&whole[..cut]).await;
        assert_eq!(first, Err(PoolError::ClientGone), "cut at {cut}");
        assert!(answer.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_sends_a_byte_now_and_then_does_not_outlast_client_login_timeout() {
    let (mut client, mut server) = duplex(1024);
    let whole = startup(code::PROTOCOL_3_0, &[("user", "ann")]);
    let begin = Instant::now();
    let slow = tokio::spawn(async move {
        for byte in whole {
            tokio::time::sleep(Duration::from_secs(9)).await;
            if client.write_all(&[byte]).await.is_err() {
                break;
            }
        }
    });
    let first = read_first(&mut server, &[], Encryption::Unavailable, deadline()).await;
    assert_eq!(first, Err(PoolError::LoginTimeout { limit: LIMIT }));
    assert_eq!(begin.elapsed(), LIMIT);
    slow.abort();
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_does_not_outlast_client_login_timeout() {
    let (_client, mut server) = duplex(1024);
    assert_eq!(
        read_first(&mut server, &[], Encryption::Unavailable, deadline()).await,
        Err(PoolError::LoginTimeout { limit: LIMIT })
    );
}

#[tokio::test]
async fn bytes_behind_an_encryption_request_are_refused_and_never_used() {
    for kind in [code::SSL_REQUEST, code::GSSENC_REQUEST] {
        let injected = [special(kind), startup(code::PROTOCOL_3_0, &[("user", "mallory")])].concat();
        let (first, answer) = feed(&injected).await;
        assert_eq!(first, Err(PoolError::EarlyData));
        assert!(answer.is_empty(), "nothing is answered");
    }
}

#[tokio::test]
async fn bytes_inside_an_encryption_request_are_refused() {
    let mut out = Vec::new();
    frame::write_untagged(&mut out, |out| {
        out.extend_from_slice(&code::SSL_REQUEST.to_be_bytes());
        out.push(1);
    });
    assert_eq!(feed(&out).await.0, Err(PoolError::EarlyData));
}

async fn ask(client: &mut DuplexStream, kind: u32) -> Option<u8> {
    client.write_all(&special(kind)).await.ok()?;
    client.read_u8().await.ok()
}

#[tokio::test]
async fn encryption_may_be_asked_for_once_of_each_kind() {
    for (asked, again) in [
        (vec![code::SSL_REQUEST], code::SSL_REQUEST),
        (vec![code::GSSENC_REQUEST], code::GSSENC_REQUEST),
        (vec![code::GSSENC_REQUEST, code::SSL_REQUEST], code::GSSENC_REQUEST),
        (vec![code::SSL_REQUEST, code::GSSENC_REQUEST], code::SSL_REQUEST),
    ] {
        let (mut client, mut server) = duplex(1024);
        let reader =
            tokio::spawn(async move { read_first(&mut server, &[], Encryption::Unavailable, deadline()).await });
        for kind in asked {
            assert_eq!(ask(&mut client, kind).await, Some(b'N'));
        }
        assert_eq!(ask(&mut client, again).await, None);
        assert!(matches!(reader.await.unwrap(), Err(PoolError::StartupPacket { .. })));
    }
}

#[tokio::test]
async fn a_client_may_go_on_without_encryption() {
    let (mut client, mut server) = duplex(1024);
    let reader = tokio::spawn(async move { read_first(&mut server, &[], Encryption::Unavailable, deadline()).await });
    assert_eq!(ask(&mut client, code::GSSENC_REQUEST).await, Some(b'N'));
    assert_eq!(ask(&mut client, code::SSL_REQUEST).await, Some(b'N'));
    client.write_all(&startup(code::PROTOCOL_3_0, &[("user", "ann")])).await.unwrap();
    let Ok(First::Startup(request)) = reader.await.unwrap() else { panic!("no startup") };
    assert_eq!((request.user.as_str(), request.database.as_str()), ("ann", "ann"));
}

#[tokio::test]
async fn tls_without_asking_is_closed_with_an_alert() {
    let (first, answer) = feed(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await;
    assert_eq!(first, Err(PoolError::DirectTls));
    assert_eq!(answer, b"\x15\x03\x01\x00\x02\x02\x28");
}

#[tokio::test]
async fn another_major_protocol_is_refused_in_words() {
    for (version, sent) in [(2 << 16, "2.0"), (4 << 16, "4.0"), ((1234 << 16) | 5681, "1234.5681")] {
        let (first, _) = feed(&startup(version, &[("user", "ann")])).await;
        let error = first.unwrap_err();
        assert_eq!(error.sqlstate(), "0A000");
        assert!(error.message().contains(sent), "{error}");
    }
}

#[test]
fn a_login_without_a_user_is_refused() {
    assert_eq!(request(&[("database", "shop")]), Err(PoolError::NoUserName));
    assert_eq!(request(&[("user", ""), ("database", "shop")]), Err(PoolError::NoUserName));
    assert_eq!(PoolError::NoUserName.sqlstate(), "28000");
}

#[test]
fn names_are_bounded() {
    let long = "n".repeat(64);
    assert!(matches!(request(&[("user", &long)]), Err(PoolError::StartupPacket { .. })));
    assert!(matches!(request(&[("user", "ann"), ("database", &long)]), Err(PoolError::StartupPacket { .. })));
    assert!(request(&[("user", &long[..63])]).is_ok());
}

#[test]
fn what_is_not_utf8_or_not_ended_is_refused() {
    let body = |tail: &[u8]| [&code::PROTOCOL_3_0.to_be_bytes()[..], tail].concat();
    for tail in [
        &b"user\0\xff\xfe\0\0"[..],
        b"user\0ann\0",
        b"user\0ann",
        b"user\0",
        b"user",
        b"",
        b"user\0ann\0\0more",
        b"\0x",
    ] {
        assert!(matches!(packet::parse(&body(tail), &[]), Err(PoolError::StartupPacket { .. })), "{tail:?}");
    }
}

#[test]
fn replication_is_a_database_or_a_boolean_as_postgresql_reads_one() {
    let read = |value: &str| request(&[("user", "ann"), ("replication", value)]).map(|request| request.replication);
    assert_eq!(read("database"), Ok(Some(Replication::Logical)));
    for value in ["true", "on", "1", "T", "yes", "y"] {
        assert_eq!(read(value), Ok(Some(Replication::Physical)), "{value}");
    }
    for value in ["false", "off", "of", "0", "n"] {
        assert_eq!(read(value), Ok(None), "{value}");
    }
    for value in ["maybe", "", "o", "2", "truer", "data"] {
        assert_eq!(read(value), Err(PoolError::Replication), "{value}");
    }
}

#[test]
fn a_name_that_cannot_be_a_setting_is_refused_and_repeated_without_control_bytes() {
    for name in ["a b", "1a", "a;drop", "a.", ".a", "a..b", "a'b", "ä", "a\nb"] {
        let error = request(&[("user", "ann"), (name, "x")]).unwrap_err();
        assert!(matches!(error, PoolError::StartupParameter { .. }), "{name}");
        assert!(!error.message().contains('\n'));
    }
}

// --- what must be understood ---

#[tokio::test]
async fn a_cancel_request_is_returned_and_not_answered() {
    for key in [vec![1, 2, 3, 4], vec![7; 32], vec![9; 256]] {
        let mut out = Vec::new();
        frontend::cancel_request(&mut out, -5, &key);
        let (first, answer) = feed(&out).await;
        assert_eq!(first, Ok(First::Cancel { pid: -5, secret: key.into() }));
        assert!(answer.is_empty());
    }
}

#[tokio::test]
async fn a_cancel_request_with_no_key_or_too_long_a_one_is_not_answered_either() {
    for (secret, left) in [(vec![], 0), (vec![1; 3], 3), (vec![1; 257], 0)] {
        let mut out = Vec::new();
        frontend::cancel_request(&mut out, 5, &secret);
        let (first, answer) = feed(&out).await;
        assert!(matches!(first, Ok(First::Cancel { secret, .. }) if secret.len() == left), "{left}");
        assert!(answer.is_empty());
    }
    let (first, answer) = feed(&special(code::CANCEL_REQUEST)).await;
    assert!(matches!(first, Ok(First::Cancel { pid: 0, .. })));
    assert!(answer.is_empty());
}

#[tokio::test]
async fn a_newer_minor_version_or_an_unknown_protocol_option_is_negotiated_once() {
    let (first, answer) = feed(&startup(code::PROTOCOL_3_2 + 1, &[("user", "ann")])).await;
    assert!(matches!(first, Ok(First::Startup(request)) if request.minor == 2));
    assert_eq!(answer, b"v\0\0\0\x0c\0\x03\0\x02\0\0\0\0");

    // What libpq 18 and newer probe with.
    let grease = (3 << 16) | 9999;
    let (first, answer) = feed(&startup(grease, &[("_pq_.x", "1"), ("user", "ann"), ("_pq_.y", "")])).await;
    let Ok(First::Startup(request)) = first else { panic!("{first:?}") };
    assert!(request.params.is_empty());
    assert_eq!(answer, b"v\0\0\0\x1a\0\x03\0\x02\0\0\0\x02_pq_.x\0_pq_.y\0");

    // An option alone does not make the protocol any newer than was asked for.
    let (first, answer) = feed(&startup(code::PROTOCOL_3_0, &[("_pq_.x", "1"), ("user", "ann")])).await;
    assert!(matches!(first, Ok(First::Startup(request)) if request.minor == 0));
    assert_eq!(answer, b"v\0\0\0\x13\0\x03\0\0\0\0\0\x01_pq_.x\0");
}

#[tokio::test]
async fn protocol_3_0_and_3_2_need_no_negotiation() {
    for minor in [0, 1, 2] {
        let (first, answer) = feed(&startup(code::PROTOCOL_3_0 + minor, &[("user", "ann")])).await;
        assert!(matches!(first, Ok(First::Startup(request)) if request.minor == minor), "{minor}");
        assert!(answer.is_empty(), "{minor}");
    }
}

#[tokio::test]
async fn settings_are_kept_in_the_order_postgresql_applies_them() {
    let (first, answer) = feed(&startup(
        code::PROTOCOL_3_0,
        &[
            ("user", "ann"),
            ("database", "shop"),
            ("application_name", "web"),
            ("options", "-c statement_timeout=5s --DateStyle=ISO"),
            ("Statement_Timeout", "9s"),
        ],
    ))
    .await;
    assert!(answer.is_empty());
    let Ok(First::Startup(request)) = first else { panic!("{first:?}") };
    assert_eq!(request.params, pairs(&[("application_name", "web"), ("Statement_Timeout", "9s")]));
    assert_eq!(request.options, pairs(&[("statement_timeout", "5s"), ("DateStyle", "ISO")]));
    assert_eq!(request.setting("statement_timeout"), Some("9s"));
    assert_eq!(request.setting("datestyle"), Some("ISO"));
    assert_eq!(request.database, "shop");
}

#[test]
fn keys_and_values_of_settings_do_not_print() {
    let request = request(&[("user", "ann"), ("app.token", "hunter2"), ("options", "-c app.key=hunter2")]).unwrap();
    let shown = format!("{:?} {:?}", First::Startup(request), First::Cancel { pid: 1, secret: [77; 4].into() });
    assert!(shown.contains("app.token") && !shown.contains("hunter2") && !shown.contains("77"), "{shown}");
}

#[test]
fn ignored_parameters_are_dropped_wherever_they_stand() {
    let ignored = ["extra_float_digits".to_owned(), "replication".to_owned()];
    let sent = [
        ("user", "ann"),
        ("Extra_Float_Digits", "2"),
        ("replication", "database"),
        ("options", "-c extra_float_digits=3 -c a=b"),
    ];
    let request = request_ignoring(&sent, &ignored).unwrap();
    assert!(request.params.is_empty());
    assert_eq!(request.options, pairs(&[("a", "b")]));
}

#[test]
fn options_are_split_as_postgresql_splits_them() {
    for (text, expected) in [
        ("", vec![]),
        ("  \t ", vec![]),
        ("-c a=b", vec![("a", "b")]),
        ("-ca=b", vec![("a", "b")]),
        ("--a-b=c", vec![("a_b", "c")]),
        (r"-c search_path=a,\ b", vec![("search_path", "a, b")]),
        (r"-c a=\\x", vec![("a", r"\x")]),
        (r"-c a=b\", vec![("a", "b")]),
        ("-c a=b=c", vec![("a", "b=c")]),
        ("-c a=", vec![("a", "")]),
        ("-c\ta=b\n--x.y=é", vec![("a", "b"), ("x.y", "é")]),
    ] {
        assert_eq!(options::parse(text), Ok(pairs(&expected)), "{text:?}");
    }
}

#[test]
fn what_says_who_asks_for_what_is_no_setting() {
    for text in ["-c user=a", "--database=a", "-c Replication=true", "-coptions=-ca=b", "-c _pq_.x=1"] {
        assert!(options::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn a_packet_of_very_many_settings_is_refused() {
    let packet = |count: usize| {
        let names: Vec<String> = (0..count).map(|n| format!("a{n}")).collect();
        let all: Vec<_> = [("user", "a")].into_iter().chain(names.iter().map(|name| (name.as_str(), ""))).collect();
        startup(code::PROTOCOL_3_0, &all)
    };
    assert!(packet::parse(&packet(128)[4..], &[]).is_ok());
    assert!(packet::parse(&packet(129)[4..], &[]).is_err());
    let options = "-ca= ".repeat(129);
    let in_options = startup(code::PROTOCOL_3_0, &[("user", "a"), ("options", &options)]);
    assert!(packet::parse(&in_options[4..], &[]).is_err());
}

#[test]
fn other_switches_and_settings_without_value_are_refused() {
    for text in ["-d 5", "-F", "a=b", "-c", "-c a", "--", "--a", "-c =b", "-c a;b=c", "-"] {
        assert!(options::parse(text).is_err(), "{text:?}");
    }
}

#[tokio::test]
async fn a_startup_packet_may_arrive_in_any_two_parts_and_nothing_behind_it_is_taken() {
    let whole = startup(code::PROTOCOL_3_0, &[("user", "ann"), ("database", "shop"), ("client_encoding", "UTF8")]);
    for cut in 1..whole.len() {
        let (mut client, mut server) = duplex(1024);
        let (head, tail) = whole.split_at(cut);
        client.write_all(head).await.unwrap();
        let reader = tokio::spawn(async move {
            let first = read_first(&mut server, &[], Encryption::Unavailable, deadline()).await;
            (first, server.read_u8().await)
        });
        tokio::task::yield_now().await;
        client.write_all(tail).await.unwrap();
        client.write_all(b"Q").await.unwrap();
        let (first, behind) = reader.await.unwrap();
        assert!(matches!(first, Ok(First::Startup(_))), "cut at {cut}");
        assert_eq!(behind.unwrap(), b'Q');
    }
}

// --- the last words ---

#[tokio::test]
async fn a_refused_client_hears_why_although_it_sent_more_than_was_read() {
    let (mut client, mut server) = duplex(64);
    let talker = tokio::spawn(async move {
        let mut heard = Vec::new();
        let (mut read, mut write) = tokio::io::split(&mut client);
        let (_, read) = tokio::join!(
            async {
                write.write_all(&[0xff; 4096]).await.unwrap();
                write.shutdown().await.unwrap();
            },
            read.read_to_end(&mut heard)
        );
        read.unwrap();
        heard
    });
    let error = read_first(&mut server, &[], Encryption::Unavailable, deadline()).await.unwrap_err();
    refuse(&mut server, &error).await;
    let heard = talker.await.unwrap();
    let fields = crate::pool::wire::read::ErrorFields::parse(&heard[5..]);
    assert_eq!((heard[0], fields.severity, fields.code), (b'E', &b"FATAL"[..], &b"08P01"[..]));
}

#[tokio::test(start_paused = true)]
async fn a_refused_client_that_does_not_listen_is_not_waited_for() {
    let (_client, mut server) = duplex(8);
    let begin = Instant::now();
    refuse(&mut server, &PoolError::Killed).await;
    assert!(begin.elapsed() <= Duration::from_secs(1));
}

#[tokio::test]
async fn nothing_is_said_to_a_peer_that_cannot_read_it() {
    let (mut client, mut server) = duplex(64);
    refuse(&mut server, &PoolError::DirectTls).await;
    drop(server);
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).await.unwrap();
    assert!(heard.is_empty());
}

proptest! {
    #[test]
    fn parsing_never_panics(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = packet::parse(&body, &[]);
        let _ = packet::parse(&[&code::PROTOCOL_3_0.to_be_bytes()[..], &body].concat(), &[]);
    }

    #[test]
    fn names_that_pass_need_no_quoting(text in "[ -~é\\\\]{0,40}") {
        for (name, _) in options::parse(&text).into_iter().flatten() {
            prop_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_$.".contains(&b)), "{name}");
        }
    }

    #[test]
    fn every_value_survives_escaping(value in "[ -~\\t\\n]{0,40}") {
        let escaped: String = value.chars().flat_map(|c| ['\\', c]).collect();
        prop_assert_eq!(options::parse(&format!("-c a={escaped}")), Ok(pairs(&[("a", &value)])));
    }
}
