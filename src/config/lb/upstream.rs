//! `upstreams:` of `lb.yaml`: each on its own first, then what must hold between them.

use std::{collections::HashMap, time::Duration};

use crate::config::{
    error::Position,
    field::Field,
    lb::{Queue, Servers, Upstream, balance, health_check, server, sticky},
    reading::{Reading, Spot},
    section::Section,
};

/// An upstream, and the places that checks beyond it point at.
pub(super) struct Found<'a> {
    pub upstream: Upstream,
    /// Where `servers_of` stands.
    of: Option<Field<'a>>,
    /// Where `health_check.database` stands.
    pub database: Option<Spot>,
}

pub(super) fn read<'a>(file: &mut Section<'a>) -> Vec<Found<'a>> {
    let entries = file.get("upstreams").map(|field| field.entries()).unwrap_or_default();
    let found: Vec<Found<'a>> = entries.iter().map(|(name, field)| upstream(name, field)).collect();
    for entry in &found {
        check_servers_of(entry, &found);
    }
    found
}

fn upstream<'a>(name: &str, field: &Field<'a>) -> Found<'a> {
    if name.is_empty() || name.len() > 128 || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        field.error("an upstream's name must be 1 to 128 characters without spaces");
    }
    let mut section = field.section();
    let balance = balance::read(&mut section);
    let sticky = section.get("sticky").filter(|sticky| !sticky.is("false")).map(|sticky| sticky::read(&sticky));
    let (servers, of) = servers(&mut section);
    let check = section.get("health_check").filter(|check| !check.is("false"));
    if let (Some(check), Servers::Of(of)) = (&check, &servers) {
        check.error(format!("has no meaning with servers_of: the checks of {of} count"));
    }
    let (health_check, database) = check.as_ref().map(health_check::read).unzip();
    let upstream = Upstream {
        name: name.into(),
        balance,
        sticky,
        servers,
        connect_timeout: section.duration("connect_timeout", Duration::from_secs(2)),
        read_timeout: section.duration("read_timeout", Duration::from_secs(60)),
        send_timeout: section.duration("send_timeout", Duration::from_secs(60)),
        keepalive_timeout: section.duration("keepalive_timeout", Duration::from_secs(4)),
        tries: section.integer("tries", 3, 1..=100),
        queue: queue(section.section("queue")),
        health_check,
    };
    section.finish();
    Found { upstream, of, database: database.flatten() }
}

fn queue(mut section: Section<'_>) -> Queue {
    let default = Queue::default();
    let queue = Queue {
        limit: section.integer("limit", default.limit, 0..=10_000_000),
        timeout: section.duration("timeout", default.timeout),
    };
    section.finish();
    queue
}

/// Reads `servers` or `servers_of`: one of the two.
fn servers<'a>(section: &mut Section<'a>) -> (Servers, Option<Field<'a>>) {
    let (own, of) = (section.get("servers"), section.get("servers_of"));
    match (own, of) {
        (Some(own), Some(of)) => {
            of.error("cannot stand beside servers: an upstream has its own or another one's");
            (Servers::Own(own_servers(&own)), None)
        }
        (None, None) => {
            section.error("needs servers, or servers_of with the name of another upstream");
            (Servers::Own(Vec::new()), None)
        }
        (Some(own), None) => (Servers::Own(own_servers(&own)), None),
        (None, Some(of)) => {
            let name = of.text().unwrap_or_default();
            (Servers::Of(name.into()), (!name.is_empty()).then_some(of))
        }
    }
}

fn own_servers(list: &Field<'_>) -> Vec<super::Server> {
    let items = list.some_items("server");
    let found: Vec<server::Found> = items.iter().filter_map(server::read).collect();
    let reading = list.reading;
    let (mut names, mut addresses) = (HashMap::new(), HashMap::new());
    for entry in &found {
        let first = *names.entry(entry.server.name.clone()).or_insert(entry.name.at);
        once(reading, &entry.name, first, &format!("the name {}", entry.server.name));
        let first = *addresses.entry(entry.server.address).or_insert(entry.address.at);
        once(reading, &entry.address, first, &format!("the address {}", entry.server.address));
    }
    if !found.is_empty() && found.len() == items.len() && found.iter().all(|entry| entry.server.backup) {
        list.error("must have at least one server that is not a backup");
    }
    found.into_iter().map(|entry| entry.server).collect()
}

/// Reports a second use of something that must be unique.
fn once(reading: &Reading<'_>, spot: &Spot, first: Position, what: &str) {
    if spot.at != first {
        reading.error(spot, format!("{what} is used twice, first on line {}", first.line), None);
    }
}

fn check_servers_of(entry: &Found<'_>, all: &[Found<'_>]) {
    let (Servers::Of(of), Some(field)) = (&entry.upstream.servers, &entry.of) else { return };
    match all.iter().find(|found| found.upstream.name == *of).map(|found| &found.upstream.servers) {
        _ if *of == entry.upstream.name => field.error("names the upstream itself"),
        None => unknown(field, all),
        Some(Servers::Of(_)) => field.reject("must name an upstream that has servers of its own"),
        Some(Servers::Own(_)) => {}
    }
}

/// Reports a name that is no upstream's.
pub(super) fn unknown(field: &Field<'_>, all: &[Found<'_>]) {
    field.reject_unknown("must be the name of an upstream", all.iter().map(|found| &*found.upstream.name));
}
