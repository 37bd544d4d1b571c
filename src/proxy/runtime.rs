//! What `lb.yaml` looks like while it runs: routes that know their upstreams, upstreams that know their servers.
//!
//! Immutable, and replaced whole on a reload: a request that began with one keeps it to its end. What must outlive a
//! configuration is handed on rather than copied: an endpoint whose upstream, name and address stayed is the same
//! [`Endpoint`], with its health, failures, requests in flight and check task, and a rotation over unchanged servers goes
//! on where it stands.

#[cfg(test)]
mod tests;

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use ipnet::IpNet;

use super::{
    client_ip::{self, TrustedProxies},
    entry::Entries,
    header_rules::Headers,
    metrics::{Metrics, RouteMetrics},
    route::{NotFound, Pattern, Table},
    upstream::{
        Cluster, Endpoint, Member, Servers, Settings,
        check::{Plan, Surroundings},
        passive::Limits,
        queue::Queue,
    },
};
use crate::{
    config::lb::{self, Builtin, Lb, QueuePriority},
    health::{
        board::{Board, ServerName},
        control::DrainError,
        ready::Ready,
    },
};

/// What the front needs of the process.
pub struct Deps {
    pub board: Arc<Board>,
    pub ready: Ready,
    /// Where check tasks run, and what ends them.
    pub checks: Surroundings,
    pub metrics: Metrics,
}

/// A configuration at work.
#[derive(Debug)]
pub struct Runtime {
    table: Table<Arc<Route>>,
    clusters: Vec<Arc<Cluster>>,
    /// Of upstreams that have servers of their own, in the order of the file.
    own_servers: Vec<(Arc<str>, Arc<Servers>)>,
    pub trusted: TrustedProxies,
    pub client: lb::Client,
    pub(super) entries: Entries,
    /// For all routes.
    pub(super) headers: Headers,
    /// Counts requests that no route took.
    pub unmatched: RouteMetrics,
}

/// A route at work.
#[derive(Debug)]
pub struct Route {
    pub name: Arc<str>,
    pub target: Target,
    pub allow: Vec<IpNet>,
    pub deny: Vec<IpNet>,
    pub needs_database: bool,
    /// `None` = no limit.
    pub max_body_size: Option<u64>,
    pub read_timeout: Duration,
    pub websocket_idle_timeout: Duration,
    pub queue_priority: QueuePriority,
    pub strip_prefix: Option<Box<str>>,
    pub(super) headers: Headers,
    pub metrics: RouteMetrics,
}

/// What answers a route.
#[derive(Debug, Clone)]
pub enum Target {
    Upstream(Arc<Cluster>),
    Builtin(Builtin),
    Redirect(lb::Redirect),
    Respond(lb::Respond),
}

impl Runtime {
    /// Puts a configuration to work, in place of `previous`, and announces its servers.
    ///
    /// Only at the start (no `previous`) do first checks hold readiness back; at a reload see [`Runtime::checked_once`].
    pub fn build(lb: &Lb, previous: Option<&Self>, deps: &Deps) -> Arc<Self> {
        let own_servers: Vec<(Arc<str>, Arc<Servers>)> = lb
            .upstreams
            .iter()
            .filter_map(|upstream| match &upstream.servers {
                lb::Servers::Own(servers) => {
                    Some((upstream.name.clone(), Arc::new(own_servers(upstream, servers, previous, deps))))
                }
                lb::Servers::Of(_) => None,
            })
            .collect();
        let clusters: Vec<Arc<Cluster>> = lb
            .upstreams
            .iter()
            .filter_map(|upstream| {
                let owner = match &upstream.servers {
                    lb::Servers::Own(_) => &upstream.name,
                    lb::Servers::Of(owner) => owner,
                };
                // The configuration refuses a `servers_of` that names no upstream with servers.
                let (_, servers) = own_servers.iter().find(|(name, _)| name == owner)?;
                let previous = previous.and_then(|previous| previous.cluster(&upstream.name));
                Some(Arc::new(Cluster::new(
                    upstream.name.clone(),
                    upstream.balance.clone(),
                    upstream.sticky.as_ref(),
                    servers.clone(),
                    settings(upstream),
                    previous.map(|cluster| &**cluster),
                )))
            })
            .collect();
        let table = Table::build(lb.routes.iter().filter_map(|route| {
            let pattern = Pattern { host: route.host.as_deref(), path: &route.path };
            Some((pattern, Arc::new(Route::new(route, lb, &clusters, &deps.metrics)?)))
        }));
        let runtime = Arc::new(Self {
            table,
            clusters,
            own_servers,
            trusted: TrustedProxies::new(&lb.trusted_proxies),
            client: lb.client.clone(),
            entries: Entries::new(&lb.listeners),
            headers: Headers::new(&lb.headers),
            unmatched: deps.metrics.route(None, None, &[]),
        });
        runtime.announce(deps);
        if let Some(previous) = previous {
            runtime.replace(previous, deps);
        }
        runtime
    }

    /// Returns the route for a Host header and a raw path without its query.
    pub fn route(&self, host: Option<&[u8]>, path: &[u8]) -> Result<&Arc<Route>, NotFound> {
        self.table.find(host, path)
    }

    /// Returns all upstreams, in the order of the file.
    pub fn clusters(&self) -> &[Arc<Cluster>] {
        &self.clusters
    }

    /// Returns every server once, in the order of the file.
    pub fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.own_servers.iter().flat_map(|(_, servers)| servers.members.iter().map(|member| &member.endpoint))
    }

    /// Waits until every checked server was looked at once: a reload that brings new servers waits for this (for a bounded
    /// time) before it lets requests see them. Cancel safe.
    pub async fn checked_once(&self) {
        for (_, servers) in &self.own_servers {
            if servers.checked {
                for member in &servers.members {
                    member.endpoint.checked_once().await;
                }
            }
        }
    }

    /// Returns the server an operator means by `web-1` or `django/web-1`.
    ///
    /// # Errors
    /// When no server has the name, or several have.
    pub fn server_named(&self, name: &str) -> Result<&Arc<Endpoint>, DrainError> {
        let full = |endpoint: &Endpoint| format!("{}/{}", endpoint.upstream(), endpoint.name());
        let meant: Vec<&Arc<Endpoint>> =
            self.endpoints().filter(|endpoint| **endpoint.name() == *name || full(endpoint) == name).collect();
        match meant[..] {
            [] => {
                Err(DrainError::Unknown { name: name.into(), known: self.endpoints().map(|own| full(own)).collect() })
            }
            [endpoint] => Ok(endpoint),
            _ => Err(DrainError::Ambiguous {
                name: name.into(),
                candidates: meant.iter().map(|endpoint| full(endpoint)).collect(),
            }),
        }
    }

    fn cluster(&self, name: &str) -> Option<&Arc<Cluster>> {
        self.clusters.iter().find(|cluster| **cluster.name() == *name)
    }

    fn endpoint(&self, upstream: &str, server: &lb::Server) -> Option<&Arc<Endpoint>> {
        let (_, servers) = self.own_servers.iter().find(|(name, _)| **name == *upstream)?;
        let same = |endpoint: &&Arc<Endpoint>| *endpoint.name() == server.name && endpoint.address() == server.address;
        servers.members.iter().map(|member| &member.endpoint).find(same)
    }

    fn queue(&self, upstream: &str) -> Option<&Arc<Queue>> {
        self.own_servers.iter().find(|(name, _)| **name == *upstream).map(|(_, servers)| &servers.queue)
    }

    fn routes(&self) -> impl Iterator<Item = &RouteMetrics> + Clone {
        self.table.entries().iter().map(|route| &route.metrics).chain([&self.unmatched])
    }

    fn announce(&self, deps: &Deps) {
        let mut names: HashMap<_, ServerName> = HashMap::new();
        let mut order = Vec::new();
        for endpoint in self.endpoints() {
            names.entry((endpoint.name().clone(), endpoint.address())).or_insert_with_key(|key| {
                order.push(key.clone());
                ServerName { name: endpoint.name().clone(), address: endpoint.address() }
            });
        }
        deps.board.publish_servers(order.iter().filter_map(|key| names.remove(key)).collect());
        deps.metrics.show_servers(self.own_servers.iter().map(|(_, servers)| servers.clone()).collect());
    }

    /// Lets go of what only the configuration before had.
    fn replace(&self, previous: &Self, deps: &Deps) {
        for endpoint in previous.endpoints() {
            if !self.endpoints().any(|own| Arc::ptr_eq(own, endpoint)) {
                endpoint.stop_checks();
            }
        }
        // Who waits waits by the configuration before, and for servers that may be gone.
        for (_, servers) in &previous.own_servers {
            servers.queue.changed();
        }
        deps.metrics.retire(previous.routes(), self.routes());
    }
}

impl Route {
    /// Returns whether `client` may use the route.
    pub fn admits(&self, client: IpAddr) -> bool {
        !client_ip::within(&self.deny, client) && (self.allow.is_empty() || client_ip::within(&self.allow, client))
    }

    fn new(route: &lb::Route, lb: &Lb, clusters: &[Arc<Cluster>], metrics: &Metrics) -> Option<Self> {
        let target = match &route.target {
            lb::Target::Builtin(builtin) => Target::Builtin(*builtin),
            lb::Target::Redirect(redirect) => Target::Redirect(redirect.clone()),
            lb::Target::Respond(respond) => Target::Respond(respond.clone()),
            // The configuration refuses a route to an upstream that is not there.
            lb::Target::Upstream(name) => {
                Target::Upstream(clusters.iter().find(|cluster| cluster.name() == name)?.clone())
            }
        };
        let (metrics, read_timeout) = match &target {
            Target::Upstream(cluster) => {
                let servers: Vec<Arc<str>> =
                    cluster.servers().members.iter().map(|member| member.endpoint.name().clone()).collect();
                (metrics.route(Some(&route.name), Some(cluster.name()), &servers), cluster.settings().read_timeout)
            }
            Target::Builtin(_) | Target::Redirect(_) | Target::Respond(_) => {
                (metrics.route(Some(&route.name), None, &[]), Duration::ZERO)
            }
        };
        Some(Self {
            name: route.name.clone(),
            target,
            allow: route.allow.clone(),
            deny: route.deny.clone(),
            needs_database: route.needs_database,
            max_body_size: route.max_body_size.unwrap_or(lb.client.max_body_size),
            read_timeout: route.read_timeout.unwrap_or(read_timeout),
            websocket_idle_timeout: route.websocket_idle_timeout,
            queue_priority: route.queue_priority,
            strip_prefix: route.strip_prefix.clone(),
            headers: Headers::new(&route.headers),
            metrics,
        })
    }
}

fn own_servers(upstream: &lb::Upstream, servers: &[lb::Server], previous: Option<&Runtime>, deps: &Deps) -> Servers {
    let database = upstream
        .health_check
        .as_ref()
        .and_then(|check| check.database.as_deref())
        .map(|database| deps.board.database(database));
    let latch = (previous.is_none() && upstream.health_check.is_some())
        .then(|| Arc::new(deps.ready.latch(format!("first health checks of upstream {}", upstream.name))));
    let queue = previous.and_then(|previous| previous.queue(&upstream.name)).cloned().unwrap_or_default();
    let endpoint =
        |server: &lb::Server| Endpoint::new(upstream.name.clone(), server.name.clone(), server.address, queue.clone());
    let member = |server: &lb::Server| {
        let known = previous.and_then(|previous| previous.endpoint(&upstream.name, server));
        let endpoint = known.cloned().unwrap_or_else(|| Arc::new(endpoint(server)));
        if previous.is_some() && known.is_none() {
            endpoint.came_late();
        }
        match &upstream.health_check {
            Some(check) => endpoint.check_by(
                Plan::new(check.clone(), database.clone()),
                known.is_some(),
                latch.clone(),
                &deps.checks,
            ),
            None => endpoint.stop_checks(),
        }
        Member {
            endpoint,
            weight: server.weight,
            backup: server.backup,
            limits: Limits { max_fails: server.max_fails, fail_timeout: server.fail_timeout },
            slow_start: server.slow_start,
            max_conns: server.max_conns,
            down: server.down,
        }
    };
    let members = servers.iter().map(member).collect();
    Servers { members, queue, checked: upstream.health_check.is_some(), database }
}

fn settings(upstream: &lb::Upstream) -> Settings {
    Settings {
        connect_timeout: upstream.connect_timeout,
        read_timeout: upstream.read_timeout,
        send_timeout: upstream.send_timeout,
        keepalive_timeout: upstream.keepalive_timeout,
        tries: upstream.tries,
        queue_limit: upstream.queue.limit,
        queue_timeout: upstream.queue.timeout,
    }
}
