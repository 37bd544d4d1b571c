//! `lb.yaml` from its checked values.

use super::Yaml;
use crate::config::lb::{
    Admin, Balance, Builtin, CheckKind, ClientAuth, HIDDEN, Headers, HealthCheck, Lb, ListenerTls, PRIORITIES,
    PathMatch, Route, Server, Servers, Shutdown, Sticky, Target, Template, Upstream,
};

pub(super) fn admin(admin: &Admin) -> Yaml {
    let mut map = Yaml::map();
    map.put("address", Yaml::text(admin.address));
    map
}

pub(super) fn shutdown(shutdown: &Shutdown) -> Yaml {
    let mut map = Yaml::map();
    map.put("pre_stop_delay", shutdown.pre_stop_delay);
    map.put("grace_period", shutdown.grace_period);
    map
}

pub(super) fn lb(lb: &Lb) -> Yaml {
    let mut map = Yaml::map();
    map.put(
        "listeners",
        Yaml::list(&lb.listeners, |listener| {
            let mut map = Yaml::map();
            map.put("address", Yaml::text(listener.address));
            map.put("max_connections", listener.max_connections);
            map.put("tls", listener.tls.as_ref().map(listener_tls));
            map.put("http2", listener.http2);
            map.put("proxy_protocol", listener.proxy_protocol);
            if let Some(port) = listener.redirect_https {
                map.put("redirect_https", u32::from(port));
            }
            map
        }),
    );
    map.put("threads", lb.threads);
    map.put("trusted_proxies", Yaml::list(&lb.trusted_proxies, Yaml::text));
    map.put("client_header_timeout", lb.client.header_timeout);
    map.put("client_header_max_size", Yaml::size(lb.client.header_max_size as u64));
    map.put("max_headers", lb.client.max_headers);
    map.put("client_body_timeout", lb.client.body_timeout);
    map.put("client_max_body_size", Yaml::size(lb.client.max_body_size.unwrap_or(0)));
    map.put("keepalive_timeout", lb.client.keepalive_timeout);
    map.put("keepalive_requests", lb.client.keepalive_requests);
    map.put("send_timeout", lb.client.send_timeout);
    map.put("http2_max_concurrent_streams", lb.client.max_streams);
    headers(&mut map, &lb.headers);
    let mut log = Yaml::map();
    log.put("enabled", lb.access_log.enabled);
    log.put("queue", lb.access_log.queue);
    map.put("access_log", log);
    let mut upstreams = Yaml::map();
    for entry in &lb.upstreams {
        upstreams.put(&entry.name, upstream(entry));
    }
    map.put("upstreams", upstreams);
    map.put("routes", Yaml::list(&lb.routes, route));
    map
}

fn listener_tls(tls: &ListenerTls) -> Yaml {
    let mut map = Yaml::map();
    let certificates = Yaml::list(&tls.certificates, |own| {
        let mut map = Yaml::map();
        map.put("cert_file", &*own.cert_file);
        map.put("key_file", &*own.key_file);
        map
    });
    map.put("certificates", certificates);
    if let Some(ca) = &tls.client_ca_file {
        map.put("client_ca_file", &**ca);
    }
    let word = ClientAuth::WORDS.iter().find(|(_, auth)| *auth == tls.client_auth).map_or("none", |(word, _)| word);
    map.put("client_auth", word);
    if let Some(protocols) = &tls.protocols {
        map.put("protocols", &**protocols);
    }
    map.put("handshake_timeout", tls.handshake_timeout);
    if let Some(hsts) = &tls.hsts {
        map.put("hsts", &*String::from_utf8_lossy(hsts.as_bytes()));
    }
    map
}

fn upstream(upstream: &Upstream) -> Yaml {
    let mut map = Yaml::map();
    map.put("balance", upstream.balance.word());
    if let Balance::ConsistentHash(hash) = &upstream.balance {
        let mut own = Yaml::map();
        own.put("key", Yaml::text(&hash.key));
        own.put("ipv4_prefix", u32::from(hash.ipv4_prefix));
        own.put("ipv6_prefix", u32::from(hash.ipv6_prefix));
        own.put("balance_factor", hash.balance_factor.unwrap_or(0));
        map.put("hash", own);
    }
    if let Some(sticky) = &upstream.sticky {
        map.put("sticky", self::sticky(sticky));
    }
    match &upstream.servers {
        Servers::Own(servers) => map.put("servers", Yaml::list(servers, server)),
        Servers::Of(name) => map.put("servers_of", &**name),
    }
    map.put("connect_timeout", upstream.connect_timeout);
    map.put("read_timeout", upstream.read_timeout);
    map.put("send_timeout", upstream.send_timeout);
    map.put("keepalive_timeout", upstream.keepalive_timeout);
    map.put("tries", upstream.tries);
    let mut queue = Yaml::map();
    queue.put("limit", upstream.queue.limit);
    queue.put("timeout", upstream.queue.timeout);
    map.put("queue", queue);
    map.put("health_check", upstream.health_check.as_ref().map(health_check));
    map
}

/// Without its secret.
fn sticky(sticky: &Sticky) -> Yaml {
    let mut map = Yaml::map();
    map.put("cookie", &*sticky.cookie);
    map.put("path", &*sticky.path);
    map.put("domain", sticky.domain.as_deref());
    if let Some(max_age) = sticky.max_age {
        map.put("max_age", max_age);
    }
    map.put("secure", sticky.secure);
    map.put("http_only", sticky.http_only);
    map.put("same_site", sticky.same_site.word().to_ascii_lowercase().as_str());
    map
}

fn server(server: &Server) -> Yaml {
    let mut map = Yaml::map();
    map.put("name", &*server.name);
    map.put("address", Yaml::text(server.address));
    map.put("weight", server.weight);
    map.put("backup", server.backup);
    map.put("max_fails", server.max_fails);
    map.put("fail_timeout", server.fail_timeout);
    map.put("slow_start", server.slow_start);
    map.put("max_conns", server.max_conns.unwrap_or(0));
    map.put("down", server.down);
    map
}

/// Returns a value that is no secret.
fn shown(value: &http::HeaderValue) -> &str {
    if value.is_sensitive() { HIDDEN } else { value.to_str().unwrap_or_default() }
}

fn health_check(check: &HealthCheck) -> Yaml {
    let mut map = Yaml::map();
    let pairs = |pairs: &[(http::HeaderName, http::HeaderValue)]| {
        let mut own = Yaml::map();
        pairs.iter().for_each(|(name, value)| own.put(name.as_str(), shown(value)));
        own
    };
    match check.kind {
        CheckKind::Tcp => map.put("type", "tcp"),
        CheckKind::Http => {
            map.put("type", "http");
            map.put("path", check.path.as_str());
            map.put("host", check.host.as_deref());
            map.put("headers", pairs(&check.headers));
            map.put(
                "status",
                Yaml::list(&check.status, |range| Yaml::text(format!("{}-{}", range.start(), range.end()))),
            );
            map.put("expect_body", check.expect_body.as_deref());
            map.put("expect_headers", pairs(&check.expect_headers));
            map.put("max_body", Yaml::size(check.max_body as u64));
        }
    }
    map.put("fast_interval", check.fast_interval);
    map.put("initial", if check.initially_up { "up" } else { "down" });
    map.put("interval", check.interval);
    map.put("down_interval", check.down_interval);
    map.put("timeout", check.timeout);
    map.put("rise", check.rise);
    map.put("fall", check.fall);
    map.put("database", check.database.as_deref());
    map
}

fn route(route: &Route) -> Yaml {
    let mut map = Yaml::map();
    map.put("host", route.host.as_deref());
    match &route.path {
        PathMatch::Exact(path) => map.put("path", path.as_str()),
        PathMatch::Prefix(path) => map.put("path_prefix", path.as_str()),
    }
    map.put("allow", Yaml::list(&route.allow, Yaml::text));
    map.put("deny", Yaml::list(&route.deny, Yaml::text));
    headers(&mut map, &route.headers);
    match &route.target {
        Target::Builtin(builtin) => map.put("builtin", builtin_name(*builtin)),
        Target::Upstream(name) => {
            map.put("upstream", &**name);
            map.put("strip_prefix", route.strip_prefix.as_deref());
            map.put("needs_database", route.needs_database);
            let size = route.max_body_size.map(|size| Yaml::size(size.unwrap_or(0)));
            map.put("client_max_body_size", size);
            map.put("read_timeout", route.read_timeout);
            map.put("websocket_idle_timeout", route.websocket_idle_timeout);
            let priority = PRIORITIES.iter().find(|(_, priority)| *priority == route.queue_priority);
            map.put("queue_priority", priority.map(|(word, _)| *word));
        }
        Target::Redirect(redirect) => {
            let mut own = Yaml::map();
            own.put("to", Yaml::text(&redirect.to));
            own.put("status", u32::from(redirect.status));
            map.put("redirect", own);
        }
        Target::Respond(respond) => {
            let mut own = Yaml::map();
            own.put("status", u32::from(respond.status));
            if !respond.body.is_empty() {
                own.put("body", &*respond.body);
            }
            own.put("content_type", &*respond.content_type);
            if let Some(retry_after) = respond.retry_after {
                own.put("retry_after", retry_after);
            }
            map.put("respond", own);
        }
    }
    map
}

fn headers(map: &mut Yaml, headers: &Headers) {
    for (key, rules) in [("request_headers", &headers.request), ("response_headers", &headers.response)] {
        if rules.is_empty() {
            continue;
        }
        let values = |pairs: &[(http::HeaderName, Template)]| {
            let mut own = Yaml::map();
            pairs.iter().for_each(|(name, value)| own.put(name.as_str(), Yaml::text(value)));
            own
        };
        let mut own = Yaml::map();
        own.put("set", values(&rules.set));
        own.put("add", values(&rules.add));
        own.put("remove", Yaml::list(&rules.remove, Yaml::text));
        map.put(key, own);
    }
}

fn builtin_name(builtin: Builtin) -> &'static str {
    match builtin {
        Builtin::DbConnections => "db_connections",
        Builtin::Status => "status",
        Builtin::Metrics => "metrics",
        Builtin::Live => "live",
        Builtin::Ready => "ready",
    }
}
