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
    app::{departure::Departure, signals::Signal},
    config::lb::Shutdown,
    health::{
        control::Control,
        drain::{Drain, DrainControl, Phase},
        ready::Ready,
    },
};

/// What a life is made of.
pub struct Life {
    pub signals: mpsc::Receiver<Signal>,
    pub phases: DrainControl,
    pub drain: Drain,
    pub ready: Ready,
    pub control: Arc<dyn Control>,
    /// The settings that hold when the process is told to stop: a reload may have changed them.
    pub shutdown: Arc<dyn Fn() -> Shutdown + Send + Sync>,
}

impl Life {
    /// Lives until everything is finished, or cut.
    pub async fn run(mut self) {
        let mut departure = Departure::default();
        while !departure.is_gone() {
            tokio::select! {
                Some(signal) = self.signals.recv() => self.on_signal(signal, &mut departure),
                () = until(departure.wakes_at()) => departure.tick(Instant::now()),
                () = self.drain.idle(), if departure.waits_for_idle() => departure.idle(),
            }
            self.announce(&departure);
        }
        info!("stopped");
    }

    fn on_signal(&self, signal: Signal, departure: &mut Departure) {
        match signal {
            Signal::Stop => departure.stop((self.shutdown)(), Instant::now()),
            Signal::Reload if departure.phase() != Phase::Running => info!("shutting down: not reloading"),
            Signal::Reload => {
                // Reading files and hashing passwords blocks; the log tells how it went.
                let control = self.control.clone();
                tokio::task::spawn_blocking(move || control.reload().is_ok());
            }
            Signal::Upgrade => {
                warn!("SIGQUIT: handing over to a new process is not available in this version; ignored")
            }
        }
    }

    /// Makes the phase known; once each.
    fn announce(&self, departure: &Departure) {
        let (before, now) = (self.drain.phase(), departure.phase());
        if before == now {
            return;
        }
        let in_flight = self.drain.in_flight();
        match now {
            Phase::Running => {}
            Phase::Leaving => {
                self.ready.leave();
                info!("shutting down: readiness is off, connections are accepted for shutdown.pre_stop_delay more");
            }
            Phase::Draining { deadline } => {
                self.ready.leave();
                let seconds = (deadline - Instant::now()).as_secs_f64();
                info!(in_flight, grace_seconds = seconds.round(), "draining: nothing new is accepted");
            }
            Phase::Cut if departure.is_gone() => info!("drained: nothing is in flight"),
            Phase::Cut => warn!(in_flight, "cutting what is still in flight"),
        }
        self.phases.advance(now);
    }
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
