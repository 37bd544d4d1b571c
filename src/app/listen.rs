//! Listening sockets, bound here before anything runs.
//!
//! pingora binds inside each service, tries for 30 seconds while an address is in use and then panics, with the rest of
//! the process already serving. So the sockets are bound here first, all of them, with one clear line per address that
//! cannot be had, and handed to pingora through its table of inherited sockets (the one an upgrade fills): there is no
//! moment between a check and a bind in which someone else could take the port. `SO_REUSEADDR` is set as pingora sets it:
//! a port whose old connections are in TIME_WAIT is free, one that someone listens on is not.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Domain, Socket, Type};

/// Connections the kernel holds until they are accepted; it cuts this to `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;

/// An address to listen on, and the key of the configuration that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub address: SocketAddr,
    /// For the operator, e.g. `pool.yaml pool.listen_port`.
    pub key: String,
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({key}): {}", reason(source))]
pub struct ListenError {
    pub address: SocketAddr,
    pub key: String,
    pub source: io::Error,
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "address in use".into(),
        io::ErrorKind::AddrNotAvailable => "no interface of this machine has that address".into(),
        io::ErrorKind::PermissionDenied => "permission denied (ports below 1024 need CAP_NET_BIND_SERVICE)".into(),
        _ => error.to_string(),
    }
}

/// Binds one address and begins to listen.
///
/// # Errors
/// When the address cannot be had.
pub fn bind(wanted: &Wanted) -> Result<TcpListener, ListenError> {
    listen(wanted.address).map_err(|source| ListenError { address: wanted.address, key: wanted.key.clone(), source })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(address: SocketAddr) -> Wanted {
        Wanted { address, key: "pool.yaml pool.listen_port".into() }
    }

    #[test]
    fn a_port_in_use_is_one_clear_line_at_once() {
        let taken = bind(&wanted("127.0.0.1:0".parse().unwrap())).unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind(&wanted(address)).unwrap_err();
        let expected = format!("cannot listen on {address} (pool.yaml pool.listen_port): address in use");
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_port_is_free_again_when_its_socket_is_gone() {
        let first = bind(&wanted("127.0.0.1:0".parse().unwrap())).unwrap();
        let address = first.local_addr().unwrap();
        // An accepted and closed connection leaves TIME_WAIT on the port.
        let client = std::net::TcpStream::connect(address).unwrap();
        first.set_nonblocking(false).unwrap();
        drop(first.accept().unwrap());
        drop((client, first));
        bind(&wanted(address)).unwrap();
    }

    #[test]
    fn an_address_of_another_machine_is_said_to_be_that() {
        let error = bind(&wanted("192.0.2.1:0".parse().unwrap())).unwrap_err();
        assert!(error.to_string().ends_with("no interface of this machine has that address"), "{error}");
    }
}
