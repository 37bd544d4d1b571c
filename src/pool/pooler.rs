//! The pool as a whole: its databases and the configuration in force. What an operator may ask of it is in [`super::orders`].
//!
//! One value for the life of the process. A client's task holds it only while the client logs in; afterwards it holds its
//! own pool, so that nothing here is on the path of a query. [`upkeep`] is what it does by itself, [`census`] what pages show.

mod census;
mod upkeep;

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rand::Rng;
use tokio::time::Instant;

use crate::{
    config::pool as config,
    health::{
        board::{Board, PoolCensus},
        control::ReloadSummary,
        drain::{Drain, WaitFor},
        ready::Ready,
    },
    pool::{
        auth::{Auth, derive::Deriver, throttle::Throttle, users::Users},
        client::handshakes::Handshakes,
        console::rows::Source,
        database::{Database, Running, Shared},
        listener::Listener,
        lookup::Lookups,
        metrics::{OTHER, PoolMetrics},
        names::{Lookup, Names, Ttl},
        peering::Peering,
        prepared::{self, Interner},
        probe::Probes,
        registry::{self, Leave},
        relay::SpillMemory,
        rules,
        user_limits::UserBudgets,
    },
    telemetry::metrics::{MetricsError, Registry},
};

/// Takes a key and a value as PgBouncer writes them; an error is a text for the operator.
pub type SetSetting = dyn Fn(&str, &str) -> Result<(), String> + Send + Sync;

/// What the pool needs of the process.
pub struct Deps {
    pub board: Arc<Board>,
    pub drain: Drain,
    pub ready: Ready,
    pub metrics: Registry,
    /// How the host names of servers are found.
    pub lookup: Arc<dyn Lookup>,
    /// What RELOAD in the console does: reads the files again.
    pub reload: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// What SET in the console does: gives a setting another value until the next reload.
    pub set: Arc<SetSetting>,
    /// What SHUTDOWN in the console does: asks the process to leave.
    pub leave: Arc<dyn Fn(WaitFor) -> Result<(), String> + Send + Sync>,
}

/// The PostgreSQL half of the process.
pub struct Pooler {
    pub(super) running: ArcSwap<Running>,
    pub(super) auth: ArcSwap<Auth>,
    pub(super) shared: Shared,
    pub(super) statements: Arc<Interner>,
    pub(super) lookups: Arc<Lookups>,
    pub(super) throttle: Throttle,
    pub(super) handshakes: Handshakes,
    pub(super) peering: Peering,
    pub(super) metrics: PoolMetrics,
    pub(super) drain: Drain,
    pub(super) reload: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
    pub(super) set: Arc<SetSetting>,
    pub(super) leave: Arc<dyn Fn(WaitFor) -> Result<(), String> + Send + Sync>,
    pub(super) board: Arc<Board>,
    ready: Ready,
    databases: Mutex<HashMap<Arc<str>, Arc<Database>>>,
    pub(super) all_paused: AtomicBool,
    probes: Probes,
    listeners: Mutex<Vec<Weak<Listener>>>,
    runtime: Mutex<Option<tokio::runtime::Handle>>,
    me: Weak<Self>,
}

impl Pooler {
    /// Builds the pool; nothing runs until [`Self::start`].
    ///
    /// # Errors
    /// When the metrics registry has a pool already.
    pub fn new(pool: Arc<config::Pool>, deps: Deps) -> Result<Arc<Self>, MetricsError> {
        let spill = SpillMemory::new(pool.spill_memory);
        let metrics = PoolMetrics::register(&deps.metrics, spill.clone())?;
        let statements = Arc::new(Interner::new(pool.max_statement_memory));
        prepared::metrics::register(&deps.metrics, &statements)?;
        let mut process_key = [0; 32];
        rand::rng().fill_bytes(&mut process_key);
        // One that was drawn for this alone: a key is what clients are shown a function of.
        let mut cancel_key = [0; 32];
        rand::rng().fill_bytes(&mut cancel_key);
        let deriver = Arc::new(Deriver::new(process_key));
        let registry = registry::Registry::new(Instant::now(), SystemTime::now(), cancel_key);
        let names = Names::new(deps.lookup, ttl(&pool));
        let peering = Peering::default();
        peering.apply(&pool, &names);
        let pooler = Arc::new_cyclic(|me| Self {
            auth: ArcSwap::from_pointee(auth(&pool, &deriver)),
            running: ArcSwap::from_pointee(running(pool)),
            shared: Shared { registry, deriver, metrics: metrics.clone(), spill, users: UserBudgets::default(), names },
            statements,
            lookups: Arc::default(),
            throttle: Throttle::default(),
            handshakes: Handshakes::default(),
            peering,
            metrics,
            drain: deps.drain,
            reload: deps.reload,
            set: deps.set,
            leave: deps.leave,
            board: deps.board,
            ready: deps.ready,
            databases: Mutex::default(),
            all_paused: AtomicBool::new(false),
            probes: Probes::default(),
            listeners: Mutex::default(),
            runtime: Mutex::default(),
            me: me.clone(),
        });
        let census: Weak<dyn PoolCensus> = pooler.me.clone();
        pooler.board.publish_pool(census);
        let source: Weak<dyn Source> = pooler.me.clone();
        pooler.metrics.read_from(source);
        Ok(pooler)
    }

    /// Starts upkeep, probes, and the watch for leaving, on the current runtime: that of the pool's listening service.
    pub fn start(&self) {
        *self.runtime.lock() = Some(tokio::runtime::Handle::current());
        tokio::spawn(upkeep::upkeep(self.me.clone()));
        tokio::spawn(upkeep::leave(self.me.clone(), self.drain.clone()));
        tokio::spawn(self.keep_names());
        self.warm();
        self.probe();
        self.warm_keys();
    }

    /// Takes a changed configuration in. What did not change keeps its connections; what changed about the way to a server
    /// closes those at their next boundary; clients of a database that is gone finish their transactions first. The
    /// address and the threads of the listener stay as they are.
    pub fn reload(&self, pool: &Arc<config::Pool>) -> ReloadSummary {
        let changed = changes(&self.running.load().pool, pool);
        self.listeners.lock().iter().filter_map(Weak::upgrade).for_each(|listener| listener.tune(&pool.tcp));
        self.auth.store(Arc::new(auth(pool, &self.shared.deriver)));
        self.running.store(Arc::new(running(pool.clone())));
        self.shared.spill.set_limit(pool.spill_memory);
        self.statements.set_bytes_max(pool.max_statement_memory);
        self.lookups.clear();
        let running = self.running.load_full();
        self.shared.users.apply(&running);
        self.shared.names.set_ttl(ttl(pool));
        self.peering.apply(pool, &self.shared.names);
        for database in self.databases() {
            match rules::resolve(pool, &database.name) {
                Some(config) => database.apply(&running, config, &self.shared),
                None => self.remove(&database),
            }
        }
        let runtime = self.runtime.lock().clone();
        if let Some(runtime) = runtime {
            let _inside = runtime.enter();
            self.warm();
            self.probe();
            self.warm_keys();
        }
        ReloadSummary { changed, needs_restart: Vec::new() }
    }

    /// Takes note of a socket that the pool listens on: what a reload says of sockets is said to it.
    pub(super) fn listens(&self, listener: &Arc<Listener>) {
        listener.tune(&self.config().tcp);
        self.listeners.lock().push(Arc::downgrade(listener)); // bound: the addresses of the configuration
    }

    /// Returns the configuration in force.
    pub fn config(&self) -> Arc<config::Pool> {
        self.running.load().pool.clone()
    }

    /// Returns how the process leaves.
    pub fn drain(&self) -> &Drain {
        &self.drain
    }

    /// Returns whether all databases are paused.
    pub fn is_paused(&self) -> bool {
        self.all_paused.load(Ordering::Acquire)
    }

    /// Returns the registry of clients and servers.
    pub fn registry(&self) -> &Arc<registry::Registry> {
        &self.shared.registry
    }

    // --- for the parts of the pool ---

    /// Returns the database of a name, made on first use; `None` when pool.yaml has neither it nor `*`.
    pub(super) fn database(&self, name: &str) -> Option<Arc<Database>> {
        let running = self.running.load();
        let config = rules::resolve(&running.pool, name)?;
        let mut databases = self.databases.lock();
        if let Some(database) = databases.get(name) {
            return Some(database.clone());
        }
        let label = if rules::is_named(&running.pool, name) { name } else { OTHER };
        let database = Database::new(&running, config, self.metrics.database(label), &self.shared.registry);
        if self.is_paused() {
            database.pause();
        }
        databases.insert(database.name.clone(), database.clone());
        Some(database)
    }

    /// Returns the databases in use, in the order of pool.yaml, then by name.
    pub(super) fn databases(&self) -> Vec<Arc<Database>> {
        let running = self.running.load();
        let place = |name: &str| rules::names(&running.pool).position(|each| **each == *name).unwrap_or(usize::MAX);
        let mut databases: Vec<_> = self.databases.lock().values().cloned().collect();
        databases.sort_by_cached_key(|database| (place(&database.name), database.name.clone()));
        databases
    }

    /// Looks a database up without making it.
    pub(super) fn known(&self, name: &str) -> Option<Arc<Database>> {
        self.databases.lock().get(name).cloned()
    }

    /// Returns the database an operator means, or all that are in use.
    pub(super) fn chosen(&self, name: Option<&str>) -> Result<Vec<Arc<Database>>, String> {
        match name {
            None => Ok(self.databases()),
            Some(name) => Ok(vec![self.database(name).ok_or_else(|| format!("no such database: {name}"))?]),
        }
    }

    pub(super) fn ask_clients(&self, database: Option<&str>, leave: Leave) {
        for client in self.shared.registry.clients() {
            let here = client.group().is_some_and(|group| database.is_none_or(|name| *group.database == *name));
            // Those that are not logged in yet end with their login's own timeout, or are asked when they are.
            if here || database.is_none() {
                client.ask_to_leave(leave);
            }
        }
    }

    fn remove(&self, database: &Arc<Database>) {
        self.databases.lock().remove(&database.name);
        self.ask_clients(Some(&database.name), Leave::DatabaseRemoved);
        // Nothing is lent any more; idle connections go now, the others with their clients.
        database.pause();
    }
}

fn ttl(pool: &config::Pool) -> Ttl {
    Ttl { found: pool.servers.dns_max_ttl, failed: pool.servers.dns_nxdomain_ttl }
}

fn auth(pool: &config::Pool, deriver: &Arc<Deriver>) -> Auth {
    Auth {
        auth_type: pool.auth_type,
        hba: pool.access.hba.clone(),
        users: Users::new(&pool.users),
        scram_iterations: pool.scram_iterations,
        tls: pool.client_tls.clone(),
        deriver: deriver.clone(),
    }
}

fn running(pool: Arc<config::Pool>) -> Running {
    Running { users: Users::new(&pool.users), pool }
}

/// Says what is different, a line each. Secrets are compared and not said.
fn changes(old: &config::Pool, new: &config::Pool) -> Vec<String> {
    let mut changed = Vec::new();
    let find =
        |pool: &config::Pool, name: &str| pool.databases.iter().find(|database| *database.name == *name).cloned();
    for database in &new.databases {
        match find(old, &database.name) {
            None => changed.push(format!("database {}: added", database.name)),
            Some(before) if before != *database => changed.push(format!("database {}: changed", database.name)),
            Some(_) => {}
        }
    }
    let gone = old.databases.iter().filter(|database| find(new, &database.name).is_none());
    changed.extend(gone.map(|database| format!("database {}: removed", database.name)));
    if old.users != new.users {
        changed.push("pool: users changed".into());
    }
    let general = |pool: &config::Pool| config::Pool { databases: Vec::new(), users: Vec::new(), ..pool.clone() };
    if general(old) != general(new) {
        changed.push("pool: settings changed".into());
    }
    changed
}
