//! The pool's listening service. Pingora runs it, with its threads and its moment to stop; accepting is done here.
//!
//! Pingora's own accept loop ends in a `Stream` that cannot be taken apart: the socket had to be duplicated out of it, which
//! were seven system calls more for every login (who is it, duplicate, look, register twice, deregister, close), beside a
//! task, a timer and 800 bytes of buffers' frames, addresses and timings. What a connection is to have (TCP_NODELAY,
//! `tcp_*`) its listener has, and the kernel hands it down: nothing is set on an accepted socket.

use std::{
    io, net,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix,
    },
    sync::Arc,
    thread,
    time::Duration,
};

use async_trait::async_trait;
use pingora::{
    server::{ListenFds, ShutdownWatch},
    services::Service,
};
use tokio::{
    net::{TcpListener, UnixListener},
    runtime,
    sync::oneshot,
    task::JoinSet,
};

use super::{
    client::{
        arrival,
        turns::{STEPS, Turns},
    },
    peer::Peer,
    pooler::Pooler,
    socket::{Socket, credentials, tune},
};
use crate::config::pool::Tcp;

/// Pause when nothing can be accepted though somebody knocks: out of file descriptors or memory.
const REST: Duration = Duration::from_millis(100);

/// The pool as a pingora service; starts the pool's own tasks in the service's runtime.
pub struct PoolService {
    pooler: Arc<Pooler>,
    /// As the table of sockets spells them.
    addresses: Vec<String>,
    /// The number in the Unix socket's name.
    port: u16,
    threads: usize,
}

impl PoolService {
    /// Returns the service that listens as pool.yaml says, on the sockets that it is given under those addresses.
    pub fn new(pooler: Arc<Pooler>) -> Self {
        let pool = pooler.config();
        let unix = pool.listen.unix_path();
        let addresses = pool.listen.addresses.iter().map(ToString::to_string).chain(unix).collect();
        Self { pooler, addresses, port: pool.listen.port, threads: pool.threads }
    }

    /// Returns the sockets that there are: an address may be one of a kind that this machine has none of.
    fn sockets(&self, fds: Option<&ListenFds>) -> Vec<(String, RawFd)> {
        let Some(fds) = fds else { return Vec::new() };
        let table = fds.lock();
        let socket = |address: &String| table.get(address).map(|fd| (address.clone(), *fd));
        self.addresses.iter().filter_map(socket).collect()
    }
}

#[async_trait]
impl Service for PoolService {
    async fn start_service(&mut self, fds: Option<ListenFds>, shutdown: ShutdownWatch, _listeners_per_fd: usize) {
        let sockets = self.sockets(fds.as_ref());
        if sockets.is_empty() {
            tracing::error!(addresses = self.addresses.join(", "), "the pool has no socket to listen on");
            return;
        }
        let service = serve(self.pooler.clone(), sockets, self.port, shutdown);
        if self.threads > 1 {
            return service.await;
        }
        match alone(service) {
            // It errs only if the thread died, and then nothing is left to be said.
            Ok(over) => over.await.unwrap_or_default(),
            Err(error) => tracing::error!(%error, "the pool has no thread to run on"),
        }
    }

    fn name(&self) -> &str {
        "pool"
    }

    fn threads(&self) -> Option<usize> {
        Some(self.threads)
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        Some(self.addresses.clone())
    }
}

/// Starts the pool's own tasks and accepts on every socket until it is told to stop. `port` is in the Unix socket's name.
async fn serve(pooler: Arc<Pooler>, sockets: Vec<(String, RawFd)>, port: u16, shutdown: ShutdownWatch) {
    pooler.start();
    let mut accepting = JoinSet::new();
    let turns = Arc::new(Turns::default());
    for (address, socket) in sockets {
        let is_unix = address.parse::<net::SocketAddr>().is_err();
        match Listener::take(socket, is_unix.then_some(port)) {
            Ok(listener) => {
                let listener = Arc::new(listener);
                pooler.listens(&listener);
                accepting.spawn(accept(pooler.clone(), listener, turns.clone(), shutdown.clone()));
            }
            Err(error) => tracing::error!(address, %error, "the pool cannot listen on its socket"),
        }
    }
    accepting.join_all().await;
}

/// Runs `service` on a thread and a reactor of its own, and tells when it is over; what it has spawned goes on there until
/// the process ends. With one thread there is nobody to steal work from: tokio's scheduler for one thread has a plain queue
/// and parks without telling others (13,986 to 12,919 instructions for a simple query).
fn alone(service: impl Future<Output = ()> + Send + 'static) -> io::Result<oneshot::Receiver<()>> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let (ended, over) = oneshot::channel();
    thread::Builder::new().name("pool".into()).spawn(move || {
        runtime.block_on(async {
            service.await;
            let _ = ended.send(());
            std::future::pending::<()>().await;
        });
    })?;
    Ok(over)
}

/// A socket that listens.
pub enum Listener {
    /// With its address, unless that is every address of the machine.
    Tcp(TcpListener, Option<net::SocketAddr>),
    /// With the number in its name.
    Unix(UnixListener, u16),
}

impl Listener {
    /// Takes over a socket of the table, which listens already; with `port` it is a Unix socket.
    fn take(fd: RawFd, port: Option<u16>) -> io::Result<Self> {
        // SAFETY: the table holds open descriptors that belong to the service that listens on their address, and this one is
        // started once. An upgrade copies them out of the table, and pingora takes them in the same way.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // One that was inherited in an upgrade shares its flags with the process it came from, which says the same.
        match port {
            None => {
                let socket = net::TcpListener::from(socket);
                socket.set_nonblocking(true)?;
                // A relay writes whole answers, and the next one never waits for the acknowledgement of the last.
                socket2::SockRef::from(&socket).set_tcp_nodelay(true)?;
                let local = socket.local_addr().ok().filter(|local| !local.ip().is_unspecified());
                Ok(Self::Tcp(TcpListener::from_std(socket)?, local))
            }
            Some(port) => {
                let socket = unix::net::UnixListener::from(socket);
                socket.set_nonblocking(true)?;
                Ok(Self::Unix(UnixListener::from_std(socket)?, port))
            }
        }
    }

    /// Hands `tcp_*` down to what is accepted from now on. A Unix socket has none of that.
    pub fn tune(&self, tcp: &Tcp) {
        if let Self::Tcp(listener, _) = self
            && let Err(error) = tune(listener, tcp).and_then(|()| defer_accept(listener, tcp.defer_accept))
        {
            tracing::warn!(%error, "a setting of the listening socket was not taken");
        }
    }

    async fn accept(&self) -> io::Result<(Socket, Peer)> {
        match self {
            Self::Tcp(listener, local) => {
                let (stream, remote) = listener.accept().await?;
                let local = local.map_or_else(|| stream.local_addr(), Ok)?;
                Ok((Socket::Tcp(stream), Peer::Tcp { remote, local }))
            }
            Self::Unix(listener, port) => {
                let (stream, _) = listener.accept().await?;
                let peer = Peer::Unix { credentials: credentials(&stream), port: *port };
                Ok((Socket::Unix(stream), peer))
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener, _) => listener.as_fd(),
            Self::Unix(listener, _) => listener.as_fd(),
        }
    }
}

/// Tells the kernel for how long a connection that says nothing is not worth a wake-up (tcp(7), TCP_DEFER_ACCEPT).
fn defer_accept(listener: &TcpListener, time: Option<Duration>) -> io::Result<()> {
    let seconds = libc::c_int::try_from(time.map_or(0, |time| time.as_secs())).unwrap_or(libc::c_int::MAX);
    // SAFETY: the descriptor is open as long as it is borrowed, and the value is an int, as tcp(7) has it.
    let result = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            size_of_val(&seconds) as libc::socklen_t,
        )
    };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    Err(io::Error::new(error.kind(), format!("tcp_defer_accept: {error}")))
}

/// Accepts until it is told to stop; the socket is closed then.
async fn accept(pooler: Arc<Pooler>, listener: Arc<Listener>, turns: Arc<Turns>, mut shutdown: ShutdownWatch) {
    let stopped = async move {
        // The one who would tell is gone: the same.
        let _ = shutdown.wait_for(|down| *down).await;
    };
    tokio::pin!(stopped);
    for nth in 1_u64.. {
        if nth % STEPS as u64 == 0 {
            // A backlog that is full is no reason to keep those waiting who are in.
            tokio::task::yield_now().await;
        }
        let accepted = tokio::select! {
            () = &mut stopped => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => {
                let (turns, pooler) = (turns.clone(), pooler.clone());
                let drain = pooler.drain().clone();
                drain.spawn(async move { turns.take(arrival::serve(pooler, socket, peer)).await });
            }
            // It was gone before it began.
            Err(error) if is_of_the_peer(&error) => tracing::debug!(%error, "accepted connection lost"),
            Err(error) => {
                tracing::error!(%error, "accepting failed");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected
    )
}
