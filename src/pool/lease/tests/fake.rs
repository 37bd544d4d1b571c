use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::super::*;
use crate::pool::registry::{Group, Registry};

pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) fn settings() -> Settings {
    Settings {
        sizes: Sizes { pool: 2, min: 0, reserve: 0, reserve_after: None },
        query_wait_timeout: Some(30 * SECOND),
        server_idle_timeout: Some(600 * SECOND),
        server_lifetime: 3600 * SECOND,
        server_login_retry: 15 * SECOND,
        check_delay: None,
        round_robin: false,
        fail_fast: false,
        keep_min: false,
    }
}

/// A PostgreSQL that does as it is told.
#[derive(Default)]
pub(super) struct Server {
    /// Time one login takes.
    pub login_takes: Mutex<Duration>,
    /// The next logins fail with this, that many times.
    pub failures: Mutex<Option<(u32, ServerError)>>,
    pub tries: AtomicU32,
    pub logins_now: AtomicU32,
    pub logins_now_max: AtomicU32,
    pub alive: AtomicU32,
    pub alive_max: AtomicU32,
    /// Every connection open now is broken when this is set; new ones are not.
    pub restarts: AtomicU32,
    /// Checks asked for, and what they answer and when.
    pub checks: AtomicU32,
    pub check_takes: Mutex<Duration>,
    pub check_fails: AtomicBool,
}

impl Server {
    pub(super) fn fail(&self, times: u32, error: ServerError) {
        *self.failures.lock() = Some((times, error));
    }

    /// Every connection there is becomes readable, as when PostgreSQL stops.
    pub(super) fn restart(&self) {
        self.restarts.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn alive(&self) -> u32 {
        self.alive.load(Ordering::SeqCst)
    }

    pub(super) fn tries(&self) -> u32 {
        self.tries.load(Ordering::SeqCst)
    }
}

pub(super) struct FakeConnect(pub Arc<Server>);

pub(super) struct FakeConnection {
    server: Arc<Server>,
    born: u32,
    pub number: u32,
    pub speaks: Arc<AtomicBool>,
}

impl Drop for FakeConnection {
    fn drop(&mut self) {
        self.server.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Connection for FakeConnection {
    fn is_quiet(&self) -> bool {
        !self.speaks.load(Ordering::SeqCst) && self.born == self.server.restarts.load(Ordering::SeqCst)
    }

    fn farewell(&mut self) {}
}

impl Connect for FakeConnect {
    type Connection = FakeConnection;

    async fn connect(&self, _entry: &ServerEntry) -> Result<FakeConnection, ServerError> {
        let server = &self.0;
        let number = server.tries.fetch_add(1, Ordering::SeqCst) + 1;
        let now = server.logins_now.fetch_add(1, Ordering::SeqCst) + 1;
        server.logins_now_max.fetch_max(now, Ordering::SeqCst);
        let takes = *server.login_takes.lock();
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        server.logins_now.fetch_sub(1, Ordering::SeqCst);
        if let Some((times, error)) = &mut *server.failures.lock()
            && *times > 0
        {
            *times -= 1;
            return Err(error.clone());
        }
        let alive = server.alive.fetch_add(1, Ordering::SeqCst) + 1;
        server.alive_max.fetch_max(alive, Ordering::SeqCst);
        Ok(FakeConnection {
            server: server.clone(),
            born: server.restarts.load(Ordering::SeqCst),
            number,
            speaks: Arc::default(),
        })
    }

    async fn check(&self, connection: &mut FakeConnection) -> Result<(), ServerError> {
        let server = &connection.server;
        server.checks.fetch_add(1, Ordering::SeqCst);
        let takes = *server.check_takes.lock();
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        if server.check_fails.load(Ordering::SeqCst) { Err(ServerError::Timeout) } else { Ok(()) }
    }
}

pub(super) struct Bench {
    pub server: Arc<Server>,
    pub registry: Arc<Registry>,
    pub group: Arc<Group>,
    pub budgets: Budgets,
    pub store: Arc<Store<FakeConnect>>,
}

pub(super) fn bench(settings: Settings) -> Bench {
    let registry = Registry::new(Instant::now(), SystemTime::UNIX_EPOCH, [0; 32]);
    bench_for("app", settings, unlimited(), Arc::default(), registry)
}

pub(super) fn unlimited() -> Budgets {
    Budgets { database: Budget::new(None), user: Budget::new(None) }
}

pub(super) fn bench_for(
    user: &str,
    settings: Settings,
    budgets: Budgets,
    server: Arc<Server>,
    registry: Arc<Registry>,
) -> Bench {
    let group = registry.group(&"arena".into(), &user.into());
    let store = Store::new(FakeConnect(server.clone()), settings, group.clone(), registry.clone(), budgets.clone());
    Bench { server, registry, group, budgets, store }
}

impl Bench {
    pub(super) fn wait(&self, client: u64) -> Waiting<FakeConnect> {
        self.store.wait(client, Patience::UntilTimeout, Instant::now())
    }

    pub(super) async fn lease(&self, client: u64) -> Lease<FakeConnect> {
        match self.store.try_lease(client, Instant::now()) {
            Some(lease) => lease,
            None => self.wait(client).served().await.unwrap(),
        }
    }

    pub(super) fn try_lease(&self, client: u64) -> Option<Lease<FakeConnect>> {
        self.store.try_lease(client, Instant::now())
    }
}

pub(super) fn release(lease: Lease<FakeConnect>) {
    lease.release(Instant::now());
}

/// Lets every task run until nothing more happens at this moment of the paused clock.
pub(super) async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// Moves the clock, in steps that let everybody act in time.
pub(super) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
    settle().await;
}
