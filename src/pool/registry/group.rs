//! Counts per (database, user): how many clients and servers are in each state.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use super::{ClientState, ServerState};

/// The counters of one (database, user) pair. Moved by the transitions alone.
#[derive(Debug)]
pub struct Group {
    /// The name clients ask for.
    pub database: Arc<str>,
    /// The user clients log in as.
    pub user: Arc<str>,
    clients: [AtomicU32; ClientState::COUNT],
    servers: [AtomicU32; ServerState::COUNT],
}

impl Group {
    pub(super) fn new(database: Arc<str>, user: Arc<str>) -> Arc<Self> {
        Arc::new(Self { database, user, clients: Default::default(), servers: Default::default() })
    }

    /// Returns how many clients are in `state`.
    pub fn clients(&self, state: ClientState) -> u32 {
        self.clients[state as usize].load(Ordering::Relaxed)
    }

    /// Returns how many servers are in `state`.
    pub fn servers(&self, state: ServerState) -> u32 {
        self.servers[state as usize].load(Ordering::Relaxed)
    }

    pub(super) fn client_came(&self, state: ClientState) {
        self.clients[state as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn client_went(&self, state: ClientState) {
        self.clients[state as usize].fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn server_came(&self, state: ServerState) {
        self.servers[state as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn server_went(&self, state: ServerState) {
        self.servers[state as usize].fetch_sub(1, Ordering::Relaxed);
    }
}
