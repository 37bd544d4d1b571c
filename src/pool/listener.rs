//! The pool's listening service: pingora accepts, everything after that is ours.
//!
//! The connection is taken out of pingora at once: out of its task, which ends, and out of its stream, which costs 800 bytes
//! beside the socket (buffers' frames, addresses, timings). An idle client is to cost next to nothing here.

use std::{io, net, os::fd::BorrowedFd, sync::Arc};

use async_trait::async_trait;
use pingora::{
    apps::ServerApp,
    listeners::{L4BufferSettings, ListenerConfig},
    protocols::Stream,
    server::{ListenFds, ShutdownWatch},
    services::{Service, listening},
};
use tokio::net::TcpStream;

use super::{client::arrival, pooler::Pooler};

/// The pool as a pingora service; starts the pool's own tasks in the service's runtime.
pub struct PoolService {
    pooler: Arc<Pooler>,
    inner: listening::Service<Accepted>,
}

impl PoolService {
    /// Returns the service that listens as pool.yaml says. It binds when it is started; sockets bound before are found
    /// by pingora under the same address.
    pub fn new(pooler: Arc<Pooler>) -> Self {
        let pool = pooler.config();
        let mut inner = listening::Service::new("pool".into(), Accepted { pooler: pooler.clone() });
        inner.threads = Some(pool.threads);
        let listener = ListenerConfig::tcp(pool.listen.to_string()).l4_buffer(L4BufferSettings::unbuffered());
        inner.add_listener(listener);
        Self { pooler, inner }
    }
}

#[async_trait]
impl Service for PoolService {
    async fn start_service(&mut self, fds: Option<ListenFds>, shutdown: ShutdownWatch, listeners_per_fd: usize) {
        self.pooler.start();
        self.inner.start_service(fds, shutdown, listeners_per_fd).await;
    }

    fn name(&self) -> &str {
        "pool"
    }

    fn threads(&self) -> Option<usize> {
        self.inner.threads
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        self.inner.listen_addresses()
    }
}

/// What pingora hands accepted connections to.
struct Accepted {
    pooler: Arc<Pooler>,
}

#[async_trait]
impl ServerApp for Accepted {
    async fn process_new(self: &Arc<Self>, stream: Stream, _shutdown: &ShutdownWatch) -> Option<Stream> {
        let taken = take(stream).and_then(|stream| {
            let (peer, local) = (stream.peer_addr()?, stream.local_addr()?);
            Ok((stream, peer, local))
        });
        match taken {
            Ok((stream, peer, local)) => {
                self.pooler.drain().spawn(arrival::serve(self.pooler.clone(), stream, peer, local));
            }
            // It was gone before it began, or there are no file descriptors left.
            Err(error) => tracing::debug!(%error, "accepted connection lost"),
        }
        None
    }
}

/// Takes the socket out of pingora's stream.
fn take(stream: Stream) -> io::Result<TcpStream> {
    // SAFETY: the descriptor is open as long as `stream` lives, which is to the end of this function; what is kept is a
    // duplicate of it. Nothing was read into a buffer of pingora's, which has none.
    let socket = unsafe { BorrowedFd::borrow_raw(stream.id()) }.try_clone_to_owned()?;
    TcpStream::from_std(net::TcpStream::from(socket))
}
