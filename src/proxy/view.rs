//! What `/status` shows of the front: upstreams, their servers, and why each is used or not.

use std::time::{Instant, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{
    runtime::Runtime,
    upstream::{Cluster, Member, Servers, standing::Verdict},
};
use crate::health::{board::Serving, threshold::Health};

/// Returns the front's part of `/status`.
pub fn upstreams(runtime: &Runtime, now: Instant) -> Value {
    runtime.clusters().iter().map(|cluster| upstream(cluster, now)).collect()
}

fn upstream(cluster: &Cluster, now: Instant) -> Value {
    let servers = cluster.servers();
    let owner = servers.members.first().map(|member| member.endpoint.upstream());
    let mut value = json!({
        "name": &**cluster.name(),
        "balance": cluster.balance().word(),
        "waiting": servers.queue.len(),
        "servers": (0..servers.members.len()).map(|index| server(servers, index, now)).collect::<Value>(),
    });
    if let Some(owner) = owner.filter(|owner| *owner != cluster.name()) {
        value["servers_of"] = (**owner).into();
    }
    if let Some(database) = &servers.database {
        value["database"] = json!({ "name": &**database.name(), "serving": serving(database.serving()) });
    }
    value
}

fn server(servers: &Servers, index: usize, now: Instant) -> Value {
    let member = &servers.members[index];
    let endpoint = &member.endpoint;
    let counts = endpoint.counts();
    let mut value = json!({
        "name": &**endpoint.name(),
        "address": endpoint.address().to_string(),
        "weight": member.weight,
        "backup": member.backup,
        "state": state(servers, index, member, now),
        "in_flight": counts.in_flight,
        "max_conns": member.max_conns,
        "requests": counts.picked,
        "failures": counts.failures,
        "ejections": counts.ejections,
        "recent_failures": endpoint.recent_failures(),
    });
    if servers.checked {
        let (passed, failed) = endpoint.check_counts();
        let facts = endpoint.facts();
        value["checks"] = json!({
            "alive": health(facts.alive), "passing": health(facts.passing), "passed": passed, "failed": failed,
        });
        if let Some(last) = endpoint.last_check() {
            value["checks"]["last"] = json!({
                "result": last.outcome.as_str(),
                "status": last.outcome.status(),
                "took_seconds": last.took.as_secs_f64(),
                "unix_time": last.at.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()),
            });
        }
    }
    value
}

/// The one word for it: the first reason against a server that holds.
fn state(servers: &Servers, index: usize, member: &Member, now: Instant) -> &'static str {
    let database = servers.database();
    if member.endpoint.draining() {
        return "draining";
    }
    if member.down {
        return "disabled";
    }
    match (servers.verdict_of(index, database, true), servers.verdict_of(index, database, false)) {
        (Verdict::DatabaseDown, Verdict::Serve) => "database_down",
        (Verdict::Serve, _) if member.ejected(now) => "ejected",
        (Verdict::Serve, _) if member.is_full() => "full",
        (Verdict::Serve, _) => "up",
        _ if servers.checked && member.endpoint.facts().alive == Health::Unproven => "unproven",
        _ => "down",
    }
}

fn serving(serving: Serving) -> &'static str {
    match serving {
        Serving::Unknown => "unknown",
        Serving::Up => "up",
        Serving::Down => "down",
    }
}

fn health(health: Health) -> &'static str {
    match health {
        Health::Unproven => "unproven",
        Health::Up => "up",
        Health::Down => "down",
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, sync::Arc, time::Duration};

    use super::*;
    use crate::{
        health::board::{Board, DatabaseState},
        proxy::upstream::{Endpoint, passive::Limits},
    };

    fn servers(board: &Board, checked: bool) -> Servers {
        let endpoint =
            Endpoint::new("django".into(), "web-1".into(), (Ipv4Addr::LOCALHOST, 8001).into(), Arc::default());
        let limits = Limits { max_fails: 1, fail_timeout: Duration::from_secs(10) };
        let member = Member {
            endpoint: Arc::new(endpoint),
            weight: 1,
            backup: false,
            limits,
            slow_start: Duration::ZERO,
            max_conns: None,
            down: false,
        };
        Servers { members: [member].into(), queue: Arc::default(), checked, database: Some(board.database("db")) }
    }

    #[test]
    fn each_reason_against_a_server_has_its_word() {
        let (board, now) = (Board::default(), Instant::now());
        let unchecked = servers(&board, false);
        let word = |servers: &Servers| state(servers, 0, &servers.members[0], now);
        assert_eq!(word(&unchecked), "up");
        assert_eq!(word(&servers(&board, true)), "unproven");
        board.database("db").publish(Serving::Down, DatabaseState::default());
        assert_eq!(word(&unchecked), "database_down");
        unchecked.members[0].endpoint.set_draining(true);
        assert_eq!(word(&unchecked), "draining");
    }

    #[test]
    fn a_server_is_shown_with_its_checks_and_counts() {
        let value = server(&servers(&Board::default(), true), 0, Instant::now());
        for key in ["name", "address", "weight", "backup", "state", "in_flight", "requests", "failures", "ejections"] {
            assert!(value.get(key).is_some(), "{key}: {value}");
        }
        assert_eq!(value["checks"], json!({ "alive": "unproven", "passing": "unproven", "passed": 0, "failed": 0 }));
    }
}
