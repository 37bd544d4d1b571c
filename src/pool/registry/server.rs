//! One server connection as the registry knows it.

use std::{
    ops::Deref,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::SystemTime,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Clock, Group, Registry};
use crate::{
    pool::{client::startup::Replication, peer::Peer, server::login::BackendKey, socket::Endpoint},
    tls::Suite,
};

/// What a server connection is doing. Left only through [`ServerEntry::transition`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ServerState {
    /// Being opened and logged in. Left for Idle, Leased (straight to the first waiter), or Closed.
    Connecting = 0,
    /// In the store, proven clean. Left for Leased, Resetting or Closed.
    Idle = 1,
    /// With a client. Left for Idle, Resetting, BeingCancelled, Closed; or stays, with the next client.
    Leased = 2,
    /// Its client is gone and its transaction is rolled back, or it is checked after a long rest. Left for Idle, Leased, BeingCancelled, or Closed.
    Resetting = 3,
    /// Given back while a cancel request for its last client is under way; nobody may have it until that request's
    /// connection has ended. Left for Idle, Leased, or Closed.
    BeingCancelled = 4,
    /// Closed; removed when its handle is dropped.
    Closed = 5,
}

impl ServerState {
    pub(super) const COUNT: usize = 6;
    /// All states, in order.
    pub const ALL: [Self; Self::COUNT] =
        [Self::Connecting, Self::Idle, Self::Leased, Self::Resetting, Self::BeingCancelled, Self::Closed];

    /// Returns the name used in metrics and pages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Idle => "idle",
            Self::Leased => "leased",
            Self::Resetting => "resetting",
            Self::BeingCancelled => "being_cancelled",
            Self::Closed => "closed",
        }
    }

    /// Returns whether a server may go from `self` to `to`.
    pub fn may_become(self, to: Self) -> bool {
        use ServerState::{BeingCancelled, Closed, Connecting, Idle, Leased, Resetting};
        matches!(
            (self, to),
            (Connecting, Idle | Leased)
                | (Idle, Leased | Resetting)
                | (Leased, Idle | Leased | Resetting | BeingCancelled)
                | (Resetting, Idle | Leased | BeingCancelled)
                | (BeingCancelled, Idle | Leased)
                | (Connecting | Idle | Leased | Resetting | BeingCancelled, Closed)
        )
    }

    fn from_u8(value: u8) -> Self {
        Self::ALL.get(usize::from(value)).copied().unwrap_or(Self::Closed)
    }
}

/// One server connection. The store or the lease that has it in hand writes its state; everybody may read.
#[derive(Debug)]
pub struct ServerEntry {
    id: u64,
    group: Arc<Group>,
    clock: Clock,
    connected: u64,
    state: AtomicU8,
    close_needed: AtomicBool,
    /// When it was last handed to a client.
    leased: AtomicU64,
    /// The client that holds it; 0 for none.
    link: AtomicU64,
    prepared: AtomicU64,
    address: OnceLock<ServerAddress>,
    dbname: OnceLock<Arc<str>>,
    replication: OnceLock<Replication>,
    application_name: Mutex<Arc<[u8]>>,
    cancels: Mutex<Cancels>,
    /// A cancel request's end was not seen: it may still arrive, so the connection must not be used by another client. Set
    /// under the lock of `cancels`, read without: who has taken the connection back has had that lock since.
    cancel_doubtful: AtomicBool,
}

/// The two ends of the connection, and by what its session is cancelled.
#[derive(Debug)]
struct ServerAddress {
    peer: Peer,
    endpoint: Endpoint,
    /// As the configuration names it.
    host: Arc<str>,
    tls: Suite,
    key: BackendKey,
}

/// Who may cancel, and how many requests are under way. One lock, so that giving a server back and sending a cancel for
/// its last client cannot pass each other (PgBouncer #717, the field's oldest race).
#[derive(Debug, Default)]
struct Cancels {
    /// The client whose queries run here now; 0 for none.
    holder: u64,
    under_way: u32,
}

impl ServerEntry {
    pub(super) fn new(id: u64, group: Arc<Group>, connected: u64, clock: Clock) -> Self {
        group.server_came(ServerState::Connecting);
        Self {
            id,
            group,
            clock,
            connected,
            state: AtomicU8::new(ServerState::Connecting as u8),
            close_needed: AtomicBool::new(false),
            leased: AtomicU64::new(0),
            link: AtomicU64::new(0),
            prepared: AtomicU64::new(0),
            address: OnceLock::new(),
            dbname: OnceLock::new(),
            replication: OnceLock::new(),
            application_name: Mutex::default(),
            cancels: Mutex::default(),
            cancel_doubtful: AtomicBool::new(false),
        }
    }

    /// Returns the server connection's number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Returns the database and user it belongs to.
    pub fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// Returns what the connection is doing.
    pub fn state(&self) -> ServerState {
        ServerState::from_u8(self.state.load(Ordering::Relaxed))
    }

    /// Moves the connection to `to`, and the counts with it. Made by whoever has it in hand.
    pub fn transition(&self, to: ServerState) {
        let from = self.state();
        if from == to {
            return;
        }
        debug_assert!(from.may_become(to), "server {} from {from:?} to {to:?}", self.id);
        self.state.store(to as u8, Ordering::Relaxed);
        self.group.server_went(from);
        self.group.server_came(to);
        tracing::trace!(server = self.id, ?from, ?to, "server state");
    }

    /// Says that the connection carries replication. Once.
    pub fn set_replication(&self, kind: Replication) {
        let _ = self.replication.set(kind);
    }

    /// Returns what replication the connection carries, if any.
    pub fn replication(&self) -> Option<Replication> {
        self.replication.get().copied()
    }

    /// Says what database of its server the connection is to. Once.
    pub fn set_dbname(&self, name: Arc<str>) {
        let _ = self.dbname.set(name);
    }

    /// Returns the name of the database on its server, once the connection is on its way.
    pub fn dbname(&self) -> Option<&Arc<str>> {
        self.dbname.get()
    }

    /// Says where the connection goes, once it is open.
    pub fn set_address(&self, peer: Peer, endpoint: Endpoint, host: Arc<str>, tls: Suite, key: BackendKey) {
        // A connection is opened once; a second call changes nothing.
        drop(self.address.set(ServerAddress { peer, endpoint, host, tls, key }));
    }

    /// Returns where and with what the session is cancelled; `None` before it is open, or when the server gave no key.
    pub fn cancel_target(&self) -> Option<(&Endpoint, &str, &BackendKey)> {
        self.address
            .get()
            .filter(|address| !address.key.secret.is_empty())
            .map(|address| (&address.endpoint, &*address.host, &address.key))
    }

    /// Returns the two ends of the connection, once it is open.
    pub fn peer(&self) -> Option<&Peer> {
        self.address.get().map(|address| &address.peer)
    }

    /// Returns what the connection is encrypted with.
    pub fn tls(&self) -> Suite {
        self.address.get().map_or(Suite::default(), |address| address.tls)
    }

    /// Returns the process id of the backend, as `pg_stat_activity` shows it.
    pub fn remote_pid(&self) -> Option<i32> {
        self.address.get().map(|address| address.key.pid)
    }

    /// Returns whether the connection is to be closed at its next boundary.
    pub fn close_needed(&self) -> bool {
        self.close_needed.load(Ordering::Relaxed)
    }

    /// Marks the connection to be closed at its next boundary.
    pub fn set_close_needed(&self) {
        self.close_needed.store(true, Ordering::Relaxed);
    }

    /// Keeps the `application_name` in force on the connection.
    pub fn set_application_name(&self, name: &[u8]) {
        let mut kept = self.application_name.lock();
        if **kept != *name {
            *kept = name.into();
        }
    }

    /// Returns the `application_name` in force on the connection.
    pub fn application_name(&self) -> String {
        let name = self.application_name.lock().clone();
        String::from_utf8_lossy(&name).into_owned()
    }

    /// Keeps how many named statements the connection has.
    pub fn set_prepared_statements(&self, count: usize) {
        self.prepared.store(count as u64, Ordering::Relaxed);
    }

    /// Returns how many named statements the connection has.
    pub fn prepared_statements(&self) -> u64 {
        self.prepared.load(Ordering::Relaxed)
    }

    /// Returns the id of the client that holds the connection.
    pub fn link(&self) -> Option<u64> {
        Some(self.link.load(Ordering::Relaxed)).filter(|id| *id != 0)
    }

    /// Returns when the connection was opened.
    pub fn connected_at(&self) -> SystemTime {
        self.clock.wall(self.connected)
    }

    /// Returns when the connection was last handed to a client.
    pub fn leased_at(&self) -> Option<SystemTime> {
        match self.leased.load(Ordering::Relaxed) {
            0 => None,
            stamp => Some(self.clock.wall(stamp)),
        }
    }

    /// Ties the connection to the client it is handed to, which may cancel from now on.
    pub fn give_to(&self, client: u64, now: Instant) {
        self.leased.store(self.clock.stamp(now), Ordering::Relaxed);
        self.link.store(client, Ordering::Relaxed);
        self.cancels.lock().holder = client;
    }

    /// Unties the connection: from now on no cancel request for that client reaches it. Returns whether one is under way
    /// already, so that the connection must not go to anybody yet.
    pub fn take_back(&self) -> bool {
        self.link.store(0, Ordering::Relaxed);
        let mut cancels = self.cancels.lock();
        cancels.holder = 0;
        cancels.under_way > 0
    }

    /// Lets a cancel request of `client` through if its query runs here now, and counts it as under way until
    /// [`Self::cancel_ended`]. `most` bounds the requests under way for one connection.
    pub fn begin_cancel(&self, client: u64, most: u32) -> bool {
        let mut cancels = self.cancels.lock();
        let allowed = cancels.holder == client && client != 0 && cancels.under_way < most;
        if allowed {
            cancels.under_way += 1;
        }
        allowed
    }

    /// Ends a cancel request. `proven` says that the server closed the request's connection, which it does only after the
    /// signal has been sent (postmaster.c, `ProcessCancelRequest`). Returns whether it was the last one under way.
    pub fn cancel_ended(&self, proven: bool) -> bool {
        let mut cancels = self.cancels.lock();
        cancels.under_way = cancels.under_way.saturating_sub(1);
        if !proven {
            self.cancel_doubtful.store(true, Ordering::Release);
        }
        cancels.under_way == 0
    }

    /// Returns whether cancel requests are under way.
    pub fn being_cancelled(&self) -> bool {
        self.cancels.lock().under_way > 0
    }

    /// Returns whether a cancel may still arrive that nobody can account for.
    pub fn cancel_doubtful(&self) -> bool {
        self.cancel_doubtful.load(Ordering::Acquire)
    }
}

/// Keeps a server connection in the registry; dropping it takes the connection out.
#[derive(Debug)]
pub struct ServerHandle {
    entry: Arc<ServerEntry>,
    registry: Arc<Registry>,
}

impl ServerHandle {
    pub(super) fn new(entry: Arc<ServerEntry>, registry: Arc<Registry>) -> Self {
        Self { entry, registry }
    }

    /// Returns the entry itself, to be held beyond a borrow.
    pub fn entry(&self) -> &Arc<ServerEntry> {
        &self.entry
    }
}

impl Deref for ServerHandle {
    type Target = ServerEntry;

    fn deref(&self) -> &ServerEntry {
        &self.entry
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        self.entry.transition(ServerState::Closed);
        self.registry.remove_server(self.entry.id);
        self.entry.group.server_went(ServerState::Closed);
    }
}
