//! Where sessions and the listening connection meet: one value for each pool, as long as the pool lives.
//!
//! Sessions join and leave by a lock that is held for a moment; what is to be done about it the connection's task does. The
//! task is there while anybody listens, and for `server_idle_timeout` after that.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::{
    connection,
    mailbox::{Loss, Mailbox},
    roster::{Channel, Command, Roster},
};
use crate::pool::{
    database::Pool,
    metrics::DatabaseMetrics,
    registry::{ClientEntry, ServerEntry},
};

const PAUSED: Loss = Loss::Command("PAUSE");

/// What a relay needs to let its client listen without a server.
#[derive(Debug, Clone, Copy)]
pub struct Post<'a> {
    pub hub: &'a Arc<Hub>,
    pub client: &'a Arc<ClientEntry>,
    /// `max_notification_channels`.
    pub channels_max: usize,
}

/// One pool's listening.
pub struct Hub {
    /// The channel of markers. Nobody else knows its name.
    marker: Box<str>,
    state: Mutex<State>,
    /// Wakes the connection's task.
    pub(super) wake: Notify,
    /// `notification_queue`.
    queue: AtomicUsize,
    /// Whether there is a connection, or one is being opened.
    connected: watch::Sender<bool>,
    pub(super) pool: Weak<Pool>,
    metrics: DatabaseMetrics,
}

#[derive(Default)]
struct State {
    roster: Roster,
    /// Those who want something. bound: the pool's clients
    members: HashMap<u64, Arc<Mailbox>>,
    /// The connection's task is there.
    running: bool,
    /// No connection until it is let go.
    held: bool,
    /// The pool has gone.
    shut: bool,
    /// The command by which the connection is to be closed.
    end: Option<&'static str>,
    /// The connection's number in the registry; 0 for none.
    server: u64,
}

/// What a scrape shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    pub listeners: usize,
    pub channels: usize,
    pub waiting_bytes: usize,
    pub connected: bool,
}

/// What the connection's task is to do next.
pub(super) enum Step {
    Open,
    Wait,
    Stop,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hub")
    }
}

impl Hub {
    /// Starts without a connection; `queue` is `notification_queue`.
    pub fn new(pool: Weak<Pool>, queue: usize, held: bool, metrics: DatabaseMetrics) -> Arc<Self> {
        Arc::new(Self {
            marker: format!("bookend_{:032x}", rand::random::<u128>()).into(),
            state: Mutex::new(State { held, ..State::default() }),
            wake: Notify::new(),
            queue: AtomicUsize::new(queue),
            connected: watch::Sender::new(false),
            pool,
            metrics,
        })
    }

    /// Returns the name of the channel on which markers come.
    pub fn marker(&self) -> &str {
        &self.marker
    }

    /// Takes another `notification_queue`.
    pub fn set_queue(&self, bytes: usize) {
        self.queue.store(bytes, Relaxed);
    }

    /// A client wants these channels too. Must run inside the pool's runtime.
    pub fn join(self: &Arc<Self>, mailbox: &Arc<Mailbox>, channels: Vec<Channel>) -> Ticket {
        let client = mailbox.client();
        let mut state = self.state.lock();
        if state.held {
            // It would keep its server for as long as the pause lasts, which may wait for that server.
            drop(state);
            mailbox.lose(PAUSED);
            return Ticket { hub: self.clone(), number: 0, crossed: true };
        }
        state.members.entry(client).or_insert_with(|| mailbox.clone());
        let number = state.roster.join(client, channels);
        if !std::mem::replace(&mut state.running, true) {
            tokio::spawn(connection::run(self.clone()));
        }
        drop(state);
        self.wake.notify_one();
        Ticket { hub: self.clone(), number, crossed: false }
    }

    /// A client does not want these channels any more.
    pub(super) fn leave(&self, client: u64, channels: &[Channel]) {
        self.state.lock().roster.leave(client, channels);
        self.wake.notify_one();
    }

    fn gone(&self, client: u64) {
        let mut state = self.state.lock();
        state.members.remove(&client);
        state.roster.gone(client);
        drop(state);
        self.wake.notify_one();
    }

    // --- what the operator wants ---

    /// Closes the connection, and opens none until [`Self::release`]. All who listen by it, or are about to, are told.
    pub fn hold(&self) {
        let mut state = self.state.lock();
        state.held = true;
        let members: Vec<_> = state.members.drain().collect();
        members.iter().for_each(|(client, _)| state.roster.gone(*client));
        drop(state);
        members.iter().for_each(|(_, mailbox)| mailbox.lose(PAUSED));
        self.wake.notify_one();
    }

    pub fn release(&self) {
        self.state.lock().held = false;
        self.wake.notify_one();
    }

    /// Closes the connection, if there is one; who listens is told that `command` did it.
    pub fn close(&self, command: &'static str) {
        self.state.lock().end = Some(command);
        self.wake.notify_one();
    }

    /// Ends the listening for good: the pool has gone.
    pub fn shut(&self) {
        self.state.lock().shut = true;
        self.wake.notify_one();
    }

    /// Returns whether this is the listening connection.
    pub fn is(&self, server: &ServerEntry) -> bool {
        self.state.lock().server == server.id()
    }

    /// Waits until there is no connection. Cancel safe.
    pub async fn closed(&self) {
        // Fails only without a sender, which is here.
        let _ = self.connected.subscribe().wait_for(|connected| !connected).await;
    }

    /// Returns what a scrape shows.
    pub fn census(&self) -> Census {
        let state = self.state.lock();
        Census {
            listeners: state.members.len(),
            channels: state.roster.on_server(),
            waiting_bytes: state.members.values().map(|mailbox| mailbox.bytes()).sum(),
            connected: *self.connected.borrow(),
        }
    }

    // --- for the connection's task ---

    /// Returns what to do without a connection. [`Step::Stop`]: the task has ended, and a new one may begin.
    pub(super) fn step(&self) -> Step {
        let mut state = self.state.lock();
        if state.shut || state.roster.is_idle() {
            state.running = false;
            return Step::Stop;
        }
        if state.held {
            return Step::Wait;
        }
        state.end = None;
        self.connected.send_replace(true);
        Step::Open
    }

    pub(super) fn opened(&self, server: &ServerEntry) {
        self.state.lock().server = server.id();
    }

    /// Returns why the connection is to be closed, if it is.
    pub(super) fn ending(&self) -> Option<Loss> {
        let state = self.state.lock();
        match state.end {
            _ if state.shut => Some(Loss::Connection),
            _ if state.held => Some(PAUSED),
            end => end.map(Loss::Command),
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.state.lock().roster.is_idle()
    }

    pub(super) fn command(&self) -> Option<Command> {
        self.state.lock().roster.command()
    }

    /// The server has done the last command, or has not.
    pub(super) fn answered(&self, done: bool) {
        let mut state = self.state.lock();
        for client in state.roster.answered(done) {
            if let Some(mailbox) = state.members.get(&client) {
                mailbox.ring();
            }
        }
    }

    /// A NotificationResponse came, whole.
    pub(super) fn notified(&self, message: &[u8], channel: &[u8], payload: &[u8]) {
        let mut state = self.state.lock();
        if channel == self.marker.as_bytes() {
            let ticket = std::str::from_utf8(payload).ok().and_then(|number| number.parse().ok());
            ticket.into_iter().for_each(|ticket| state.roster.crossed(ticket));
            return;
        }
        self.metrics.notified();
        let (message, limit) = (Arc::from(message), self.queue.load(Relaxed));
        for client in state.roster.listeners(channel) {
            if let Some(mailbox) = state.members.get(&client) {
                mailbox.push(&message, limit);
            }
        }
    }

    /// The connection is closed. Returns how many clients that ends.
    pub(super) fn lost(&self, loss: Loss) -> usize {
        let mut state = self.state.lock();
        state.server = 0;
        let ended = state.roster.lost();
        for client in &ended {
            if let Some(mailbox) = state.members.remove(client) {
                mailbox.lose(loss);
            }
        }
        drop(state);
        self.connected.send_replace(false);
        ended.len()
    }

    /// No connection came of it.
    pub(super) fn not_opened(&self) {
        self.connected.send_replace(false);
    }

    pub(super) fn delivered(&self, count: usize) {
        self.metrics.delivered(count as u64);
    }
}

/// A join under way. Given up when dropped, unless its marker has been seen.
#[derive(Debug)]
pub struct Ticket {
    hub: Arc<Hub>,
    number: u64,
    crossed: bool,
}

impl Ticket {
    /// Returns what the marker says.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Returns whether the hub listens to all channels of the join.
    pub fn is_ready(&self) -> bool {
        self.hub.state.lock().roster.is_ready(self.number)
    }

    /// As [`Self::is_ready`]; when it is, the marker may be sent, and what the hub's connection loses from now on is the client's
    /// loss.
    pub fn begin(&self) -> bool {
        self.hub.state.lock().roster.begin(self.number)
    }

    /// The marker was seen on the client's server.
    pub fn cross(&mut self) {
        self.crossed = true;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.crossed {
            self.hub.state.lock().roster.withdraw(self.number);
            self.hub.wake.notify_one();
        }
    }
}

/// A client's side of it, from its first LISTEN on. Dropping it ends the listening.
#[derive(Debug)]
pub struct Listening {
    hub: Arc<Hub>,
    mailbox: Arc<Mailbox>,
    /// Those that come from the hub, sorted. bound: `max_notification_channels`
    channels: Vec<Channel>,
}

impl Listening {
    pub fn new(post: &Post<'_>) -> Self {
        Self { hub: post.hub.clone(), mailbox: Arc::new(Mailbox::new(post.client.clone())), channels: Vec::new() }
    }

    /// Returns what waits for the client.
    pub fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// Returns whether a channel's notifications come from the hub.
    pub fn has(&self, channel: &[u8]) -> bool {
        self.channels.binary_search_by(|own| (**own).cmp(channel)).is_ok()
    }

    /// Returns how many channels come from the hub.
    pub fn len(&self) -> usize {
        self.channels.len()
    }

    /// Returns whether none does.
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    /// These channels come from the hub from now on.
    pub fn moved(&mut self, channels: Vec<Channel>) {
        self.channels.extend(channels);
        self.channels.sort();
        self.channels.dedup();
    }

    /// Keeps only the channels that `keeps` says.
    pub fn retain(&mut self, keeps: impl Fn(&[u8]) -> bool) {
        let (kept, left) = std::mem::take(&mut self.channels).into_iter().partition(|channel| keeps(channel));
        self.channels = kept;
        let left: Vec<Channel> = left;
        if !left.is_empty() {
            self.hub.leave(self.mailbox.client(), &left);
        }
    }

    /// Appends what waits, until that is `most` bytes or more.
    pub fn take(&self, out: &mut Vec<u8>, most: usize, speaks_utf8: bool) {
        let count = self.mailbox.take(out, most, speaks_utf8);
        self.hub.delivered(count);
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.hub.gone(self.mailbox.client());
    }
}
