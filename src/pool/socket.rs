//! A socket of the pool, TCP or Unix, as one type: what runs on it is compiled once.
//!
//! The data path asks which of the two it is once for each read or write, next to a system call; a second copy of the relay
//! for the other kind would cost more in the processor's caches.

use std::{
    io,
    mem::MaybeUninit,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::{TcpStream, UnixStream},
};

use super::peer::{Credentials, Peer};
use crate::config::pool::Tcp;

/// One end of a connection.
#[derive(Debug)]
pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Where a connection goes to, precisely: a name may have several of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    Tcp(SocketAddr),
    /// With the number in the socket's name.
    Unix(Arc<Path>, u16),
}

impl Endpoint {
    /// Returns the Unix socket that `host` means, if it means one: a folder, or `@` and a name that no file system has
    /// (Linux's abstract sockets).
    pub fn unix(host: &str, port: u16) -> Option<Self> {
        if !is_unix(host) {
            return None;
        }
        Some(Self::Unix(unix_path(host, port).into(), port))
    }

    /// Connects, and says who is there.
    ///
    /// # Errors
    /// The system's.
    pub async fn connect(&self) -> io::Result<(Socket, Peer)> {
        match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                // Small messages leave at once.
                stream.set_nodelay(true)?;
                let peer = Peer::Tcp { remote: stream.peer_addr()?, local: stream.local_addr()? };
                Ok((Socket::Tcp(stream), peer))
            }
            Self::Unix(path, port) => {
                let stream = UnixStream::connect(path).await?;
                let peer = Peer::Unix { credentials: credentials(&stream), port: *port };
                Ok((Socket::Unix(stream), peer))
            }
        }
    }
}

/// Returns whether a host is a folder of Unix sockets, or the beginning of an abstract name.
pub fn is_unix(host: &str) -> bool {
    host.starts_with('/') || host.starts_with('@')
}

/// Returns the name of PostgreSQL's socket in a folder, as the system takes it: an abstract one begins with a zero byte.
pub fn unix_path(dir: &str, port: u16) -> PathBuf {
    let path = crate::config::pool::unix_socket_path(dir, port);
    match path.strip_prefix('@') {
        Some(name) => format!("\0{name}").into(),
        None => path.into(),
    }
}

/// Returns who is at the other end of a Unix socket.
pub fn credentials(stream: &UnixStream) -> Option<Credentials> {
    let known = stream.peer_cred().ok()?;
    Some(Credentials { uid: known.uid(), gid: known.gid(), pid: known.pid() })
}

/// Sets what `tcp_*` say on a socket. Of a listening socket, those that it accepts inherit all of it, so that a connection
/// costs no system call more.
///
/// # Errors
/// The system's, with the setting's name.
pub fn tune<S: AsFd>(socket: &S, tcp: &Tcp) -> io::Result<()> {
    let socket = SockRef::from(socket);
    let named = |key: &'static str| move |error: io::Error| io::Error::new(error.kind(), format!("{key}: {error}"));
    socket.set_keepalive(tcp.keepalive).map_err(named("tcp_keepalive"))?;
    if tcp.keepalive {
        let mut keepalive = TcpKeepalive::new();
        if let Some(idle) = tcp.keepidle {
            keepalive = keepalive.with_time(idle);
        }
        if let Some(interval) = tcp.keepintvl {
            keepalive = keepalive.with_interval(interval);
        }
        if let Some(count) = tcp.keepcnt {
            keepalive = keepalive.with_retries(count);
        }
        socket.set_tcp_keepalive(&keepalive).map_err(named("tcp_keepidle, tcp_keepintvl, tcp_keepcnt"))?;
    }
    if tcp.user_timeout.is_some() {
        socket.set_tcp_user_timeout(tcp.user_timeout).map_err(named("tcp_user_timeout"))?;
    }
    if let Some(size) = tcp.socket_buffer {
        socket.set_send_buffer_size(size).map_err(named("tcp_socket_buffer"))?;
        socket.set_recv_buffer_size(size).map_err(named("tcp_socket_buffer"))?;
    }
    Ok(())
}

impl Socket {
    /// Returns whether nothing has come that waits to be read.
    ///
    /// Asks tokio, and looks at the socket only if tokio says that there may be something. Its readiness is cleared when a
    /// read has emptied the socket (it took less than it had room for, or nothing) and set by epoll's next edge, which a
    /// FIN and a reset are as well; an end stays set. So unset means that nothing has come since, as far as the reactor has
    /// looked: what it has not seen is like what arrives just after a look of our own, which would be a system call for
    /// every lease. `try_io` neither spends the task's budget (out of it, everything seems not ready) nor takes a waker's
    /// place, and clears what turns out to be left over from a read that filled its buffer exactly.
    ///
    /// The look is one `recv` that neither waits nor takes anything. Whatever can be read means that the connection ends or
    /// is out of step (an ErrorResponse between queries "signifies probably dying backend", says PgBouncer's server.c); a
    /// changed parameter after a reload of PostgreSQL's configuration is the harmless exception, and costs a new login.
    pub fn is_quiet(&self) -> bool {
        let look = || {
            let mut byte = [MaybeUninit::uninit()];
            SockRef::from(self).recv_with_flags(&mut byte, libc::MSG_PEEK | libc::MSG_DONTWAIT)
        };
        let looked = match self {
            Self::Tcp(stream) => stream.try_io(Interest::READABLE, look),
            Self::Unix(stream) => stream.try_io(Interest::READABLE, look),
        };
        matches!(looked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::*;

    #[test]
    fn a_folder_and_an_at_sign_are_unix_sockets_and_names_are_not() {
        assert_eq!(
            Endpoint::unix("/run/pg", 5432),
            Some(Endpoint::Unix(Path::new("/run/pg/.s.PGSQL.5432").into(), 5432))
        );
        assert_eq!(Endpoint::unix("@pg", 5432), Some(Endpoint::Unix(Path::new("\0pg/.s.PGSQL.5432").into(), 5432)));
        assert_eq!(Endpoint::unix("db", 5432), None);
    }

    #[tokio::test]
    async fn what_a_listener_is_told_its_connections_have() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let second = Duration::from_secs(1);
        let tcp = Tcp {
            keepidle: Some(60 * second),
            keepintvl: Some(7 * second),
            keepcnt: Some(3),
            user_timeout: Some(9 * second),
            socket_buffer: Some(64 << 10),
            ..Tcp::default()
        };
        SockRef::from(&listener).set_tcp_nodelay(true).unwrap();
        tune(&listener, &tcp).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let socket = SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), 60 * second);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), 7 * second);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(9 * second));
        // The kernel doubles it for its own bookkeeping.
        assert_eq!(socket.recv_buffer_size().unwrap(), 128 << 10);
    }

    #[tokio::test]
    async fn a_unix_socket_is_quiet_until_something_comes() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let ours = Socket::Unix(ours);
        assert!(ours.is_quiet());
        theirs.write_all(b"x").await.unwrap();
        if let Socket::Unix(stream) = &ours {
            stream.readable().await.unwrap();
        }
        assert!(!ours.is_quiet());
    }
}
