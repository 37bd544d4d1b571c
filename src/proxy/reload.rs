//! What a reload changed, in words for the operator. Pure.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    config::lb::{Lb, Listener, Server, Servers, Upstream},
    health::control::ReloadSummary,
};

/// Returns what `after` does differently, and what of it takes a restart.
pub(super) fn differences(before: &Lb, after: &Lb) -> ReloadSummary {
    let mut summary = ReloadSummary::default();
    let addresses = |lb: &Lb| lb.listeners.iter().map(|listener| listener.address).collect::<Vec<_>>();
    for (key, differs) in [
        ("listeners", addresses(before) != addresses(after)),
        ("threads", before.threads != after.threads),
        ("access_log", before.access_log != after.access_log),
    ] {
        if differs {
            summary.needs_restart.push(format!("lb.yaml {key}"));
        }
    }
    if addresses(before) == addresses(after) && before.listeners != after.listeners {
        for (old, new) in before.listeners.iter().zip(&after.listeners).filter(|(old, new)| old != new) {
            summary
                .changed
                .extend(listener(old, new).into_iter().map(|what| format!("listener {}: {what}", new.address)));
        }
    }
    for (what, differs) in [
        ("trusted_proxies changed", before.trusted_proxies != after.trusted_proxies),
        ("request_headers or response_headers changed", before.headers != after.headers),
        ("limits and deadlines towards clients changed", before.client != after.client),
    ] {
        if differs {
            summary.changed.push(what.into());
        }
    }
    named("upstream", &before.upstreams, &after.upstreams, |own| own.name.clone(), upstream, &mut summary);
    named("route", &before.routes, &after.routes, |own| own.name.clone(), |_, _| Vec::new(), &mut summary);
    summary
}

fn listener(before: &Listener, after: &Listener) -> Vec<&'static str> {
    let files = |listener: &Listener| listener.tls.as_ref().map(|tls| tls.accept.clone());
    let rest = |listener: &Listener| listener.tls.as_ref().map(|tls| (tls.handshake_timeout, tls.hsts.clone()));
    let all = [
        ("max_connections changed", before.max_connections != after.max_connections),
        ("tls is on now", before.tls.is_none() && after.tls.is_some()),
        ("tls is off now", before.tls.is_some() && after.tls.is_none()),
        ("certificates changed", before.tls.is_some() && after.tls.is_some() && files(before) != files(after)),
        ("tls settings changed", before.tls.is_some() && after.tls.is_some() && rest(before) != rest(after)),
        ("http2 changed", before.http2 != after.http2),
        ("proxy_protocol changed", before.proxy_protocol != after.proxy_protocol),
        ("redirect_https changed", before.redirect_https != after.redirect_https),
    ];
    all.into_iter().filter_map(|(what, differs)| differs.then_some(what)).collect()
}

/// Compares two lists by name: what is gone, what is new, and what is different with details where there are any.
fn named<T: PartialEq>(
    kind: &str,
    before: &[T],
    after: &[T],
    name: impl Fn(&T) -> Arc<str>,
    details: impl Fn(&T, &T) -> Vec<String>,
    summary: &mut ReloadSummary,
) {
    let old: BTreeMap<Arc<str>, &T> = before.iter().map(|item| (name(item), item)).collect();
    let new: BTreeMap<Arc<str>, &T> = after.iter().map(|item| (name(item), item)).collect();
    for gone in old.keys().filter(|name| !new.contains_key(*name)) {
        summary.changed.push(format!("{kind} {gone} removed"));
    }
    for (name, item) in &new {
        match old.get(name) {
            None => summary.changed.push(format!("{kind} {name} added")),
            Some(before) if before == item => {}
            Some(before) => match details(before, item) {
                none if none.is_empty() => summary.changed.push(format!("{kind} {name} changed")),
                some => summary.changed.extend(some.iter().map(|detail| format!("{kind} {name}: {detail}"))),
            },
        }
    }
}

fn upstream(before: &Upstream, after: &Upstream) -> Vec<String> {
    let mut servers = ReloadSummary::default();
    if let (Servers::Own(old), Servers::Own(new)) = (&before.servers, &after.servers) {
        let name = |server: &Server| server.name.clone();
        named("server", old, new, name, |_, _| Vec::new(), &mut servers);
    }
    let rest = Upstream { servers: after.servers.clone(), ..before.clone() } != *after;
    if rest && !servers.changed.is_empty() {
        servers.changed.push("settings changed".into());
    }
    servers.changed
}

#[cfg(test)]
mod tests;
