//! The SHOW commands: rows of the pool as PgBouncer's tables.
//!
//! Column names and units are those of PgBouncer 1.25 (src/admin.c, src/stats.c). Tools read columns by name.

use std::time::SystemTime;

use super::{
    averages::Totals,
    command::Show,
    rows::{SocketRow, Source},
    table::Table,
};
use crate::pool::wire::backend::oid::{INT4, INT8, NUMERIC, TEXT};

/// Returns the table of a SHOW command; HELP has none.
pub fn table(what: Show, source: &dyn Source) -> Table {
    match what {
        Show::Pools => pools(source),
        Show::Stats => stats(source, true, true),
        Show::StatsTotals => stats(source, true, false),
        Show::StatsAverages => stats(source, false, true),
        Show::Clients => sockets("C", &source.clients()),
        Show::Servers => sockets("S", &source.servers()),
        Show::Databases => databases(source),
        Show::Users => users(source),
        Show::Lists => lists(source),
        Show::Config => config(source),
        Show::State => state(source),
        Show::Version => version(),
        Show::Help => Table::default(),
    }
}

/// The text of SHOW HELP.
pub const HELP: &str = "Console usage
\tSHOW HELP|CONFIG|DATABASES|POOLS|CLIENTS|SERVERS|USERS|VERSION
\tSHOW LISTS|STATE
\tSHOW STATS|STATS_TOTALS|STATS_AVERAGES
\tRELOAD
\tPAUSE [<db>]
\tRESUME [<db>]
\tRECONNECT [<db>]
\tKILL [<db>]";

fn text(value: impl ToString) -> Option<String> {
    Some(value.to_string())
}

fn flag(value: bool) -> Option<String> {
    text(u8::from(value))
}

fn pools(source: &dyn Source) -> Table {
    let mut table = Table::new(&[
        ("database", TEXT),
        ("user", TEXT),
        ("cl_active", INT4),
        ("cl_waiting", INT4),
        ("cl_active_cancel_req", INT4),
        ("cl_waiting_cancel_req", INT4),
        ("sv_active", INT4),
        ("sv_active_cancel", INT4),
        ("sv_being_canceled", INT4),
        ("sv_idle", INT4),
        ("sv_used", INT4),
        ("sv_tested", INT4),
        ("sv_login", INT4),
        ("maxwait", INT4),
        ("maxwait_us", INT4),
        ("pool_mode", TEXT),
        ("load_balance_hosts", TEXT),
    ]);
    for row in source.pools() {
        table.push(vec![
            text(&row.database),
            text(&row.user),
            text(row.cl_active),
            text(row.cl_waiting),
            text(row.cl_active_cancel_req),
            text(row.cl_waiting_cancel_req),
            text(row.sv_active),
            text(row.sv_active_cancel),
            text(row.sv_being_canceled),
            text(row.sv_idle),
            text(row.sv_used),
            text(row.sv_tested),
            text(row.sv_login),
            text(row.maxwait.as_secs()),
            text(row.maxwait.subsec_micros()),
            text(row.pool_mode),
            None,
        ]);
    }
    table
}

type Column = (&'static str, &'static str, fn(&Totals) -> u64);

/// Name among the totals, name among the averages, value.
const STATS: [Column; 12] = [
    ("total_server_assignment_count", "avg_server_assignment_count", |t| t.server_assignment_count),
    ("total_xact_count", "avg_xact_count", |t| t.xact_count),
    ("total_query_count", "avg_query_count", |t| t.query_count),
    ("total_received", "avg_recv", |t| t.received),
    ("total_sent", "avg_sent", |t| t.sent),
    ("total_xact_time", "avg_xact_time", |t| t.xact_time),
    ("total_query_time", "avg_query_time", |t| t.query_time),
    ("total_wait_time", "avg_wait_time", |t| t.wait_time),
    ("total_client_parse_count", "avg_client_parse_count", |t| t.client_parse_count),
    ("total_server_parse_count", "avg_server_parse_count", |t| t.server_parse_count),
    ("total_bind_count", "avg_bind_count", |t| t.bind_count),
    ("total_client_login_count", "avg_client_login_count", |t| t.client_login_count),
];

fn stats(source: &dyn Source, totals: bool, averages: bool) -> Table {
    let mut columns = vec![("database", TEXT)];
    if totals {
        columns.extend(STATS.iter().map(|(name, _, _)| (*name, NUMERIC)));
    }
    if averages {
        columns.extend(STATS.iter().map(|(_, name, _)| (*name, NUMERIC)));
    }
    let mut table = Table::new(&columns);
    for row in source.stats() {
        let mut values = vec![text(&row.database)];
        if totals {
            values.extend(STATS.iter().map(|(_, _, value)| text(value(&row.total))));
        }
        if averages {
            values.extend(STATS.iter().map(|(_, _, value)| text(value(&row.average))));
        }
        table.push(values);
    }
    table
}

fn sockets(kind: &str, rows: &[SocketRow]) -> Table {
    let mut table = Table::new(&[
        ("type", TEXT),
        ("user", TEXT),
        ("database", TEXT),
        ("replication", TEXT),
        ("state", TEXT),
        ("addr", TEXT),
        ("port", INT4),
        ("local_addr", TEXT),
        ("local_port", INT4),
        ("connect_time", TEXT),
        ("request_time", TEXT),
        ("wait", INT4),
        ("wait_us", INT4),
        ("close_needed", INT4),
        ("ptr", TEXT),
        ("link", TEXT),
        ("remote_pid", INT4),
        ("tls", TEXT),
        ("application_name", TEXT),
        ("prepared_statements", INT4),
        ("id", INT8),
    ]);
    let (own, other) = if kind == "C" { ('c', 's') } else { ('s', 'c') };
    for row in rows {
        table.push(vec![
            text(kind),
            text(&row.user),
            text(&row.database),
            text("none"),
            text(row.state),
            text(row.address.map_or_else(String::new, |address| address.ip().to_string())),
            text(row.address.map_or(0, |address| address.port())),
            text(row.local_address.map_or_else(String::new, |address| address.ip().to_string())),
            text(row.local_address.map_or(0, |address| address.port())),
            text(utc(row.connect_time)),
            row.request_time.map(utc),
            text(row.wait.as_secs()),
            text(row.wait.subsec_micros()),
            flag(row.close_needed),
            // PgBouncer shows addresses of its structures here; what tools need is that `link` names a `ptr`.
            text(format!("{own}{}", row.id)),
            text(row.link.map_or_else(String::new, |id| format!("{other}{id}"))),
            text(row.remote_pid),
            text(&row.tls),
            text(&row.application_name),
            text(row.prepared_statements),
            text(row.id),
        ]);
    }
    table
}

fn databases(source: &dyn Source) -> Table {
    let mut table = Table::new(&[
        ("name", TEXT),
        ("host", TEXT),
        ("port", INT4),
        ("database", TEXT),
        ("force_user", TEXT),
        ("pool_size", INT4),
        ("min_pool_size", INT4),
        ("reserve_pool_size", INT4),
        ("server_lifetime", INT4),
        ("pool_mode", TEXT),
        ("load_balance_hosts", TEXT),
        ("max_connections", INT4),
        ("current_connections", INT4),
        ("max_client_connections", INT4),
        ("current_client_connections", INT4),
        ("paused", INT4),
        ("disabled", INT4),
    ]);
    for row in source.databases() {
        table.push(vec![
            text(&row.name),
            text(&row.host),
            text(row.port),
            text(&row.database),
            row.force_user,
            text(row.pool_size),
            text(row.min_pool_size),
            text(row.reserve_pool_size),
            text(row.server_lifetime.map_or(0, |lifetime| lifetime.as_secs())),
            text(row.pool_mode),
            None,
            text(row.max_connections),
            text(row.current_connections),
            text(0),
            text(row.current_client_connections),
            flag(row.paused),
            flag(row.disabled),
        ]);
    }
    table
}

fn users(source: &dyn Source) -> Table {
    let mut table = Table::new(&[
        ("name", TEXT),
        ("pool_size", INT4),
        ("reserve_pool_size", INT4),
        ("pool_mode", TEXT),
        ("max_user_connections", INT4),
        ("current_connections", INT4),
        ("max_user_client_connections", INT4),
        ("current_client_connections", INT4),
    ]);
    for row in source.users() {
        table.push(vec![
            text(&row.name),
            row.pool_size.map(|size| size.to_string()),
            None,
            row.pool_mode.map(str::to_owned),
            text(0),
            text(row.current_connections),
            text(0),
            text(row.current_client_connections),
        ]);
    }
    table
}

fn lists(source: &dyn Source) -> Table {
    let mut table = Table::new(&[("list", TEXT), ("items", INT4)]);
    let servers = source.servers();
    let clients = source.clients();
    let idle = servers.iter().filter(|server| server.state == "idle").count();
    let login = clients.iter().filter(|client| client.state == "login").count();
    for (list, items) in [
        ("databases", source.databases().len()),
        ("users", source.users().len()),
        ("peers", 0),
        ("pools", source.pools().len()),
        ("peer_pools", 0),
        ("free_clients", 0),
        ("used_clients", clients.len()),
        ("login_clients", login),
        ("free_servers", idle),
        ("used_servers", servers.len() - idle),
        ("dns_names", 0),
        ("dns_zones", 0),
        ("dns_queries", 0),
        ("dns_pending", 0),
    ] {
        table.push(vec![text(list), text(items)]);
    }
    table
}

fn config(source: &dyn Source) -> Table {
    let mut table = Table::new(&[("key", TEXT), ("value", TEXT), ("default", TEXT), ("changeable", TEXT)]);
    for row in source.config() {
        let changeable = if row.changeable { "yes" } else { "no" };
        table.push(vec![text(row.key), text(row.value), text(row.default), text(changeable)]);
    }
    table
}

fn state(source: &dyn Source) -> Table {
    let mut table = Table::new(&[("key", TEXT), ("value", TEXT)]);
    let paused = source.paused();
    for (key, value) in [("active", !paused), ("paused", paused), ("suspended", false)] {
        table.push(vec![text(key), text(if value { "yes" } else { "no" })]);
    }
    table
}

fn version() -> Table {
    let mut table = Table::new(&[("version", TEXT)]);
    // Tools parse `PgBouncer x.y.z`; the number is that of the PgBouncer whose console this is, ours follows.
    table.push(vec![text(concat!("PgBouncer 1.25.0 (bookend ", env!("CARGO_PKG_VERSION"), ")"))]);
    table
}

/// Formats a time as PgBouncer does: `2026-11-23 14:03:59 UTC`.
fn utc(time: SystemTime) -> String {
    let t = time::OffsetDateTime::from(time);
    let (month, day) = (u8::from(t.month()), t.day());
    format!("{:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", t.year(), t.hour(), t.minute(), t.second())
}
