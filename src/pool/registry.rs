//! Who is here: every client and every server connection, with what it is doing.
//!
//! The registry is what SHOW CLIENTS and SHOW SERVERS, the census on the board and the gauges read. Nothing on the path of a
//! query looks anything up here: a session and a lease each hold the `Arc` of their own entry and write its atomics. The
//! (sharded) maps are locked only when somebody comes, leaves, sends a cancel request, or a page is made.
//!
//! State lives in one place: [`ClientState`] and [`ServerState`] change only in `transition`, which also moves the counts of
//! the entry's [`Group`]. PgBouncer's lists per pool ("state is list membership") as an enum and counters.

mod client;
mod group;
mod key;
mod server;
mod tally;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use rand::Rng;
use tokio::time::Instant;

pub use self::{
    client::{ClientEntry, ClientHandle, ClientState, Leave},
    group::Group,
    key::{CancelKey, CancelRequest, PEER_ID_MAX},
    server::{ServerEntry, ServerHandle, ServerState},
    tally::{Of, Place, Tally},
};
use super::{auth::scram::Key, peer::Peer};
use crate::{
    health::board::{ClientCount, PinnedClient},
    pool::pins::Reason,
};

/// Shards of the client map; a login locks one of them.
const CLIENT_SHARDS: usize = 16;

/// By database and user.
type Groups = HashMap<(Arc<str>, Arc<str>), Weak<Group>>;

/// Everybody of one pooler.
#[derive(Debug)]
pub struct Registry {
    clock: Clock,
    next_id: AtomicU64,
    /// Makes the long keys of protocol 3.2; random, and never leaves the process.
    process_key: Key,
    /// By the number of their cancel key, which is unique.
    clients: [Mutex<HashMap<u64, Arc<ClientEntry>>>; CLIENT_SHARDS],
    /// How many clients the shards hold together.
    client_count: AtomicUsize,
    servers: Mutex<HashMap<u64, Arc<ServerEntry>>>,
    groups: Mutex<Groups>,
    /// Clients of each database, and of each user.
    tallies: [Mutex<HashMap<Arc<str>, Weak<Tally>>>; 2],
    /// Clients that have not said (or proven) who they are.
    lobby: Arc<Group>,
}

/// Turns instants into numbers that fit an atomic, and into wall clock times for pages.
#[derive(Debug, Clone, Copy)]
struct Clock {
    start: Instant,
    start_wall: SystemTime,
}

impl Clock {
    /// Microseconds since the registry was made; never 0, which means "never".
    fn stamp(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_micros()).unwrap_or(u64::MAX).max(1)
    }

    fn wall(&self, stamp: u64) -> SystemTime {
        self.start_wall + Duration::from_micros(stamp)
    }

    fn age(&self, stamp: u64, now: Instant) -> Duration {
        Duration::from_micros(self.stamp(now).saturating_sub(stamp))
    }
}

impl Registry {
    /// Returns an empty registry. `now` and `wall` are the same moment; `process_key` must be random.
    pub fn new(now: Instant, wall: SystemTime, process_key: Key) -> Arc<Self> {
        Arc::new(Self {
            clock: Clock { start: now, start_wall: wall },
            next_id: AtomicU64::new(1),
            process_key,
            clients: std::array::from_fn(|_| Mutex::default()),
            client_count: AtomicUsize::new(0),
            servers: Mutex::default(),
            groups: Mutex::default(),
            tallies: Default::default(),
            lobby: Group::new("".into(), "".into()),
        })
    }

    /// Returns the counters of a (database, user) pair, made on first mention and gone with its last member.
    pub fn group(&self, database: &Arc<str>, user: &Arc<str>) -> Arc<Group> {
        let mut groups = self.groups.lock();
        let key = (database.clone(), user.clone());
        if let Some(group) = groups.get(&key).and_then(Weak::upgrade) {
            return group;
        }
        groups.retain(|_, group| group.strong_count() > 0);
        let group = Group::new(database.clone(), user.clone());
        groups.insert(key, Arc::downgrade(&group));
        group
    }

    /// Returns the living groups, sorted by database and user.
    pub fn groups(&self) -> Vec<Arc<Group>> {
        let mut groups: Vec<_> = self.groups.lock().values().filter_map(Weak::upgrade).collect();
        groups.sort_by(|a, b| (&a.database, &a.user).cmp(&(&b.database, &b.user)));
        groups
    }

    /// Returns the number of clients of a database or user, made on first mention and gone with its last client.
    pub fn tally(&self, of: Of, name: &str) -> Arc<Tally> {
        let mut tallies = self.tallies(of).lock();
        if let Some(tally) = tallies.get(name).and_then(Weak::upgrade) {
            return tally;
        }
        tallies.retain(|_, tally| tally.strong_count() > 0);
        let tally = Arc::new(Tally::default());
        tallies.insert(name.into(), Arc::downgrade(&tally));
        tally
    }

    /// Returns how many clients a database or user has.
    pub fn count(&self, of: Of, name: &str) -> u32 {
        self.tallies(of).lock().get(name).and_then(Weak::upgrade).map_or(0, |tally| tally.count())
    }

    fn tallies(&self, of: Of) -> &Mutex<HashMap<Arc<str>, Weak<Tally>>> {
        match of {
            Of::Database => &self.tallies[0],
            Of::User => &self.tallies[1],
        }
    }

    /// Returns the counters of clients that are not logged in yet, cancel requests among them.
    pub fn lobby(&self) -> &Arc<Group> {
        &self.lobby
    }

    /// Enters a fresh connection, with a cancel key of its own that names this process by `peer_id` (0: it has none). It
    /// leaves when the handle is dropped.
    pub fn enter_client(self: &Arc<Self>, peer: Peer, peer_id: u16, now: Instant, rng: &mut impl Rng) -> ClientHandle {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let connected = self.clock.stamp(now);
        loop {
            let key = CancelKey::draw(peer_id, rng);
            let mut shard = self.shard(key).lock();
            if key.pid() == 0 || shard.contains_key(&key.number()) {
                continue;
            }
            let entry = Arc::new(ClientEntry::new(id, key, peer, connected, self));
            shard.insert(key.number(), entry.clone());
            self.client_count.fetch_add(1, Ordering::Relaxed);
            return ClientHandle::new(entry);
        }
    }

    /// Enters a server connection that is about to be opened. It leaves when the handle is dropped.
    pub fn enter_server(self: &Arc<Self>, group: Arc<Group>, now: Instant) -> ServerHandle {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let entry = Arc::new(ServerEntry::new(id, group, self.clock.stamp(now), self.clock));
        self.servers.lock().insert(id, entry.clone());
        ServerHandle::new(entry, self.clone())
    }

    /// Returns the client a cancel request names, if its key is right.
    pub fn client_by_key(&self, request: &CancelRequest) -> Option<Arc<ClientEntry>> {
        let key = request.key();
        let client = self.shard(key).lock().get(&key.number()).cloned()?;
        request.proves(&client.secret()).then_some(client)
    }

    /// Returns the client with an id of SHOW CLIENTS. Walks everybody.
    pub fn client_by_id(&self, id: u64) -> Option<Arc<ClientEntry>> {
        self.clients.iter().find_map(|shard| shard.lock().values().find(|client| client.id() == id).cloned())
    }

    /// Returns all clients in the order of their arrival.
    pub fn clients(&self) -> Vec<Arc<ClientEntry>> {
        let mut clients = Vec::with_capacity(self.client_count());
        for shard in &self.clients {
            clients.extend(shard.lock().values().cloned());
        }
        clients.sort_unstable_by_key(|client| client.id());
        clients
    }

    /// Returns how many client connections there are, logged in or not.
    pub fn client_count(&self) -> usize {
        self.client_count.load(Ordering::Relaxed)
    }

    /// Returns all server connections in the order of their making.
    pub fn servers(&self) -> Vec<Arc<ServerEntry>> {
        let mut servers: Vec<_> = self.servers.lock().values().cloned().collect();
        servers.sort_unstable_by_key(|server| server.id());
        servers
    }

    /// Has the connections to a database closed at their next boundary, idle ones with the next upkeep: PostgreSQL waits five
    /// seconds for them before it refuses a DROP DATABASE and the like (`CountOtherDBBackends`).
    pub fn leave_database(&self, dbname: &[u8]) {
        let servers = self.servers();
        let there = servers.iter().filter(|server| server.dbname().is_some_and(|name| name.as_bytes() == dbname));
        there.for_each(|server| server.set_close_needed());
    }

    /// Returns clients that keep their servers between transactions, longest first.
    pub fn pinned(&self, now: Instant) -> Vec<PinnedClient> {
        let row = |client: &Arc<ClientEntry>| {
            let control = client.control()?;
            let since = control.pinned_since()?;
            Some(PinnedClient {
                database: client.group()?.database.clone(),
                id: client.id(),
                address: client.peer().place(),
                application_name: client.application_name(),
                reasons: control.pins().iter().map(Reason::as_str).collect(),
                age: now.saturating_duration_since(since),
            })
        };
        let mut pinned: Vec<_> = self.clients().iter().filter_map(row).collect();
        pinned.sort_by_key(|client| std::cmp::Reverse(client.age));
        pinned
    }

    /// Returns logged-in clients grouped by address and application name, sorted.
    pub fn census(&self) -> Vec<ClientCount> {
        let mut counts: HashMap<(IpAddr, String), ClientCount> = HashMap::new();
        for client in self.clients() {
            if client.group().is_none() {
                continue;
            }
            let name = client.application_name();
            let address = client.peer().place();
            let count = counts.entry((address, name.clone())).or_insert_with(|| ClientCount {
                address,
                application_name: name,
                total: 0,
                active: 0,
                idle: 0,
                waiting: 0,
            });
            count.total += 1;
            match client.state() {
                ClientState::Active => count.active += 1,
                ClientState::Waiting => count.waiting += 1,
                ClientState::Idle => count.idle += 1,
                _ => {}
            }
        }
        let mut counts: Vec<_> = counts.into_values().collect();
        counts.sort_by(|a, b| (a.address, &a.application_name).cmp(&(b.address, &b.application_name)));
        counts
    }

    fn shard(&self, key: CancelKey) -> &Mutex<HashMap<u64, Arc<ClientEntry>>> {
        // Of the random bytes that are so in every key.
        &self.clients[(key.number() >> 8) as usize % CLIENT_SHARDS]
    }

    fn remove_client(&self, entry: &ClientEntry) {
        if self.shard(entry.key()).lock().remove(&entry.key().number()).is_some() {
            self.client_count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn remove_server(&self, id: u64) {
        self.servers.lock().remove(&id);
    }
}
