//! The front, tied to the rest: its service, its pages, its reload, its servers.

use std::{io, sync::Arc, time::Instant};

use arc_swap::ArcSwap;
use serde_json::json;
use tokio::runtime::Handle;

use crate::{
    app::{
        Shared,
        first_up::FirstUp,
        half::Half,
        listen::Wanted,
        pages::Section,
        reload::{Part, Servers},
    },
    config::{
        Config,
        lb::{Builtin, Lb, PathMatch, Target},
    },
    health::control::{DrainError, ReloadSummary},
    proxy::{Deps, Front, view},
};

/// Builds the front; its checks begin now.
///
/// # Errors
/// Why it cannot serve.
pub fn build(lb: &Arc<Lb>, running: &Arc<ArcSwap<Config>>, shared: &Shared) -> Result<(Arc<Front>, Half), String> {
    let deps = Deps {
        board: shared.board.clone(),
        ready: shared.ready.clone(),
        drain: shared.front.clone(),
        registry: &shared.registry,
        pages: shared.pages.clone(),
        checks: shared.background.clone(),
        access_log: Box::new(io::stdout()),
    };
    let front = Arc::new(Front::new(lb, deps).map_err(|error| error.to_string())?);
    let first_up = FirstUp::hold(&front, &shared.ready);
    shared.background.spawn(first_up.wait(front.clone()));
    let config = running.load();
    let file = config.sources.lb.as_deref().unwrap_or("lb.yaml".as_ref()).display();
    let wanted = |(index, address)| Wanted::tcp(address, format!("{file} listeners[{index}].address"));
    let tied = Arc::new(Tied { front: front.clone(), background: shared.background.clone() });
    let shown = front.clone();
    let upstreams: Section = Box::new(move || view::upstreams(&shown.runtime(), Instant::now()));
    let half = Half {
        services: vec![Box::new(front.service())],
        drain: shared.front.clone(),
        threads: lb.threads,
        listens: lb.listeners.iter().map(|listener| listener.address).enumerate().map(wanted).collect(),
        part: tied.clone(),
        servers: Some(tied),
        databases: None,
        sections: vec![("upstreams", upstreams), ("routes", routes(running.clone()))],
    };
    Ok((front, half))
}

/// What goes where, in the order of the file.
fn routes(running: Arc<ArcSwap<Config>>) -> Section {
    let target = |target: &Target| match target {
        Target::Upstream(upstream) => format!("upstream {upstream}"),
        Target::Builtin(builtin) => format!("builtin {}", word(*builtin)),
        Target::Redirect(redirect) => format!("redirect {} {}", redirect.status, redirect.to),
        Target::Respond(respond) => format!("respond {}", respond.status),
    };
    Box::new(move || {
        let config = running.load();
        let routes = config.lb.iter().flat_map(|lb| &lb.routes).map(|route| {
            json!({
                "route": &*route.name,
                "host": route.host,
                "path": match &route.path {
                    PathMatch::Exact(path) => path.clone(),
                    PathMatch::Prefix(path) => format!("{path}…"),
                },
                "target": target(&route.target),
                "needs_database": route.needs_database,
                "allow": route.allow.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "deny": route.deny.iter().map(ToString::to_string).collect::<Vec<_>>(),
            })
        });
        routes.collect::<Vec<_>>().into()
    })
}

/// The word of lb.yaml.
fn word(builtin: Builtin) -> &'static str {
    match builtin {
        Builtin::DbConnections => "db_connections",
        Builtin::Status => "status",
        Builtin::Metrics => "metrics",
        Builtin::Live => "live",
        Builtin::Ready => "ready",
    }
}

/// The front as a reload and an operator see it.
struct Tied {
    front: Arc<Front>,
    background: Handle,
}

impl Part for Tied {
    fn reload(&self, config: &Config) -> ReloadSummary {
        let Some(lb) = &config.lb else { return ReloadSummary::default() };
        // Reloads run on threads that may block.
        let mut summary = self.background.block_on(self.front.reload(lb));
        summary.needs_restart.clear(); // Judged in one place, against what the process was started with.
        for endpoint in self.front.runtime().endpoints().filter(|endpoint| endpoint.draining()) {
            endpoint.set_draining(false);
            summary.changed.push(format!("server {}/{} gets requests again", endpoint.upstream(), endpoint.name()));
        }
        summary
    }
}

impl Servers for Tied {
    fn drain(&self, name: &str) -> Result<usize, DrainError> {
        let runtime = self.front.runtime();
        let endpoint = runtime.server_named(name)?;
        endpoint.set_draining(true);
        Ok(endpoint.counts().in_flight)
    }

    fn undrain(&self, name: &str) -> Result<(), DrainError> {
        self.front.runtime().server_named(name)?.set_draining(false);
        Ok(())
    }
}
