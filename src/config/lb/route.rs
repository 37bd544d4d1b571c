//! `routes:` of `lb.yaml`.

use std::{collections::HashMap, time::Duration};

use crate::config::{
    address::is_host_name,
    field::Field,
    lb::{Builtin, Headers, PathMatch, QueuePriority, Route, Target, own_answer, upstream},
    section::Section,
};

const BUILTINS: [(&str, Builtin); 5] = [
    ("db_connections", Builtin::DbConnections),
    ("status", Builtin::Status),
    ("metrics", Builtin::Metrics),
    ("live", Builtin::Live),
    ("ready", Builtin::Ready),
];
/// Keys that say how to talk to an upstream: a slip on a route that has none.
const UPSTREAM_ONLY: [&str; 7] = [
    "request_headers",
    "strip_prefix",
    "needs_database",
    "client_max_body_size",
    "read_timeout",
    "websocket_idle_timeout",
    "queue_priority",
];
pub const PRIORITIES: [(&str, QueuePriority); 3] =
    [("high", QueuePriority::High), ("normal", QueuePriority::Normal), ("low", QueuePriority::Low)];

pub(super) fn read(file: &mut Section<'_>, upstreams: &[upstream::Found<'_>]) -> Vec<Route> {
    let Some(list) = file.require("routes", "[{ path_prefix: /, upstream: django }]") else { return Vec::new() };
    let items = list.some_items("route");
    let mut seen = HashMap::new();
    let mut routes = Vec::with_capacity(items.len());
    for field in &items {
        let Some(route) = route(field, upstreams) else { continue };
        let exact = matches!(route.path, PathMatch::Exact(_));
        let first = *seen.entry((route.name.clone(), exact)).or_insert(field.spot.at);
        if first != field.spot.at {
            field.error(format!("the same host and path as the route on line {}", first.line));
        }
        routes.push(route);
    }
    routes
}

fn route(field: &Field<'_>, upstreams: &[upstream::Found<'_>]) -> Option<Route> {
    let mut section = field.section();
    let host = section.get("host").map(|host| read_host(&host));
    let path = read_path(&mut section);
    let target = read_target(&mut section, upstreams);
    let allow = section.list("allow").iter().filter_map(Field::network).collect();
    let deny = section.list("deny").iter().filter_map(Field::network).collect();
    if !matches!(target, Some(Target::Upstream(_)) | None) {
        for key in UPSTREAM_ONLY {
            if let Some(field) = section.get(key) {
                field.error("has no meaning on a route without an upstream");
            }
        }
    }
    let needs_database = section.flag("needs_database", true);
    let max_body_size = section.size_limit("client_max_body_size");
    let read_timeout = section.get("read_timeout").and_then(|field| field.positive_duration());
    let websocket_idle_timeout = section.duration("websocket_idle_timeout", Duration::from_secs(3_600));
    let queue_priority = section.choice("queue_priority", QueuePriority::Normal, &PRIORITIES);
    let headers = Headers::read(&mut section);
    let strip = section.get("strip_prefix");
    section.finish();

    // A host that was given and refused must not turn into "any host" and then look like a duplicate.
    let host = match host {
        Some(host) => Some(host?),
        None => None,
    };
    let path = path?;
    let strip_prefix = strip.and_then(|field| read_strip_prefix(&field, &path));
    let (PathMatch::Exact(text) | PathMatch::Prefix(text)) = &path;
    Some(Route {
        name: format!("{}{text}", host.as_deref().unwrap_or_default()).into(),
        host,
        path,
        target: target?,
        allow,
        deny,
        needs_database,
        max_body_size,
        read_timeout,
        websocket_idle_timeout,
        queue_priority,
        strip_prefix,
        headers,
    })
}

fn read_host(field: &Field<'_>) -> Option<String> {
    let text = field.text()?.to_ascii_lowercase();
    if text.strip_prefix("*.").is_some_and(is_host_name) {
        return Some(text);
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(&text);
    if is_host_name(&text) || bare.parse::<std::net::IpAddr>().is_ok() {
        return Some(text);
    }
    if text.contains('*') {
        field.error("a wildcard is *. and a domain: *.example.com; for all hosts leave the key out");
    } else {
        field.reject("must be a host name without scheme and port");
    }
    None
}

fn read_path(section: &mut Section<'_>) -> Option<PathMatch> {
    match (section.get("path"), section.get("path_prefix")) {
        (Some(_), Some(prefix)) => {
            prefix.error("cannot stand beside path: a route has one of the two");
            None
        }
        (None, None) => {
            section.error("needs path_prefix, or path for exactly one");
            None
        }
        (Some(exact), None) => path(&exact).map(PathMatch::Exact),
        (None, Some(prefix)) => path(&prefix).map(PathMatch::Prefix),
    }
}

fn read_strip_prefix(field: &Field<'_>, path: &PathMatch) -> Option<Box<str>> {
    let prefix = self::path(field)?;
    let (PathMatch::Exact(path) | PathMatch::Prefix(path)) = path;
    // At a boundary: `/api` of `/apiary/` is no part of it.
    let rest = path.strip_prefix(&*prefix);
    if !rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/'))
        || prefix.contains('%')
    {
        field.reject("must be what the route's path begins with, such as /api of /api/, and without %");
        return None;
    }
    Some(prefix.into())
}

/// Reads a path as requests have it on the wire, before the `?`.
fn path(field: &Field<'_>) -> Option<String> {
    let target = request_target(field)?;
    if target.contains('?') {
        field.reject("must not have a ?: routes are chosen by what stands before it");
        return None;
    }
    Some(target)
}

/// Reads a path and query as requests have them on the wire.
pub(super) fn request_target(field: &Field<'_>) -> Option<String> {
    let text = field.text()?;
    if !text.starts_with('/') {
        field.reject("must start with /");
        return None;
    }
    if text.contains(|c: char| c == ' ' || c == '#' || !c.is_ascii()) {
        field.reject("must be a path as on the wire: no spaces and #, other letters as %C3%A4");
        return None;
    }
    Some(text.to_owned())
}

/// What a route may lead to: one of these.
const TARGETS: [&str; 4] = ["upstream", "builtin", "redirect", "respond"];

fn read_target(section: &mut Section<'_>, upstreams: &[upstream::Found<'_>]) -> Option<Target> {
    let mut given = TARGETS.into_iter().filter_map(|key| Some((key, section.get(key)?)));
    let first = given.next();
    let others: Vec<_> = given.collect();
    let Some((key, field)) = first else {
        section.error("needs upstream, or builtin, redirect or respond");
        return None;
    };
    for (_, other) in &others {
        other.error(format!("cannot stand beside {key}: a route has one of the two"));
    }
    match key {
        _ if !others.is_empty() => None,
        "builtin" => field.choice(&BUILTINS).map(Target::Builtin),
        "redirect" => own_answer::redirect(&field).map(Target::Redirect),
        "respond" => Some(Target::Respond(own_answer::respond(&field))),
        _ => {
            let text = field.text()?;
            if !upstreams.iter().any(|found| &*found.upstream.name == text) {
                upstream::unknown(&field, upstreams);
            }
            Some(Target::Upstream(text.into()))
        }
    }
}
