//! Where the pool listens: TCP addresses and a Unix socket, with PgBouncer's keys; and how its sockets are tuned.
//!
//! `listen_addr` has one port for all its addresses, `listen_port`, which is also in the name of the Unix socket. `listen`
//! is for addresses with ports of their own. `*` is IPv4 and IPv6, each by a socket of its own, as in PgBouncer.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use crate::config::{address::is_host_name, field::Field, node::Value, reading::Spot, section::Section};

const DEFAULT_PORT: u16 = 6432;
/// Most addresses that can be given: one thread accepts for all of them.
const MAX_ADDRESSES: usize = 64;
/// Longest name of a Unix socket: `sun_path` of unix(7), with its zero byte.
const MAX_SOCKET_NAME: usize = 107;
/// What the kernel cuts to `net.core.somaxconn`.
const BACKLOG: u32 = 65_535;

/// Where to listen. Belongs to the running process: a reload does not change it.
#[derive(Debug, Clone, PartialEq)]
pub struct Listen {
    /// No two the same.
    pub addresses: Vec<SocketAddr>,
    /// `listen_port`: the number in the Unix socket's name.
    pub port: u16,
    pub unix: Option<UnixSocket>,
    /// `listen_backlog`: connections the kernel holds until they are accepted.
    pub backlog: u32,
    /// `so_reuseport`: other processes may listen on the same addresses, and share what comes.
    pub reuse_port: bool,
}

/// `unix_socket_dir` and what goes with it.
#[derive(Debug, Clone, PartialEq)]
pub struct UnixSocket {
    /// `@` and a name: in the abstract namespace, without a file.
    pub dir: String,
    /// Permissions of the file.
    pub mode: u32,
    pub group: Option<Group>,
}

/// A group of the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    pub gid: u32,
}

impl Listen {
    /// Returns one that is a TCP address alone.
    pub fn tcp(address: SocketAddr) -> Self {
        Self { addresses: vec![address], port: address.port(), unix: None, backlog: BACKLOG, reuse_port: false }
    }

    /// Returns the keys by which another one differs.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let hosts = |listen: &Self| listen.addresses.iter().map(SocketAddr::ip).collect::<Vec<_>>();
        let ports = |listen: &Self| (listen.addresses.iter().map(SocketAddr::port).collect::<Vec<_>>(), listen.port);
        let (same_hosts, same_ports) = (hosts(self) == hosts(other), ports(self) == ports(other));
        let dir = |listen: &Self| listen.unix.as_ref().map(|unix| unix.dir.clone());
        // Of a socket that both have.
        let (mode, group) = match (&self.unix, &other.unix) {
            (Some(ours), Some(theirs)) => (ours.mode != theirs.mode, ours.group != theirs.group),
            _ => (false, false),
        };
        let differ = [
            ("listen_addr", !same_hosts),
            // Other hosts have other ports, or none.
            ("listen_port", if same_hosts { !same_ports } else { self.port != other.port }),
            ("listen_backlog", self.backlog != other.backlog),
            ("so_reuseport", self.reuse_port != other.reuse_port),
            ("unix_socket_dir", dir(self) != dir(other)),
            ("unix_socket_mode", mode),
            ("unix_socket_group", group),
        ];
        differ.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }

    /// Returns the Unix socket's name as the configuration would write it.
    pub fn unix_path(&self) -> Option<String> {
        self.unix.as_ref().map(|unix| unix_socket_path(&unix.dir, self.port))
    }
}

/// Returns the name of PostgreSQL's socket in a folder.
pub fn unix_socket_path(dir: &str, port: u16) -> String {
    format!("{}/.s.PGSQL.{port}", dir.trim_end_matches('/'))
}

/// `tcp_*`: of the sockets of clients and servers alike. `None`: what the kernel does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tcp {
    pub keepalive: bool,
    /// How long nothing comes before the first question. Default 60 s.
    pub keepidle: Option<Duration>,
    /// Between two questions. Default 10 s.
    pub keepintvl: Option<Duration>,
    /// Unanswered questions until the other side counts as gone. Default 6.
    pub keepcnt: Option<u32>,
    /// How long what was sent may stay unacknowledged.
    pub user_timeout: Option<Duration>,
    /// Bytes of each direction's buffer.
    pub socket_buffer: Option<usize>,
    /// How long the kernel keeps a connection that says nothing from being accepted. Listeners alone. Default 1 s.
    pub defer_accept: Option<Duration>,
}

impl Default for Tcp {
    fn default() -> Self {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        Self {
            keepalive: true,
            keepidle: seconds(60),
            keepintvl: seconds(10),
            keepcnt: Some(6),
            user_timeout: None,
            socket_buffer: None,
            defer_accept: seconds(1),
        }
    }
}

/// Reads where to listen, with the place of each address.
pub(super) fn read(section: &mut Section<'_>) -> (Listen, Vec<Spot>) {
    let port_field = section.get("listen_port");
    let port = port_field.as_ref().and_then(|field| field.integer(0..=65_535)).unwrap_or(DEFAULT_PORT);
    let unix = unix(section, port);
    let hosts = section.get("listen_addr");
    let listen = section.get("listen");
    if let (Some(_), Some(listen)) = (&hosts, &listen) {
        listen.error("stands beside listen_addr; give one of them");
    }
    let found = match (&listen, &hosts) {
        (Some(field), _) => whole(field),
        (None, Some(field)) => of_hosts(field, port),
        (None, None) => {
            let spot = port_field.as_ref().map_or_else(|| section.spot().clone(), |field| field.spot.clone());
            vec![(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), spot)]
        }
    };
    let place = listen.or(hosts);
    if let (true, None, Some(field)) = (found.is_empty(), &unix, &place) {
        // What could not be read has been reported.
        if items(field).is_empty() {
            field.error("names no address, and there is no unix_socket_dir: nobody could connect");
        }
    }
    if let (true, Some(field)) = (found.len() > MAX_ADDRESSES, &place) {
        field.error(format!("names more than {MAX_ADDRESSES} addresses"));
    }
    let (addresses, spots) = unique(found).into_iter().unzip();
    let backlog = section.integer("listen_backlog", BACKLOG, 1..=i32::MAX as u64);
    let reuse_port = section.get("so_reuseport").and_then(|field| switch(&field)).unwrap_or(false);
    (Listen { addresses, port, unix, backlog, reuse_port }, spots)
}

/// Reads `tcp_*`.
pub(super) fn read_tcp(section: &mut Section<'_>) -> Tcp {
    let default = Tcp::default();
    let mut count = |key, otherwise| section.get(key).map_or(otherwise, |field| nonzero(field.integer(0..=127)));
    let keepcnt = count("tcp_keepcnt", default.keepcnt);
    Tcp {
        keepalive: section.get("tcp_keepalive").and_then(|field| switch(&field)).unwrap_or(default.keepalive),
        // As far as the kernel goes (MAX_TCP_KEEPIDLE and MAX_TCP_KEEPINTVL of linux/tcp.h).
        keepidle: seconds(section, "tcp_keepidle", default.keepidle, 32_767),
        keepintvl: seconds(section, "tcp_keepintvl", default.keepintvl, 32_767),
        keepcnt,
        user_timeout: section.get("tcp_user_timeout").and_then(|field| milliseconds(&field)),
        socket_buffer: section
            .get("tcp_socket_buffer")
            .and_then(|field| field.size_within(0..=1 << 30))
            .and_then(nonzero_size),
        defer_accept: seconds(section, "tcp_defer_accept", default.defer_accept, 3_600),
    }
}

fn nonzero(count: Option<u32>) -> Option<u32> {
    count.filter(|count| *count != 0)
}

fn nonzero_size(size: u64) -> Option<usize> {
    usize::try_from(size).ok().filter(|size| *size != 0)
}

/// Reads whole seconds; 0 is the kernel's.
fn seconds(section: &mut Section<'_>, key: &'static str, default: Option<Duration>, most: u64) -> Option<Duration> {
    let Some(field) = section.get(key) else { return default };
    let time = field.duration()?;
    if time.subsec_nanos() != 0 || time.as_secs() > most {
        field.reject(&format!("must be whole seconds, at most {most}"));
        return None;
    }
    Some(time).filter(|time| !time.is_zero())
}

/// Reads a duration of which a bare number is milliseconds, as in PgBouncer.
fn milliseconds(field: &Field<'_>) -> Option<Duration> {
    let bare = match &field.node.value {
        Value::Scalar(scalar) => scalar.text.parse::<u32>().ok(),
        _ => None,
    };
    let time = bare.map(|bare| Duration::from_millis(bare.into())).or_else(|| field.duration())?;
    Some(time).filter(|time| !time.is_zero())
}

/// Reads `true`, `false`, and PgBouncer's `1` and `0`.
fn switch(field: &Field<'_>) -> Option<bool> {
    match () {
        () if field.is("1") => Some(true),
        () if field.is("0") => Some(false),
        () => field.flag(),
    }
}

fn unix(section: &mut Section<'_>, port: u16) -> Option<UnixSocket> {
    let mode = section.get("unix_socket_mode").and_then(|field| permissions(&field)).unwrap_or(0o777);
    let group = section.get("unix_socket_group").and_then(|field| group(&field));
    let field = section.get("unix_socket_dir")?;
    // An empty text is PgBouncer's "none".
    if field.is("") {
        return None;
    }
    let dir = field.text()?;
    let is_name = dir.starts_with('@') && dir.len() > 1;
    if !dir.starts_with('/') && !is_name {
        field.reject("must be a folder (from / on), or @ and a name");
        return None;
    }
    let name = unix_socket_path(dir, port);
    if name.len() > MAX_SOCKET_NAME {
        field.error(format!(
            "makes the socket's name {} bytes long; the system takes {MAX_SOCKET_NAME}: {name}",
            name.len()
        ));
        return None;
    }
    Some(UnixSocket { dir: dir.to_owned(), mode, group })
}

/// Reads permissions in octal digits, as chmod takes them.
fn permissions(field: &Field<'_>) -> Option<u32> {
    let text = field.text()?;
    let mode = u32::from_str_radix(text.strip_prefix("0o").unwrap_or(text), 8).ok().filter(|mode| *mode <= 0o777);
    if mode.is_none() {
        field.reject("must be octal permissions such as 0770");
    }
    mode
}

fn group(field: &Field<'_>) -> Option<Group> {
    if field.is("") {
        return None;
    }
    let name = field.name()?;
    if let Ok(gid) = name.parse() {
        return Some(Group { name: name.to_owned(), gid });
    }
    match nix::unistd::Group::from_name(name) {
        Ok(Some(group)) => Some(Group { name: name.to_owned(), gid: group.gid.as_raw() }),
        Ok(None) => {
            field.reject("must be a group of this system");
            None
        }
        Err(error) => {
            field.error(format!("cannot be looked up: {error}"));
            None
        }
    }
}

/// Returns the parts of a list, or of a text with commas.
fn items<'a>(field: &Field<'a>) -> Vec<(String, Field<'a>)> {
    match &field.node.value {
        Value::List(_) => field.items().into_iter().filter_map(|item| Some((item.text()?.to_owned(), item))).collect(),
        Value::Scalar(scalar) => {
            let words = scalar.text.split(',').map(str::trim).filter(|word| !word.is_empty());
            words.map(|word| (word.to_owned(), field.clone())).collect()
        }
        _ => {
            field.reject("must be an address, or a list of addresses");
            Vec::new()
        }
    }
}

/// Reads `listen`: addresses with ports.
fn whole(field: &Field<'_>) -> Vec<(SocketAddr, Spot)> {
    let mut found = Vec::new();
    for (text, item) in items(field) {
        match text.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>())) {
            Some((host, Ok(port))) => {
                let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
                found.extend(resolve(host, port, &item).into_iter().map(|address| (address, item.spot.clone())));
            }
            _ => item.reject("must be an address and a port such as 127.0.0.1:6432 or [::1]:6432"),
        }
    }
    found
}

/// Reads `listen_addr`: addresses and names without ports.
fn of_hosts(field: &Field<'_>, port: u16) -> Vec<(SocketAddr, Spot)> {
    let found = items(field).into_iter().flat_map(|(host, item)| {
        let spot = item.spot.clone();
        resolve(&host, port, &item).into_iter().map(move |address| (address, spot.clone()))
    });
    found.collect()
}

fn resolve(host: &str, port: u16, field: &Field<'_>) -> Vec<SocketAddr> {
    if host == "*" {
        return vec![(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()];
    }
    let with_port = |ip: IpAddr| SocketAddr::new(ip, port);
    match host.parse::<IpAddr>() {
        Ok(address) => vec![with_port(address)],
        Err(_) if is_host_name(host) => match field.reading.resolve_all(host) {
            Ok(found) => found.into_iter().map(with_port).collect(),
            Err(error) => {
                field.error(format!("must resolve ({error}), got {host}"));
                Vec::new()
            }
        },
        Err(_) => {
            field.error(format!("must be an address such as 127.0.0.1, a host name or *, got {host}"));
            Vec::new()
        }
    }
}

/// A name and its address may both be listed.
fn unique(found: Vec<(SocketAddr, Spot)>) -> Vec<(SocketAddr, Spot)> {
    let mut unique: Vec<(SocketAddr, Spot)> = Vec::new();
    for (address, spot) in found {
        if address.port() == 0 || unique.iter().all(|(known, _)| *known != address) {
            unique.push((address, spot));
        }
    }
    unique
}
