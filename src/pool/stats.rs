//! What one database's traffic adds up to, under the names of PgBouncer's `SHOW STATS`.
//!
//! Plain relaxed counters: each wake-up of a relay adds what it saw, nobody locks, and a reader may see one counter a
//! moment before another.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! stats {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// The counters of one database.
        #[derive(Debug, Default)]
        pub struct Stats { $($(#[$doc])* pub $name: AtomicU64),* }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_the_difference_of_two_snapshots() {
        let stats = Stats::default();
        add(&stats.query_count, 3);
        let earlier = stats.snapshot();
        add(&stats.query_count, 4);
        add(&stats.xact_time, 250);
        let period = stats.snapshot().since(&earlier);
        assert_eq!((period.query_count, period.xact_time, period.sent), (4, 250, 0));
    }
}
