//! The front as a whole: made once, given new configurations while it runs.

use std::{io, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use pingora::{proxy::HttpProxy, server::configuration::ServerConf, services::Service};
use tokio::{sync::Mutex, time::timeout};

use super::{
    Shared,
    accept::{Accept, limit::Limit},
    access_log::AccessLog,
    builtin::Pages,
    gateway::Gateway,
    listener,
    metrics::Metrics,
    reload,
    runtime::{self, Runtime},
    upstream::check::Surroundings,
};
use crate::{
    config::lb::Lb,
    health::{board::Board, control::ReloadSummary, drain::Drain, ready::Ready},
    telemetry::metrics::{MetricsError, Registry},
};

/// Idle server connections kept, over all servers and threads. One costs a socket and a task; too few, and every request
/// beyond them connects anew.
const IDLE_SERVER_CONNECTIONS: usize = 4096;
/// pingora's own bound on tries, which `tries` and the one repeat on a reused connection never reach.
const TRIES_FUSE: usize = 10_000;
/// How long a reload waits for the first look at servers that are new before it sends requests their way.
const FIRST_CHECKS: Duration = Duration::from_secs(3);

/// What the front needs of the process.
pub struct Deps<'a> {
    pub board: Arc<Board>,
    pub ready: Ready,
    pub drain: Drain,
    pub registry: &'a Registry,
    pub pages: Arc<Pages>,
    /// Where check tasks run.
    pub checks: tokio::runtime::Handle,
    /// Where access log lines go; standard output, but for tests.
    pub access_log: Box<dyn io::Write + Send>,
}

/// Why the front could not be made.
#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    #[error("cannot start the access log")]
    AccessLog(#[source] io::Error),
    #[error("cannot register metrics")]
    Metrics(#[from] MetricsError),
}

/// The front.
pub struct Front {
    shared: Arc<Shared>,
    limits: Arc<[Arc<Limit>]>,
    rebuild: runtime::Deps,
    /// The configuration that runs. Reloads take turns.
    running: Mutex<Arc<Lb>>,
    threads: usize,
}

impl Front {
    /// Puts a configuration to work: checks begin, readiness is held back until each server was looked at once. Nothing is
    /// listened on before [`Front::service`] runs.
    ///
    /// # Errors
    /// When the access log cannot be started, or the registry has a front already.
    pub fn new(lb: &Arc<Lb>, deps: Deps<'_>) -> Result<Self, FrontError> {
        let metrics = Metrics::register(deps.registry)?;
        let limits =
            lb.listeners.iter().map(|own| Limit::new(own, metrics.listener(&own.address.to_string()))).collect();
        let access_log = match lb.access_log.enabled {
            true => Some(
                AccessLog::start(deps.access_log, lb.access_log.queue, metrics.access_log_dropped().clone())
                    .map_err(FrontError::AccessLog)?,
            ),
            false => None,
        };
        let rebuild = runtime::Deps {
            board: deps.board,
            ready: deps.ready,
            checks: Surroundings { runtime: deps.checks, drain: deps.drain.clone() },
            metrics,
        };
        let shared = Arc::new(Shared {
            runtime: ArcSwap::new(Runtime::build(lb, None, &rebuild)),
            drain: deps.drain,
            pages: deps.pages,
            access_log,
        });
        Ok(Self { shared, limits, rebuild, running: Mutex::new(lb.clone()), threads: lb.threads })
    }

    /// Returns the service that listens and serves, for pingora to run. To be called once: each would listen anew.
    pub fn service(&self) -> impl Service + 'static {
        let conf = ServerConf {
            threads: self.threads,
            upstream_keepalive_pool_size: IDLE_SERVER_CONNECTIONS.div_ceil(self.threads.max(1)),
            max_retries: TRIES_FUSE,
            ..ServerConf::default()
        };
        let mut http = HttpProxy::new(Gateway { shared: self.shared.clone() }, Arc::new(conf));
        http.handle_init_modules();
        let accept = Accept {
            http: Arc::new(http),
            limits: self.limits.clone(),
            drain: self.shared.drain.clone(),
            rules: self.shared.clone(),
        };
        listener::service(accept, &self.limits, self.threads)
    }

    /// Replaces the running configuration. Requests and WebSockets under way keep the one they began with; servers that
    /// stayed keep their health, counters and connections.
    pub async fn reload(&self, lb: &Arc<Lb>) -> ReloadSummary {
        let mut running = self.running.lock().await;
        let runtime = Runtime::build(lb, Some(&self.shared.runtime.load()), &self.rebuild);
        // A server that is not known in time is simply not up yet.
        let _ = timeout(FIRST_CHECKS, runtime.checked_once()).await;
        self.shared.runtime.store(runtime);
        for limit in self.limits.iter() {
            if let Some(listener) = lb.listeners.iter().find(|listener| listener.address == limit.address()) {
                limit.set(listener);
            }
        }
        let summary = reload::differences(&running, lb);
        *running = lb.clone();
        summary
    }

    /// Returns the configuration at work, for pages and for draining a server by its name.
    pub fn runtime(&self) -> Arc<Runtime> {
        self.shared.runtime.load_full()
    }

    /// Waits until the access log is written, when everything else has ended; false when it was not within `patience`.
    /// Blocks.
    pub fn close_log(&self, patience: Duration) -> bool {
        self.shared.access_log.as_ref().is_none_or(|log| log.close(patience))
    }
}
