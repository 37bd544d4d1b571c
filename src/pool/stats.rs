//! What one database's traffic adds up to, under the names of PgBouncer's `SHOW STATS`.
//!
//! Plain relaxed counters: each wake-up of a relay adds what it saw, nobody locks, and a reader may see one counter a
//! moment before another.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tokio_util::task::AbortOnDropHandle;

use super::pins::Reason;

/// Who hears of single events beside the sums, for a pool that has metrics.
pub trait Observe: Send + Sync {
    /// A request took this long.
    fn query(&self, time: Duration);
    /// A client keeps its server from now on; `statement` is what made it, without literals.
    fn pinned(&self, reason: Reason, statement: &str);
    /// A statement is on its way for which a server must have no other connection to this database of its, until what is
    /// returned is dropped.
    fn wanted_alone(&self, dbname: &[u8]) -> AbortOnDropHandle<()>;
}

#[derive(Default)]
struct Observer(Option<Box<dyn Observe>>);

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "observed" } else { "not observed" })
    }
}

macro_rules! stats {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// The counters of one database.
        #[derive(Debug, Default)]
        pub struct Stats {
            $($(#[$doc])* pub $name: AtomicU64,)*
            observer: Observer,
        }

        /// The counters at one moment.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Snapshot { $($(#[$doc])* pub $name: u64),* }

        impl Stats {
            /// Reads every counter.
            pub fn snapshot(&self) -> Snapshot {
                Snapshot { $($name: self.$name.load(Relaxed)),* }
            }
        }

        impl Snapshot {
            /// Returns what was added since `earlier`.
            pub fn since(&self, earlier: &Self) -> Self {
                Self { $($name: self.$name.wrapping_sub(earlier.$name)),* }
            }
        }
    };
}

stats! {
    /// Times a client was given a server.
    server_assignment_count,
    /// Transactions that ended.
    xact_count,
    /// Requests that ended: simple queries, function calls and Sync batches.
    query_count,
    /// Bytes from clients.
    received,
    /// Bytes to clients.
    sent,
    /// Microseconds with a server, from a transaction's first message to its end.
    xact_time,
    /// Microseconds servers were busy with requests.
    query_time,
    /// Microseconds clients waited for a server.
    wait_time,
    /// Named statements that clients prepared.
    client_parse_count,
    /// Statements that were prepared on servers, for them or again.
    server_parse_count,
    /// Bind messages.
    bind_count,
    client_login_count,
}

/// Adds to a counter, sparing the bus when there is nothing to add.
pub fn add(counter: &AtomicU64, n: u64) {
    if n > 0 {
        counter.fetch_add(n, Relaxed);
    }
}

impl Stats {
    /// Starts with every event told to `observer`.
    pub fn observed(observer: impl Observe + 'static) -> Self {
        Self { observer: Observer(Some(Box::new(observer))), ..Self::default() }
    }

    /// Adds `count` requests that ended in one wake-up and took `time` together.
    pub fn queries(&self, count: u64, time: Duration) {
        if count == 0 {
            return;
        }
        add(&self.query_count, count);
        add(&self.query_time, u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
        if let Some(observer) = &self.observer.0 {
            let each = if count == 1 { time } else { time.div_f64(count as f64) };
            (0..count).for_each(|_| observer.query(each));
        }
    }

    /// A client keeps its server from now on.
    pub fn pinned(&self, reason: Reason, statement: &str) {
        if let Some(observer) = &self.observer.0 {
            observer.pinned(reason, statement);
        }
    }

    /// A statement is on its way for which a server must have no other connection to this database of its, until what is
    /// returned is dropped.
    pub fn wanted_alone(&self, dbname: &[u8]) -> Option<AbortOnDropHandle<()>> {
        self.observer.0.as_ref().map(|observer| observer.wanted_alone(dbname))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Count(std::sync::Arc<AtomicU64>);

    impl Observe for Count {
        fn query(&self, time: Duration) {
            assert_eq!(time, Duration::from_micros(25));
            self.0.fetch_add(1, Relaxed);
        }

        fn pinned(&self, _: Reason, _: &str) {}

        fn wanted_alone(&self, _: &[u8]) -> AbortOnDropHandle<()> {
            unreachable!()
        }
    }

    #[test]
    fn a_period_is_the_difference_of_two_snapshots() {
        let stats = Stats::default();
        add(&stats.query_count, 3);
        let earlier = stats.snapshot();
        stats.queries(4, Duration::from_micros(100));
        add(&stats.xact_time, 250);
        let period = stats.snapshot().since(&earlier);
        assert_eq!((period.query_count, period.query_time, period.xact_time, period.sent), (4, 100, 250, 0));
    }

    #[test]
    fn each_request_of_a_wake_up_is_observed() {
        let seen = std::sync::Arc::new(AtomicU64::new(0));
        let stats = Stats::observed(Count(seen.clone()));
        stats.queries(0, Duration::from_secs(1));
        stats.queries(4, Duration::from_micros(100));
        assert_eq!(seen.load(Relaxed), 4);
    }
}
