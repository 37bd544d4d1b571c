//! Who is at the other end of a connection, as the kernel says: an address of the network, or a process of this machine
//! behind a Unix socket.
//!
//! Of a Unix socket the kernel vouches for the process that connected (SO_PEERCRED): its user and group when it did, and its
//! number. Nothing of that comes from the peer itself, so a login may be built on it.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

/// What PgBouncer writes where an address would stand.
const UNIX: &str = "unix";
/// As whom the kernel shows everybody of another user namespace (user_namespaces(7)): this says who nobody is.
const OVERFLOW_UID: u32 = 65_534;

/// The other end, and ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Tcp {
        remote: SocketAddr,
        local: SocketAddr,
    },
    Unix {
        /// `None`: the kernel does not say.
        credentials: Option<Credentials>,
        /// The number in the socket's name, `.s.PGSQL.<port>`.
        port: u16,
    },
}

/// The process at the other end of a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    pub uid: u32,
    pub gid: u32,
    pub pid: Option<i32>,
}

impl Peer {
    /// Returns the address of the network it came from; `None` for a Unix socket.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp { remote, .. } => Some(remote.ip().to_canonical()),
            Self::Unix { .. } => None,
        }
    }

    /// Returns the address it is counted under: a process of this machine is where this machine is.
    pub fn place(&self) -> IpAddr {
        self.ip().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    /// Returns the process behind a Unix socket.
    pub fn credentials(&self) -> Option<Credentials> {
        match self {
            Self::Unix { credentials, .. } => *credentials,
            Self::Tcp { .. } => None,
        }
    }

    /// Returns whether it is a process of the user that this one runs as, on this machine.
    pub fn is_own_user(&self) -> bool {
        // SAFETY: geteuid(2) has no arguments and cannot fail.
        self.is_of(unsafe { libc::geteuid() })
    }

    fn is_of(&self, uid: u32) -> bool {
        uid != OVERFLOW_UID && self.credentials().is_some_and(|credentials| credentials.uid == uid)
    }

    /// Returns address and port of its end, as SHOW CLIENTS has them.
    pub fn remote(&self) -> (String, u16) {
        match self {
            Self::Tcp { remote, .. } => (remote.ip().to_string(), remote.port()),
            Self::Unix { port, .. } => (UNIX.to_owned(), *port),
        }
    }

    /// Returns address and port of our end.
    pub fn local(&self) -> (String, u16) {
        match self {
            Self::Tcp { local, .. } => (local.ip().to_string(), local.port()),
            Self::Unix { port, .. } => (UNIX.to_owned(), *port),
        }
    }
}

/// As in a log: `10.0.0.1:4000`, `unix(4711):6432`.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { remote, .. } => remote.fmt(f),
            Self::Unix { credentials: Some(Credentials { pid: Some(pid), .. }), port } => {
                write!(f, "{UNIX}({pid}):{port}")
            }
            Self::Unix { port, .. } => write!(f, "{UNIX}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(uid: u32, pid: Option<i32>) -> Peer {
        Peer::Unix { credentials: Some(Credentials { uid, gid: 0, pid }), port: 6432 }
    }

    #[test]
    fn only_a_process_of_the_same_user_is_of_it_and_nobody_is_nobodys() {
        assert!(unix(7, None).is_of(7));
        assert!(!unix(7, None).is_of(8));
        assert!(!unix(OVERFLOW_UID, None).is_of(OVERFLOW_UID));
        assert!(!Peer::Unix { credentials: None, port: 1 }.is_of(7));
    }

    #[test]
    fn a_peer_is_written_as_in_pgbouncers_log() {
        let remote = "[::ffff:10.0.0.1]:4000".parse().unwrap();
        let tcp = Peer::Tcp { remote, local: "127.0.0.1:6432".parse().unwrap() };
        assert_eq!(tcp.ip(), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(unix(0, Some(4711)).to_string(), "unix(4711):6432");
        assert_eq!(unix(0, None).to_string(), "unix:6432");
        assert_eq!(unix(0, None).remote(), ("unix".to_owned(), 6432));
    }

    #[test]
    fn nobody_over_the_network_is_of_our_own_user() {
        let address = "127.0.0.1:1".parse().unwrap();
        assert!(!Peer::Tcp { remote: address, local: address }.is_own_user());
        assert!(!Peer::Unix { credentials: None, port: 1 }.is_own_user());
        // SAFETY: as above.
        let uid = unsafe { libc::geteuid() };
        assert!(unix(uid, None).is_own_user());
        assert!(!unix(uid + 1, None).is_own_user());
    }
}
