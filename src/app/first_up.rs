//! Ready means that there is somewhere to send requests: each upstream has a server that is up.
//!
//! Django often starts with bookend, and needs its pool to start: the first look at every server then finds nobody, and a
//! front that called itself ready after it would be given traffic to refuse. So readiness also waits for the first server
//! of each upstream, with an end: an upstream whose servers never come does not keep the others from being served. Only at
//! the start; later a front without servers stays ready, since it is still the one who can say so (503, Retry-After).

use std::{sync::Arc, time::Duration};

use tokio::time::{self, Instant};
use tracing::warn;

use crate::{
    health::{
        board::Serving,
        ready::{Latch, Ready},
        threshold::Health,
    },
    proxy::{Front, upstream::Servers},
};

/// How long the start waits for the first server of each upstream.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at what the checks found out: a few atomics, at the start only.
const PACE: Duration = Duration::from_millis(50);

/// Latches of the upstreams whose servers are still awaited.
pub struct FirstUp {
    awaited: Vec<(Arc<str>, Latch)>,
}

impl FirstUp {
    /// Holds readiness back in the name of each upstream that has checks.
    pub fn hold(front: &Front, ready: &Ready) -> Self {
        let awaited = front
            .runtime()
            .clusters()
            .iter()
            .filter(|cluster| cluster.servers().checked)
            .map(|cluster| {
                let latch = ready.latch(format!("upstream {}: no server is up yet", cluster.name()));
                (cluster.name().clone(), latch)
            })
            .collect();
        Self { awaited }
    }

    /// Waits until each upstream has a server, or patience ends. An upstream that a reload removes is not waited for.
    pub async fn wait(mut self, front: Arc<Front>) {
        let deadline = Instant::now() + PATIENCE;
        while !self.awaited.is_empty() && Instant::now() < deadline {
            time::sleep(PACE).await;
            let runtime = front.runtime();
            let missing = |name: &Arc<str>| {
                runtime.clusters().iter().any(|cluster| cluster.name() == name && !serves(cluster.servers()))
            };
            self.awaited.retain(|(name, _)| missing(name));
        }
        for (upstream, _) in &self.awaited {
            warn!(%upstream, "no server has come up since the start; ready without it");
        }
    }
}

/// While the database is down, a server that answers at all is as good as it gets.
fn serves(servers: &Servers) -> bool {
    let database_down = servers.database.as_ref().is_some_and(|entry| entry.serving() == Serving::Down);
    !servers.checked
        || servers
            .members
            .iter()
            .map(|member| member.endpoint.facts())
            .any(|facts| facts.passing == Health::Up || database_down && facts.alive == Health::Up)
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Handle;

    use super::*;
    use crate::{
        config::{Config, Surroundings},
        health::{board::Board, drain},
        proxy::{Deps, Pages},
        telemetry::metrics::Registry,
    };

    /// Port 1 of this machine, where nobody listens; the other upstream has no checks and is not waited for.
    const LB: &str = "
        listeners: [{ address: 127.0.0.1:0 }]
        upstreams:
          away: { servers: [{ address: 127.0.0.1:1 }], health_check: { interval: 2s } }
          unchecked: { servers: [{ address: 127.0.0.1:1 }] }
        routes:
          - { path_prefix: /unchecked/, upstream: unchecked }
          - { path_prefix: /, upstream: away }
    ";

    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_comes_is_waited_for_as_long_as_patience_lasts() {
        let surroundings = Surroundings::new(|_| None, |_, _| Err(std::io::Error::other("no names here")));
        let config = Config::from_texts(Some(LB), None, &surroundings).unwrap_or_else(|errors| panic!("{errors}"));
        let (ready, registry, (_leaving, drain)) = (Ready::default(), Registry::default(), drain::channel());
        let deps = Deps {
            board: Arc::new(Board::default()),
            ready: ready.clone(),
            drain,
            registry: &registry,
            pages: Arc::<Pages>::default(),
            checks: Handle::current(),
            access_log: Box::new(std::io::sink()),
        };
        let front = Arc::new(Front::new(&config.lb.unwrap(), deps).unwrap());
        let first_up = FirstUp::hold(&front, &ready);
        let begun = Instant::now();
        tokio::spawn(first_up.wait(front));
        time::sleep(PATIENCE - Duration::from_secs(1)).await;
        assert_eq!(ready.pending(), ["upstream away: no server is up yet"], "all else is ready");
        while !ready.is_ready() {
            time::sleep(PACE).await;
        }
        assert!(begun.elapsed() < PATIENCE + Duration::from_secs(1), "{:?}", begun.elapsed());
    }
}
