//! Anything a client may say of itself: no panic, no word of it to a server unless the peer is trusted, and a log line that is
//! one line of JSON.

#![no_main]

use std::{
    net::IpAddr,
    time::{Duration, UNIX_EPOCH},
};

use bookend::proxy::{
    access_log::Line,
    client_ip::TrustedProxies,
    cookie,
    error::Failure,
    forward::{Origin, apply},
    request_id::RequestId,
    rewrite::strip_prefix,
};
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use pingora::http::RequestHeader;

fuzz_target!(|said: (&[u8], &[u8], bool)| {
    let (list, text, peer_trusted) = said;
    let peer: IpAddr = if peer_trusted { [10, 0, 0, 1] } else { [192, 0, 2, 1] }.into();
    let trusted = TrustedProxies::new(&["10.0.0.0/8".parse().expect("a network")]);
    let client = trusted.client(peer, [list, text]);
    assert!(peer_trusted || client == peer);

    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(text) {
        headers.insert("x-request-id", value);
    }
    let id = RequestId::accept_or_make(&headers, || 7);

    if let Ok(value) = HeaderValue::from_bytes(list) {
        headers.insert("cookie", value);
        if let Some(value) = cookie::find(&headers, "sessionid") {
            assert!(list.windows(10).any(|name| name == b"sessionid=") && !value.contains(&b';'));
        }
    }
    if let Some(rest) = strip_prefix(text, "/a/b") {
        assert!(rest.starts_with(b"/") && text.ends_with(&rest[1..]));
    }

    let mut request = RequestHeader::build("GET", b"/", None).expect("a request");
    if let Ok(value) = HeaderValue::from_bytes(list) {
        for name in ["x-forwarded-for", "x_forwarded_for", "forwarded", "x-forwarded-ssl"] {
            request.append_header(name, value.clone()).expect("a header");
        }
    }
    let origin =
        Origin { peer, client, peer_trusted, scheme: "http", port: 80, host: None, request_id: id.as_str() };
    apply(&mut request, &origin).expect("few headers");
    assert_eq!(request.headers.get_all("x-forwarded-for").iter().count(), 1);
    assert!(!request.headers.contains_key("x_forwarded_for"));
    if !peer_trusted {
        assert_eq!(request.headers["x-forwarded-for"], "192.0.2.1");
        assert!(!request.headers.contains_key("forwarded") && !request.headers.contains_key("x-forwarded-ssl"));
    }

    let body = Failure::NoServer.answer(Some(text), Some(id.as_str())).body;
    assert!(body.first() == Some(&b'<') || serde_json::from_slice::<serde_json::Value>(&body).is_ok());

    let mut out = Vec::new();
    let line = Line {
        time: UNIX_EPOCH,
        request_id: id.as_str(),
        client,
        method: "GET",
        host: Some(list),
        uri: text,
        protocol: "HTTP/1.1",
        route: None,
        upstream: None,
        server: None,
        attempts: 0,
        status: 404,
        bytes_in: 0,
        bytes_out: 0,
        total: Duration::ZERO,
        queued: None,
        connect: None,
        first_byte: None,
        reason: None,
        user_agent: Some(text),
        referer: Some(list),
        websocket: false,
    };
    line.write(&mut out);
    assert_eq!(out.iter().filter(|&&byte| byte == b'\n').count(), 1);
    serde_json::from_slice::<serde_json::Value>(&out).expect("one line of JSON");
});
