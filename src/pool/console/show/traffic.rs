//! SHOW STATS, STATS_TOTALS, STATS_AVERAGES and TOTALS: the same numbers under four sets of names (src/stats.c).

use crate::pool::{
    console::{
        averages::{Period, Totals},
        rows::Source,
        table::{Table, text},
    },
    wire::backend::oid::{NUMERIC, TEXT},
};

/// One number and what it is called where.
struct Number {
    /// In STATS, among the totals.
    total: &'static str,
    /// In STATS, among the averages.
    average: &'static str,
    /// In STATS_TOTALS, and in STATS_AVERAGES but for those that have a prefix there.
    bare: &'static str,
    /// In TOTALS, after `total_` or `avg_`.
    overall: &'static str,
    value: fn(&Totals) -> u64,
}

const fn number(
    total: &'static str,
    average: &'static str,
    bare: &'static str,
    overall: &'static str,
    value: fn(&Totals) -> u64,
) -> Number {
    Number { total, average, bare, overall, value }
}

#[rustfmt::skip]
static NUMBERS: [Number; 12] = [
    number("total_server_assignment_count", "avg_server_assignment_count", "server_assignment_count", "server_assignment_count", |t| t.server_assignment_count),
    number("total_xact_count", "avg_xact_count", "xact_count", "xact_count", |t| t.xact_count),
    number("total_query_count", "avg_query_count", "query_count", "query_count", |t| t.query_count),
    number("total_received", "avg_recv", "bytes_received", "client_bytes", |t| t.received),
    number("total_sent", "avg_sent", "bytes_sent", "server_bytes", |t| t.sent),
    number("total_xact_time", "avg_xact_time", "xact_time", "xact_time", |t| t.xact_time),
    number("total_query_time", "avg_query_time", "query_time", "query_time", |t| t.query_time),
    number("total_wait_time", "avg_wait_time", "wait_time", "wait_time", |t| t.wait_time),
    number("total_client_parse_count", "avg_client_parse_count", "client_parse_count", "ps_client_parse_count", |t| t.client_parse_count),
    number("total_server_parse_count", "avg_server_parse_count", "server_parse_count", "ps_server_parse_count", |t| t.server_parse_count),
    number("total_bind_count", "avg_bind_count", "bind_count", "ps_bind_count", |t| t.bind_count),
    number("total_client_login_count", "avg_client_login_count", "client_login_count", "client_login_count", |t| t.client_login_count),
];

impl Number {
    /// Returns its name in STATS_AVERAGES: what came later (prepared statements, logins) kept its prefix.
    fn bare_average(&self) -> &'static str {
        if self.overall.starts_with("ps_") || self.overall == "client_login_count" { self.average } else { self.bare }
    }
}

pub(super) fn stats(source: &dyn Source) -> Table {
    let totals = NUMBERS.iter().map(|number| number.total);
    let averages = NUMBERS.iter().map(|number| number.average);
    let mut table = numbers(totals.chain(averages));
    for row in source.stats() {
        let (totals, averages) = (values(row.total), values(row.period.averages()));
        table.push([text(&row.database)].into_iter().chain(totals).chain(averages).collect());
    }
    table
}

pub(super) fn totals(source: &dyn Source) -> Table {
    let mut table = numbers(NUMBERS.iter().map(|number| number.bare));
    for row in source.stats() {
        table.push([text(&row.database)].into_iter().chain(values(row.total)).collect());
    }
    table
}

pub(super) fn averages(source: &dyn Source) -> Table {
    let mut table = numbers(NUMBERS.iter().map(Number::bare_average));
    for row in source.stats() {
        table.push([text(&row.database)].into_iter().chain(values(row.period.averages())).collect());
    }
    table
}

/// All databases together, a row for each number.
pub(super) fn overall(source: &dyn Source) -> Table {
    let (mut total, mut period) = (Totals::default(), Period::default());
    for row in source.stats() {
        total += row.total;
        period += row.period;
    }
    let mut table = Table::new(&[("name", TEXT), ("value", NUMERIC)]);
    for (prefix, totals) in [("total", total), ("avg", period.averages())] {
        for (number, value) in NUMBERS.iter().zip(values(totals)) {
            table.push(vec![text(format!("{prefix}_{}", number.overall)), value]);
        }
    }
    table
}

fn numbers(names: impl Iterator<Item = &'static str>) -> Table {
    let names = names.map(|name| (name, NUMERIC));
    Table::new(&[("database", TEXT)].into_iter().chain(names).collect::<Vec<_>>())
}

fn values(totals: Totals) -> impl Iterator<Item = Option<String>> {
    NUMBERS.iter().map(move |number| text((number.value)(&totals)))
}
