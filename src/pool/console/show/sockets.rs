//! SHOW CLIENTS, SERVERS, SOCKETS and ACTIVE_SOCKETS: a row for each connection.

use std::time::SystemTime;

use crate::pool::{
    console::{
        rows::{SocketRow, Source},
        table::{Table, flag, text},
    },
    pins::Reason,
    wire::backend::oid::{INT4, INT8, TEXT},
};

const COLUMNS: [(&str, u32); 21] = [
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
];

/// What PgBouncer adds in SOCKETS: places in the buffer of a connection. Connections have no buffer of their own here, so
/// these are NULL.
const BUFFER: [(&str, u32); 7] = [
    ("recv_pos", INT4),
    ("pkt_pos", INT4),
    ("pkt_remain", INT4),
    ("send_pos", INT4),
    ("send_remain", INT4),
    ("pkt_avail", INT4),
    ("send_avail", INT4),
];

/// Which end of the pool a connection is at.
#[derive(Clone, Copy)]
enum Side {
    Client,
    Server,
}

impl Side {
    /// Returns the word of SOCKETS for a state of CLIENTS or SERVERS; `None`: not in that list.
    fn word(self, state: &str) -> Option<&'static str> {
        match (self, state) {
            // PgBouncer knows the difference only in SHOW CLIENTS.
            (Self::Client, "active" | "idle") => Some("cl_active"),
            (Self::Client, "waiting") => Some("cl_waiting"),
            (Self::Client, "login") => Some("cl_login"),
            (Self::Server, "active") => Some("sv_active"),
            (Self::Server, "idle") => Some("sv_idle"),
            (Self::Server, "tested") => Some("sv_tested"),
            (Self::Server, "being_canceled") => Some("sv_being_canceled"),
            (Self::Server, "new") => Some("sv_login"),
            _ => None,
        }
    }
}

/// One column more than PgBouncer's, behind them: why the client keeps its server between transactions.
pub(super) fn clients(source: &dyn Source) -> Table {
    let columns: Vec<_> = COLUMNS.into_iter().chain([("pinned", TEXT)]).collect();
    let mut table = Table::new(&columns);
    for row in source.clients() {
        let mut values = values(Side::Client, &row, row.state);
        let reasons: Vec<_> = row.pinned.iter().map(Reason::as_str).collect();
        values.push(text(reasons.join(",")));
        table.push(values);
    }
    table
}

pub(super) fn servers(source: &dyn Source) -> Table {
    plain(Side::Server, &source.servers())
}

pub(super) fn all(source: &dyn Source) -> Table {
    sockets(source, |_| true)
}

/// Those with something under way.
pub(super) fn active(source: &dyn Source) -> Table {
    sockets(source, |row| row.state != "idle")
}

fn plain(side: Side, rows: &[SocketRow]) -> Table {
    let mut table = Table::new(&COLUMNS);
    for row in rows {
        table.push(values(side, row, row.state));
    }
    table
}

fn sockets(source: &dyn Source, shown: fn(&SocketRow) -> bool) -> Table {
    let columns: Vec<_> = COLUMNS.into_iter().chain(BUFFER).collect();
    let mut table = Table::new(&columns);
    let lists =
        [(Side::Client, source.clients()), (Side::Server, source.servers()), (Side::Client, source.strangers())];
    for (side, rows) in lists {
        for row in rows.iter().filter(|row| shown(row)) {
            if let Some(state) = side.word(row.state) {
                let mut values = values(side, row, state);
                values.resize(columns.len(), None);
                table.push(values);
            }
        }
    }
    table
}

fn values(side: Side, row: &SocketRow, state: &str) -> Vec<Option<String>> {
    let (kind, own, other) = match side {
        Side::Client => ("C", 'c', 's'),
        Side::Server => ("S", 's', 'c'),
    };
    let (remote, local) = row.peer.map_or_else(Default::default, |peer| (peer.remote(), peer.local()));
    vec![
        text(kind),
        text(&row.user),
        text(&row.database),
        text(row.replication),
        text(state),
        text(remote.0),
        text(remote.1),
        text(local.0),
        text(local.1),
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
    ]
}

/// Formats a time as PgBouncer does: `2026-11-23 14:03:59 UTC`.
fn utc(time: SystemTime) -> String {
    let t = time::OffsetDateTime::from(time);
    let (month, day) = (u8::from(t.month()), t.day());
    format!("{:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", t.year(), t.hour(), t.minute(), t.second())
}
