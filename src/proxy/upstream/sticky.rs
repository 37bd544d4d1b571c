//! The cookie that keeps a browser at its server (nginx's `sticky cookie`, HAProxy's `cookie … insert`).
//!
//! Its value is the beginning of an HMAC of the server's name: it says nothing about servers to who reads it, nobody can make
//! one, and whoever knows the secret knows it again: there is no table to keep, to share or to lose. It follows the server's
//! name, not its address or place in the file. A browser without one, with one that is not ours, or whose server may not be
//! asked, gets a server as all others do, and the cookie of that one. It keeps its own where its server is only full, or failed
//! this one request: it will be asked again.

use std::{fmt::Write as _, sync::OnceLock};

use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderValue};
use sha2::Sha256;

use super::Member;
use crate::{config::lb, proxy::cookie};

/// Bytes of the HMAC in a value: guessing one of a few dozen takes 2^120 requests.
const VALUE_LEN: usize = 16;

/// The cookies of an upstream.
#[derive(Debug)]
pub struct Sticky {
    name: Box<str>,
    /// By the index of the server: its value, and the header that gives it.
    servers: Box<[(String, Option<HeaderValue>)]>,
}

impl Sticky {
    /// Makes the cookies of servers.
    pub fn new(config: &lb::Sticky, members: &[Member]) -> Self {
        let own;
        let secret = match &config.secret {
            Some(secret) => secret.expose().as_bytes(),
            None => {
                own = process_secret();
                &own[..]
            }
        };
        let server = |member: &Member| {
            let value = value(secret, member.endpoint.upstream(), member.endpoint.name());
            let header = HeaderValue::from_str(&set_cookie(config, &value)).ok();
            (value, header)
        };
        Self { name: config.cookie.clone(), servers: members.iter().map(server).collect() }
    }

    /// Returns the server that a client's cookie names.
    pub fn server(&self, headers: &HeaderMap) -> Option<usize> {
        let value = cookie::find(headers, &self.name)?;
        self.servers.iter().position(|(own, _)| own.as_bytes() == value)
    }

    /// Returns the header that gives a client the cookie of a server.
    pub fn set_cookie(&self, index: usize) -> Option<&HeaderValue> {
        self.servers.get(index)?.1.as_ref()
    }
}

/// Drawn once: the values of one process survive its reloads.
fn process_secret() -> [u8; 32] {
    static SECRET: OnceLock<[u8; 32]> = OnceLock::new();
    *SECRET.get_or_init(rand::random)
}

/// Returns the value for a server, known by the upstream that has it and its name there.
fn value(secret: &[u8], upstream: &str, server: &str) -> String {
    // HMAC takes keys of any length (RFC 2104).
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return String::new() };
    mac.update(upstream.as_bytes());
    mac.update(b"\0");
    mac.update(server.as_bytes());
    let digest = mac.finalize().into_bytes();
    digest.iter().take(VALUE_LEN).fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Writes a Set-Cookie header's value (RFC 6265 4.1.1).
fn set_cookie(config: &lb::Sticky, value: &str) -> String {
    let mut text = format!("{}={value}; Path={}", config.cookie, config.path);
    if let Some(domain) = &config.domain {
        let _ = write!(text, "; Domain={domain}");
    }
    if let Some(max_age) = config.max_age {
        let _ = write!(text, "; Max-Age={}", max_age.as_secs());
    }
    for (word, wanted) in [("; Secure", config.secure), ("; HttpOnly", config.http_only)] {
        if wanted {
            text.push_str(word);
        }
    }
    let _ = write!(text, "; SameSite={}", config.same_site.word());
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{lb::SameSite, secret::Secret};

    fn config() -> lb::Sticky {
        lb::Sticky { cookie: "server".into(), secret: Some(Secret::new("0123456789abcdef")), ..lb::Sticky::default() }
    }

    #[test]
    fn the_header_has_what_the_file_says() {
        assert_eq!(set_cookie(&config(), "v"), "server=v; Path=/; HttpOnly; SameSite=Lax");
        let all = lb::Sticky {
            path: "/app/".into(),
            domain: Some("example.com".into()),
            max_age: Some(Duration::from_secs(3600)),
            secure: true,
            http_only: false,
            same_site: SameSite::None,
            ..config()
        };
        let expected = "server=v; Path=/app/; Domain=example.com; Max-Age=3600; Secure; SameSite=None";
        assert_eq!(set_cookie(&all, "v"), expected);
    }

    /// Two instances, or one before and after it was upgraded, agree: this is the value of today.
    #[test]
    fn a_value_tells_nothing_depends_on_everything_and_stays() {
        let own = value(b"0123456789abcdef", "django", "web-1");
        assert_eq!(own, "7083256532ea33381367a61cd9087ac9");
        for other in [
            value(b"0123456789abcdeg", "django", "web-1"),
            value(b"0123456789abcdef", "djang", "oweb-1"),
            value(b"0123456789abcdef", "django", "web-2"),
        ] {
            assert_ne!(own, other);
        }
    }
}
