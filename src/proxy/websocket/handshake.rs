//! What a WebSocket handshake is, on either side (RFC 6455 4). Pure.
//!
//! Only a request that asks for `websocket` in every way the RFC wants becomes a tunnel, and only when the server answers
//! in kind. Every other `Upgrade` is an ordinary request: passing one on blindly is how requests were smuggled through
//! proxies that switched to bytes before the server had agreed to (h2c, and pingora itself before 0.8).

use bytes::BytesMut;
use http::{HeaderMap, HeaderValue, Method, Version, header};
use pingora::{http::RequestHeader, protocols::http::v1::client::http_req_header_to_wire};

/// Header lines of an answer to a handshake.
const ANSWER_HEADERS_MAX: usize = 128;

/// What a request wants to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upgrade {
    /// It has no `Upgrade`, or one that is not passed on.
    None,
    WebSocket,
    /// A WebSocket by its intent, but not a valid handshake.
    Malformed,
}

/// Returns what a request without a body (or with one) wants to become.
pub(crate) fn upgrade_of(request: &RequestHeader, has_body: bool) -> Upgrade {
    let headers = &request.headers;
    let asked = request.method == Method::GET
        && request.version == Version::HTTP_11
        && !has_body
        && has_token(headers, header::UPGRADE, "websocket")
        && has_token(headers, header::CONNECTION, "upgrade");
    match asked {
        false => Upgrade::None,
        true if key_and_version(headers) => Upgrade::WebSocket,
        true => Upgrade::Malformed,
    }
}

/// One key that looks like 16 bytes in base64, one version that is a number. Which versions there are is for the
/// application to say.
fn key_and_version(headers: &HeaderMap) -> bool {
    let key = only(headers, header::SEC_WEBSOCKET_KEY);
    let version = only(headers, header::SEC_WEBSOCKET_VERSION);
    key.is_some_and(|key| key.len() == 24 && key.as_bytes().ends_with(b"=="))
        && version.is_some_and(|version| {
            (1..=3).contains(&version.len()) && version.as_bytes().iter().all(u8::is_ascii_digit)
        })
}

fn only(headers: &HeaderMap, name: header::HeaderName) -> Option<&HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Returns whether a comma-separated header has a token, whatever its case.
pub(crate) fn has_token(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// Makes a client's handshake the one for the server: what concerned only the client's connection goes (RFC 9110 7.6.1),
/// the upgrade stays. `None` when it cannot be written.
pub(crate) fn request_for_server(mut request: RequestHeader) -> Option<BytesMut> {
    request.insert_header(header::CONNECTION, "Upgrade").ok()?;
    request.insert_header(header::UPGRADE, "websocket").ok()?;
    http_req_header_to_wire(&request)
}

/// Removes what is meant for one connection only: the usual headers and those the client nominates, but not those a
/// server must be able to believe.
pub(crate) fn remove_hop_by_hop(request: &mut RequestHeader) {
    let nominated: Vec<String> = request
        .headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or_default().split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .filter(|name| !name.is_empty() && name != "host" && !name.starts_with("sec-websocket-"))
        .take(NOMINATIONS_MAX)
        .collect();
    for name in nominated {
        request.remove_header(name.as_str());
    }
    for name in ["keep-alive", "proxy-connection", "te", "trailer", "connection", "upgrade"] {
        request.remove_header(name);
    }
}

/// Names in a `Connection` header that are followed; nobody sends so many.
const NOMINATIONS_MAX: usize = 16;

/// A server's answer to a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AnswerHead {
    /// Bytes of the head, the empty line included.
    pub(crate) len: usize,
    pub(crate) status: u16,
    /// It agrees to speak WebSocket, in every way RFC 6455 4.1 wants.
    pub(crate) agrees: bool,
}

/// An answer that is no HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadAnswer;

/// Reads the head of an answer once all of it is there.
pub(crate) fn answer_head(bytes: &[u8]) -> Result<Option<AnswerHead>, BadAnswer> {
    let mut headers = [httparse::EMPTY_HEADER; ANSWER_HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut headers);
    let Ok(parsed) = answer.parse(bytes) else { return Err(BadAnswer) };
    let httparse::Status::Complete(len) = parsed else { return Ok(None) };
    let says = |name: &str, token: &str| {
        answer.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name)).any(|header| {
            let mut items = header.value.split(|byte| *byte == b',');
            items.any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
        })
    };
    let status = answer.code.ok_or(BadAnswer)?;
    let agrees = status == 101 && says("upgrade", "websocket") && says("connection", "upgrade");
    Ok(Some(AnswerHead { len, status, agrees }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn request(method: &str, lines: &[(&'static str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build(method, b"/ws/", None).unwrap();
        request.set_version(Version::HTTP_11);
        for (name, value) in lines {
            request.append_header(*name, *value).unwrap();
        }
        request
    }

    fn handshake() -> RequestHeader {
        request(
            "GET",
            &[
                ("Host", "a"),
                ("Upgrade", "WebSocket"),
                ("Connection", "keep-alive, Upgrade"),
                ("Sec-WebSocket-Key", KEY),
                ("Sec-WebSocket-Version", "13"),
            ],
        )
    }

    #[test]
    fn a_handshake_is_recognised() {
        assert_eq!(upgrade_of(&handshake(), false), Upgrade::WebSocket);
    }

    #[test]
    fn whatever_is_not_a_handshake_stays_a_request() {
        let h2c = request("GET", &[("Upgrade", "h2c"), ("Connection", "Upgrade, HTTP2-Settings")]);
        let alone = request("GET", &[("Upgrade", "websocket"), ("Sec-WebSocket-Key", KEY)]);
        let other = request("GET", &[("Upgrade", "websocket"), ("Connection", "close")]);
        let post = request("POST", &[("Upgrade", "websocket"), ("Connection", "upgrade")]);
        for request in [h2c, alone, other, post] {
            assert_eq!(upgrade_of(&request, false), Upgrade::None, "{request:?}");
        }
        let mut old = handshake();
        old.set_version(Version::HTTP_10);
        assert_eq!(upgrade_of(&old, false), Upgrade::None);
        assert_eq!(upgrade_of(&handshake(), true), Upgrade::None);
    }

    #[test]
    fn a_handshake_without_one_sound_key_and_version_is_malformed() {
        for (name, value) in [("Sec-WebSocket-Key", KEY), ("Sec-WebSocket-Version", "13")] {
            let mut double = handshake();
            double.append_header(name, value).unwrap();
            assert_eq!(upgrade_of(&double, false), Upgrade::Malformed);
            let mut absent = handshake();
            absent.remove_header(name);
            assert_eq!(upgrade_of(&absent, false), Upgrade::Malformed);
            let mut odd = handshake();
            odd.insert_header(name, "x").unwrap();
            assert_eq!(upgrade_of(&odd, false), Upgrade::Malformed);
        }
    }

    #[test]
    fn headers_of_the_clients_connection_do_not_travel() {
        let mut request = handshake();
        request.insert_header("Connection", "Upgrade, X-Private, Host, Sec-WebSocket-Key").unwrap();
        request.insert_header("X-Private", "1").unwrap();
        request.insert_header("Keep-Alive", "timeout=5").unwrap();
        remove_hop_by_hop(&mut request);
        let wire = request_for_server(request).unwrap();
        let text = String::from_utf8(wire.to_vec()).unwrap().to_ascii_lowercase();
        assert!(text.starts_with("get /ws/ http/1.1\r\n"), "{text}");
        assert!(text.contains("\r\nconnection: upgrade\r\n") && text.contains("\r\nupgrade: websocket\r\n"));
        assert!(text.contains("\r\nhost: a\r\n") && text.contains("sec-websocket-key"));
        assert!(!text.contains("x-private") && !text.contains("keep-alive"));
    }

    #[test]
    fn only_a_101_in_every_way_agrees() {
        let agrees = |text: &str| answer_head(text.as_bytes()).map(|head| head.map(|head| head.agrees));
        let good = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\n\r\n";
        assert_eq!(agrees(good), Ok(Some(true)));
        assert_eq!(agrees(&good[..good.len() - 1]), Ok(None));
        assert_eq!(agrees("HTTP/1.1 101 X\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"), Ok(Some(false)));
        assert_eq!(agrees("HTTP/1.1 101 X\r\nUpgrade: websocket\r\n\r\n"), Ok(Some(false)));
        assert_eq!(agrees("HTTP/1.1 403 X\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"), Ok(Some(false)));
        assert_eq!(agrees("garbage\r\n\r\n"), Err(BadAnswer));
    }
}
