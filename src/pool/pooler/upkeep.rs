//! What the pool does without being asked: it warms pools, probes databases, looks host names up, closes what rested for too
//! long, and sends clients away when the process leaves.

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::Pooler;
use crate::{
    health::drain::Drain,
    pool::{
        names::{self, Outcome},
        registry::Leave,
        rules,
    },
};

/// How often idle connections are looked at and counts for averages taken.
const UPKEEP: Duration = Duration::from_millis(500);

impl Pooler {
    /// Computes what logins will need, aside.
    pub(super) fn warm_keys(&self) {
        let auth = self.auth.load_full();
        tokio::spawn(async move { auth.warm().await });
    }

    pub(super) fn probe(&self) {
        let metrics = self.metrics.clone();
        let me = self.me.clone();
        let on_look = move |name: &str, took: Duration, answered: bool| {
            metrics.probed(name, took);
            if answered && let Some(database) = me.upgrade().and_then(|pooler| pooler.known(name)) {
                database.server_is_up();
            }
        };
        let me = self.me.clone();
        let answered = move |name: &str| {
            let database = me.upgrade().and_then(|pooler| pooler.known(name));
            database.map_or(0, |database| database.stats.query_count.load(Ordering::Relaxed))
        };
        self.probes.apply(&self.running.load().pool, &self.shared.names, &self.board, &self.ready, answered, on_look);
        self.hold_probes();
    }

    /// Keeps the probes of paused databases, and no others, from having sessions.
    pub(in crate::pool) fn hold_probes(&self) {
        let paused = |name: &str| self.known(name).map_or(self.is_paused(), |database| database.is_paused());
        self.probes.hold(paused);
    }

    /// Looks host names up, and closes what leads to addresses that they no longer have.
    pub(super) fn keep_names(&self) -> impl Future<Output = ()> + use<> {
        let (me, metrics) = (self.me.clone(), self.metrics.clone());
        names::keep(Arc::downgrade(&self.shared.names), move |name, outcome, gone| {
            metrics.looked_up(outcome);
            match outcome {
                Outcome::Same => {}
                Outcome::Changed => tracing::info!(host = %name.host(), ?gone, "the addresses of a host have changed"),
                Outcome::Failed => tracing::warn!(host = %name.host(), "a host could not be looked up"),
            }
            if !gone.is_empty()
                && let Some(pooler) = me.upgrade()
            {
                let pools = pooler.databases().into_iter().flat_map(|database| database.pools());
                pools.for_each(|pool| pool.moved(name.host(), gone));
            }
        })
    }

    /// Opens the pools that are to be warm before any client comes.
    pub(super) fn warm(&self) {
        let running = self.running.load();
        for name in rules::names(&running.pool) {
            if let Some(database) = self.database(name) {
                database.warm(&running, &self.shared);
            }
        }
    }

    fn sweep(&self, now: Instant) {
        let running = self.running.load();
        for database in self.databases() {
            database.sweep(now, &running.pool);
            let named = rules::is_named(&running.pool, &database.name);
            let steered = database.is_disabled() || (database.is_paused() && !self.is_paused());
            if named || steered {
                continue;
            }
            let mut databases = self.databases.lock();
            // Under the lock, and nobody else has it in hand: a client may be coming.
            let limit = running.pool.servers.autodb_idle_timeout;
            if Arc::strong_count(&database) <= 2 && database.is_forgettable(now, limit) {
                databases.remove(&database.name);
            }
        }
    }
}

/// Runs until the pooler has gone.
pub(super) async fn upkeep(pooler: Weak<Pooler>) {
    let mut tick = tokio::time::interval(UPKEEP);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        match pooler.upgrade() {
            Some(pooler) => pooler.sweep(Instant::now()),
            None => return,
        }
    }
}

/// Tells the clients when the process leaves: at their next boundary first, at once when the time is over.
pub(super) async fn leave(pooler: Weak<Pooler>, mut drain: Drain) {
    drain.draining().await;
    if let Some(pooler) = pooler.upgrade() {
        pooler.ask_clients(None, Leave::Draining);
    }
    drain.cut().await;
    if let Some(pooler) = pooler.upgrade() {
        pooler.ask_clients(None, Leave::Cut);
    }
}
