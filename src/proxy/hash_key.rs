//! What of a request `balance: consistent_hash` goes by. Pure.

use std::net::IpAddr;

use pingora::http::RequestHeader;

use super::{cookie, ctx, upstream::select::hash};
use crate::config::lb::{Balance, Hash, HashKey};

/// Returns the number that a request's key has; `None` where nothing is hashed, or the request has no such key.
pub(super) fn of(balance: &Balance, request: &RequestHeader, client: IpAddr) -> Option<u64> {
    let Balance::ConsistentHash(how) = balance else { return None };
    match &how.key {
        HashKey::ClientIp => Some(hash(&network(how, client).octets())),
        HashKey::Path => Some(hash(ctx::path(request))),
        HashKey::Header(name) => present(request.headers.get(name)?.as_bytes()),
        HashKey::Cookie(name) => present(cookie::find(&request.headers, name)?),
    }
}

fn present(value: &[u8]) -> Option<u64> {
    (!value.is_empty()).then(|| hash(value))
}

/// Returns the part of an address that counts, as an IPv6 one.
fn network(how: &Hash, client: IpAddr) -> std::net::Ipv6Addr {
    match client.to_canonical() {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(how.ipv4_prefix)).unwrap_or(0);
            std::net::Ipv4Addr::from_bits(address.to_bits() & mask).to_ipv6_mapped()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(how.ipv6_prefix)).unwrap_or(0);
            std::net::Ipv6Addr::from_bits(address.to_bits() & mask)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(key: HashKey) -> Balance {
        Balance::ConsistentHash(Hash { key, ..Hash::default() })
    }

    fn request(target: &str, headers: &[(&'static str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
        for (name, value) in headers {
            request.append_header(*name, *value).unwrap();
        }
        request
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_of_one_network_have_one_key() {
        let plain = request("/", &[]);
        let of = |prefixes: (u8, u8), address: &str| {
            let hash = Hash { ipv4_prefix: prefixes.0, ipv6_prefix: prefixes.1, ..Hash::default() };
            super::of(&Balance::ConsistentHash(hash), &plain, ip(address))
        };
        assert_ne!(of((32, 64), "10.0.0.1"), of((32, 64), "10.0.0.2"));
        assert_eq!(of((24, 64), "10.0.0.1"), of((24, 64), "10.0.0.2"));
        assert_ne!(of((24, 64), "10.0.0.1"), of((24, 64), "10.0.1.1"));
        assert_eq!(of((32, 64), "10.0.0.1"), of((32, 64), "::ffff:10.0.0.1"));
        assert_eq!(of((32, 64), "2001:db8::1"), of((32, 64), "2001:db8::2"));
        assert_ne!(of((32, 128), "2001:db8::1"), of((32, 128), "2001:db8::2"));
        assert_eq!(of((0, 0), "10.0.0.1"), of((0, 0), "192.0.2.1"));
        assert_eq!(of((0, 0), "2001:db8::1"), of((0, 0), "fe80::1"));
    }

    #[test]
    fn a_request_has_the_key_it_is_asked_for_or_none() {
        let here = ip("10.0.0.1");
        let asked = request("/shop/?a=1", &[("x-tenant", "acme"), ("cookie", "a=1; sessionid=abc")]);
        let header = |name: &'static str| by(HashKey::Header(http::HeaderName::from_static(name)));
        let cookie = |name: &str| by(HashKey::Cookie(name.into()));
        assert_eq!(of(&by(HashKey::Path), &asked, here), Some(hash(b"/shop/")));
        assert_eq!(of(&header("x-tenant"), &asked, here), Some(hash(b"acme")));
        assert_eq!(of(&cookie("sessionid"), &asked, here), Some(hash(b"abc")));
        assert_eq!(of(&header("x-other"), &asked, here), None);
        assert_eq!(of(&cookie("session"), &asked, here), None);
        assert_eq!(of(&cookie("e"), &request("/", &[("cookie", "e=")]), here), None, "nothing is no key");
        assert_eq!(of(&Balance::LeastConn, &asked, here), None);
    }
}
