//! The pool's own look at each database: does it serve, what is it, how full is its server.
//!
//! A probe asks with tokio-postgres over a session of its own, so that it neither waits in a pool's queue nor takes a
//! server from a client. bb8 keeps that one session between looks and drops it once it has broken. What is seen goes on
//! the board, where the front reads it; nothing here decides about leases.
//!
//! A look that is not answered in time is no failure while clients' queries were answered meanwhile: then it is the probe
//! (or this machine) that is starved, not the database, and refusing requests would make an outage of a load peak.
//!
//! While a database is paused its probe has no session and does not look: what was seen last stands, and the database can be
//! dropped, renamed or moved.

mod look;
mod session;
#[cfg(test)]
mod tests;
mod way;

use std::{collections::HashMap, num::NonZeroU32, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::watch, task::JoinHandle};
use tokio_postgres::Config;

use self::{
    look::{DatabaseProbe, Seen, Trouble},
    session::{login, sessions},
    way::Way,
};
use crate::{
    config::pool::{self as config, Pool},
    health::{
        board::{Board, DatabaseEntry, DatabaseState, Serving},
        probe::{self, Failure, Look, Schedule},
        ready::{Latch, Ready},
        threshold::{Health, Threshold},
    },
    pool::names::Names,
};

/// The running probes; one per configured database (`*` names none and has none).
#[derive(Default)]
pub struct Probes {
    running: Mutex<HashMap<Arc<str>, Running>>,
}

struct Running {
    target: Target,
    held: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a probe was told; a reload that leaves it equal leaves the probe alone.
#[derive(Clone, PartialEq)]
struct Target {
    config: Config,
    way: Way,
    schedule: Schedule,
    rise: NonZeroU32,
    fall: NonZeroU32,
}

impl Probes {
    /// Starts, keeps and ends probes so that they are those of `pool`. Readiness waits for each new probe's first look.
    /// `answered` counts a database's answered queries so far; `on_look` hears of each look how long it took and whether
    /// the server answered it. Must run inside the pool's runtime.
    pub fn apply(
        &self,
        pool: &Pool,
        names: &Names,
        board: &Board,
        ready: &Ready,
        answered: impl Fn(&str) -> u64 + Clone + Send + Sync + 'static,
        on_look: impl Fn(&str, Duration, bool) + Clone + Send + Sync + 'static,
    ) {
        let mut running = self.running.lock();
        let named = |database: &&config::Database| &*database.name != "*";
        running.retain(|name, _| {
            let kept = pool.databases.iter().any(|database| database.name == *name);
            if !kept {
                board.database(name).publish(Serving::Unknown, DatabaseState::default());
            }
            kept
        });
        for database in pool.databases.iter().filter(named) {
            let target = Target::of(pool, database, names);
            if running.get(&database.name).is_some_and(|probe| probe.target == target) {
                continue;
            }
            let entry = board.database(&database.name);
            let latch = ready.latch(format!("first look at database {}", database.name));
            let (held, hold) = watch::channel(false);
            let task = tokio::spawn(look_after(target.clone(), entry, latch, hold, answered.clone(), on_look.clone()));
            running.insert(database.name.clone(), Running { target, held, task });
        }
    }

    /// Lets the probes of which `held` says so go of their sessions, and lets the others look.
    pub fn hold(&self, held: impl Fn(&str) -> bool) {
        for (name, probe) in self.running.lock().iter() {
            let held = held(name);
            probe.held.send_if_modified(|now| std::mem::replace(now, held) != held);
        }
    }
}

impl Target {
    fn of(pool: &Pool, database: &config::Database, names: &Names) -> Self {
        let schedule = Schedule {
            interval: pool.probe.interval,
            down_interval: pool.probe.down_interval,
            timeout: pool.probe.timeout,
        };
        let at_least_one = |count| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        Self {
            config: login(pool, database),
            way: Way::of(pool, database, names),
            schedule,
            rise: at_least_one(pool.probe.rise),
            fall: at_least_one(pool.probe.fall),
        }
    }
}

async fn look_after(
    target: Target,
    entry: Arc<DatabaseEntry>,
    latch: Latch,
    mut hold: watch::Receiver<bool>,
    answered: impl Fn(&str) -> u64 + Send + Sync + 'static,
    on_look: impl Fn(&str, Duration, bool) + Send + Sync + 'static,
) {
    let name = entry.name().clone();
    let answered: Arc<dyn Fn() -> u64 + Send + Sync> = Arc::new(move || answered(&name));
    let patience = target.schedule.timeout;
    let health = Mutex::new(Health::Unproven);
    let latch = Mutex::new(Some(latch));
    let mut note = |look: Look<Seen, Trouble>| {
        *health.lock() = look.health;
        let serving = match look.health {
            Health::Up => Serving::Up,
            Health::Down => Serving::Down,
            Health::Unproven => Serving::Unknown,
        };
        if let Some(health) = look.changed {
            tracing::info!(database = %entry.name(), ?health, reason = reason(&look.result), "database changed");
        }
        entry.publish(serving, state(&look, &entry.state()));
        // This look, not what `rise` and `fall` make of it: they keep a server up that is away, and down that is back.
        on_look(entry.name(), look.took, matches!(look.result, Ok(Seen::Answer { .. })));
        latch.lock().take();
    };
    // The probe keeps the timeout itself, because it judges what that means; the loop's is behind it.
    let schedule = Schedule { timeout: patience * 2, ..target.schedule };
    loop {
        if *hold.borrow_and_update() {
            // Nobody waits for a look at a paused database.
            latch.lock().take();
        }
        // Fails only when the probe has been forgotten.
        if hold.wait_for(|held| !held).await.is_err() {
            return;
        }
        let threshold = Threshold::resume(target.rise, target.fall, *health.lock());
        let sessions = sessions(target.config.clone(), target.way.clone(), patience);
        let database = DatabaseProbe { sessions, patience, seen: answered(), answered: answered.clone() };
        tokio::select! {
            () = probe::run(database, schedule, threshold, rand::random, &mut note) => {}
            _ = hold.wait_for(|held| *held) => {}
        }
    }
}

/// Returns what to publish: what was seen, or what was last known with the reason why not.
fn state(look: &Look<Seen, Trouble>, before: &DatabaseState) -> DatabaseState {
    match &look.result {
        Ok(Seen::Answer { role, connections, max_connections }) => DatabaseState {
            role: *role,
            latency: Some(look.took),
            server_connections: Some(*connections),
            server_max_connections: Some(*max_connections),
            error: None,
        },
        Ok(Seen::Refused(why)) => DatabaseState { error: Some(why.clone()), ..before.clone() },
        Ok(Seen::Busy) => DatabaseState { latency: None, error: None, ..before.clone() },
        failed @ Err(_) => DatabaseState { latency: None, error: reason(failed), ..before.clone() },
    }
}

fn reason(result: &Result<Seen, Failure<Trouble>>) -> Option<String> {
    match result {
        Ok(Seen::Answer { .. } | Seen::Busy) => None,
        Ok(Seen::Refused(why)) | Err(Failure::Probe(Trouble(why))) => Some(why.clone()),
        Err(Failure::Timeout(limit)) => Some(format!("no answer within {limit:?} (probe.timeout)")),
    }
}
