//! The pool, tied to the rest: its service, its pages, its reload.

use std::{net::SocketAddr, sync::Arc};

use crate::{
    app::{
        Shared,
        half::Half,
        listen::{Place, Sharing, Wanted},
        pages::Section,
        reload::{Databases, Part},
    },
    config::{
        Config,
        lb::Sources,
        pool::{Listen, Pool},
    },
    health::{control::ReloadSummary, drain::WaitFor},
    pool::{
        listener::PoolService,
        names::System,
        pooler::{Deps, Pooler, SetSetting},
    },
};

/// Builds the pool; it starts with its service. `reload`, `set` and `leave` are what RELOAD, SET and SHUTDOWN in its console do.
///
/// # Errors
/// Why it cannot serve.
pub fn build(
    pool: &Arc<Pool>,
    sources: &Sources,
    shared: &Shared,
    reload: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
    set: Arc<SetSetting>,
    leave: Arc<dyn Fn(WaitFor) -> Result<(), String> + Send + Sync>,
) -> Result<Half, String> {
    let deps = Deps {
        board: shared.board.clone(),
        drain: shared.pool.clone(),
        ready: shared.ready.clone(),
        metrics: (*shared.registry).clone(),
        lookup: Arc::new(System),
        reload,
        set,
        leave,
    };
    let pooler = Pooler::new(pool.clone(), deps).map_err(|error| error.to_string())?;
    let file = sources.pool.as_deref().unwrap_or("pool.yaml".as_ref()).display();
    let shown = pooler.clone();
    let section: Section = Box::new(move || shown.view());
    Ok(Half {
        services: vec![Box::new(PoolService::new(pooler.clone()))],
        drain: shared.pool.clone(),
        threads: pool.threads,
        listens: wanted(&pool.listen, &file.to_string()),
        part: Arc::new(Tied(pooler.clone())),
        servers: None,
        databases: Some(Arc::new(Tied(pooler))),
        sections: vec![("pool", section)],
    })
}

/// Every address and socket the pool is to listen on.
fn wanted(listen: &Listen, file: &str) -> Vec<Wanted> {
    let everywhere = |address: &SocketAddr| address.ip().is_unspecified();
    // Beside IPv4 on all addresses, IPv6 on all is the other half of `*`: where there is none, there is none.
    let beside = |address: &SocketAddr| {
        let same = |other: &SocketAddr| other.is_ipv4() && everywhere(other) && other.port() == address.port();
        everywhere(address) && address.is_ipv6() && listen.addresses.iter().any(same)
    };
    let tcp = listen.addresses.iter().map(|address| Place::Tcp {
        address: *address,
        sharing: Sharing { reuse_port: listen.reuse_port, only_v6: true, optional: beside(address) },
    });
    let tcp = tcp.map(|place| (place, "pool.listen_port"));
    let unix = listen.unix.clone().zip(listen.unix_path());
    let unix = unix.map(|(socket, name)| (Place::Unix { name, socket }, "pool.unix_socket_dir"));
    tcp.chain(unix)
        .map(|(place, key)| Wanted { place, key: format!("{file} {key}"), backlog: listen.backlog })
        .collect()
}

/// The pool as a reload sees it.
struct Tied(Arc<Pooler>);

impl Part for Tied {
    fn reload(&self, config: &Config) -> ReloadSummary {
        let Some(pool) = &config.pool else { return ReloadSummary::default() };
        let changed = if **pool == *self.0.config() { Vec::new() } else { vec!["pool: settings changed".into()] };
        // What takes a restart is judged in one place, against what the process was started with.
        let _ = self.0.reload(pool);
        ReloadSummary { changed, needs_restart: Vec::new() }
    }
}

impl Databases for Tied {
    fn pause(&self, paused: bool) {
        self.0.set_paused(paused);
    }
}
