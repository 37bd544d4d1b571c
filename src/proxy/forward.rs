//! What a server is told about the client: the headers every Django deployment sets, and nothing a client made up.
//!
//! `Host` stays as it came (Django checks it). `X-Forwarded-For`, `-Proto`, `-Host`, `-Port`, `X-Real-IP` and
//! `X-Request-ID` are written by us. A trusted peer's own values are kept, and its address is appended to the list; everyone
//! else's are dropped, the whole family: `Forwarded`, and `X-Forwarded-Ssl` or `-Prefix`, which application servers
//! believe too. So is any spelling of these names with underscores, from anyone, because WSGI cannot tell `X_Forwarded_For`
//! from `X-Forwarded-For` (nginx drops such headers altogether).
//!
//! Hop-by-hop headers are pingora's work, and are gone before this runs: a client cannot have our headers removed by naming
//! them in `Connection`.

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use pingora::http::RequestHeader;

use super::address_text::AddressText;

// As text: pingora would copy a `HeaderName` to the heap to write it.
const FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED_PROTO: &str = "x-forwarded-proto";
const FORWARDED_HOST: &str = "x-forwarded-host";
const FORWARDED_PORT: &str = "x-forwarded-port";
const REAL_IP: &str = "x-real-ip";
const REQUEST_ID: &str = super::request_id::HEADER;

/// What is known of the client and how it came.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The other end of the connection.
    pub peer: IpAddr,
    /// The client behind it, see [`super::client_ip`].
    pub client: IpAddr,
    /// Whether the peer's own headers are believed.
    pub peer_trusted: bool,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The port of the listener.
    pub port: u16,
    /// The Host header.
    pub host: Option<&'a HeaderValue>,
    pub request_id: &'a str,
}

/// Writes the forwarding headers of a request to a server.
///
/// # Errors
/// When the headers become too many for the header map.
pub fn apply(request: &mut RequestHeader, origin: &Origin<'_>) -> pingora::Result<()> {
    drop_forged(request, origin.peer_trusted);
    // An address of a trusted peer that chose not to say these things itself.
    let kept = |request: &RequestHeader, name: &str| origin.peer_trusted && request.headers.contains_key(name);
    let proto_kept = kept(request, FORWARDED_PROTO);

    let list = forwarded_for(request, origin);
    request.insert_header(FORWARDED_FOR, list)?;
    request.insert_header(REAL_IP, address_value(origin.client))?;
    request.insert_header(REQUEST_ID, text_value(origin.request_id))?;
    if !kept(request, FORWARDED_HOST)
        && let Some(host) = origin.host
    {
        request.insert_header(FORWARDED_HOST, host.clone())?;
    }
    if !kept(request, FORWARDED_PORT) {
        let port = if proto_kept { port_of_scheme(request) } else { None };
        request.insert_header(FORWARDED_PORT, HeaderValue::from(port.unwrap_or(origin.port)))?;
    }
    if !proto_kept {
        request.insert_header(FORWARDED_PROTO, HeaderValue::from_static(origin.scheme))?;
    }
    Ok(())
}

/// Removes what claims to come from a proxy and does not.
fn drop_forged(request: &mut RequestHeader, peer_trusted: bool) {
    // Allocates only when there is something to remove.
    let forged: Vec<HeaderName> = request
        .headers
        .keys()
        .filter(|name| is_forwarding(name.as_str()) && (!peer_trusted || name.as_str().contains('_')))
        .cloned()
        .collect();
    for name in &forged {
        request.remove_header(name);
    }
}

/// Whether a header, however its words are joined, is one that tells about a client. Names are lower case.
fn is_forwarding(name: &str) -> bool {
    let same = |other: &str| {
        name.len() == other.len() && name.bytes().zip(other.bytes()).all(|(a, b)| a == b || (a == b'_' && b == b'-'))
    };
    let begins = |other: &str| {
        name.len() > other.len() && name.bytes().zip(other.bytes()).all(|(a, b)| a == b || (a == b'_' && b == b'-'))
    };
    same("forwarded") || begins("x-forwarded-") || same("x-real-ip") || (same("x-request-id") && name.contains('_'))
}

/// A trusted peer's list with its own address behind it; the peer's address alone for everyone else.
fn forwarded_for(request: &RequestHeader, origin: &Origin<'_>) -> HeaderValue {
    if !origin.peer_trusted || !request.headers.contains_key(FORWARDED_FOR) {
        return address_value(origin.peer);
    }
    let mut list = Vec::with_capacity(128);
    for line in request.headers.get_all(FORWARDED_FOR) {
        list.extend_from_slice(line.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(address_value(origin.peer).as_bytes());
    HeaderValue::from_maybe_shared(Bytes::from(list)).unwrap_or_else(|_| address_value(origin.peer))
}

fn port_of_scheme(request: &RequestHeader) -> Option<u16> {
    match request.headers.get(FORWARDED_PROTO)?.as_bytes() {
        b"https" | b"wss" => Some(443),
        b"http" | b"ws" => Some(80),
        _ => None,
    }
}

/// An IPv4 client of an IPv6 listener is named by its IPv4 address, which is what Django's settings and logs know.
fn address_value(address: IpAddr) -> HeaderValue {
    HeaderValue::from_bytes(AddressText::of(address).as_bytes()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// For text that is known to be valid in a header.
fn text_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a server sees of a request with these headers.
    fn seen(sent: &[(&str, &str)], peer: &str, client: &str, peer_trusted: bool) -> Vec<(String, String)> {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        request.insert_header("host", "a.example").unwrap();
        for (name, value) in sent {
            request.append_header((*name).to_owned(), *value).unwrap();
        }
        let host = request.headers.get("host").cloned();
        let origin = Origin {
            peer: peer.parse().unwrap(),
            client: client.parse().unwrap(),
            peer_trusted,
            scheme: "http",
            port: 8080,
            host: host.as_ref(),
            request_id: "id-1",
        };
        apply(&mut request, &origin).unwrap();
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        request.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
    }

    fn value<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
        let mut named = headers.iter().filter(|(own, _)| own == name);
        let value = named.next().map(|(_, value)| value.as_str());
        assert!(named.next().is_none(), "{name} twice: {headers:?}");
        value
    }

    const FORGED: [(&str, &str); 14] = [
        ("X-Forwarded-For", "127.0.0.1"),
        ("x-forwarded-for", "10.0.0.1"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Protocol", "ssl"),
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-Port", "443"),
        ("X-Forwarded-Ssl", "on"),
        ("X-Forwarded-Prefix", "/evil"),
        ("X-Real-IP", "127.0.0.1"),
        ("Forwarded", "for=127.0.0.1"),
        ("X_Forwarded_For", "127.0.0.1"),
        ("X-Forwarded_Proto", "https"),
        ("X_Real_IP", "127.0.0.1"),
        ("X_Request_ID", "x"),
    ];

    #[test]
    fn nothing_an_untrusted_client_says_of_itself_passes() {
        let headers = seen(&FORGED, "192.0.2.1", "192.0.2.1", false);
        for (name, expected) in [
            ("host", "a.example"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-real-ip", "192.0.2.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "a.example"),
            ("x-forwarded-port", "8080"),
            ("x-request-id", "id-1"),
        ] {
            assert_eq!(value(&headers, name), Some(expected), "{name}");
        }
        assert_eq!(headers.len(), 7, "{headers:?}");
    }

    #[test]
    fn a_trusted_peers_word_is_kept_and_its_address_appended() {
        let headers = seen(&FORGED, "10.0.0.9", "198.51.100.7", true);
        for (name, expected) in [
            ("x-forwarded-for", "127.0.0.1, 10.0.0.1, 10.0.0.9"),
            ("x-real-ip", "198.51.100.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-port", "443"),
            ("forwarded", "for=127.0.0.1"),
            ("x-forwarded-ssl", "on"),
        ] {
            assert_eq!(value(&headers, name), Some(expected), "{name}");
        }
        assert!(!headers.iter().any(|(name, _)| name.contains('_')), "{headers:?}");
    }

    #[test]
    fn a_trusted_peer_that_says_nothing_is_spoken_for() {
        let headers = seen(&[], "10.0.0.9", "10.0.0.9", true);
        assert_eq!(value(&headers, "x-forwarded-for"), Some("10.0.0.9"));
        assert_eq!(value(&headers, "x-forwarded-proto"), Some("http"));
        assert_eq!(value(&headers, "x-forwarded-host"), Some("a.example"));
        assert_eq!(value(&headers, "x-forwarded-port"), Some("8080"));
    }

    #[test]
    fn the_port_follows_the_scheme_a_trusted_peer_ended() {
        let headers = seen(&[("X-Forwarded-Proto", "https")], "10.0.0.9", "10.0.0.9", true);
        assert_eq!(value(&headers, "x-forwarded-port"), Some("443"));
    }

    #[test]
    fn an_ipv4_client_of_an_ipv6_listener_has_its_ipv4_name() {
        let headers = seen(&[], "::ffff:192.0.2.1", "::ffff:192.0.2.1", false);
        assert_eq!(value(&headers, "x-forwarded-for"), Some("192.0.2.1"));
        let headers = seen(&[], "2001:db8::1", "2001:db8::1", false);
        assert_eq!(value(&headers, "x-real-ip"), Some("2001:db8::1"));
    }

    #[test]
    fn other_headers_pass_untouched() {
        let sent = [("x-forwardedness", "1"), ("x-forwarded", "2"), ("my_header", "3"), ("x-real-ips", "4")];
        let headers = seen(&sent, "192.0.2.1", "192.0.2.1", false);
        for (name, expected) in sent {
            assert_eq!(value(&headers, name), Some(expected), "{name}");
        }
    }

    proptest! {
        #[test]
        fn an_untrusted_list_never_reaches_a_server(forged in prop::collection::vec("[ -~]{0,40}", 0..4)) {
            let sent: Vec<(&str, &str)> = forged.iter().map(|line| ("X-Forwarded-For", line.as_str())).collect();
            let headers = seen(&sent, "192.0.2.1", "192.0.2.1", false);
            prop_assert_eq!(value(&headers, "x-forwarded-for"), Some("192.0.2.1"));
        }
    }
}
