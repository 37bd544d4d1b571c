//! The pool as the console and the metrics read it: rows made from the tables on demand, and the commands.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::{
    config::{InEffect, in_effect, pool as config},
    health::{board::Serving, drain::WaitFor},
    pool::{
        client::startup::Replication,
        console::rows::{
            ConfigRow, DatabaseRow, MemoryRow, NameRow, PeerRow, PoolRow, SocketRow, Source, StatsRow, UserRow,
        },
        database::{Database, Pool},
        names::Listed,
        notify,
        pins::{Pins, Reason},
        pooler::Pooler,
        registry::{ClientEntry, ClientState, Group, Of, ServerEntry, ServerState},
        rules::{self, Rules},
    },
};

#[async_trait]
impl Source for Pooler {
    fn pools(&self) -> Vec<PoolRow> {
        let now = Instant::now();
        self.databases().iter().flat_map(|database| database.pools()).map(|pool| pool_row(&pool, now)).collect()
    }

    fn stats(&self) -> Vec<StatsRow> {
        let row = |database: &Arc<Database>| StatsRow {
            database: database.name.clone(),
            total: database.totals(),
            period: database.period(),
        };
        self.databases().iter().map(row).collect()
    }

    fn clients(&self) -> Vec<SocketRow> {
        let now = Instant::now();
        let row = |client: &Arc<ClientEntry>| {
            client.group().map(|group| client_row(client, (&group.user, &group.database), now))
        };
        self.registry().clients().iter().filter_map(row).collect()
    }

    fn strangers(&self) -> Vec<SocketRow> {
        let now = Instant::now();
        let nobody: (&Arc<str>, &Arc<str>) = (&"(nouser)".into(), &"(nodb)".into());
        let clients = self.registry().clients();
        let strangers = clients.iter().filter(|client| client.group().is_none());
        strangers.map(|client| client_row(client, nobody, now)).collect()
    }

    fn servers(&self) -> Vec<SocketRow> {
        self.registry().servers().iter().map(|server| server_row(server)).collect()
    }

    fn databases(&self) -> Vec<DatabaseRow> {
        let running = self.running.load();
        let groups = self.registry().groups();
        running.pool.databases.iter().map(|config| database_row(self, &running.pool, config, &groups)).collect()
    }

    fn users(&self) -> Vec<UserRow> {
        let running = self.running.load();
        let groups = self.registry().groups();
        let row = |user: &config::User| {
            let own = groups.iter().filter(|group| *group.user == *user.name);
            let servers = own.map(|group| servers_of(group)).sum();
            UserRow {
                name: user.name.clone(),
                pool_size: user.pool_size,
                reserve_pool_size: user.reserve_pool_size,
                pool_mode: user.pool_mode.map(rules::mode_word),
                max_user_connections: rules::user_limit(&running.pool, Some(user)).unwrap_or(0),
                current_connections: servers,
                max_user_client_connections: rules::user_clients(&running.pool, Some(user)).unwrap_or(0),
                current_client_connections: self.registry().count(Of::User, &user.name),
            }
        };
        running.pool.users.iter().map(row).collect()
    }

    fn names(&self) -> Vec<NameRow> {
        let listed = self.shared.names.list(Instant::now()).into_iter();
        listed.map(|Listed { host, ttl, addresses, asking }| NameRow { host, ttl, addresses, asking }).collect()
    }

    fn peers(&self) -> Vec<PeerRow> {
        self.peering.rows()
    }

    fn memory(&self) -> Vec<MemoryRow> {
        let databases = self.databases();
        let pools = databases.iter().map(|database| database.pools().len()).sum();
        vec![
            MemoryRow { name: "db_cache", size: size_of::<Database>(), used: databases.len() },
            MemoryRow { name: "pool_cache", size: size_of::<Pool>(), used: pools },
            MemoryRow { name: "client_cache", size: size_of::<ClientEntry>(), used: self.registry().client_count() },
            MemoryRow { name: "server_cache", size: size_of::<ServerEntry>(), used: self.registry().servers().len() },
        ]
    }

    fn config(&self) -> Vec<ConfigRow> {
        let row = |InEffect { key, value, default, changeable }| ConfigRow { key, value, default, changeable };
        in_effect(&self.running.load().pool).into_iter().map(row).collect()
    }

    fn serving(&self) -> Vec<(Arc<str>, &'static str, bool)> {
        let running = self.running.load();
        let row = |name: &Arc<str>| {
            let entry = self.board.database(name);
            match entry.serving() {
                Serving::Unknown => None,
                serving => Some((name.clone(), entry.state().role.as_str(), serving == Serving::Up)),
            }
        };
        rules::names(&running.pool).filter_map(row).collect()
    }

    fn pinned(&self) -> Vec<(Arc<str>, Reason)> {
        let clients = self.registry().clients();
        let pins = clients.iter().filter_map(|client| Some((client.group()?, client.control()?.pins())));
        let each = |(group, pins): (&Arc<Group>, Pins)| {
            let database = group.database.clone();
            pins.iter().map(move |reason| (database.clone(), reason)).collect::<Vec<_>>()
        };
        pins.filter(|(_, pins)| !pins.is_empty()).flat_map(each).collect()
    }

    fn listening(&self) -> Vec<(Arc<str>, notify::Census)> {
        let pools = self.databases().into_iter().flat_map(|database| database.pools());
        pools.map(|pool| (pool.group.database.clone(), pool.hub.census())).collect()
    }

    fn paused(&self) -> bool {
        self.is_paused()
    }

    async fn pause(&self, database: Option<&str>) -> Result<(), String> {
        Self::pause(self, database).await
    }

    fn resume(&self, database: Option<&str>) -> Result<(), String> {
        Self::resume(self, database)
    }

    fn reconnect(&self, database: Option<&str>) -> Result<(), String> {
        Self::reconnect(self, database)
    }

    fn kill(&self, database: Option<&str>) -> Result<(), String> {
        Self::kill(self, database)
    }

    fn kill_client(&self, id: u64) -> Result<(), String> {
        Self::kill_client(self, id)
    }

    fn disable(&self, database: &str) -> Result<(), String> {
        Self::disable(self, database)
    }

    fn enable(&self, database: &str) -> Result<(), String> {
        Self::enable(self, database)
    }

    async fn wait_close(&self, database: Option<&str>) -> Result<(), String> {
        Self::wait_close(self, database).await
    }

    fn leave(&self, wait_for: WaitFor) -> Result<(), String> {
        (self.leave)(wait_for)
    }

    async fn reload(&self) -> Result<(), String> {
        let reload = self.reload.clone();
        // Reads files.
        tokio::task::spawn_blocking(move || reload()).await.map_err(|_| "the reload did not end".to_owned())?
    }

    async fn set(&self, key: &str, value: &str) -> Result<(), String> {
        let (set, key, value) = (self.set.clone(), key.to_owned(), value.to_owned());
        tokio::task::spawn_blocking(move || set(&key, &value)).await.map_err(|_| "the change did not end".to_owned())?
    }
}

fn pool_row(pool: &Pool, now: Instant) -> PoolRow {
    let group = &pool.group;
    let (client, server) = (|state| group.clients(state), |state| group.servers(state));
    let snapshot = pool.store.snapshot(now);
    PoolRow {
        database: group.database.clone(),
        user: group.user.clone(),
        cl_active: client(ClientState::Active) + client(ClientState::Idle),
        cl_idle: client(ClientState::Idle),
        cl_waiting: client(ClientState::Waiting),
        // Requests under way are not logged in, so they are nobody's clients; their servers are counted below.
        cl_active_cancel_req: 0,
        cl_waiting_cancel_req: 0,
        sv_active: server(ServerState::Leased),
        sv_active_cancel: 0,
        sv_being_canceled: server(ServerState::BeingCancelled),
        sv_idle: server(ServerState::Idle).saturating_sub(snapshot.stale),
        sv_used: snapshot.stale,
        sv_tested: server(ServerState::Resetting),
        sv_login: server(ServerState::Connecting),
        maxwait: snapshot.waited,
        pool_mode: rules::mode_word(pool.rules.load().limits.mode),
        load_balance_hosts: pool.rules.load().load_balance_hosts,
    }
}

fn client_row(client: &ClientEntry, (user, database): (&Arc<str>, &Arc<str>), now: Instant) -> SocketRow {
    SocketRow {
        user: user.clone(),
        database: database.clone(),
        state: match client.state() {
            ClientState::Active => "active",
            ClientState::Waiting => "waiting",
            ClientState::Idle => "idle",
            ClientState::Startup | ClientState::Authenticating => "login",
            ClientState::Cancelling => "active_cancel_req",
            ClientState::Closing => "disconnect",
        },
        replication: client.replication().map_or("none", Replication::word),
        peer: Some(*client.peer()),
        connect_time: client.connected_at(),
        request_time: client.requested_at(),
        wait: client.waiting_for(now),
        close_needed: client.leave() > super::registry::Leave::Stay,
        id: client.id(),
        link: client.link().map(|server| server.id()),
        remote_pid: client.peer().credentials().and_then(|credentials| credentials.pid).unwrap_or(0),
        tls: client.tls().describe(),
        application_name: client.application_name(),
        prepared_statements: client.prepared_statements() as usize,
        pinned: client.control().map_or_else(Pins::none, |control| control.pins()),
    }
}

fn server_row(server: &ServerEntry) -> SocketRow {
    SocketRow {
        user: server.group().user.clone(),
        database: server.group().database.clone(),
        state: match server.state() {
            ServerState::Connecting => "new",
            ServerState::Idle => "idle",
            ServerState::Leased => "active",
            ServerState::Resetting => "tested",
            ServerState::BeingCancelled => "being_canceled",
            ServerState::Closed => "disconnect",
        },
        replication: server.replication().map_or("none", Replication::word),
        peer: server.peer().copied(),
        connect_time: server.connected_at(),
        request_time: server.leased_at(),
        wait: std::time::Duration::ZERO,
        close_needed: server.close_needed(),
        id: server.id(),
        link: server.link(),
        remote_pid: server.remote_pid().unwrap_or(0),
        tls: server.tls().describe(),
        application_name: server.application_name(),
        prepared_statements: server.prepared_statements() as usize,
        pinned: Pins::none(),
    }
}

fn database_row(pooler: &Pooler, pool: &config::Pool, config: &config::Database, groups: &[Arc<Group>]) -> DatabaseRow {
    let sizes = Rules::of(pool, config, None).settings.sizes;
    let known = pooler.known(&config.name);
    let own = groups.iter().filter(|group| group.database == config.name);
    let servers = own.map(|group| servers_of(group)).sum();
    DatabaseRow {
        name: config.name.clone(),
        host: config.host.clone(),
        port: config.port,
        database: config.dbname.clone().unwrap_or_else(|| config.name.to_string()),
        force_user: config.user.clone(),
        pool_size: config.pool_size.unwrap_or(pool.default_pool_size),
        min_pool_size: sizes.min,
        reserve_pool_size: sizes.reserve,
        server_lifetime: rules::lifetime(pool, config),
        pool_mode: config.pool_mode.map(rules::mode_word),
        load_balance_hosts: rules::load_balance(config),
        max_connections: rules::database_limit(pool, config).unwrap_or(0),
        current_connections: servers,
        max_client_connections: rules::database_clients(pool, config).unwrap_or(0),
        current_client_connections: pooler.registry().count(Of::Database, &config.name),
        paused: known.as_ref().is_some_and(|database| database.is_paused()),
        disabled: known.as_ref().is_some_and(|database| database.is_disabled()),
    }
}

fn servers_of(group: &Group) -> u32 {
    ServerState::ALL.map(|state| group.servers(state)).iter().sum()
}
