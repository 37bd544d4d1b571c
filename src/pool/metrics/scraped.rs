//! Metrics that are read from the pool's own tables when Prometheus asks: counts by state, and the totals of SHOW STATS.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use prometheus::{
    IntCounterVec, IntGauge, IntGaugeVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::OTHER;
use crate::pool::console::{averages::Totals, rows::Source};

/// Reads one number of a database's totals.
type Field = fn(&Totals) -> u64;

/// Metrics that are read from the pool's own tables when Prometheus asks.
pub(super) struct Scraped {
    source: Arc<OnceLock<Weak<dyn Source>>>,
    clients: IntGaugeVec,
    servers: IntGaugeVec,
    max_servers: IntGaugeVec,
    max_clients: IntGaugeVec,
    oldest_wait: prometheus::GaugeVec,
    pinned: IntGaugeVec,
    /// Clients, channels, bytes and connections, as [`Scraped::read_listening`] sets them.
    listening: [IntGaugeVec; 4],
    up: IntGaugeVec,
    paused: IntGauge,
    totals: Vec<(IntCounterVec, Field)>,
    seconds: Vec<(prometheus::CounterVec, Field)>,
    /// One scrape at a time: what is read is set, then collected.
    turn: Mutex<()>,
}

impl Scraped {
    pub(super) fn new(source: Arc<OnceLock<Weak<dyn Source>>>) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels);
        let counter = |name: &str, help: &str| IntCounterVec::new(Opts::new(name, help), &["database"]);
        let seconds = |name: &str, help: &str| prometheus::CounterVec::new(Opts::new(name, help), &["database"]);
        Ok(Self {
            source,
            clients: gauge("bookend_pool_clients", "Client connections, by state.", &["database", "state"])?,
            servers: gauge("bookend_pool_servers", "Server connections, by state.", &["database", "state"])?,
            max_servers: gauge(
                "bookend_pool_servers_max",
                "Server connections the pools of a database may open together.",
                &["database"],
            )?,
            max_clients: gauge(
                "bookend_pool_clients_max",
                "Clients of a database that may be logged in (max_db_client_connections; 0: no limit of its own).",
                &["database"],
            )?,
            oldest_wait: prometheus::GaugeVec::new(
                Opts::new("bookend_pool_oldest_wait_seconds", "How long the first client in the queue has waited."),
                &["database"],
            )?,
            pinned: gauge(
                "bookend_pool_pinned_clients",
                "Clients that keep their server between transactions, by reason. Each takes one from the others.",
                &["database", "reason"],
            )?,
            listening: [
                gauge(
                    "bookend_pool_listeners",
                    "Clients that LISTEN without a server connection of their own.",
                    &["database"],
                )?,
                gauge("bookend_pool_listen_channels", "Channels that are listened to for them.", &["database"])?,
                gauge(
                    "bookend_pool_notification_queue_bytes",
                    "Notifications that wait for clients, up to notification_queue for each.",
                    &["database"],
                )?,
                gauge("bookend_pool_listen_connections", "Connections that listen for clients.", &["database"])?,
            ],
            up: gauge(
                "bookend_database_up",
                "Whether a database serves, by the pool's own look at it.",
                &["database", "role"],
            )?,
            paused: IntGauge::new("bookend_pool_paused", "1 while PAUSE without a name is in force.")?,
            totals: vec![
                (counter("bookend_pool_transactions_total", "Transactions finished.")?, |t| t.xact_count),
                (counter("bookend_pool_queries_total", "Queries finished.")?, |t| t.query_count),
                (counter("bookend_pool_received_bytes_total", "Bytes received from clients.")?, |t| t.received),
                (counter("bookend_pool_sent_bytes_total", "Bytes sent to clients.")?, |t| t.sent),
                (counter("bookend_pool_server_assignments_total", "Leases of a server to a client.")?, |t| {
                    t.server_assignment_count
                }),
                (counter("bookend_pool_client_parses_total", "Prepared statements clients asked for.")?, |t| {
                    t.client_parse_count
                }),
                (counter("bookend_pool_server_parses_total", "Prepared statements made on servers.")?, |t| {
                    t.server_parse_count
                }),
                (counter("bookend_pool_client_logins_total", "Clients logged in.")?, |t| t.client_login_count),
            ],
            seconds: vec![
                (seconds("bookend_pool_transaction_time_seconds_total", "Time in transactions.")?, |t| t.xact_time),
                (seconds("bookend_pool_query_time_seconds_total", "Time in queries.")?, |t| t.query_time),
                (seconds("bookend_pool_wait_time_seconds_total", "Time clients waited for servers.")?, |t| t.wait_time),
            ],
            turn: Mutex::new(()),
        })
    }

    fn collectors(&self) -> impl Iterator<Item = &dyn Collector> {
        let gauges: [&dyn Collector; 8] = [
            &self.clients,
            &self.servers,
            &self.max_servers,
            &self.max_clients,
            &self.oldest_wait,
            &self.pinned,
            &self.up,
            &self.paused,
        ];
        let totals = self.totals.iter().map(|(counter, _)| counter as &dyn Collector);
        let seconds = self.seconds.iter().map(|(counter, _)| counter as &dyn Collector);
        let listening = self.listening.iter().map(|gauge| gauge as &dyn Collector);
        gauges.into_iter().chain(listening).chain(totals).chain(seconds)
    }

    fn read(&self, source: &dyn Source) {
        let named: Vec<_> = source
            .databases()
            .into_iter()
            .map(|row| (row.name, [row.max_connections, row.max_client_connections]))
            .collect();
        let label = |database: &str| {
            named
                .iter()
                .find(|(name, _)| **name == *database)
                .map_or_else(|| Arc::from(OTHER), |(name, _)| name.clone())
        };
        self.read_pools(source, label);
        self.pinned.reset();
        for (database, reason) in source.pinned() {
            self.pinned.with_label_values(&[&*label(&database), reason.as_str()]).inc();
        }
        self.read_listening(source, label);
        let mut totals: HashMap<Arc<str>, Totals> = HashMap::new();
        for row in source.stats() {
            *totals.entry(label(&row.database)).or_default() += row.total;
        }
        for (database, totals) in &totals {
            self.read_totals(database, totals);
        }
        for (name, [servers, clients]) in &named {
            self.max_servers.with_label_values(&[&**name]).set(i64::from(*servers));
            self.max_clients.with_label_values(&[&**name]).set(i64::from(*clients));
        }
        self.up.reset();
        for (name, role, up) in source.serving() {
            self.up.with_label_values(&[&*name, role]).set(i64::from(up));
        }
        self.paused.set(i64::from(source.paused()));
    }

    fn read_listening(&self, source: &dyn Source, label: impl Fn(&str) -> Arc<str>) {
        self.listening.iter().for_each(|gauge| gauge.reset());
        for (database, census) in source.listening() {
            let counts = [census.listeners, census.channels, census.waiting_bytes, usize::from(census.connected)];
            for (gauge, count) in self.listening.iter().zip(counts) {
                gauge.with_label_values(&[&*label(&database)]).add(i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
    }

    /// Counters only grow: a pool that is gone takes nothing back.
    fn read_totals(&self, database: &str, totals: &Totals) {
        for (counter, total) in &self.totals {
            let counter = counter.with_label_values(&[database]);
            counter.inc_by(total(totals).saturating_sub(counter.get()));
        }
        for (counter, micros) in &self.seconds {
            let counter = counter.with_label_values(&[database]);
            let seconds = Duration::from_micros(micros(totals)).as_secs_f64();
            counter.inc_by((seconds - counter.get()).max(0.0));
        }
    }

    fn read_pools(&self, source: &dyn Source, label: impl Fn(&str) -> Arc<str>) {
        self.clients.reset();
        self.servers.reset();
        self.oldest_wait.reset();
        for row in source.pools() {
            let database = label(&row.database);
            let active = row.cl_active.saturating_sub(row.cl_idle);
            for (state, count) in [("active", active), ("waiting", row.cl_waiting), ("idle", row.cl_idle)] {
                self.clients.with_label_values(&[&*database, state]).add(i64::from(count));
            }
            let servers = [
                ("active", row.sv_active),
                ("idle", row.sv_idle + row.sv_used),
                ("login", row.sv_login),
                ("resetting", row.sv_tested),
                ("being_canceled", row.sv_being_canceled),
            ];
            for (state, count) in servers {
                self.servers.with_label_values(&[&*database, state]).add(i64::from(count));
            }
            let oldest = self.oldest_wait.with_label_values(&[&*database]);
            oldest.set(oldest.get().max(row.maxwait.as_secs_f64()));
        }
    }
}

impl Collector for Scraped {
    fn desc(&self) -> Vec<&Desc> {
        self.collectors().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let _turn = self.turn.lock();
        if let Some(source) = self.source.get().and_then(Weak::upgrade) {
            self.read(&*source);
        }
        self.collectors().flat_map(Collector::collect).collect()
    }
}
