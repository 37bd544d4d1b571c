//! The composition root: the only place that sees everything.
//!
//! [`App::build`] makes the parts and ties them together, one file per part; [`App::run`] hands them to pingora's server
//! and returns when the process has left. Whatever can fail fails in `build`, before a single connection is accepted:
//! files, limits, ports. [`reload`] and [`life`] are what happens afterwards.
//!
//! Threads: the front and the pool have a runtime each (`threads` of their files), admin, checks and signals one thread
//! each, and pingora's main thread waits. Work stealing is on for all of them because pingora 0.9.1 knows it only per server: the
//! front wants it (one thread must not be stuck with all long uploads), and the pool has one thread unless told otherwise.

pub mod ask;
mod daemon;
mod departure;
mod first_up;
mod front;
mod half;
mod life;
mod limits;
mod listen;
mod pages;
mod pool;
mod reload;
mod service;
mod signals;

use std::{
    fs,
    path::Path,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pingora::{
    server::{RunArgs, Server, configuration::ServerConf},
    services::ServiceWithDependents,
};
use tokio::{
    runtime::{self, Runtime},
    sync::mpsc,
};
use tracing::{info, warn};

use crate::{
    admin::Admin,
    app::{
        half::Half,
        life::{Leaving, Life, Watch},
        listen::Wanted,
        reload::Reloader,
        service::{Governed, Stops},
    },
    config::{self, Config, Errors, Loader, Surroundings, lb::Sources, open_files_needed},
    health::{
        board::Board,
        control::Control,
        drain::{Drain, WaitFor},
        ready::Ready,
    },
    pool::pooler::SetSetting,
    proxy::{Front, Pages},
    telemetry::{
        log::{self, Log},
        metrics::{ProgramMetrics, Registry, Started},
    },
};

pub use crate::app::{reload::Load, signals::Signal};
pub use crate::telemetry::log::Voice;

/// Seconds that pingora gives runtimes to end, after everything that had to be waited for is over.
const RUNTIME_SHUTDOWN_SECONDS: u64 = 1;
/// How long the last lines of the access log may take to be written: its reader may be gone.
const ACCESS_LOG_PATIENCE: Duration = Duration::from_secs(2);
/// SHUTDOWN commands waiting to be looked at; more than these are refused, and would say nothing new.
const SHUTDOWN_QUEUE: usize = 4;

/// What both halves are handed.
struct Shared {
    board: Arc<Board>,
    /// Each half leaves at its own moment.
    front: Drain,
    pool: Drain,
    ready: Ready,
    registry: Arc<Registry>,
    pages: Arc<Pages>,
    /// Where checks run.
    background: runtime::Handle,
}

/// The whole program, built and not started.
pub struct App {
    services: Vec<Governed>,
    life: Life,
    front: Option<Arc<Front>>,
    background: Runtime,
}

/// Serves what `sources` say until the process is told to stop; as `user`, or as the one that the pool's file names.
///
/// # Errors
/// Why it could not start: lines for the operator.
pub fn run(sources: &Sources, voice: Voice, user: Option<&str>) -> Result<(), Vec<String>> {
    let started = Started::now();
    let one = |error: String| vec![error];
    let log = log::init(voice).map_err(one)?;
    let signals = signals::catch().map_err(|error| one(format!("cannot catch signals: {error}")))?;
    let loader = Loader::new(sources.clone(), Surroundings::system());
    let config = loader.load().map_err(|errors| lines(&errors))?;
    let daemon = config.pool.as_ref().map(|pool| pool.daemon.clone()).unwrap_or_default();
    if let Some(user) = user.or(daemon.user.as_deref()) {
        daemon::become_user(user).map_err(one)?;
    }
    reload::apply_log(&log, &config).map_err(one)?;
    config.notes.iter().for_each(|note| warn!("{note}"));
    let app = App::build(config, load(loader), signals, started, log)?;
    let _pidfile = daemon.pidfile.map(|path| daemon::PidFile::claim(&path)).transpose().map_err(one)?;
    app.run();
    Ok(())
}

impl App {
    /// Builds everything and takes the ports.
    ///
    /// # Errors
    /// Everything that keeps the program from starting.
    pub fn build(
        config: Config,
        load: Load,
        signals: mpsc::Receiver<Signal>,
        started: Started,
        log: Log,
    ) -> Result<Self, Vec<String>> {
        let one = |error: String| vec![error];
        let open_files_limit = limits::raise_open_files()
            .map_err(|error| one(format!("cannot raise the limit of open files: {error}")))?;
        if let Some(shortage) = limits::shortage(open_files_needed(&config), open_files_limit) {
            warn!("{shortage}");
        }
        let background = background().map_err(|error| one(format!("cannot start a runtime: {error}")))?;
        let (front, pool) = (Leaving::new(), Leaving::new());
        let shared = Shared {
            board: Arc::default(),
            front: front.drain.clone(),
            pool: pool.drain.clone(),
            ready: Ready::default(),
            registry: Arc::default(),
            pages: Arc::default(),
            background: background.handle().clone(),
        };
        let metrics = ProgramMetrics::register(&shared.registry, started).map_err(|error| one(error.to_string()))?;

        let running = Arc::new(ArcSwap::from_pointee(config.clone()));
        let reloader = Arc::new(OnceLock::new());
        let (shutdowns, shutdowns_asked) = mpsc::channel(SHUTDOWN_QUEUE);
        let mut halves = Vec::new();
        let mut built_front = None;
        if let Some(lb) = &config.lb {
            let (built, half) = front::build(lb, &running, &shared).map_err(one)?;
            built_front = Some(built);
            halves.push(half);
        }
        if let Some(pool) = &config.pool {
            let (reload, set) = (reload_later(reloader.clone()), set_later(reloader.clone()));
            let leave = leave_later(shutdowns);
            halves.push(pool::build(pool, &config.sources, &shared, reload, set, leave).map_err(one)?);
        }
        let control = Arc::new(Reloader {
            load,
            parts: halves.iter().map(|half| half.part.clone()).collect(),
            servers: halves.iter().find_map(|half| half.servers.clone()),
            databases: halves.iter().find_map(|half| half.databases.clone()),
            running: running.clone(),
            turn: Mutex::default(),
            started: config.clone(),
            metrics,
            open_files_limit,
            log,
        });
        let _ = reloader.set(Arc::downgrade(&control));

        let pages = pages::builtin(pages::Sources {
            started,
            board: shared.board.clone(),
            front: front.drain.clone(),
            pool: pool.drain.clone(),
            ready: shared.ready.clone(),
            registry: shared.registry.clone(),
            sections: halves.iter_mut().flat_map(|half| half.sections.drain(..)).collect(),
            container: host_name(),
        });
        for (name, page) in &pages {
            shared.pages.set(*name, page.clone());
        }
        let mut services = govern(halves)?;
        if let Some(admin) = &config.admin {
            let service = Admin::new(pages::admin(&pages), control.clone()).service(&admin.address.to_string());
            let wanted = Wanted::tcp(admin.address, "admin.address");
            services.push(governed(Box::new(service), &[wanted], 1, Stops::Last, &shared.pool)?);
        }
        let shutdown = {
            let control = control.clone();
            Arc::new(move || control.shutdown())
        };
        let ready = shared.ready;
        let pool_alone = config.lb.is_none();
        let life = Life { signals, shutdowns: shutdowns_asked, front, pool, ready, control, shutdown, pool_alone };
        Ok(Self { services, life, front: built_front, background })
    }

    /// Serves until the end. Blocks.
    pub fn run(self) {
        let mut server = Server::new_with_opt_and_conf(None, server_conf());
        for service in self.services {
            server.add_service(service);
        }
        daemon::tell_ready();
        info!(version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), "started");
        server.run(RunArgs { shutdown_signal: Box::new(Watch::new(self.life)) });
        self.background.shutdown_background();
        if self.front.is_some_and(|front| !front.close_log(ACCESS_LOG_PATIENCE)) {
            warn!("the last lines of the access log could not be written");
        }
    }
}

/// One thread for what belongs to no connection: the front's checks.
fn background() -> std::io::Result<Runtime> {
    runtime::Builder::new_multi_thread().worker_threads(1).thread_name("background").enable_all().build()
}

/// What the pool's console calls for RELOAD: the reloader is made after the pool is.
fn reload_later(reloader: Arc<OnceLock<Weak<Reloader>>>) -> Arc<dyn Fn() -> Result<(), String> + Send + Sync> {
    Arc::new(move || {
        let reloader = reloader.get().and_then(Weak::upgrade).ok_or("the process is starting or leaving")?;
        reloader.reload().map(drop).map_err(|errors| errors.join("; "))
    })
}

/// What the pool's console calls for SET.
fn set_later(reloader: Arc<OnceLock<Weak<Reloader>>>) -> Arc<SetSetting> {
    Arc::new(move |key, value| {
        let reloader = reloader.get().and_then(Weak::upgrade).ok_or("the process is starting or leaving")?;
        reloader.set(key, value)
    })
}

/// What the pool's console calls for SHUTDOWN.
fn leave_later(shutdowns: mpsc::Sender<WaitFor>) -> Arc<dyn Fn(WaitFor) -> Result<(), String> + Send + Sync> {
    Arc::new(move |wait_for| shutdowns.try_send(wait_for).map_err(|_| "the process is leaving already".to_owned()))
}

fn load(loader: Loader) -> Load {
    Box::new(move |overrides| {
        let loaded = if overrides.is_empty() { loader.load() } else { loader.load_with(overrides) };
        loaded.map_err(|errors| lines(&errors))
    })
}

fn lines(errors: &Errors) -> Vec<String> {
    errors.to_string().lines().map(str::to_owned).collect()
}

/// pingora's own settings: what is not named here does not concern us (daemons, its own files) or is per service.
fn server_conf() -> ServerConf {
    ServerConf {
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(RUNTIME_SHUTDOWN_SECONDS),
        ..ServerConf::default()
    }
}

/// Puts the halves' services under our rules, ports taken; every port that cannot be had is an error.
fn govern(halves: Vec<Half>) -> Result<Vec<Governed>, Vec<String>> {
    let mut services = Vec::new();
    let mut errors = Vec::new();
    for half in halves {
        for service in half.services {
            let listens = service.listen_addresses().is_some_and(|addresses| !addresses.is_empty());
            let (threads, stops) =
                if listens { (half.threads, Stops::WhenClosed) } else { (service.threads().unwrap_or(1), Stops::Last) };
            match governed(service, &half.listens, threads, stops, &half.drain) {
                Ok(service) => services.push(service),
                Err(more) => errors.extend(more),
            }
        }
    }
    if errors.is_empty() { Ok(services) } else { Err(errors) }
}

fn governed(
    service: Box<dyn ServiceWithDependents>,
    wanted: &[Wanted],
    threads: usize,
    stops: Stops,
    drain: &Drain,
) -> Result<Governed, Vec<String>> {
    let mut sockets = Vec::new();
    let mut errors = Vec::new();
    for spelled in service.listen_addresses().unwrap_or_default() {
        let known = wanted.iter().find(|wanted| wanted.is(&spelled));
        match known.map(listen::bind) {
            Some(Ok(Some(socket))) => sockets.push((spelled, socket)),
            Some(Ok(None)) => info!(address = spelled, "not listening there: this machine has no such addresses"),
            Some(Err(error)) => errors.push(error.to_string()),
            None => errors.push(format!("{} listens on {spelled}, which no key names", service.name())),
        }
    }
    if errors.is_empty() { Ok(Governed::new(service, sockets, threads, stops, drain.clone())) } else { Err(errors) }
}

/// The container's name, as Docker and Kubernetes give it: the host name.
fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| "localhost".into(), |name| name.trim().to_owned())
}

/// Checks what `sources` say; with `print`, returns the configuration in effect.
///
/// # Errors
/// Every error, one per line.
pub fn check(sources: &Sources, print: bool) -> Result<String, String> {
    let config = Config::load(sources, &Surroundings::system()).map_err(|errors| errors.to_string())?;
    if print {
        return Ok(config::print(&config));
    }
    let notes: String = config.notes.iter().map(|note| format!("note: {note}\n")).collect();
    Ok(notes + "the configuration is fine")
}

/// Returns what `pool.yaml` would be for the `pgbouncer.ini` at `file`.
///
/// # Errors
/// Every error, one per line.
pub fn import(file: &Path) -> Result<String, String> {
    config::import(file, &Surroundings::system()).map_err(|errors| errors.to_string())
}
