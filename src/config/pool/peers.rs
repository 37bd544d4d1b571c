//! `peer_id` and `peers:`: the processes behind one address, which pass cancel requests on to each other.
//!
//! Names and defaults are PgBouncer's; `tls` is Bookend's own.

use crate::config::{
    field::Field,
    pool::{MAX_POOL_SIZE, database},
    section::Section,
};

/// PgBouncer's largest `peer_id`: 14 bits.
const PEER_ID_MAX: u64 = 16_383;
const POOL_PORT: u16 = 6432;

/// The group this process belongs to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Peers {
    /// `peer_id`; 0: this process belongs to none.
    pub id: u16,
    /// `peers`, by their number. This process may be among them.
    pub all: Vec<Peer>,
}

/// One entry of `peers:`.
#[derive(Debug, Clone, PartialEq)]
pub struct Peer {
    pub id: u16,
    /// A host name, an address, or a folder of Unix sockets.
    pub host: String,
    /// Default 6432.
    pub port: u16,
    /// Cancel requests under way to it at a time. `None`: `default_pool_size`. 0: no limit.
    pub pool_size: Option<u32>,
    /// Whether it is reached as `server_tls_*` say. Default: in plain text, as PgBouncer does.
    pub tls: bool,
}

/// Reads `peer_id` of `pool:`.
pub(super) fn read_id(section: &mut Section<'_>) -> u16 {
    section.integer("peer_id", 0, 0..=PEER_ID_MAX)
}

/// Reads `peers:`. `id` is this process's own; `has_tls` says whether `server_tls_sslmode` asks for any.
pub(super) fn read(file: &mut Section<'_>, id: u16, has_tls: bool) -> Vec<Peer> {
    let Some(field) = file.get("peers") else { return Vec::new() };
    let entries = field.entries();
    if id == 0 && !entries.is_empty() {
        let why = "peers has no effect without pool.peer_id, the number of this process among them";
        match field.reading.is_ini() {
            true => field.reading.note(why),
            false => field.error(why),
        }
    }
    let mut peers: Vec<Peer> = entries.iter().filter_map(|(name, field)| peer(name, field, has_tls)).collect();
    peers.sort_by_key(|peer| peer.id);
    if let Some(twice) = peers.windows(2).find(|pair| pair[0].id == pair[1].id) {
        field.error(format!("peer {} is there twice", twice[0].id));
    }
    peers
}

fn peer(name: &str, field: &Field<'_>, has_tls: bool) -> Option<Peer> {
    let id = name.parse().ok().filter(|id| (1..=PEER_ID_MAX).contains(id)).and_then(|id| u16::try_from(id).ok());
    if id.is_none() {
        field.error(format!("a peer's name must be its peer_id, 1 to {PEER_ID_MAX}"));
    }
    let mut section = field.section();
    let host = section.require("host", "10.0.0.7");
    if let Some(host) = host.as_ref().filter(|host| host.text().is_some_and(|text| text.contains(','))) {
        host.reject("must be one host");
    }
    let tls = section.get("tls");
    let with_tls = tls.as_ref().and_then(Field::flag).unwrap_or(false);
    if let Some(tls) = tls.filter(|_| with_tls && !has_tls) {
        tls.error("needs server_tls_sslmode: prefer or more");
    }
    let peer = Peer {
        id: id.unwrap_or_default(),
        host: host.and_then(|host| database::read_host(&host)).unwrap_or_default(),
        port: section.integer("port", POOL_PORT, 1..=65_535),
        pool_size: section.get("pool_size").and_then(|field| field.integer(0..=MAX_POOL_SIZE)),
        tls: with_tls,
    };
    section.finish();
    id.map(|_| peer)
}
