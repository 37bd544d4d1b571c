//! Averages over the last `stats_period`, as SHOW STATS has them. Pure.
//!
//! PgBouncer divides counts and bytes by the seconds of the period, and times by what was counted: an average transaction
//! time is microseconds per transaction, not per second, an average wait is per server assignment (src/stats.c).

use std::time::{Duration, Instant};

/// The running totals of one database, or the averages made from two of them. Times are in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub server_assignment_count: u64,
    pub xact_count: u64,
    pub query_count: u64,
    pub received: u64,
    pub sent: u64,
    pub xact_time: u64,
    pub query_time: u64,
    pub wait_time: u64,
    pub client_parse_count: u64,
    pub server_parse_count: u64,
    pub bind_count: u64,
    pub client_login_count: u64,
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.server_assignment_count += other.server_assignment_count;
        self.xact_count += other.xact_count;
        self.query_count += other.query_count;
        self.received += other.received;
        self.sent += other.sent;
        self.xact_time += other.xact_time;
        self.query_time += other.query_time;
        self.wait_time += other.wait_time;
        self.client_parse_count += other.client_parse_count;
        self.server_parse_count += other.server_parse_count;
        self.bind_count += other.bind_count;
        self.client_login_count += other.client_login_count;
    }
}

/// What was counted in a stretch of time. Periods of several databases can be added: they are the same time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Period {
    pub counts: Totals,
    pub length: Duration,
}

impl std::ops::AddAssign for Period {
    fn add_assign(&mut self, other: Self) {
        self.counts += other.counts;
        self.length = self.length.max(other.length);
    }
}

/// Keeps the last whole period.
#[derive(Debug, Clone, Default)]
pub struct Averager {
    newer: Option<(Instant, Totals)>,
    period: Period,
}

impl Averager {
    /// Takes the totals at the end of a period.
    pub fn tick(&mut self, now: Instant, totals: Totals) {
        if let Some((then, older)) = self.newer {
            self.period = Period { counts: since(&older, &totals), length: now.saturating_duration_since(then) };
        }
        self.newer = Some((now, totals));
    }

    /// Returns the last whole period; an empty one before the first has passed.
    pub fn period(&self) -> Period {
        self.period
    }
}

impl Period {
    /// Returns the averages.
    pub fn averages(&self) -> Totals {
        let (counts, micros) = (&self.counts, self.length.as_micros().max(1));
        let per_second = |count: u64| u64::try_from(u128::from(count) * 1_000_000 / micros).unwrap_or(u64::MAX);
        let per_item = |time: u64, count: u64| time / count.max(1);
        Totals {
            server_assignment_count: per_second(counts.server_assignment_count),
            xact_count: per_second(counts.xact_count),
            query_count: per_second(counts.query_count),
            received: per_second(counts.received),
            sent: per_second(counts.sent),
            xact_time: per_item(counts.xact_time, counts.xact_count),
            query_time: per_item(counts.query_time, counts.query_count),
            wait_time: per_item(counts.wait_time, counts.server_assignment_count),
            client_parse_count: per_second(counts.client_parse_count),
            server_parse_count: per_second(counts.server_parse_count),
            bind_count: per_second(counts.bind_count),
            client_login_count: per_second(counts.client_login_count),
        }
    }
}

fn since(older: &Totals, newer: &Totals) -> Totals {
    let delta = |field: fn(&Totals) -> u64| field(newer).saturating_sub(field(older));
    Totals {
        server_assignment_count: delta(|t| t.server_assignment_count),
        xact_count: delta(|t| t.xact_count),
        query_count: delta(|t| t.query_count),
        received: delta(|t| t.received),
        sent: delta(|t| t.sent),
        xact_time: delta(|t| t.xact_time),
        query_time: delta(|t| t.query_time),
        wait_time: delta(|t| t.wait_time),
        client_parse_count: delta(|t| t.client_parse_count),
        server_parse_count: delta(|t| t.server_parse_count),
        bind_count: delta(|t| t.bind_count),
        client_login_count: delta(|t| t.client_login_count),
    }
}
