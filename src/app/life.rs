//! From the first signal to the last byte: signals in, phases out, and the end as soon as all is done.
//!
//! This future is what pingora's server waits for instead of its own signal handling; when it returns, the process ends.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::{
    sync::mpsc,
    time::{self, Instant},
};
use tracing::{error, info, warn};

use crate::{
    app::{daemon, departure::Departure, signals::Signal},
    config::lb::Shutdown,
    health::{
        control::Control,
        drain::{self, Drain, DrainControl, Phase, WaitFor},
        ready::Ready,
    },
};

/// The phases of one half, and its work in flight.
pub struct Leaving {
    pub phases: DrainControl,
    pub drain: Drain,
}

impl Leaving {
    /// A half that runs.
    pub fn new() -> Self {
        let (phases, drain) = drain::channel();
        Self { phases, drain }
    }
}

/// What a life is made of. A half that does not run is idle.
pub struct Life {
    pub signals: mpsc::Receiver<Signal>,
    /// What the pool's console was told.
    pub shutdowns: mpsc::Receiver<WaitFor>,
    pub front: Leaving,
    pub pool: Leaving,
    pub ready: Ready,
    pub control: Arc<dyn Control>,
    /// The settings that hold when the process is told to stop: a reload may have changed them.
    pub shutdown: Arc<dyn Fn() -> Shutdown + Send + Sync>,
    /// No front runs: signals have PgBouncer's meanings.
    pub pool_alone: bool,
}

impl Life {
    /// Lives until everything is finished, or cut.
    pub async fn run(mut self) {
        let mut departure = Departure::default();
        while !departure.is_gone() {
            tokio::select! {
                Some(signal) = self.signals.recv() => self.on_signal(signal, &mut departure),
                Some(wait_for) = self.shutdowns.recv() => {
                    info!(?wait_for, "told to leave by the pool's console");
                    departure.leave(wait_for, (self.shutdown)(), Instant::now());
                }
                () = until(departure.wakes_at()) => departure.tick(Instant::now()),
                () = self.front.drain.idle(), if departure.waits_for_front() => departure.front_idle(),
                () = idle(&self.front.drain, &self.pool.drain), if departure.waits_for_idle() => departure.idle(),
            }
            self.announce(&departure);
        }
        info!("stopped");
    }

    fn on_signal(&self, signal: Signal, departure: &mut Departure) {
        match signal {
            // PgBouncer's meanings. Beside a front they are nginx's: go when what is in flight is done.
            Signal::Stop if self.pool_alone => departure.stop_for_clients((self.shutdown)(), Instant::now()),
            Signal::Quit if self.pool_alone => departure.leave(WaitFor::Nothing, (self.shutdown)(), Instant::now()),
            Signal::Stop | Signal::Interrupt | Signal::Quit => departure.stop((self.shutdown)(), Instant::now()),
            Signal::Reload if departure.front() != Phase::Running => info!("shutting down: not reloading"),
            Signal::Reload => {
                // Reading files and hashing passwords blocks; the log tells how it went.
                let control = self.control.clone();
                tokio::task::spawn_blocking(move || control.reload().is_ok());
            }
            Signal::Pause | Signal::Resume => {
                if !self.control.pause(signal == Signal::Pause) {
                    warn!(?signal, "no pool runs here: nothing to pause or resume; ignored");
                }
            }
        }
    }

    /// Makes the phases known; once each.
    fn announce(&self, departure: &Departure) {
        let now = (departure.front(), departure.pool());
        if now == (self.front.drain.phase(), self.pool.drain.phase()) {
            return;
        }
        let (requests, sessions) = (self.front.drain.in_flight(), self.pool.drain.in_flight());
        daemon::tell_stopping();
        match now {
            (Phase::Running, _) => {}
            (Phase::Leaving | Phase::Closed, _) => {
                self.ready.leave();
                info!("shutting down: readiness is off, connections are accepted for shutdown.pre_stop_delay more");
            }
            (Phase::Draining { .. }, Phase::Draining { .. }) => {
                info!(sessions, "draining the pool: nothing new is accepted")
            }
            (Phase::Draining { .. }, Phase::Closed) => {
                info!(sessions, "the pool accepts nothing new and waits for its clients to go")
            }
            (Phase::Draining { .. }, _) => {
                self.ready.leave();
                info!(requests, "draining the front: nothing new is accepted; the pool serves what is in flight");
            }
            (Phase::Cut, _) if departure.is_gone() => info!("drained: nothing is in flight"),
            (Phase::Cut, _) => {
                self.ready.leave();
                warn!(requests, sessions, "cutting what is still in flight");
            }
        }
        self.front.phases.advance(now.0);
        self.pool.phases.advance(now.1);
    }
}

/// Waits until nothing of either half is in flight. Cancel safe.
async fn idle(front: &Drain, pool: &Drain) {
    front.idle().await;
    pool.idle().await;
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// [`Life`] as pingora wants it: a watch behind `&self`, asked once.
pub struct Watch(Mutex<Option<Life>>);

impl Watch {
    /// Wraps `life`.
    pub fn new(life: Life) -> Self {
        Self(Mutex::new(Some(life)))
    }
}

#[async_trait]
impl ShutdownSignalWatch for Watch {
    async fn recv(&self) -> ShutdownSignal {
        let life = self.0.lock().take();
        match life {
            Some(life) => life.run().await,
            None => error!("the server asked twice for its end"),
        }
        // All that had to be waited for is over: with a grace period of zero this drops the runtimes and returns.
        ShutdownSignal::GracefulTerminate
    }
}

#[cfg(test)]
mod tests;
