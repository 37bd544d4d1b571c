//! The pool's listening service: pingora accepts, everything after that is ours.
//!
//! The connection is taken out of pingora's own task at once (which ends, with its memory) into one that leaving waits
//! for. Its stream is left unbuffered: an idle client costs no buffer here.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use async_trait::async_trait;
use pingora::{
    apps::ServerApp,
    listeners::{L4BufferSettings, ListenerConfig},
    protocols::Stream,
    server::{ListenFds, ShutdownWatch},
    services::{Service, listening},
};

use super::{client::login, pooler::Pooler};

/// An address for what has none (a Unix socket's peer).
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

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
        let digest = stream.get_socket_digest();
        let inet = |address: Option<&pingora::protocols::l4::socket::SocketAddr>| {
            address.and_then(|address| address.as_inet()).copied().unwrap_or(NOWHERE)
        };
        let peer = inet(digest.as_ref().and_then(|digest| digest.peer_addr()));
        let local = inet(digest.as_ref().and_then(|digest| digest.local_addr()));
        self.pooler.drain().spawn(login::serve(self.pooler.clone(), stream, peer, local));
        None
    }
}
