//! One pool: a store of servers, how they are reached now, and what its clients share.
//!
//! The way to the servers changes with a reload, and where nothing but a client's own proof opens one, with logins. A
//! changed way that leads to the same place leaves the connections alone; one that leads elsewhere closes each at its next
//! boundary.

use std::{
    borrow::Cow,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Database, Running, Shared};
use crate::{
    config::pool as config,
    pool::{
        auth::{Authenticated, Gained, derive::Deriver},
        error::PoolError,
        lease::{Budgets, Store},
        metrics::{DatabaseMetrics, PoolMetrics},
        notify::Hub,
        registry::{ClientState, Group, Leave, Registry, ServerEntry, ServerHandle},
        relay::SpillMemory,
        rules::Rules,
        server::{
            connect::{Opened, Spec},
            credential::ServerLogin,
            error::ServerError,
            hosts::Hosts,
            pooled::{Connector, Welcome},
            stream::ServerStream,
        },
        stats::Stats,
    },
};

/// One pool: a store of servers and what its clients share.
pub struct Pool {
    pub group: Arc<Group>,
    pub store: Arc<Store<Connector>>,
    pub rules: ArcSwap<Rules>,
    /// How often they were changed: who keeps them looks at this.
    pub rules_age: AtomicU32,
    pub stats: Arc<Stats>,
    pub metrics: DatabaseMetrics,
    pub spill: Arc<SpillMemory>,
    /// Listens for its clients.
    pub hub: Arc<Hub>,
    registry: Arc<Registry>,
    deriver: Arc<Deriver>,
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
    /// Opens a pool. Must run inside the pool's runtime.
    pub(super) fn open(
        of: &Database,
        user: Arc<str>,
        config: &config::Database,
        client: &Authenticated,
        running: &Running,
        shared: &Shared,
        for_lookups: bool,
    ) -> Arc<Self> {
        let rules = Rules::of(&running.pool, config, running.users.get(&user));
        let spec = spec(running, config, Hosts::of(config, &shared.names), client);
        let group = shared.registry.group(&of.name, &user);
        let welcome = Arc::new(ArcSwapOption::empty());
        let connector = Connector::new(spec.clone(), shared.deriver.clone(), welcome.clone());
        let registry = shared.registry.clone();
        let (held, queue) = (of.is_paused(), rules.notifications.queue);
        let budgets = Budgets { database: of.budget.clone(), user: shared.users.of(&user, running) };
        let store = Store::new(connector, rules.settings, group.clone(), registry, budgets);
        if held {
            store.pause();
        }
        Arc::new_cyclic(|me| Self {
            hub: Hub::new(me.clone(), queue, held, of.metrics.clone()),
            deriver: shared.deriver.clone(),
            group,
            store,
            rules: ArcSwap::from_pointee(rules),
            rules_age: AtomicU32::new(0),
            stats: of.stats.clone(),
            metrics: of.metrics.clone(),
            spill: shared.spill.clone(),
            registry: shared.registry.clone(),
            errors: shared.metrics.clone(),
            welcome,
            way: Mutex::new(Way { spec, client: client.clone() }),
            unused: Mutex::default(),
            for_lookups,
        })
    }

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
    pub(super) fn apply(&self, running: &Running, database: &config::Database) {
        let rules = Rules::of(&running.pool, database, running.users.get(&self.group.user));
        self.store.set_settings(rules.settings);
        self.hub.set_queue(rules.notifications.queue);
        self.rules.store(Arc::new(rules));
        self.rules_age.fetch_add(1, Ordering::Release);
    }

    pub(super) fn set_way(
        &self,
        running: &Running,
        database: &config::Database,
        shared: &Shared,
        client: Option<&Authenticated>,
    ) {
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
    pub(super) fn reconnect(&self) {
        self.store.reconnect();
        self.hub.close("RECONNECT or a reload");
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
    pub(in crate::pool) async fn open_apart(
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

    /// Opens the connection that listens for the pool's clients, under a name of its own.
    ///
    /// Cancel safe: an abandoned call closes the connection.
    pub(in crate::pool) async fn open_to_listen(
        &self,
        name: &str,
    ) -> Result<(ServerHandle, ServerStream), ServerError> {
        let way = self.way.lock().spec.clone();
        let others = way.params.iter().filter(|(key, _)| !["application_name", "client_encoding"].contains(&&**key));
        let own = ("application_name".to_owned(), name.to_owned());
        let spec = Spec { params: others.cloned().chain([own]).collect(), connect_query: None, ..way };
        let server = self.registry.enter_server(self.group.clone(), Instant::now());
        let opened = Connector::new(spec, self.deriver.clone(), self.welcome.clone()).open().await?;
        let Opened { fresh, peer, endpoint, host } = opened;
        server.set_address(peer, endpoint, host.text, fresh.stream.suite(), fresh.key);
        Ok((server, fresh.stream))
    }

    /// Returns `server_connect_timeout`.
    pub(in crate::pool) fn connect_timeout(&self) -> Duration {
        self.way.lock().spec.connect_timeout
    }

    /// Returns how privately its servers are reached.
    pub fn tls(&self) -> Option<Arc<config::ServerTls>> {
        self.way.lock().spec.tls.clone()
    }

    /// A host has lost addresses: connections to them are closed at their next boundary, unless another of the pool's hosts
    /// has the address.
    pub(in crate::pool) fn moved(&self, name: &Arc<str>, gone: &[IpAddr]) {
        let hosts = self.way.lock().spec.hosts.clone();
        if !hosts.names().any(|each| each.host() == name) {
            return;
        }
        let lost = |address: IpAddr| gone.contains(&address) && !hosts.names().any(|each| each.has(address));
        let is_lost = |server: &ServerEntry| server.peer().and_then(|peer| peer.ip()).is_some_and(lost);
        if self.registry.servers().iter().any(|server| self.hub.is(server) && is_lost(server)) {
            self.hub.close("a change of its server's address");
        }
        self.store.outdate(is_lost);
    }

    pub(super) fn is_used(&self) -> bool {
        ClientState::ALL.iter().any(|state| self.group.clients(*state) > 0) || !self.store.is_empty()
    }

    /// Returns whether it is to be kept at `now`: it is used, was until `limit` ago, or has a minimum that is only not
    /// there just now.
    pub(super) fn is_kept(&self, now: Instant, limit: Option<Duration>) -> bool {
        let settings = self.rules.load().settings;
        let warm = settings.keep_min && settings.sizes.min > 0;
        let rest = rest(&mut self.unused.lock(), self.is_used() || warm, now);
        // Of one that never had a server there is nothing to keep.
        rest.is_none_or(|rest| self.welcome().is_some() && limit.is_none_or(|limit| rest < limit))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.hub.shut();
    }
}

/// Returns for how long something has been unused at `now`; `since` remembers from when on.
pub(super) fn rest(since: &mut Option<Instant>, used: bool, now: Instant) -> Option<Duration> {
    if used {
        *since = None;
        return None;
    }
    Some(now.saturating_duration_since(*since.get_or_insert(now)))
}

/// Returns the entry as it is for lookups by `auth_user`: without a forced user, unless that is the same one.
pub(super) fn for_lookups<'a>(database: &'a config::Database, auth_user: &str) -> Cow<'a, config::Database> {
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
        protocol: running.pool.servers.max_protocol,
        tcp: running.pool.tcp,
        connect_timeout: running.pool.server_connect_timeout,
    }
}
