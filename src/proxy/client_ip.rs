//! Who the client is: the peer, or whom a trusted peer names.
//!
//! `X-Forwarded-For` is a list that each proxy appends to, and anyone may begin. It is read from the right, beginning with
//! the peer: as long as an address is in `trusted_proxies` the one before it is believed, and the first that is not is the
//! client (nginx's `real_ip_recursive on`). What cannot be read as an address ends the reading at the last one that could:
//! nothing beyond it is worth more than the word of whoever wrote it.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// The peers whose forwarding headers are believed.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Trusts the addresses of these networks.
    pub fn new(networks: &[IpNet]) -> Self {
        Self(networks.to_vec())
    }

    /// Returns whether `address` is trusted.
    pub fn contains(&self, address: IpAddr) -> bool {
        !self.0.is_empty() && within(&self.0, address)
    }

    /// Returns the client behind `peer`. `forwarded_for` are the values of all X-Forwarded-For lines, in their order.
    pub fn client<'a, I>(&self, peer: IpAddr, forwarded_for: I) -> IpAddr
    where
        I: IntoIterator<Item = &'a [u8], IntoIter: DoubleEndedIterator>,
    {
        if !self.contains(peer) {
            return peer;
        }
        let mut client = peer;
        for entry in forwarded_for.into_iter().rev().flat_map(|line| line.rsplit(|&byte| byte == b',')) {
            let Some(address) = address(entry) else { return client };
            client = address;
            if !self.contains(client) {
                return client;
            }
        }
        client
    }
}

/// Returns whether one of `networks` has `address`. An IPv4 address is also known in its IPv6 clothes (`::ffff:10.0.0.1`),
/// as a listener on `[::]` sees it.
pub fn within(networks: &[IpNet], address: IpAddr) -> bool {
    let plain = address.to_canonical();
    networks.iter().any(|network| network.contains(&plain) || network.contains(&address))
}

/// Reads `10.0.0.1`, `10.0.0.1:4711`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:4711`.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim_matches([' ', '\t']);
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address.ip());
    }
    text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn trusted() -> TrustedProxies {
        TrustedProxies::new(&["10.0.0.0/8".parse().unwrap(), "2001:db8:1::/48".parse().unwrap()])
    }

    fn client(peer: &str, lines: &[&str]) -> String {
        trusted().client(peer.parse().unwrap(), lines.iter().map(|line| line.as_bytes())).to_string()
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_says() {
        assert_eq!(client("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(client("192.0.2.1", &["10.0.0.1, 10.0.0.2"]), "192.0.2.1");
        let nobody = TrustedProxies::default();
        assert_eq!(nobody.client("10.0.0.1".parse().unwrap(), [&b"198.51.100.7"[..]]).to_string(), "10.0.0.1");
    }

    #[test]
    fn the_rightmost_untrusted_address_is_the_client() {
        assert_eq!(client("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["1.1.1.1, 198.51.100.7 ,10.9.9.9"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["1.1.1.1", "198.51.100.7", "10.9.9.9,10.8.8.8"]), "198.51.100.7");
        assert_eq!(client("2001:db8:1::5", &["2001:db8:2::1, 2001:db8:1::9"]), "2001:db8:2::1");
    }

    #[test]
    fn if_all_are_trusted_the_first_one_is_the_client() {
        assert_eq!(client("10.0.0.1", &["10.1.1.1, 10.2.2.2"]), "10.1.1.1");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn reading_stops_at_what_is_no_address() {
        for garbage in
            ["unknown", "", "_hidden", "10.0.0", "10.0.0.1:port", "[::1", "1.2.3.4.5", "\u{fc}", "10.0.0.1 x"]
        {
            assert_eq!(client("10.0.0.1", &[&format!("198.51.100.7, {garbage}, 10.2.2.2")]), "10.2.2.2", "{garbage:?}");
            assert_eq!(client("10.0.0.1", &[garbage]), "10.0.0.1", "{garbage:?}");
        }
        let bytes = trusted().client("10.0.0.1".parse().unwrap(), [&b"198.51.100.7, \xff"[..]]);
        assert_eq!(bytes.to_string(), "10.0.0.1");
    }

    #[test]
    fn ports_and_brackets_are_read() {
        assert_eq!(client("10.0.0.1", &["198.51.100.7:4711"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["[2001:db8::1]:4711"]), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &["[2001:db8::1]"]), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &["\t2001:db8::1 "]), "2001:db8::1");
    }

    #[test]
    fn an_ipv4_peer_seen_through_an_ipv6_listener_is_trusted_the_same() {
        assert_eq!(client("::ffff:10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("::ffff:192.0.2.1", &["198.51.100.7"]), "::ffff:192.0.2.1");
    }

    proptest! {
        #[test]
        fn no_header_upsets_the_reading_and_the_untrusted_never_name_themselves(
            lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..4),
        ) {
            let lines = || lines.iter().map(Vec::as_slice);
            trusted().client("10.0.0.1".parse().unwrap(), lines());
            let peer: IpAddr = "192.0.2.1".parse().unwrap();
            prop_assert_eq!(trusted().client(peer, lines()), peer);
        }

        #[test]
        fn whatever_the_client_wrote_before_does_not_matter(forged in "[0-9a-f.:, ]{0,40}", split: bool) {
            let honest = "203.0.113.9, 10.3.3.3";
            let expected = client("10.0.0.1", &[honest]);
            let (one, two) = (format!("{forged}, {honest}"), [forged.as_str(), honest]);
            let lines: Vec<&str> = if split { two.to_vec() } else { vec![&one] };
            prop_assert_eq!(client("10.0.0.1", &lines), expected);
        }
    }
}
