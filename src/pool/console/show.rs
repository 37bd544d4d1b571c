//! The SHOW commands: rows of the pool as PgBouncer's tables.
//!
//! Column names and units are those of PgBouncer 1.26 (src/admin.c, src/stats.c; a test has its own answers). Tools read columns by name.

mod sockets;
mod traffic;

use std::net::SocketAddr;

use super::{
    command::Show,
    rows::Source,
    table::{Table, flag, text},
};
use crate::pool::wire::backend::oid::{INT4, INT8, TEXT};

/// Returns the table of a SHOW command. HELP has none; FDS is refused before.
pub fn table(what: Show, source: &dyn Source) -> Table {
    match what {
        Show::Pools => pools(source),
        Show::Stats => traffic::stats(source),
        Show::StatsTotals => traffic::totals(source),
        Show::StatsAverages => traffic::averages(source),
        Show::Totals => traffic::overall(source),
        Show::Clients => sockets::clients(source),
        Show::Servers => sockets::servers(source),
        Show::Sockets => sockets::all(source),
        Show::ActiveSockets => sockets::active(source),
        Show::Databases => databases(source),
        Show::Users => users(source),
        Show::Peers => peers(source),
        Show::PeerPools => peer_pools(source),
        Show::Lists => lists(source),
        Show::Mem => memory(source),
        Show::DnsHosts => names(source),
        // Zones are not watched: every name is looked up again by itself.
        Show::DnsZones => Table::new(&[("zonename", TEXT), ("serial", INT8), ("count", INT4)]),
        Show::Config => config(source),
        Show::State => state(source),
        Show::Version => version(),
        Show::Parameter(name, value) => one(name, value),
        Show::Help | Show::Fds => Table::default(),
    }
}

/// The text of SHOW HELP.
pub const HELP: &str = "
\tSHOW HELP|CONFIG|DATABASES|POOLS|CLIENTS|SERVERS|USERS|VERSION
\tSHOW PEERS|PEER_POOLS
\tSHOW SOCKETS|ACTIVE_SOCKETS|LISTS|MEM|STATE
\tSHOW DNS_HOSTS|DNS_ZONES
\tSHOW STATS|STATS_TOTALS|STATS_AVERAGES|TOTALS
\tSET key = arg
\tRELOAD
\tPAUSE [<db>]
\tRESUME [<db>]
\tDISABLE <db>
\tENABLE <db>
\tRECONNECT [<db>]
\tKILL [<db>]
\tKILL_CLIENT <client_id>
\tSHUTDOWN
\tSHUTDOWN WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS
\tWAIT_CLOSE [<db>]";

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
            row.load_balance_hosts.map(str::to_owned),
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
            text(row.server_lifetime.as_secs()),
            row.pool_mode.map(str::to_owned),
            row.load_balance_hosts.map(str::to_owned),
            text(row.max_connections),
            text(row.current_connections),
            text(row.max_client_connections),
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
        ("pool_size", TEXT),
        ("reserve_pool_size", TEXT),
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
            row.reserve_pool_size.map(|size| size.to_string()),
            row.pool_mode.map(str::to_owned),
            text(row.max_user_connections),
            text(row.current_connections),
            text(row.max_user_client_connections),
            text(row.current_client_connections),
        ]);
    }
    table
}

fn peers(source: &dyn Source) -> Table {
    let mut table = Table::new(&[("peer_id", INT4), ("host", TEXT), ("port", INT4), ("pool_size", INT4)]);
    for row in source.peers() {
        table.push(vec![text(row.id), text(&row.host), text(row.port), text(row.pool_size)]);
    }
    table
}

fn peer_pools(source: &dyn Source) -> Table {
    let mut table = Table::new(&[
        ("peer_id", INT4),
        ("cl_active_cancel_req", INT4),
        ("cl_waiting_cancel_req", INT4),
        ("sv_active_cancel", INT4),
        ("sv_login", INT4),
    ]);
    for row in source.peers().into_iter().filter(|row| row.is_other) {
        table.push(vec![text(row.id), text(row.sent), text(row.waiting), text(row.sent), text(row.connecting)]);
    }
    table
}

fn names(source: &dyn Source) -> Table {
    let mut table = Table::new(&[("hostname", TEXT), ("ttl", INT8), ("addrs", TEXT)]);
    for row in source.names() {
        // With a port, as PgBouncer writes them; an answer has none.
        let addresses = row.addresses.iter().map(|address| SocketAddr::new(*address, 0).to_string());
        table.push(vec![text(&row.host), text(row.ttl.as_secs()), text(addresses.collect::<Vec<_>>().join(","))]);
    }
    table
}

fn lists(source: &dyn Source) -> Table {
    let mut table = Table::new(&[("list", TEXT), ("items", INT4)]);
    let (clients, strangers, names) = (source.clients(), source.strangers(), source.names());
    let peers = source.peers();
    let login = clients.iter().chain(&strangers).filter(|client| client.state == "login").count();
    for (list, items) in [
        ("databases", source.databases().len()),
        ("users", source.users().len()),
        ("peers", peers.len()),
        ("pools", source.pools().len()),
        ("peer_pools", peers.iter().filter(|peer| peer.is_other).count()),
        // Free ones are memory that PgBouncer keeps for those who come next; it is given back here.
        ("free_clients", 0),
        ("used_clients", clients.len() + strangers.len()),
        ("login_clients", login),
        ("free_servers", 0),
        ("used_servers", source.servers().len()),
        ("dns_names", names.len()),
        ("dns_zones", 0),
        ("dns_queries", names.iter().filter(|name| name.asking).count()),
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
    for (key, value) in [("active", !paused), ("paused", paused)] {
        table.push(vec![text(key), text(if value { "yes" } else { "no" })]);
    }
    table
}

fn memory(source: &dyn Source) -> Table {
    let mut table = Table::new(&[("name", TEXT), ("size", INT4), ("used", INT4), ("free", INT4), ("memtotal", INT4)]);
    for row in source.memory() {
        table.push(vec![text(row.name), text(row.size), text(row.used), text(0), text(row.size * row.used)]);
    }
    table
}

fn version() -> Table {
    // Tools parse `PgBouncer x.y.z`; the number is that of the PgBouncer whose console this is, ours follows.
    one("version", concat!("PgBouncer 1.26.1 (bookend ", env!("CARGO_PKG_VERSION"), ")"))
}

fn one(column: &'static str, value: &str) -> Table {
    let mut table = Table::new(&[(column, TEXT)]);
    table.push(vec![text(value)]);
    table
}
