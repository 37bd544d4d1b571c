//! The pool's metrics: histograms and errors counted as they happen, everything else read from the pool when scraped.
//!
//! Databases are labelled by their name in pool.yaml; those that only the `*` entry knows share the label `*`, so that a
//! client cannot make series. States, errors and directions are enums.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::pool::{
    console::{averages::Totals, rows::Source},
    error::Kind,
    names::Outcome,
    pins::Reason,
    relay::SpillMemory,
};

/// From a quarter of a millisecond to a minute, doubling or so: waits, queries and transactions.
const SECONDS: [f64; 14] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0];

/// The label of databases that pool.yaml does not name.
pub const OTHER: &str = "*";

/// What is counted as it happens. Clones share everything.
#[derive(Debug, Clone)]
pub struct PoolMetrics {
    wait: HistogramVec,
    query: HistogramVec,
    transaction: HistogramVec,
    probe: HistogramVec,
    lookups: IntCounterVec,
    pins: IntCounterVec,
    errors: Arc<[IntCounter]>,
    cancels: Arc<HashMap<&'static str, IntCounter>>,
    source: Arc<OnceLock<Weak<dyn Source>>>,
}

/// One database's histograms, resolved once so that observing looks nothing up.
#[derive(Debug, Clone)]
pub struct DatabaseMetrics {
    wait: Histogram,
    query: Histogram,
    transaction: Histogram,
    /// In the order of [`Reason::ALL`].
    pins: Arc<[IntCounter]>,
}

impl DatabaseMetrics {
    /// A client waited this long for a server.
    pub fn waited(&self, time: Duration) {
        self.wait.observe(time.as_secs_f64());
    }

    /// A query (from its message to ReadyForQuery) took this long.
    pub fn query(&self, time: Duration) {
        self.query.observe(time.as_secs_f64());
    }

    /// A transaction took this long.
    pub fn transaction(&self, time: Duration) {
        self.transaction.observe(time.as_secs_f64());
    }

    /// A client keeps its server from now on.
    pub fn pinned(&self, reason: Reason) {
        if let Some(counter) = self.pins.get(reason as usize) {
            counter.inc();
        }
    }
}

impl PoolMetrics {
    /// Registers all of the pool's metrics; `spill` is read when scraped.
    ///
    /// # Errors
    /// When the registry has metrics of these names already: two pools cannot share one.
    pub fn register(registry: &Registry, spill: Arc<SpillMemory>) -> prometheus::Result<Self> {
        let histogram = |name: &str, help: &str| {
            HistogramVec::new(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()), &["database"])
        };
        let wait = histogram(
            "bookend_pool_wait_seconds",
            "Time clients waited for a server connection. Rising: raise default_pool_size or shorten transactions.",
        )?;
        let query = histogram("bookend_pool_query_seconds", "Time from a query to the end of its answer.")?;
        let transaction = histogram(
            "bookend_pool_transaction_seconds",
            "Time a transaction held its server connection. Long ones starve the pool.",
        )?;
        let probe = histogram("bookend_database_probe_seconds", "Time of the pool's own looks at each database.")?;
        let errors = IntCounterVec::new(
            Opts::new("bookend_pool_errors_total", "Errors the pool itself gave to clients, by kind."),
            &["kind"],
        )?;
        let cancels = IntCounterVec::new(
            Opts::new("bookend_pool_cancel_requests_total", "Cancel requests of clients, by what became of them."),
            &["result"],
        )?;
        let lookups = IntCounterVec::new(
            Opts::new(
                "bookend_pool_dns_lookups_total",
                "Lookups of servers' host names, by answer. changed closes connections to addresses that are gone.",
            ),
            &["result"],
        )?;
        registry.register(Box::new(lookups.clone()))?;
        Outcome::ALL.iter().for_each(|outcome| drop(lookups.with_label_values(&[outcome.as_str()])));
        let pins = IntCounterVec::new(
            Opts::new(
                "bookend_pool_pins_total",
                "Times a client began to keep its server between transactions, by reason. Look at it when servers run short.",
            ),
            &["database", "reason"],
        )?;
        registry.register(Box::new(pins.clone()))?;
        for family in [&wait, &query, &transaction, &probe] {
            registry.register(Box::new(family.clone()))?;
        }
        registry.register(Box::new(errors.clone()))?;
        registry.register(Box::new(cancels.clone()))?;
        let source = Arc::new(OnceLock::new());
        registry.register(Box::new(Scraped::new(source.clone())?))?;
        registry.register(Box::new(Spilled::new(spill)?))?;
        let results = ["sent", "unknown_key", "nothing_to_cancel"];
        Ok(Self {
            wait,
            query,
            transaction,
            probe,
            lookups,
            pins,
            errors: Kind::ALL.iter().map(|kind| errors.with_label_values(&[kind.as_str()])).collect(),
            cancels: Arc::new(
                results.into_iter().map(|result| (result, cancels.with_label_values(&[result]))).collect(),
            ),
            source,
        })
    }

    /// Says whom scrapes ask. Once.
    pub fn read_from(&self, source: Weak<dyn Source>) {
        let _ = self.source.set(source);
    }

    /// Returns the histograms of a database; `label` is its name in pool.yaml or [`OTHER`].
    pub fn database(&self, label: &str) -> DatabaseMetrics {
        DatabaseMetrics {
            wait: self.wait.with_label_values(&[label]),
            query: self.query.with_label_values(&[label]),
            transaction: self.transaction.with_label_values(&[label]),
            pins: Reason::ALL.iter().map(|reason| self.pins.with_label_values(&[label, reason.as_str()])).collect(),
        }
    }

    /// Counts an error given to a client.
    pub fn error(&self, kind: Kind) {
        if let Some(counter) = Kind::ALL.iter().position(|each| *each == kind).and_then(|index| self.errors.get(index))
        {
            counter.inc();
        }
    }

    /// Counts a cancel request: `sent`, `unknown_key` or `nothing_to_cancel`.
    pub fn cancel(&self, result: &'static str) {
        if let Some(counter) = self.cancels.get(result) {
            counter.inc();
        }
    }

    /// Counts a lookup of a server's host name.
    pub fn looked_up(&self, outcome: Outcome) {
        self.lookups.with_label_values(&[outcome.as_str()]).inc();
    }

    /// Records a look of the probe.
    pub fn probed(&self, database: &str, took: Duration) {
        self.probe.with_label_values(&[database]).observe(took.as_secs_f64());
    }
}

/// Reads one number of a database's totals.
type Field = fn(&Totals) -> u64;

/// Metrics that are read from the pool's own tables when Prometheus asks.
struct Scraped {
    source: Arc<OnceLock<Weak<dyn Source>>>,
    clients: IntGaugeVec,
    servers: IntGaugeVec,
    max_servers: IntGaugeVec,
    max_clients: IntGaugeVec,
    oldest_wait: prometheus::GaugeVec,
    pinned: IntGaugeVec,
    up: IntGaugeVec,
    paused: IntGauge,
    totals: Vec<(IntCounterVec, Field)>,
    seconds: Vec<(prometheus::CounterVec, Field)>,
    /// One scrape at a time: what is read is set, then collected.
    turn: Mutex<()>,
}

impl Scraped {
    fn new(source: Arc<OnceLock<Weak<dyn Source>>>) -> prometheus::Result<Self> {
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
        gauges.into_iter().chain(totals).chain(seconds)
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

/// What slow clients are kept, and what they cost.
struct Spilled {
    memory: Arc<SpillMemory>,
    bytes: IntGauge,
    overflows: IntCounter,
    held: prometheus::Counter,
    turn: Mutex<()>,
}

impl Spilled {
    fn new(memory: Arc<SpillMemory>) -> prometheus::Result<Self> {
        Ok(Self {
            memory,
            bytes: IntGauge::new(
                "bookend_pool_spilled_bytes",
                "Answers kept for clients that do not take them, up to spill_memory.",
            )?,
            overflows: IntCounter::new(
                "bookend_pool_spill_overflows_total",
                "Answers that did not fit: into spill_buffer, or what others had left of spill_memory.",
            )?,
            held: prometheus::Counter::new(
                "bookend_pool_slow_client_seconds_total",
                "Time server connections waited for clients to take their answers.",
            )?,
            turn: Mutex::new(()),
        })
    }

    fn collectors(&self) -> [&dyn Collector; 3] {
        [&self.bytes, &self.overflows, &self.held]
    }
}

impl Collector for Spilled {
    fn desc(&self) -> Vec<&Desc> {
        self.collectors().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let _turn = self.turn.lock();
        self.bytes.set(i64::try_from(self.memory.used()).unwrap_or(i64::MAX));
        self.overflows.inc_by(self.memory.overflows().saturating_sub(self.overflows.get()));
        self.held.inc_by((self.memory.held().as_secs_f64() - self.held.get()).max(0.0));
        self.collectors().into_iter().flat_map(Collector::collect).collect()
    }
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;
    use crate::pool::console::tests::Fixed;

    fn scrape(registry: &Registry) -> String {
        TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
    }

    #[test]
    fn a_scrape_shows_the_pool_as_it_is_and_counters_do_not_double() {
        let registry = Registry::new();
        let metrics = PoolMetrics::register(&registry, SpillMemory::new(0)).unwrap();
        let source: Arc<dyn Source> = Arc::new(Fixed::default());
        metrics.read_from(Arc::downgrade(&source));
        for _ in 0..2 {
            let text = scrape(&registry);
            // `arena` is not among the fixed pool's databases, so only `*` may name it.
            assert!(text.contains("bookend_pool_clients{database=\"*\",state=\"waiting\"} 3"), "{text}");
            assert!(text.contains("bookend_pool_transactions_total{database=\"*\"} 7"), "{text}");
            assert!(text.contains("bookend_pool_pinned_clients{database=\"*\",reason=\"listen\"} 2"), "{text}");
            assert!(text.contains("bookend_database_up{database=\"arena\",role=\"primary\"} 1"), "{text}");
        }
    }

    #[test]
    fn every_kind_of_error_has_a_series_from_the_start() {
        let registry = Registry::new();
        let metrics = PoolMetrics::register(&registry, SpillMemory::new(0)).unwrap();
        metrics.error(Kind::QueryWaitTimeout);
        let text = scrape(&registry);
        for kind in Kind::ALL {
            let count = u8::from(kind == Kind::QueryWaitTimeout);
            let line = format!("bookend_pool_errors_total{{kind=\"{}\"}} {count}", kind.as_str());
            assert!(text.contains(&line), "{line} in {text}");
        }
    }
}
