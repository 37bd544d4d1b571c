//! `balance:` and `hash:` of an upstream: how a server is chosen.

use http::HeaderName;

use crate::config::{field::Field, section::Section};

/// How a server is chosen. Backup servers are used in turn, whatever this says, when no other is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Balance {
    /// Smooth weighted round robin, nginx's default.
    RoundRobin,
    /// The server with the fewest requests and WebSockets for its weight, in turn where several have as few (nginx, HAProxy).
    LeastConn,
    /// nginx's `ip_hash`.
    IpHash,
    /// Of two servers taken at random by weight, the one with fewer requests for its weight (nginx's `random two least_conn`).
    Random,
    /// The same key leads to the same server, and a server that comes or goes moves only its own share of keys.
    ConsistentHash(Hash),
    /// Of two servers taken at random by weight, the one that has answered faster lately, its requests in flight considered.
    Ewma,
}

impl Balance {
    /// Returns its word in lb.yaml.
    pub fn word(&self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::LeastConn => "least_conn",
            Self::IpHash => "ip_hash",
            Self::Random => "random",
            Self::ConsistentHash(_) => "consistent_hash",
            Self::Ewma => "ewma",
        }
    }
}

/// `hash:` with `balance: consistent_hash`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hash {
    /// Default `client_ip`.
    pub key: HashKey,
    /// Bits of an IPv4 address that count. Default 32.
    pub ipv4_prefix: u8,
    /// Bits of an IPv6 address that count. Default 64: what one subscriber has.
    pub ipv6_prefix: u8,
    /// How much of its fair share of the requests in flight a server may have, in percent, before keys go to their next
    /// server (HAProxy's `hash-balance-factor`). `None`, written 0: no bound. Default 150.
    pub balance_factor: Option<u32>,
}

impl Default for Hash {
    fn default() -> Self {
        Self { key: HashKey::ClientIp, ipv4_prefix: 32, ipv6_prefix: 64, balance_factor: Some(150) }
    }
}

/// What of a request is hashed. A request that lacks it goes where `random` would send it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    ClientIp,
    /// The path without its query.
    Path,
    /// `header:NAME`
    Header(HeaderName),
    /// `cookie:NAME`
    Cookie(Box<str>),
}

impl std::fmt::Display for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ClientIp => f.write_str("client_ip"),
            Self::Path => f.write_str("path"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    RoundRobin,
    LeastConn,
    IpHash,
    Random,
    ConsistentHash,
    Ewma,
}

const WAYS: [(&str, Way); 6] = [
    ("round_robin", Way::RoundRobin),
    ("least_conn", Way::LeastConn),
    ("ip_hash", Way::IpHash),
    ("random", Way::Random),
    ("consistent_hash", Way::ConsistentHash),
    ("ewma", Way::Ewma),
];

pub(super) fn read(section: &mut Section<'_>) -> Balance {
    let way = section.choice("balance", Way::RoundRobin, &WAYS);
    let hash = section.get("hash");
    if let (Some(hash), true) = (&hash, way != Way::ConsistentHash) {
        hash.error("has no meaning without balance: consistent_hash");
    }
    match way {
        Way::RoundRobin => Balance::RoundRobin,
        Way::LeastConn => Balance::LeastConn,
        Way::IpHash => Balance::IpHash,
        Way::Random => Balance::Random,
        Way::ConsistentHash => Balance::ConsistentHash(hash.map_or_else(Hash::default, |hash| read_hash(&hash))),
        Way::Ewma => Balance::Ewma,
    }
}

fn read_hash(field: &Field<'_>) -> Hash {
    let mut section = field.section();
    let default = Hash::default();
    let hash = Hash {
        key: section.get("key").and_then(|key| read_key(&key)).unwrap_or(default.key),
        ipv4_prefix: section.integer("ipv4_prefix", default.ipv4_prefix, 0..=32),
        ipv6_prefix: section.integer("ipv6_prefix", default.ipv6_prefix, 0..=128),
        balance_factor: section.get("balance_factor").map_or(default.balance_factor, |field| read_factor(&field)),
    };
    section.finish();
    hash
}

fn read_factor(field: &Field<'_>) -> Option<u32> {
    match field.integer::<u32>(0..=10_000)? {
        0 => None,
        factor @ 101.. => Some(factor),
        _ => {
            field.reject("must be 0, for no bound, or more than 100: at 100 every server would be full");
            None
        }
    }
}

fn read_key(field: &Field<'_>) -> Option<HashKey> {
    let text = field.text()?;
    let is_cookie_name = |name: &str| !name.is_empty() && name.bytes().all(is_token);
    let key = match text.split_once(':') {
        None if text == "client_ip" => Some(HashKey::ClientIp),
        None if text == "path" => Some(HashKey::Path),
        Some(("header", name)) => HeaderName::from_bytes(name.as_bytes()).ok().map(HashKey::Header),
        Some(("cookie", name)) if is_cookie_name(name) => Some(HashKey::Cookie(name.into())),
        _ => None,
    };
    if key.is_none() {
        field.reject("must be client_ip, path, header:NAME or cookie:NAME");
    }
    key
}

/// A character of a token (RFC 9110 5.6.2), of which cookies' names are made (RFC 6265 4.1.1).
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
