//! A name for each request, the same in our log, in Django's and in the client's hands.
//!
//! A client may bring its own (`X-Request-ID`, so that a trace through several systems keeps one name); it is taken when it is
//! short and of characters that need no escaping in a header, a log line or a page. Otherwise 128 random bits are named
//! in hex. The randomness is an argument; a thread-local generator is what the gateway passes.

use http::HeaderMap;

/// Header that carries the id, both ways.
pub const HEADER: &str = "x-request-id";

/// Longer ones are replaced.
const LENGTH_MAX: usize = 128;
const HEX_DIGITS: usize = 32;

/// A request's id: characters that are safe in headers, JSON and HTML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(Text);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Text {
    Made([u8; HEX_DIGITS]),
    Given(Box<str>),
}

impl RequestId {
    /// Returns the id the client sent, when it sent exactly one that is sane, else a new one.
    pub fn accept_or_make(headers: &HeaderMap, random: impl FnOnce() -> u128) -> Self {
        let mut sent = headers.get_all(HEADER).iter();
        match (sent.next().and_then(|value| sane(value.as_bytes())), sent.next()) {
            (Some(id), None) => Self(Text::Given(id.into())),
            _ => Self::made_of(random()),
        }
    }

    fn made_of(random: u128) -> Self {
        let mut digits = [0; HEX_DIGITS];
        for (place, digit) in digits.iter_mut().rev().enumerate() {
            *digit = b"0123456789abcdef"[(random >> (4 * place)) as usize & 0xf];
        }
        Self(Text::Made(digits))
    }

    /// Returns the id.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Text::Made(digits) => std::str::from_utf8(digits).unwrap_or_default(),
            Text::Given(id) => id,
        }
    }
}

fn sane(id: &[u8]) -> Option<&str> {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:=+/@~".contains(byte);
    if id.is_empty() || id.len() > LENGTH_MAX || !id.iter().all(allowed) {
        return None;
    }
    std::str::from_utf8(id).ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn id_for(sent: &[&[u8]]) -> String {
        let mut headers = HeaderMap::new();
        for value in sent {
            headers.append(HEADER, HeaderValue::from_bytes(value).unwrap());
        }
        RequestId::accept_or_make(&headers, || 0x0123_4567_89ab_cdef_0000_0000_0000_00ff).as_str().to_owned()
    }

    const MADE: &str = "0123456789abcdef00000000000000ff";

    #[test]
    fn what_is_unsafe_empty_too_long_or_sent_twice_is_replaced() {
        let long = [b'a'; 129];
        for sent in
            [&b""[..], b"a b", b"a\"b", b"<script>", b"a\tb", b"a\xffb", b"a,b", b"a;b", b"a\\b", b"a%0ab", &long]
        {
            assert_eq!(id_for(&[sent]), MADE, "{sent:?}");
        }
        assert_eq!(id_for(&[b"one", b"two"]), MADE);
        assert_eq!(id_for(&[]), MADE);
    }

    #[test]
    fn a_sane_id_is_kept() {
        let longest = "a".repeat(128);
        for sent in
            ["7f3c", "2f1b0b2e-6a0e-4d0e-9f4e-0d8d3c1f8f11", "Root=1-67891233-abcdef", "a/b:c@d.e~f+g_h", &longest]
        {
            assert_eq!(id_for(&[sent.as_bytes()]), sent);
        }
    }
}
