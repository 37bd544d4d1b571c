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
