use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds { bytes: 1024, headers: 10 };

fn scan(text: &str) -> Result<Option<Head>, Refusal> {
    Scanner::default().scan(text.as_bytes(), BOUNDS)
}

/// The verdict on a complete head with these header lines.
fn verdict(lines: &str) -> Result<Body, Refusal> {
    let text = format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    scan(&text).map(|head| head.expect("the head is complete").body)
}

#[test]
fn an_ordinary_request_passes() {
    let text = "GET /a?b=\"c\" HTTP/1.1\r\nHost: example.com:8080\r\nAccept: */*\r\n\r\nrest";
    let head = scan(text).unwrap().unwrap();
    assert_eq!(head, Head { len: text.len() - 4, body: Body::Done });
    assert_eq!(scan("GET / HTTP/1.0\r\n\r\n").unwrap().unwrap().body, Body::Done);
    assert_eq!(verdict("Content-Length: 12\r\n"), Ok(Body::Length(12)));
    assert_eq!(verdict("Transfer-Encoding: Chunked\r\n"), Ok(Body::chunked()));
}

#[test]
fn a_length_together_with_a_coding_is_refused() {
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "transfer-encoding: identity\r\ncontent-length: 5\r\n",
    ] {
        assert_eq!(verdict(lines), Err(Refusal::Malformed("content-length with transfer-encoding")), "{lines}");
    }
}

#[test]
fn a_length_that_is_not_one_plain_number_is_refused() {
    assert_eq!(
        verdict("Content-Length: 5\r\nContent-Length: 5\r\n"),
        Err(Refusal::Malformed("two content-length headers"))
    );
    for value in ["", "+5", "-5", "5, 5", "0x5", "5 5", "5a", "18446744073709551616", "٥"] {
        assert_eq!(
            verdict(&format!("Content-Length: {value}\r\n")),
            Err(Refusal::Malformed("content-length")),
            "{value}"
        );
    }
}

#[test]
fn only_chunked_is_taken_as_a_transfer_coding() {
    assert_eq!(verdict("Transfer-Encoding: gzip, chunked\r\n"), Err(Refusal::Coding));
    for value in ["gzip", "chunked, gzip", "chunked,", "xchunked", "identity", "chunked;q=1", "\"chunked\""] {
        assert!(matches!(verdict(&format!("Transfer-Encoding: {value}\r\n")), Err(Refusal::Malformed(_))), "{value}");
    }
    assert!(verdict("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n").is_err());
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(scan(old), Err(Refusal::Malformed("transfer-encoding on http/1.0")));
}

#[test]
fn header_lines_with_two_readings_are_refused() {
    for lines in [
        "X: a\r\n folded\r\n",
        "X: a\r\n\tfolded\r\n",
        "Content-Length : 5\r\n",
        "Content-Length\t: 5\r\n",
        ": empty\r\n",
        "X\x00Y: a\r\n",
        "X: a\x00b\r\n",
        "X: a\rb\r\n",
        "no colon\r\n",
        "Transfer\x0bEncoding: chunked\r\n",
    ] {
        assert!(matches!(verdict(lines), Err(Refusal::Malformed(_))), "{}", lines.escape_debug());
    }
    let bare = "GET / HTTP/1.1\nHost: a\n\n";
    assert_eq!(scan(bare), Err(Refusal::Malformed("bare line feed")));
    assert_eq!(verdict("X: a\nY: b\r\n"), Err(Refusal::Malformed("bare line feed")));
}

#[test]
fn a_host_is_needed_and_only_one() {
    assert_eq!(scan("GET / HTTP/1.1\r\n\r\n"), Err(Refusal::Malformed("no host header")));
    assert_eq!(verdict("Host: a\r\n"), Err(Refusal::Malformed("two host headers")));
    for host in ["user@a", "a/b", "a b", "a\\b"] {
        let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(scan(&text), Err(Refusal::Malformed("host")), "{host}");
    }
}

#[test]
fn characters_no_uri_may_have_are_encoded_and_nothing_else() {
    let encoded = |target: &[u8]| {
        let head = [b"GET ", target, b" HTTP/1.1\r\nHost: a\r\nX: <\xff>\r\n\r\n"].concat();
        assert!(Scanner::default().scan(&head, BOUNDS).is_ok_and(|head| head.is_some()));
        with_valid_target(&head).map(|head| head[..].split(|byte| *byte == b' ').nth(1).unwrap().to_vec())
    };
    assert_eq!(encoded(b"/a<b>?c=<`"), Some(b"/a%3Cb%3E?c=%3C%60".to_vec()));
    assert_eq!(encoded("/ü".as_bytes()), Some(b"/%C3%BC".to_vec()));
    assert_eq!(encoded(b"/\xff"), Some(b"/%FF".to_vec()));
    assert_eq!(encoded(b"/?\""), Some(b"/?%22".to_vec()));
    assert_eq!(encoded(b"/a%3C?{|}^\\'"), None);
}

#[test]
fn a_target_may_not_name_another_host() {
    let of = |target: &str, host: &str| scan(&format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).map(|_| ());
    assert_eq!(of("http://a:80/x", "a:80"), Ok(()));
    assert_eq!(of("/x?u=http://b/", "a"), Ok(()));
    for target in ["http://b/", "http://a@b/", "http://a:80/", "http://b?/a"] {
        assert_eq!(of(target, "a"), Err(Refusal::Malformed("host differs from the target")), "{target}");
    }
    assert_eq!(scan("GET http://u@b/ HTTP/1.0\r\n\r\n"), Err(Refusal::Malformed("host")));
}

#[test]
fn a_bad_request_line_is_refused_as_soon_as_it_is_there() {
    for (line, refusal) in [
        ("GET /\r\n", Refusal::Malformed("request line")),
        ("GET\r\n", Refusal::Malformed("request line")),
        ("GET  HTTP/1.1\r\n", Refusal::Malformed("request target")),
        ("GET /a b HTTP/1.1\r\n", Refusal::Malformed("request target")),
        ("GET a/b HTTP/1.1\r\n", Refusal::Malformed("request target")),
        ("GET ftp://a/b HTTP/1.1\r\n", Refusal::Malformed("request target")),
        ("G@T / HTTP/1.1\r\n", Refusal::Malformed("method")),
        ("GET /\x01 HTTP/1.1\r\n", Refusal::Malformed("request target")),
        ("PRI * HTTP/2.0\r\n", Refusal::Version),
        ("GET / HTTP/0.9\r\n", Refusal::Version),
        ("GET / http/1.1\r\n", Refusal::Malformed("request line")),
    ] {
        assert_eq!(scan(line), Err(refusal), "{line}");
    }
    let tls = [0x16, 3, 1, 2];
    assert_eq!(Scanner::default().scan(&tls, BOUNDS), Err(Refusal::Malformed("not http")));
}

#[test]
fn connect_and_trace_are_not_for_us() {
    for method in ["CONNECT", "TRACE"] {
        assert_eq!(scan(&format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n")), Err(Refusal::Method));
    }
}

#[test]
fn size_and_number_are_bounded_while_the_head_arrives() {
    let line = format!("GET /{} HTTP/1.1\r\n", "a".repeat(2000));
    assert_eq!(scan(&line[..1500]), Err(Refusal::TargetTooLong));
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "a".repeat(2000));
    assert_eq!(scan(&long), Err(Refusal::HeadersTooLarge));
    assert_eq!(scan(&format!("{long}\r\n\r\n")), Err(Refusal::HeadersTooLarge));
    assert_eq!(verdict(&"X: a\r\n".repeat(9)), Ok(Body::Done));
    assert_eq!(verdict(&"X: a\r\n".repeat(10)), Err(Refusal::TooManyHeaders));
}

#[test]
fn line_ends_before_a_request_are_counted() {
    assert_eq!(leading_line_ends(b"\r\n\r\nGET"), 4);
    assert_eq!(leading_line_ends(b"\r"), 0);
    assert_eq!(leading_line_ends(b"GET\r\n"), 0);
}

proptest! {
    #[test]
    fn the_verdict_does_not_depend_on_how_the_bytes_arrive(
        lines in prop::collection::vec("[ -~\\t\r\n]{0,24}", 0..5),
        cuts in prop::collection::vec(1usize..30, 1..60),
    ) {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n\r\n", lines.join("\r\n"));
        let bytes = text.as_bytes();
        let whole = Scanner::default().scan(bytes, BOUNDS);
        let (mut scanner, mut at, mut verdict) = (Scanner::default(), 0, Ok(None));
        for cut in cuts.iter().cycle() {
            at = (at + cut).min(bytes.len());
            verdict = scanner.scan(&bytes[..at], BOUNDS);
            if at == bytes.len() || !matches!(verdict, Ok(None)) {
                break;
            }
        }
        prop_assert_eq!(verdict, whole);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Scanner::default().scan(&bytes, BOUNDS);
    }
}
