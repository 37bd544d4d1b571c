//! One client connection as the registry knows it.

mod state;

use std::{
    future::poll_fn,
    ops::Deref,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::time::Instant;

pub use self::state::{ClientState, Leave};
use super::{CancelKey, Clock, Group, Place, Registry, ServerEntry};
use crate::{
    pool::{
        client::startup::Replication,
        peer::Peer,
        relay::{Control, Kill},
    },
    tls::Suite,
};

/// One client. Its own session writes the state; everybody may read, and ask it to leave.
#[derive(Debug)]
pub struct ClientEntry {
    id: u64,
    key: CancelKey,
    /// Whether it was given the long form of the key.
    long_key: AtomicBool,
    peer: Peer,
    /// Where it is entered; here and not in the handle, which an idle client's future holds.
    registry: Weak<Registry>,
    clock: Clock,
    connected: u64,
    state: AtomicU8,
    leave: AtomicU8,
    /// The cipher suite's number; 0 without TLS.
    tls: AtomicU16,
    /// When the request in hand (or the last one) came.
    requested: AtomicU64,
    prepared: AtomicU64,
    replication: OnceLock<Replication>,
    lobby: Arc<Group>,
    /// Among the clients of its database and of its user; given back with the last who looks at this.
    places: OnceLock<[Place; 2]>,
    group: OnceLock<Arc<Group>>,
    application_name: Mutex<Arc<[u8]>>,
    link: Mutex<Option<Arc<ServerEntry>>>,
    /// Reaches the client's relay while it holds a server.
    control: OnceLock<Arc<Control>>,
    /// Of the session's own task, which alone waits to be asked to leave.
    nudge: AtomicWaker,
}

impl ClientEntry {
    pub(super) fn new(id: u64, key: CancelKey, peer: Peer, connected: u64, registry: &Arc<Registry>) -> Self {
        let (clock, lobby) = (registry.clock, registry.lobby.clone());
        lobby.client_came(ClientState::Startup);
        Self {
            id,
            key,
            long_key: AtomicBool::new(false),
            peer,
            registry: Arc::downgrade(registry),
            clock,
            connected,
            state: AtomicU8::new(ClientState::Startup as u8),
            leave: AtomicU8::new(Leave::Stay as u8),
            tls: AtomicU16::new(0),
            requested: AtomicU64::new(0),
            prepared: AtomicU64::new(0),
            replication: OnceLock::new(),
            lobby,
            places: OnceLock::new(),
            group: OnceLock::new(),
            application_name: Mutex::default(),
            link: Mutex::new(None),
            control: OnceLock::new(),
            nudge: AtomicWaker::new(),
        }
    }

    /// Returns the number KILL_CLIENT takes.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Returns the key the client was given (BackendKeyData).
    pub fn key(&self) -> CancelKey {
        self.key
    }

    /// Says that the client speaks protocol 3.2. Before it is given its key.
    pub fn set_long_key(&self) {
        self.long_key.store(true, Ordering::Relaxed);
    }

    /// Returns the secret of the key the client was given.
    pub fn secret(&self) -> Vec<u8> {
        let registry = self.registry.upgrade().filter(|_| self.long_key.load(Ordering::Relaxed));
        self.key.secret(registry.as_ref().map(|registry| &registry.process_key))
    }

    /// Returns where the client came from, and to.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Keeps what the connection is encrypted with.
    pub fn set_tls(&self, suite: Suite) {
        self.tls.store(suite.0, Ordering::Relaxed);
    }

    /// Returns what the connection is encrypted with.
    pub fn tls(&self) -> Suite {
        Suite(self.tls.load(Ordering::Relaxed))
    }

    /// Says that the client wants replication. Once.
    pub fn set_replication(&self, kind: Replication) {
        let _ = self.replication.set(kind);
    }

    /// Returns what replication the client wants, if any.
    pub fn replication(&self) -> Option<Replication> {
        self.replication.get().copied()
    }

    /// Returns what the client is doing.
    pub fn state(&self) -> ClientState {
        ClientState::from_u8(self.state.load(Ordering::Relaxed))
    }

    /// Returns the database and user, once known.
    pub fn group(&self) -> Option<&Arc<Group>> {
        self.group.get()
    }

    /// Moves the client to `to`, and the counts with it. Made by the client's own session alone.
    pub fn transition(&self, to: ClientState, now: Instant) {
        let from = self.state();
        if from == to {
            return;
        }
        debug_assert!(from.may_become(to), "client {} from {from:?} to {to:?}", self.id);
        self.state.store(to as u8, Ordering::Relaxed);
        if from == ClientState::Idle && to != ClientState::Closing {
            self.requested.store(self.clock.stamp(now), Ordering::Relaxed);
        }
        let group = self.counted_in();
        group.client_went(from);
        group.client_came(to);
        tracing::trace!(client = self.id, ?from, ?to, "client state");
    }

    /// Keeps the client's places. Once.
    pub fn keep(&self, places: [Place; 2]) {
        drop(self.places.set(places));
    }

    /// Says who the client is. Once; from then on it is counted with its database and user.
    pub fn identify(&self, group: Arc<Group>) {
        let state = self.state();
        if self.group.set(group).is_ok() {
            self.lobby.client_went(state);
            self.counted_in().client_came(state);
        }
    }

    /// Returns the `application_name` the client last told.
    pub fn application_name(&self) -> String {
        let name = self.application_name.lock().clone();
        String::from_utf8_lossy(&name).into_owned()
    }

    /// Keeps the client's `application_name`.
    pub fn set_application_name(&self, name: &[u8]) {
        let mut kept = self.application_name.lock();
        if **kept != *name {
            *kept = name.into();
        }
    }

    /// Keeps how many named statements the client has.
    pub fn set_prepared_statements(&self, count: usize) {
        self.prepared.store(count as u64, Ordering::Relaxed);
    }

    /// Returns how many named statements the client has.
    pub fn prepared_statements(&self) -> u64 {
        self.prepared.load(Ordering::Relaxed)
    }

    /// Returns the server the client holds.
    pub fn link(&self) -> Option<Arc<ServerEntry>> {
        self.link.lock().clone()
    }

    /// Says how the client's relay is reached. Once; a wish to leave that came before is passed on.
    pub fn set_control(&self, control: Arc<Control>) {
        if self.control.set(control).is_ok() {
            self.steer(self.leave());
        }
    }

    /// Returns how the client's relay is reached, once it is logged in.
    pub fn control(&self) -> Option<&Arc<Control>> {
        self.control.get()
    }

    /// Ties the client to the server it holds from now on, or to none.
    pub fn set_link(&self, server: Option<Arc<ServerEntry>>) {
        *self.link.lock() = server;
    }

    /// Returns when the client connected.
    pub fn connected_at(&self) -> SystemTime {
        self.clock.wall(self.connected)
    }

    /// Returns when the request in hand came, or the last one.
    pub fn requested_at(&self) -> Option<SystemTime> {
        match self.requested.load(Ordering::Relaxed) {
            0 => None,
            stamp => Some(self.clock.wall(stamp)),
        }
    }

    /// Returns how long the client has been waiting for a server; zero when it is not.
    pub fn waiting_for(&self, now: Instant) -> Duration {
        match self.state() {
            ClientState::Waiting => self.clock.age(self.requested.load(Ordering::Relaxed), now),
            _ => Duration::ZERO,
        }
    }

    /// Asks the client to leave. A weaker wish than the standing one changes nothing.
    pub fn ask_to_leave(&self, leave: Leave) {
        self.leave.fetch_max(leave as u8, Ordering::AcqRel);
        self.steer(leave);
        self.nudge.wake();
    }

    /// Wakes the client's task, wherever it is, to look whether something waits for it. Between its transactions it does that
    /// in [`Self::poll_leave`].
    pub fn ring(&self) {
        if let Some(control) = self.control.get() {
            control.wake();
        }
        self.nudge.wake();
    }

    fn steer(&self, leave: Leave) {
        let Some(control) = self.control.get() else { return };
        match leave {
            Leave::Stay => {}
            Leave::Draining | Leave::DatabaseRemoved => control.drain(),
            Leave::Killed => control.kill(Kill::Admin),
            Leave::Cut => control.kill(Kill::Shutdown),
        }
    }

    /// Returns what is asked of the client. One atomic load.
    pub fn leave(&self) -> Leave {
        Leave::from_u8(self.leave.load(Ordering::Acquire))
    }

    /// Waits until the client is asked to leave at least as soon as `least`. Cancel safe; the session's own task waits here,
    /// nobody else.
    pub async fn asked_to_leave(&self, least: Leave) -> Leave {
        poll_fn(|cx| self.poll_leave(cx, least)).await
    }

    /// As [`Self::asked_to_leave`].
    pub fn poll_leave(&self, cx: &mut Context<'_>, least: Leave) -> Poll<Leave> {
        let leave = self.leave();
        if leave >= least {
            return Poll::Ready(leave);
        }
        self.nudge.register(cx.waker());
        // Once more: who asked between the look and the registration has woken nobody.
        let leave = self.leave();
        if leave >= least { Poll::Ready(leave) } else { Poll::Pending }
    }

    fn counted_in(&self) -> &Group {
        self.group.get().unwrap_or(&self.lobby)
    }
}

/// Keeps a client in the registry; dropping it takes the client out.
#[derive(Debug)]
pub struct ClientHandle {
    entry: Arc<ClientEntry>,
}

impl ClientHandle {
    pub(super) fn new(entry: Arc<ClientEntry>) -> Self {
        Self { entry }
    }

    /// Returns the entry itself, to be held beyond a borrow.
    pub fn entry(&self) -> &Arc<ClientEntry> {
        &self.entry
    }
}

impl Deref for ClientHandle {
    type Target = ClientEntry;

    fn deref(&self) -> &ClientEntry {
        &self.entry
    }
}

impl Drop for ClientHandle {
    fn drop(&mut self) {
        self.entry.set_link(None);
        if let Some(registry) = self.entry.registry.upgrade() {
            registry.remove_client(&self.entry);
        }
        self.entry.counted_in().client_went(self.entry.state());
    }
}
