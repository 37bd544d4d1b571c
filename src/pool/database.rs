//! One database that clients ask for, and its pools: one per user its servers are logged in as.
//!
//! Made on first use, from the entry of pool.yaml that has the name or from the fallback `*`; a reload changes what is
//! inside, never the value itself. A pool that has neither clients nor connections is kept for `pool_idle_timeout`, and a
//! database that only `*` knows for `autodb_idle_timeout`: for their statistics, and for what the last server told, which
//! the next client is welcomed with. One in which nobody ever came as far as that is forgotten at once, so that clients
//! cannot fill the table with names that no server knows.

use std::{
    borrow::Cow,
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    config::pool as config,
    pool::{
        auth::{Authenticated, Gained, derive::Deriver, users::Users},
        console::averages::{Averager, Period, Totals},
        error::PoolError,
        lease::{Budget, Budgets, Store},
        metrics::{DatabaseMetrics, PoolMetrics},
        names::Names,
        pins::{Quiet, Reason},
        registry::{ClientHandle, ClientState, Group, Leave, Registry},
        relay::SpillMemory,
        rules::{self, Rules},
        server::{
            connect::{Opened, Spec},
            credential::ServerLogin,
            error::ServerError,
            hosts::Hosts,
            pooled::{Connector, Welcome},
        },
        stats::{Observe, Stats},
        user_limits::UserBudgets,
    },
};

/// What every database of a pooler shares.
pub(super) struct Shared {
    pub registry: Arc<Registry>,
    pub deriver: Arc<Deriver>,
    pub metrics: PoolMetrics,
    pub spill: Arc<SpillMemory>,
    pub users: UserBudgets,
    pub names: Arc<Names>,
}

/// The configuration in force, taken apart once.
pub(super) struct Running {
    pub pool: Arc<config::Pool>,
    pub users: Users,
}

/// One database by the name clients use.
pub(super) struct Database {
    pub name: Arc<str>,
    /// With its name on the server filled in.
    pub config: ArcSwap<config::Database>,
    pub budget: Arc<Budget>,
    pub stats: Arc<Stats>,
    pub metrics: DatabaseMetrics,
    /// With when they were last taken.
    averages: Mutex<(Option<Instant>, Averager)>,
    pools: Mutex<HashMap<Arc<str>, Arc<Pool>>>,
    /// Since when it has neither clients nor connections.
    unused: Mutex<Option<Instant>>,
    paused: AtomicBool,
    /// Lets nobody in.
    disabled: AtomicBool,
}

/// One pool: a store of servers and what its clients share.
pub struct Pool {
    pub group: Arc<Group>,
    pub store: Arc<Store<Connector>>,
    pub rules: ArcSwap<Rules>,
    pub stats: Arc<Stats>,
    pub metrics: DatabaseMetrics,
    pub spill: Arc<SpillMemory>,
    registry: Arc<Registry>,
    errors: PoolMetrics,
    welcome: Arc<ArcSwapOption<Welcome>>,
    /// How the servers are reached now, and through which client's login if it takes one.
    way: Mutex<Way>,
    /// Since when it has neither clients nor connections.
    unused: Mutex<Option<Instant>>,
    /// Of `auth_user`: its servers are logged in as that user, whatever the database's forced user is.
    for_lookups: bool,
}

struct Way {
    spec: Spec,
    client: Authenticated,
}

impl Pool {
    /// Returns what the last server login told, if there was one.
    pub fn welcome(&self) -> Option<Arc<Welcome>> {
        self.welcome.load_full()
    }

    /// Counts a lease and the wait for it.
    pub fn assigned(&self, waited: Duration) {
        let micros = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        self.stats.server_assignment_count.fetch_add(1, Ordering::Relaxed);
        self.stats.wait_time.fetch_add(micros, Ordering::Relaxed);
        self.metrics.waited(waited);
    }

    /// Counts what a client was told.
    pub fn refused(&self, error: &PoolError) {
        self.errors.error(error.kind());
    }

    /// Counts a login.
    pub fn logged_in(&self) {
        self.stats.client_login_count.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes the configuration in: sizes and limits at once, another way to the server at each connection's next boundary.
    fn apply(&self, running: &Running, database: &config::Database) {
        let rules = Rules::of(&running.pool, database, running.users.get(&self.group.user));
        self.store.set_settings(rules.settings);
        self.rules.store(Arc::new(rules));
    }

    fn set_way(&self, running: &Running, database: &config::Database, shared: &Shared, client: Option<&Authenticated>) {
        let mut way = self.way.lock();
        // A login that left nothing behind is no better way than the one there is.
        let client = client.filter(|client| client.gained != Gained::Nothing).unwrap_or(&way.client).clone();
        let database =
            &*if self.for_lookups { for_lookups(database, &self.group.user) } else { Cow::Borrowed(database) };
        let known = way.spec.hosts.clone();
        let hosts = if known.are_of(database) { known } else { Hosts::of(database, &shared.names) };
        let spec = spec(running, database, hosts, &client);
        if spec == way.spec {
            return;
        }
        let moved = !same_place(&spec, &way.spec);
        *way = Way { spec: spec.clone(), client };
        drop(way);
        self.store.set_connect(Connector::new(spec, shared.deriver.clone(), self.welcome.clone()));
        if moved {
            self.reconnect();
        }
    }

    /// Closes every connection at its next boundary. With `server_fast_close` that is the end of a transaction in session mode
    /// too: the client whose session it was must notice.
    fn reconnect(&self) {
        self.store.reconnect();
        if !self.rules.load().fast_close {
            return;
        }
        for client in self.registry.clients() {
            let here = client.group().is_some_and(|group| Arc::ptr_eq(group, &self.group));
            if here && client.link().is_some() {
                client.ask_to_leave(Leave::DatabaseRemoved);
            }
        }
    }

    /// Opens a server connection that is not the pool's to lend, with startup parameters of its own.
    ///
    /// Cancel safe: an abandoned call closes the connection.
    pub(super) async fn open_apart(
        &self,
        params: Vec<(String, String)>,
        shared: &Shared,
    ) -> Result<Opened, ServerError> {
        let way = self.way.lock().spec.clone();
        let inherited =
            way.params.iter().filter(|(name, _)| params.iter().all(|(own, _)| !own.eq_ignore_ascii_case(name)));
        let params = inherited.cloned().chain(params.iter().cloned()).collect();
        let spec = Spec { params, connect_query: None, ..way };
        Connector::new(spec, shared.deriver.clone(), self.welcome.clone()).open().await
    }

    /// Returns how privately its servers are reached.
    pub fn tls(&self) -> Option<Arc<config::ServerTls>> {
        self.way.lock().spec.tls.clone()
    }

    /// A host has lost addresses: connections to them are closed at their next boundary, unless another of the pool's hosts
    /// has the address.
    pub(super) fn moved(&self, name: &Arc<str>, gone: &[IpAddr]) {
        let hosts = self.way.lock().spec.hosts.clone();
        if !hosts.names().any(|each| each.host() == name) {
            return;
        }
        let lost = |address: IpAddr| gone.contains(&address) && !hosts.names().any(|each| each.has(address));
        self.store.outdate(|server| server.peer().and_then(|peer| peer.ip()).is_some_and(lost));
    }

    fn is_used(&self) -> bool {
        ClientState::ALL.iter().any(|state| self.group.clients(*state) > 0) || !self.store.is_empty()
    }

    /// Returns whether it is to be kept at `now`: it is used, was until `limit` ago, or has a minimum that is only not
    /// there just now.
    fn is_kept(&self, now: Instant, limit: Option<Duration>) -> bool {
        let settings = self.rules.load().settings;
        let warm = settings.keep_min && settings.sizes.min > 0;
        let rest = rest(&mut self.unused.lock(), self.is_used() || warm, now);
        // Of one that never had a server there is nothing to keep.
        rest.is_none_or(|rest| self.welcome().is_some() && limit.is_none_or(|limit| rest < limit))
    }
}

/// Returns for how long something has been unused at `now`; `since` remembers from when on.
fn rest(since: &mut Option<Instant>, used: bool, now: Instant) -> Option<Duration> {
    if used {
        *since = None;
        return None;
    }
    Some(now.saturating_duration_since(*since.get_or_insert(now)))
}

/// Returns the entry as it is for lookups by `auth_user`: without a forced user, unless that is the same one.
fn for_lookups<'a>(database: &'a config::Database, auth_user: &str) -> Cow<'a, config::Database> {
    match database.user.as_deref() {
        Some(forced) if forced != auth_user => {
            Cow::Owned(config::Database { user: None, password: None, ..database.clone() })
        }
        _ => Cow::Borrowed(database),
    }
}

/// Whether connections made by one are as good as those made by the other. What clients' logins leave behind may change with
/// every login (another client of the same user) without making the connections that exist any worse.
fn same_place(a: &Spec, b: &Spec) -> bool {
    let secrets = (a.login.gained && b.login.gained) || a.login.secret == b.login.secret;
    let place = |spec: &Spec| (spec.hosts.text().clone(), spec.port, spec.dbname.clone(), spec.login.user.clone());
    secrets && place(a) == place(b) && a.tls == b.tls && a.params == b.params && a.connect_query == b.connect_query
}

fn spec(running: &Running, database: &config::Database, hosts: Arc<Hosts>, client: &Authenticated) -> Spec {
    Spec {
        hosts,
        port: database.port,
        dbname: database.dbname.as_deref().unwrap_or(&database.name).into(),
        login: ServerLogin::of_client(database, client, &running.users),
        params: database.servers.startup.clone(),
        connect_query: database.servers.connect_query.as_deref().map(Into::into),
        check_query: running.pool.servers.check_query.as_deref().map(Into::into),
        tls: running.pool.server_tls.clone(),
        require_auth: running.pool.server_require_auth,
        tcp: running.pool.tcp,
        connect_timeout: running.pool.server_connect_timeout,
    }
}

/// Where what happens in a database's relays goes.
struct Observer {
    database: Arc<str>,
    metrics: DatabaseMetrics,
    quiet: Quiet,
}

impl Observe for Observer {
    fn query(&self, time: Duration) {
        self.metrics.query(time);
    }

    fn pinned(&self, reason: Reason, statement: &str) {
        self.metrics.pinned(reason);
        if self.quiet.may_speak(reason, Instant::now()) {
            let (database, reason) = (&*self.database, reason.as_str());
            tracing::info!(database, reason, statement, "a client keeps its server between transactions");
        }
    }
}

impl Database {
    pub(super) fn new(running: &Running, config: config::Database, metrics: DatabaseMetrics) -> Arc<Self> {
        let limit = rules::database_limit(&running.pool, &config);
        let quiet = Quiet::new(Instant::now());
        let observer = Observer { database: config.name.clone(), metrics: metrics.clone(), quiet };
        Arc::new(Self {
            name: config.name.clone(),
            config: ArcSwap::from_pointee(config),
            budget: Budget::new(limit),
            stats: Arc::new(Stats::observed(observer)),
            metrics,
            averages: Mutex::default(),
            pools: Mutex::default(),
            unused: Mutex::default(),
            paused: AtomicBool::new(false),
            disabled: AtomicBool::new(false),
        })
    }

    /// Enters an authenticated client into its pool, made now if it is the first. Entering and removing an empty pool
    /// exclude each other, so that nobody is left with a pool that no longer counts. Must run inside the pool's runtime.
    pub(super) fn enter(
        &self,
        client: &ClientHandle,
        authenticated: &Authenticated,
        running: &Running,
        shared: &Shared,
    ) -> Arc<Pool> {
        let config = self.config.load_full();
        let user: Arc<str> = config.user.as_deref().unwrap_or(&authenticated.user).into();
        let pool = {
            let mut pools = self.pools.lock();
            let pool = pools
                .entry(user.clone())
                .or_insert_with(|| self.open(user, &config, authenticated, running, shared, false))
                .clone();
            client.identify(pool.group.clone());
            pool
        };
        pool.set_way(running, &config, shared, Some(authenticated));
        pool
    }

    /// Opens the pool of a forced user before any client comes, if it has a minimum to keep. Must run inside the pool's
    /// runtime.
    pub(super) fn warm(&self, running: &Running, shared: &Shared) {
        let config = self.config.load_full();
        let Some(user) = &config.user else { return };
        let user: Arc<str> = user.as_str().into();
        if Rules::of(&running.pool, &config, running.users.get(&user)).settings.sizes.min == 0 {
            return;
        }
        let nobody = Authenticated { user: user.to_string(), gained: Gained::Nothing };
        let mut pools = self.pools.lock();
        pools.entry(user.clone()).or_insert_with(|| self.open(user, &config, &nobody, running, shared, false));
    }

    /// Returns the pool of `auth_user`, made now if it is not there. It stays as long as it is held. Must run inside the
    /// pool's runtime.
    pub(super) fn pool_for_lookups(&self, auth_user: &str, running: &Running, shared: &Shared) -> Arc<Pool> {
        let entry = self.config.load_full();
        let config = for_lookups(&entry, auth_user);
        let nobody = Authenticated { user: auth_user.to_owned(), gained: Gained::Nothing };
        let user: Arc<str> = auth_user.into();
        let open = || self.open(user.clone(), &config, &nobody, running, shared, true);
        self.pools.lock().entry(user.clone()).or_insert_with(open).clone()
    }

    fn open(
        &self,
        user: Arc<str>,
        config: &config::Database,
        client: &Authenticated,
        running: &Running,
        shared: &Shared,
        for_lookups: bool,
    ) -> Arc<Pool> {
        let rules = Rules::of(&running.pool, config, running.users.get(&user));
        let spec = spec(running, config, Hosts::of(config, &shared.names), client);
        let group = shared.registry.group(&self.name, &user);
        let welcome = Arc::new(ArcSwapOption::empty());
        let connector = Connector::new(spec.clone(), shared.deriver.clone(), welcome.clone());
        let registry = shared.registry.clone();
        let budgets = Budgets { database: self.budget.clone(), user: shared.users.of(&user, running) };
        let store = Store::new(connector, rules.settings, group.clone(), registry, budgets);
        if self.is_paused() {
            store.pause();
        }
        Arc::new(Pool {
            group,
            store,
            rules: ArcSwap::from_pointee(rules),
            stats: self.stats.clone(),
            metrics: self.metrics.clone(),
            spill: shared.spill.clone(),
            registry: shared.registry.clone(),
            errors: shared.metrics.clone(),
            welcome,
            way: Mutex::new(Way { spec, client: client.clone() }),
            unused: Mutex::default(),
            for_lookups,
        })
    }

    /// Returns the pools, sorted by user.
    pub(super) fn pools(&self) -> Vec<Arc<Pool>> {
        let mut pools: Vec<_> = self.pools.lock().values().cloned().collect();
        pools.sort_by(|a, b| a.group.user.cmp(&b.group.user));
        pools
    }

    /// Returns the pool of a user.
    pub(super) fn pool(&self, user: &str) -> Option<Arc<Pool>> {
        self.pools.lock().get(user).cloned()
    }

    /// Takes a changed configuration in.
    pub(super) fn apply(&self, running: &Running, config: config::Database, shared: &Shared) {
        self.budget.set_limit(rules::database_limit(&running.pool, &config));
        let config = Arc::new(config);
        self.config.store(config.clone());
        for pool in self.pools() {
            pool.apply(running, &config);
            pool.set_way(running, &config, shared, None);
        }
    }

    /// Returns what was counted in the last whole period.
    pub(super) fn period(&self) -> Period {
        self.averages.lock().1.period()
    }

    /// Looks after the idle connections, takes the counts for averages every `stats_period`, and forgets pools that were
    /// unused for long enough.
    pub(super) fn sweep(&self, now: Instant, pool: &config::Pool) {
        {
            let mut averages = self.averages.lock();
            if averages.0.is_none_or(|last| now.saturating_duration_since(last) >= pool.stats_period) {
                averages.0 = Some(now);
                averages.1.tick(now.into_std(), self.totals());
            }
        }
        for pool in self.pools() {
            pool.store.sweep(now);
        }
        let limit = pool.servers.pool_idle_timeout;
        // Who looks a user up holds the pool without being a client.
        self.pools.lock().retain(|_, each| each.is_kept(now, limit) || Arc::strong_count(each) > 1);
    }

    /// Returns whether a database that only `*` knows is to be forgotten at `now`; `limit` is `autodb_idle_timeout`.
    pub(super) fn is_forgettable(&self, now: Instant, limit: Option<Duration>) -> bool {
        let pools = self.pools.lock();
        let used = pools.values().any(|pool| pool.is_used());
        let rest = rest(&mut self.unused.lock(), used, now);
        // No pool: none ever had a server, or all were forgotten before.
        rest.is_some_and(|rest| pools.is_empty() || limit.is_some_and(|limit| rest >= limit))
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    pub(super) fn is_disabled(&self) -> bool {
        self.disabled.load(Ordering::Acquire)
    }

    /// Says whether new clients are refused.
    pub(super) fn set_disabled(&self, disabled: bool) {
        self.disabled.store(disabled, Ordering::Release);
    }

    /// Lends nothing until [`Self::resume`].
    pub(super) fn pause(&self) {
        // Under the lock, so that a pool that is being made sees it.
        let pools = self.pools.lock();
        self.paused.store(true, Ordering::Release);
        pools.values().for_each(|pool| pool.store.pause());
    }

    pub(super) fn resume(&self) {
        let pools = self.pools.lock();
        self.paused.store(false, Ordering::Release);
        pools.values().for_each(|pool| pool.store.resume());
    }

    /// Waits until no connection is left. Cancel safe.
    pub(super) async fn emptied(&self) {
        for pool in self.pools() {
            pool.store.emptied().await;
        }
    }

    pub(super) fn reconnect(&self) {
        self.pools().iter().for_each(|pool| pool.reconnect());
    }

    /// Ends the pauses between logins that failed because the server was away: it is back.
    pub(super) fn server_is_up(&self) {
        self.pools().iter().for_each(|pool| pool.store.server_is_up());
    }

    /// Returns the totals since the start.
    pub(super) fn totals(&self) -> Totals {
        let stats = self.stats.snapshot();
        Totals {
            server_assignment_count: stats.server_assignment_count,
            xact_count: stats.xact_count,
            query_count: stats.query_count,
            received: stats.received,
            sent: stats.sent,
            xact_time: stats.xact_time,
            query_time: stats.query_time,
            wait_time: stats.wait_time,
            client_parse_count: stats.client_parse_count,
            server_parse_count: stats.server_parse_count,
            bind_count: stats.bind_count,
            client_login_count: stats.client_login_count,
        }
    }
}
