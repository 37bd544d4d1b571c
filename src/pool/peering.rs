//! The group of processes behind one address, and the way of a cancel request to the one that it is meant for.
//!
//! A cancel request comes by a connection of its own. A balancer (or the kernel, where processes share a port) gives it to
//! any process of the group, and only the one that made its key knows the client. So a key names its process
//! ([`super::registry::CancelKey`]), and whoever gets a request with another's number passes it on, as often as the key
//! allows: two processes that have each other's addresses wrong cannot play ball with it for ever. A process that gets a
//! request with its own number never passes it on.
//!
//! Requests are bounded: `pool_size` of one peer at a time, the rest wait, and none is under way for longer than
//! `cancel_wait_timeout`. Nobody has proven anything by sending one: a stranger can have bytes sent to a peer of the
//! configuration, as many as it could have sent there itself.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use arc_swap::ArcSwap;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use super::{
    console::rows::PeerRow,
    names::Names,
    registry::CancelRequest,
    server::{cancel, connect::connect, error::ServerError, hosts::Host, login::BackendKey, secure::secure},
};
use crate::config::pool as config;

/// The group as the configuration has it.
#[derive(Default)]
pub struct Peering {
    group: ArcSwap<Group>,
}

#[derive(Default)]
struct Group {
    id: u16,
    peers: Vec<Arc<Peer>>,
}

/// Another process of the group.
pub struct Peer {
    config: config::Peer,
    host: Host,
    /// `pool_size` as it is in force; 0: no limit.
    most: u32,
    places: Semaphore,
    waiting: AtomicU32,
    connecting: AtomicU32,
    sent: AtomicU32,
}

impl Peering {
    /// Takes the configuration in. Peers that did not change keep what is under way.
    pub fn apply(&self, pool: &config::Pool, names: &Names) {
        let before = self.group.load();
        let peer = |entry: &config::Peer| {
            let most = entry.pool_size.unwrap_or(pool.default_pool_size);
            let known = before.peers.iter().find(|known| known.config == *entry && known.most == most);
            known.cloned().unwrap_or_else(|| Arc::new(Peer::new(entry.clone(), most, names)))
        };
        let peers = pool.peers.all.iter().map(peer).collect();
        self.group.store(Arc::new(Group { id: pool.peers.id, peers }));
    }

    /// Returns this process's number; 0: it belongs to no group.
    pub fn id(&self) -> u16 {
        self.group.load().id
    }

    /// Returns the other process that a request is meant for.
    pub fn meant(&self, request: &CancelRequest) -> Option<Arc<Peer>> {
        let group = self.group.load();
        let id = request.peer_id();
        let other = group.id != 0 && id != group.id;
        group.peers.iter().find(|peer| other && peer.config.id == id).cloned()
    }

    /// Returns the peers as pages show them.
    pub fn rows(&self) -> Vec<PeerRow> {
        let group = self.group.load();
        group.peers.iter().map(|peer| peer.row(group.id != 0 && peer.config.id != group.id)).collect()
    }
}

impl Peer {
    fn new(config: config::Peer, most: u32, names: &Names) -> Self {
        let places = usize::try_from(most).ok().filter(|most| *most > 0).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            host: Host::of(&config.host, names),
            config,
            most,
            places: Semaphore::new(places),
            waiting: AtomicU32::new(0),
            connecting: AtomicU32::new(0),
            sent: AtomicU32::new(0),
        }
    }

    /// Sends it a request, and waits until it has dealt with it and closed, at most until `deadline`.
    ///
    /// Cancel safe.
    pub async fn pass_on(
        &self,
        request: &CancelRequest,
        pool: &config::Pool,
        deadline: Instant,
    ) -> Result<(), ServerError> {
        let work = async {
            let waiting = Counted::one_of(&self.waiting);
            // Never closed.
            let _place = self.places.acquire().await.map_err(|_| ServerError::Closed)?;
            let connecting = Counted::one_of(&self.connecting);
            let reached = connect(&self.host, self.config.port, &pool.tcp, deadline).await?;
            let tls = pool.server_tls.as_deref().filter(|_| self.config.tls);
            let stream = secure(reached.socket, &self.host.text, tls).await?;
            drop((waiting, connecting));
            let _sent = Counted::one_of(&self.sent);
            cancel::request(stream, &BackendKey { pid: request.pid, secret: request.secret().into() }).await
        };
        timeout_at(deadline, work).await.unwrap_or(Err(ServerError::Timeout))
    }

    /// Returns its number.
    pub fn id(&self) -> u16 {
        self.config.id
    }

    fn row(&self, is_other: bool) -> PeerRow {
        let count = |count: &AtomicU32| count.load(Ordering::Relaxed);
        PeerRow {
            id: self.config.id,
            host: self.config.host.clone(),
            port: self.config.port,
            pool_size: self.most,
            is_other,
            waiting: count(&self.waiting),
            connecting: count(&self.connecting),
            sent: count(&self.sent),
        }
    }
}

/// One of those that are counted, while it lives.
struct Counted<'a>(&'a AtomicU32);

impl<'a> Counted<'a> {
    fn one_of(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
