//! A pingora service under our rules: our sockets, our number of threads, and our moment to stop accepting.
//!
//! What pingora-core 0.9.1 does (`server/mod.rs`, `main_loop` and `run`): every service gets one and the same shutdown
//! watch, which turns true only after the signal watch has returned; then the main thread sleeps the whole grace period,
//! however little there is to wait for; then all runtimes are dropped. There is no way in it to close the listeners, wait
//! exactly as long as work is in flight, and leave. So each service is given a watch of its own, made here, which turns
//! true when nothing new is to be accepted, while pingora still believes that it runs; the accept loops end then (`services/
//! listening.rs`, `run_endpoint`) and close their sockets. Pingora's own signal watch returns only when everything is
//! finished (`app::life`), and with a grace period of zero the process is gone at once.

use std::{os::fd::IntoRawFd, sync::Arc, time::Duration};

use async_trait::async_trait;
use pingora::{
    server::{ListenFds, ShutdownWatch},
    services::{ServiceReadyNotifier, ServiceWithDependents},
};
use tokio::sync::watch;

use crate::{
    app::listen::{Bound, SocketFile},
    health::drain::Drain,
};

/// A connection accepted in the last moment is a task before it is counted as work: accepting counts as work this long
/// beyond its end.
const SETTLE: Duration = Duration::from_millis(20);

/// When a service stops accepting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stops {
    /// When nothing new is to be accepted: what brings work.
    WhenClosed,
    /// With the process: what shows or drives it (admin, checks).
    Last,
}

/// The wrapper; everything but starting is the inner service's.
pub struct Governed {
    inner: Box<dyn ServiceWithDependents>,
    /// Bound sockets by the address as the inner service spells it.
    sockets: Vec<(String, Bound)>,
    /// Of Unix sockets that are handed over; removed when nothing is accepted any more.
    files: Vec<SocketFile>,
    threads: usize,
    stops: Stops,
    drain: Drain,
}

impl Governed {
    /// Puts `inner` under our rules. `sockets` are those of its `listen_addresses()`.
    pub fn new(
        inner: Box<dyn ServiceWithDependents>,
        sockets: Vec<(String, Bound)>,
        threads: usize,
        stops: Stops,
        drain: Drain,
    ) -> Self {
        Self { inner, sockets, files: Vec::new(), threads, stops, drain }
    }

    /// Puts our sockets where pingora looks before it binds. One that was inherited already (an upgrade) wins.
    fn hand_over(&mut self, fds: &ListenFds) {
        let mut table = fds.lock();
        for (address, Bound { socket, file }) in self.sockets.drain(..) {
            self.files.extend(file);
            if table.get(&address).is_none() {
                table.add(address, socket.into_raw_fd());
            }
        }
    }
}

#[async_trait]
impl ServiceWithDependents for Governed {
    async fn start_service(
        &mut self,
        fds: Option<ListenFds>,
        mut shutdown: ShutdownWatch,
        listeners_per_fd: usize,
        ready: ServiceReadyNotifier,
    ) {
        if let Some(fds) = &fds {
            self.hand_over(fds);
        }
        if self.stops == Stops::Last {
            return self.inner.start_service(fds, shutdown, listeners_per_fd, ready).await;
        }
        let accepting = self.drain.token();
        let mut drain = self.drain.clone();
        let (stop, stopped) = watch::channel(false);
        let stop = Arc::new(stop);
        let told = stop.clone();
        let teller = tokio::spawn(async move {
            tokio::select! {
                () = drain.closed() => {}
                _ = shutdown.wait_for(|down| *down) => {}
            }
            told.send_replace(true);
        });
        self.inner.start_service(fds, stopped, listeners_per_fd, ready).await;
        teller.abort();
        self.files.clear();
        // Sessions that are still open look at this watch.
        stop.send_replace(true);
        tokio::time::sleep(SETTLE).await;
        drop(accepting);
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn threads(&self) -> Option<usize> {
        Some(self.threads)
    }

    fn on_startup_delay(&self, time_waited: Duration) {
        self.inner.on_startup_delay(time_waited);
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        self.inner.listen_addresses()
    }
}

#[cfg(test)]
mod tests;
