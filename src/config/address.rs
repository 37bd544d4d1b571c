//! `host:port` as it stands in the files, turned into a socket address.

use std::net::{Ipv4Addr, SocketAddr};

use crate::config::field::Field;

impl Field<'_> {
    /// Reads the address of a listener: `0.0.0.0:8080`, `[::]:8080`, `*:8080`. Port 0 takes any free one.
    pub fn listen_address(&self) -> Option<SocketAddr> {
        const MUST: &str = "must be an address and a port such as 0.0.0.0:8080";
        let text = self.text()?;
        let text = text.strip_prefix("*:").map_or(text.to_owned(), |port| format!("0.0.0.0:{port}"));
        let address = text.parse().ok();
        if address.is_none() {
            self.reject(MUST);
        }
        address
    }

    /// Reads the address of a server: `127.0.0.1:8001`, `[::1]:8001`, or `web:8000`, which is resolved now, once.
    pub fn server_address(&self) -> Option<SocketAddr> {
        const MUST: &str = "must be a host and a port such as 127.0.0.1:8001";
        let text = self.text()?;
        if text.starts_with("unix:") || text.starts_with('/') {
            self.error("a Unix socket is not offered; give a host and a port");
            return None;
        }
        let (host, port) = match text.parse::<SocketAddr>() {
            Ok(address) => (None, address),
            Err(_) => match text.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>())) {
                Some((host, Ok(port))) if is_host_name(host) => {
                    (Some(host), SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port))
                }
                _ => {
                    self.reject(MUST);
                    return None;
                }
            },
        };
        if port.port() == 0 {
            self.reject("must have a port of 1..=65535");
            return None;
        }
        match host {
            None => Some(port),
            Some(host) => self.resolved(host, port.port()),
        }
    }

    fn resolved(&self, host: &str, port: u16) -> Option<SocketAddr> {
        self.reading.resolve(host, port).map_err(|error| self.reject(&format!("must resolve ({error})"))).ok()
    }
}

/// Returns whether `text` can be a host name (RFC 1123, and the `_` that compose files put into them).
pub(super) fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    // All digits and dots is an address gone wrong, which a resolver may read in old ways (`127.1`).
    text.len() <= 253
        && text.trim_end_matches('.').split('.').all(label)
        && !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

/// Returns whether two listeners cannot both be bound.
pub(super) fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    let overlap =
        a.ip() == b.ip() || (a.is_ipv4() == b.is_ipv4() && (a.ip().is_unspecified() || b.ip().is_unspecified()));
    a.port() != 0 && a.port() == b.port() && overlap
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_host_names_from_other_texts() {
        for good in ["web", "web_1", "db.example.com", "db.example.com.", "a-b", "3com.com"] {
            assert!(is_host_name(good), "{good}");
        }
        for bad in ["", ".", "a..b", "-a", "a b", "127.1", "300.0.0.1", "http://web", "a/b", "ä.de"] {
            assert!(!is_host_name(bad), "{bad}");
        }
    }

    #[test]
    fn listeners_clash_on_one_port_when_their_addresses_overlap() {
        let clashes = |a: &str, b: &str| clash(a.parse().unwrap(), b.parse().unwrap());
        assert!(clashes("0.0.0.0:80", "127.0.0.1:80"));
        assert!(clashes("[::]:80", "[::1]:80"));
        assert!(!clashes("127.0.0.2:80", "127.0.0.1:80"));
        assert!(!clashes("0.0.0.0:80", "127.0.0.1:81"));
        assert!(!clashes("0.0.0.0:0", "0.0.0.0:0"));
    }
}
