//! The pool as the pages show it: its part of the status page, and the counts of `/db/connections/`.

use std::sync::Arc;

use tokio::time::Instant;

use super::Pooler;
use crate::{
    config::pool as config,
    health::board::{ClientCount, PinnedClient, PoolCensus, PoolCounts},
    pool::{
        database::Database,
        registry::{ClientState, ServerState},
        rules,
    },
};

impl Pooler {
    /// Returns the pool's part of the status page. No secrets.
    pub fn view(&self) -> serde_json::Value {
        let running = self.running.load();
        let databases: serde_json::Map<_, _> = self
            .databases()
            .iter()
            .map(|database| (database.name.to_string(), database_view(&running.pool, database, Instant::now())))
            .collect();
        serde_json::json!({
            "listen": running.pool.listen.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "unix_socket": running.pool.listen.unix_path(),
            "pool_mode": rules::mode_word(running.pool.pool_mode),
            "clients": self.shared.registry.client_count(),
            "max_client_conn": running.pool.max_client_conn,
            "paused": self.is_paused(),
            "databases": databases,
        })
    }
}

impl PoolCensus for Pooler {
    fn databases(&self) -> Vec<(Arc<str>, PoolCounts)> {
        let running = self.running.load();
        let mut names: Vec<_> = rules::names(&running.pool).cloned().collect();
        names.extend(
            Self::databases(self).iter().map(|d| d.name.clone()).filter(|n| !rules::is_named(&running.pool, n)),
        );
        let groups = self.shared.registry.groups();
        let counts = |name: &Arc<str>| {
            let mut counts = PoolCounts::default();
            for group in groups.iter().filter(|group| group.database == *name) {
                let servers = |state| group.servers(state);
                counts.active += servers(ServerState::Leased) + servers(ServerState::Resetting);
                counts.idle += servers(ServerState::Idle) + servers(ServerState::BeingCancelled);
                counts.waiting += group.clients(ClientState::Waiting);
                counts.clients += [ClientState::Idle, ClientState::Waiting, ClientState::Active]
                    .map(|state| group.clients(state))
                    .iter()
                    .sum::<u32>();
            }
            counts.total = counts.active + counts.idle;
            counts.max = rules::resolve(&running.pool, name).map_or(0, |config| rules::most(&running.pool, &config));
            counts
        };
        names.iter().map(|name| (name.clone(), counts(name))).collect()
    }

    fn clients(&self) -> Vec<ClientCount> {
        self.shared.registry.census()
    }

    fn pinned(&self) -> Vec<PinnedClient> {
        self.shared.registry.pinned(Instant::now())
    }

    fn pool_mode(&self) -> &'static str {
        rules::mode_word(self.running.load().pool.pool_mode)
    }
}

fn database_view(pool: &config::Pool, database: &Database, now: Instant) -> serde_json::Value {
    let pools: Vec<_> = database
        .pools()
        .iter()
        .map(|pool| {
            let snapshot = pool.store.snapshot(now);
            serde_json::json!({
                "user": &*pool.group.user,
                "servers": snapshot.open,
                "idle": snapshot.idle,
                "logins": snapshot.dialing,
                "waiting": snapshot.waiting,
                "waited_seconds": snapshot.waited.as_secs_f64(),
                "login_error": snapshot.login_error.map(|error| error.to_string()),
            })
        })
        .collect();
    serde_json::json!({
        "host": database.config.load().host,
        "port": database.config.load().port,
        "max_connections": rules::most(pool, &database.config.load()),
        "paused": database.is_paused(),
        "disabled": database.is_disabled(),
        "pools": pools,
    })
}
