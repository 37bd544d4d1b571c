//! What a listener is while it runs: how connections begin there, and how many are open.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::arrive::Manner;
use crate::{
    config::lb::Listener,
    proxy::metrics::{ListenerMetrics, Refusal},
    telemetry::guard::GaugeGuard,
};

/// The count of one listener and its bound.
#[derive(Debug)]
pub(crate) struct Limit {
    address: SocketAddr,
    max: AtomicUsize,
    /// Replaced by a reload, for connections that come after it.
    manner: ArcSwap<Manner>,
    open: AtomicUsize,
    metrics: ListenerMetrics,
}

/// A place among the open connections of a listener, held as long as the connection lives, tunnel included.
#[derive(Debug)]
pub(crate) struct Admission {
    limit: Arc<Limit>,
    _open: GaugeGuard,
    /// Leaving waits for it.
    _in_flight: TaskTrackerToken,
}

impl Limit {
    pub(crate) fn new(listener: &Listener, metrics: ListenerMetrics) -> Arc<Self> {
        Arc::new(Self {
            address: listener.address,
            max: AtomicUsize::new(listener.max_connections),
            manner: ArcSwap::from_pointee(Manner::of(listener)),
            open: AtomicUsize::new(0),
            metrics,
        })
    }

    /// Returns whether a connection accepted at `local` came in through this listener.
    pub(crate) fn accepts_at(&self, local: SocketAddr) -> bool {
        self.address.port() == local.port() && (self.address.ip().is_unspecified() || self.address.ip() == local.ip())
    }

    /// Takes a place, unless all are taken.
    pub(crate) fn admit(self: &Arc<Self>, in_flight: TaskTrackerToken) -> Option<Admission> {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        let admission = Admission { limit: self.clone(), _open: self.metrics.opened(), _in_flight: in_flight };
        if before < self.max.load(Ordering::Relaxed) {
            return Some(admission);
        }
        self.metrics.refused(Refusal::Limit);
        None
    }

    /// Takes new settings (a reload); connections that are open stay as they are.
    pub(crate) fn set(&self, listener: &Listener) {
        self.max.store(listener.max_connections, Ordering::Relaxed);
        self.manner.store(Arc::new(Manner::of(listener)));
    }

    /// Returns how connections begin here.
    pub(super) fn manner(&self) -> Arc<Manner> {
        self.manner.load_full()
    }

    /// Returns the address it listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Admission {
    /// Counts a connection that is closed before it was one for HTTP.
    pub(super) fn refused(&self, why: Refusal) {
        self.limit.metrics.refused(why);
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.limit.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
pub(super) fn limit(address: &str, max: usize) -> Arc<Limit> {
    let metrics = crate::proxy::metrics::Metrics::register(&Default::default()).unwrap();
    Limit::new(&Listener::plain(address.parse().unwrap(), max), metrics.listener(address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::drain;

    #[test]
    fn a_place_is_free_again_when_its_connection_ends() {
        let (_control, drain) = drain::channel();
        let limit = limit("127.0.0.1:80", 1);
        let first = limit.admit(drain.token()).expect("the only place");
        assert!(limit.admit(drain.token()).is_none());
        assert_eq!(limit.open.load(Ordering::Relaxed), 1);
        drop(first);
        assert!(limit.admit(drain.token()).is_some());
    }

    #[test]
    fn a_wildcard_listener_is_found_by_its_port() {
        let limit = limit("0.0.0.0:80", 1);
        assert!(limit.accepts_at("10.1.2.3:80".parse().unwrap()));
        assert!(!limit.accepts_at("10.1.2.3:81".parse().unwrap()));
    }
}
