//! One database that clients ask for, and its pools: one per user its servers are logged in as.
//!
//! Made on first use, from the entry of pool.yaml that has the name or from the fallback `*`; a reload changes what is
//! inside, never the value itself. A pool that has neither clients nor connections is kept for `pool_idle_timeout`, and a
//! database that only `*` knows for `autodb_idle_timeout`: for their statistics, and for what the last server told, which
//! the next client is welcomed with. One in which nobody ever came as far as that is forgotten at once, so that clients
//! cannot fill the table with names that no server knows.

mod pool;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

pub use self::pool::Pool;
use self::pool::{for_lookups, rest};
use crate::{
    config::pool as config,
    pool::{
        auth::{Authenticated, Gained, derive::Deriver, users::Users},
        console::averages::{Averager, Period, Totals},
        lease::Budget,
        metrics::{DatabaseMetrics, PoolMetrics},
        names::Names,
        pins::{Quiet, Reason},
        registry::{ClientHandle, Registry},
        relay::SpillMemory,
        rules::{self, Rules},
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

/// A statement of databases that is not answered by then is one that waits for others.
const REFUSED_WITHIN: Duration = Duration::from_millis(100);

/// Where what happens in a database's relays goes.
struct Observer {
    database: Arc<str>,
    metrics: DatabaseMetrics,
    quiet: Quiet,
    registry: Arc<Registry>,
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

    /// PostgreSQL asks whether it may at once, and only then whether others are there, for which it waits five seconds: who
    /// may not is answered before anything is closed, and cannot take others' connections from them.
    fn wanted_alone(&self, dbname: &[u8]) -> AbortOnDropHandle<()> {
        let (registry, dbname) = (self.registry.clone(), dbname.to_vec());
        AbortOnDropHandle::new(tokio::spawn(async move {
            tokio::time::sleep(REFUSED_WITHIN).await;
            registry.leave_database(&dbname);
        }))
    }
}

impl Database {
    pub(super) fn new(
        running: &Running,
        config: config::Database,
        metrics: DatabaseMetrics,
        registry: &Arc<Registry>,
    ) -> Arc<Self> {
        let limit = rules::database_limit(&running.pool, &config);
        let quiet = Quiet::new(Instant::now());
        let (database, registry) = (config.name.clone(), registry.clone());
        let observer = Observer { database, metrics: metrics.clone(), quiet, registry };
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
                .or_insert_with(|| Pool::open(self, user, &config, authenticated, running, shared, false))
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
        pools.entry(user.clone()).or_insert_with(|| Pool::open(self, user, &config, &nobody, running, shared, false));
    }

    /// Returns the pool of `auth_user`, made now if it is not there. It stays as long as it is held. Must run inside the
    /// pool's runtime.
    pub(super) fn pool_for_lookups(&self, auth_user: &str, running: &Running, shared: &Shared) -> Arc<Pool> {
        let entry = self.config.load_full();
        let config = for_lookups(&entry, auth_user);
        let nobody = Authenticated { user: auth_user.to_owned(), gained: Gained::Nothing };
        let user: Arc<str> = auth_user.into();
        let open = || Pool::open(self, user.clone(), &config, &nobody, running, shared, true);
        self.pools.lock().entry(user.clone()).or_insert_with(open).clone()
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
        for pool in pools.values() {
            pool.store.pause();
            pool.hub.hold();
        }
    }

    pub(super) fn resume(&self) {
        let pools = self.pools.lock();
        self.paused.store(false, Ordering::Release);
        for pool in pools.values() {
            pool.store.resume();
            pool.hub.release();
        }
    }

    /// Waits until no connection is left. Cancel safe.
    pub(super) async fn emptied(&self) {
        for pool in self.pools() {
            pool.store.emptied().await;
            pool.hub.closed().await;
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
