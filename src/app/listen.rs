//! Listening sockets, bound here before anything runs.
//!
//! pingora binds inside each service, tries for 30 seconds while an address is in use and then panics, with the rest of
//! the process already serving. So the sockets are bound here first, all of them, with one clear line per address that
//! cannot be had, and handed to pingora through its table of inherited sockets (the one an upgrade fills): there is no
//! moment between a check and a bind in which someone else could take the port. `SO_REUSEADDR` is set as pingora sets it:
//! a port whose old connections are in TIME_WAIT is free, one that someone listens on is not.

mod unix;

use std::{io, net::SocketAddr, os::fd::OwnedFd};

use socket2::{Domain, Socket, Type};

pub use self::unix::SocketFile;
use crate::config::pool::UnixSocket;

/// Connections the kernel holds until they are accepted; it cuts this to `net.core.somaxconn`.
const BACKLOG: u32 = 65_535;

/// An address to listen on, and the key of the configuration that says so.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    pub place: Place,
    /// For the operator, e.g. `pool.yaml pool.listen_port`.
    pub key: String,
    pub backlog: u32,
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq)]
pub enum Place {
    Tcp {
        address: SocketAddr,
        sharing: Sharing,
    },
    Unix {
        /// As the configuration writes it.
        name: String,
        socket: UnixSocket,
    },
}

/// What else may be on the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sharing {
    /// Other sockets, of other processes too, that say the same (SO_REUSEPORT).
    pub reuse_port: bool,
    /// IPv4 on `::` (IPV6_V6ONLY), which has a socket of its own.
    pub only_v6: bool,
    /// Without it, nothing: `*` means IPv6 where there is IPv6.
    pub optional: bool,
}

impl Wanted {
    /// Returns a TCP address that is nobody else's.
    pub fn tcp(address: SocketAddr, key: impl Into<String>) -> Self {
        Self { place: Place::Tcp { address, sharing: Sharing::default() }, key: key.into(), backlog: BACKLOG }
    }

    /// Returns whether a service means this by what it says it listens on.
    pub fn is(&self, spelled: &str) -> bool {
        match &self.place {
            Place::Tcp { address, .. } => spelled.parse::<SocketAddr>().is_ok_and(|spelled| spelled == *address),
            Place::Unix { name, .. } => name == spelled,
        }
    }

    fn shown(&self) -> String {
        match &self.place {
            Place::Tcp { address, .. } => address.to_string(),
            Place::Unix { name, .. } => name.clone(),
        }
    }
}

/// A socket that listens.
#[derive(Debug)]
pub struct Bound {
    pub socket: OwnedFd,
    /// Of a Unix socket, its file; gone with this value.
    pub file: Option<SocketFile>,
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({key}): {}", reason(source))]
pub struct ListenError {
    pub address: String,
    pub key: String,
    pub source: io::Error,
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        // Words of our own say more than the kind.
        _ if error.get_ref().is_some() => error.to_string(),
        io::ErrorKind::AddrInUse => "address in use".into(),
        io::ErrorKind::AddrNotAvailable => "no interface of this machine has that address".into(),
        io::ErrorKind::PermissionDenied => "permission denied (ports below 1024 need CAP_NET_BIND_SERVICE)".into(),
        _ => error.to_string(),
    }
}

/// Binds one address and begins to listen. `None`: it may be missing, and is.
///
/// # Errors
/// When the address cannot be had.
pub fn bind(wanted: &Wanted) -> Result<Option<Bound>, ListenError> {
    let backlog = i32::try_from(wanted.backlog).unwrap_or(i32::MAX);
    let bound = match &wanted.place {
        Place::Tcp { address, sharing } => match tcp(*address, *sharing, backlog) {
            Err(error) if sharing.optional && is_no_ipv6(&error) => return Ok(None),
            bound => bound.map(|socket| Bound { socket, file: None }),
        },
        Place::Unix { name, socket } => unix::listen(name, socket, backlog),
    };
    bound.map(Some).map_err(|source| ListenError { address: wanted.shown(), key: wanted.key.clone(), source })
}

fn tcp(address: SocketAddr, sharing: Sharing, backlog: i32) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), None)?;
    socket.set_reuse_address(true)?;
    if sharing.reuse_port {
        socket.set_reuse_port(true)?;
    }
    if sharing.only_v6 && address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

/// A machine without IPv6 has no such family, or not even the address `::`.
fn is_no_ipv6(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EAFNOSUPPORT) || error.kind() == io::ErrorKind::AddrNotAvailable
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn wanted(address: &str) -> Wanted {
        Wanted::tcp(address.parse().unwrap(), "pool.yaml pool.listen_port")
    }

    fn bound(wanted: &Wanted) -> TcpListener {
        bind(wanted).unwrap().unwrap().socket.into()
    }

    #[test]
    fn a_port_in_use_is_one_clear_line_at_once() {
        let taken = bound(&wanted("127.0.0.1:0"));
        let address = taken.local_addr().unwrap();
        let error = bind(&wanted(&address.to_string())).unwrap_err();
        let expected = format!("cannot listen on {address} (pool.yaml pool.listen_port): address in use");
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_port_is_free_again_when_its_socket_is_gone() {
        let first = bound(&wanted("127.0.0.1:0"));
        let address = first.local_addr().unwrap();
        // An accepted and closed connection leaves TIME_WAIT on the port.
        let client = std::net::TcpStream::connect(address).unwrap();
        first.set_nonblocking(false).unwrap();
        drop(first.accept().unwrap());
        drop((client, first));
        bound(&wanted(&address.to_string()));
    }

    #[test]
    fn an_address_of_another_machine_is_said_to_be_that() {
        let error = bind(&wanted("192.0.2.1:0")).unwrap_err();
        assert!(error.to_string().ends_with("no interface of this machine has that address"), "{error}");
        let sharing = Sharing { optional: true, ..Sharing::default() };
        let place = Place::Tcp { address: "[2001:db8::1]:0".parse().unwrap(), sharing };
        assert!(bind(&Wanted { place, ..wanted("0.0.0.0:0") }).unwrap().is_none());
    }

    #[test]
    fn two_that_share_a_port_both_have_it_and_a_third_that_does_not_is_refused() {
        let sharing = Sharing { reuse_port: true, ..Sharing::default() };
        let place = |address| Place::Tcp { address, sharing };
        let first = bound(&Wanted { place: place("127.0.0.1:0".parse().unwrap()), ..wanted("0.0.0.0:0") });
        let address = first.local_addr().unwrap();
        bound(&Wanted { place: place(address), ..wanted("0.0.0.0:0") });
        assert!(bind(&wanted(&address.to_string())).is_err());
    }

    #[test]
    fn ipv4_and_ipv6_of_one_port_are_two_sockets() {
        let first = bound(&wanted("0.0.0.0:0"));
        let address = format!("[::]:{}", first.local_addr().unwrap().port()).parse().unwrap();
        let sharing = Sharing { only_v6: true, optional: true, ..Sharing::default() };
        // `None` on a machine without IPv6.
        bind(&Wanted { place: Place::Tcp { address, sharing }, ..wanted("0.0.0.0:0") }).unwrap();
    }
}
