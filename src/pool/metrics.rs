//! The pool's metrics: histograms and errors counted as they happen, everything else read from the pool when scraped.
//!
//! Databases are labelled by their name in pool.yaml; those that only the `*` entry knows share the label `*`, so that a
//! client cannot make series. States, errors and directions are enums.

mod scraped;
mod spilled;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};

use self::{scraped::Scraped, spilled::Spilled};
use crate::pool::{
    cancel::Cancelled, console::rows::Source, error::Kind, names::Outcome, pins::Reason, relay::SpillMemory,
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
    notifications: IntCounterVec,
    errors: Arc<[IntCounter]>,
    /// In the order of [`Cancelled::ALL`].
    cancels: Arc<[IntCounter]>,
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
    notified: IntCounter,
    delivered: IntCounter,
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

    /// The listening connection has read a notification.
    pub fn notified(&self) {
        self.notified.inc();
    }

    /// Clients were given so many of them.
    pub fn delivered(&self, count: u64) {
        self.delivered.inc_by(count);
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
        let notifications = IntCounterVec::new(
            Opts::new(
                "bookend_pool_notifications_total",
                "Notifications, by event: received by the listening connection, delivered to clients (each counts).",
            ),
            &["database", "event"],
        )?;
        registry.register(Box::new(notifications.clone()))?;
        for family in [&wait, &query, &transaction, &probe] {
            registry.register(Box::new(family.clone()))?;
        }
        registry.register(Box::new(errors.clone()))?;
        registry.register(Box::new(cancels.clone()))?;
        let source = Arc::new(OnceLock::new());
        registry.register(Box::new(Scraped::new(source.clone())?))?;
        registry.register(Box::new(Spilled::new(spill)?))?;
        Ok(Self {
            wait,
            query,
            transaction,
            probe,
            lookups,
            pins,
            notifications,
            errors: Kind::ALL.iter().map(|kind| errors.with_label_values(&[kind.as_str()])).collect(),
            cancels: Cancelled::ALL.iter().map(|result| cancels.with_label_values(&[result.as_str()])).collect(),
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
            notified: self.notifications.with_label_values(&[label, "received"]),
            delivered: self.notifications.with_label_values(&[label, "delivered"]),
        }
    }

    /// Counts an error given to a client.
    pub fn error(&self, kind: Kind) {
        if let Some(counter) = Kind::ALL.iter().position(|each| *each == kind).and_then(|index| self.errors.get(index))
        {
            counter.inc();
        }
    }

    /// Counts a cancel request.
    pub fn cancel(&self, result: Cancelled) {
        if let Some(counter) = self.cancels.get(result as usize) {
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
