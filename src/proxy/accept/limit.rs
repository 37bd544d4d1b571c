//! How many client connections are open, per listener.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio_util::task::task_tracker::TaskTrackerToken;

/// The count of one listener and its bound.
#[derive(Debug)]
pub(crate) struct Limit {
    address: SocketAddr,
    max: AtomicUsize,
    open: AtomicUsize,
}

/// A place among the open connections of a listener, held as long as the connection lives, tunnel included.
#[derive(Debug)]
pub(crate) struct Admission {
    limit: Arc<Limit>,
    /// Leaving waits for it.
    _in_flight: TaskTrackerToken,
}

impl Limit {
    pub(crate) fn new(address: SocketAddr, max: usize) -> Arc<Self> {
        Arc::new(Self { address, max: AtomicUsize::new(max), open: AtomicUsize::new(0) })
    }

    /// Returns whether a connection accepted at `local` came in through this listener.
    pub(crate) fn accepts_at(&self, local: SocketAddr) -> bool {
        self.address.port() == local.port() && (self.address.ip().is_unspecified() || self.address.ip() == local.ip())
    }

    /// Takes a place, unless all are taken.
    pub(crate) fn admit(self: &Arc<Self>, in_flight: TaskTrackerToken) -> Option<Admission> {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        let admission = Admission { limit: self.clone(), _in_flight: in_flight };
        (before < self.max.load(Ordering::Relaxed)).then_some(admission)
    }

    /// Takes a new bound (a reload); connections that are open stay.
    pub(crate) fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// Returns the address it listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns how many are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.limit.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::drain;

    #[test]
    fn a_place_is_free_again_when_its_connection_ends() {
        let (_control, drain) = drain::channel();
        let limit = Limit::new("127.0.0.1:80".parse().unwrap(), 1);
        let first = limit.admit(drain.token()).expect("the only place");
        assert!(limit.admit(drain.token()).is_none());
        assert_eq!(limit.open(), 1);
        drop(first);
        assert!(limit.admit(drain.token()).is_some());
    }

    #[test]
    fn a_wildcard_listener_is_found_by_its_port() {
        let limit = Limit::new("0.0.0.0:80".parse().unwrap(), 1);
        assert!(limit.accepts_at("10.1.2.3:80".parse().unwrap()));
        assert!(!limit.accepts_at("10.1.2.3:81".parse().unwrap()));
    }
}
