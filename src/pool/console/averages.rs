//! Averages over the last `stats_period`, as SHOW STATS has them. Pure.
//!
//! PgBouncer divides counts and bytes by the seconds of the period, and times by what was counted: an average transaction
//! time is microseconds per transaction, not per second (src/stats.c).

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

/// Keeps the two ends of the last whole period.
#[derive(Debug, Clone, Default)]
pub struct Averager {
    newer: Option<(Instant, Totals)>,
    averages: Totals,
}

impl Averager {
    /// Takes the totals at the end of a period.
    pub fn tick(&mut self, now: Instant, totals: Totals) {
        if let Some((then, older)) = self.newer {
            self.averages = averages(&older, &totals, now.saturating_duration_since(then));
        }
        self.newer = Some((now, totals));
    }

    /// Returns the averages of the last whole period; zeros before the first has passed.
    pub fn averages(&self) -> Totals {
        self.averages
    }
}

fn averages(older: &Totals, newer: &Totals, period: Duration) -> Totals {
    let micros = period.as_micros().max(1);
    let delta = |field: fn(&Totals) -> u64| field(newer).saturating_sub(field(older));
    let per_second =
        |field: fn(&Totals) -> u64| u64::try_from(u128::from(delta(field)) * 1_000_000 / micros).unwrap_or(u64::MAX);
    let per_item = |field: fn(&Totals) -> u64, count: fn(&Totals) -> u64| delta(field) / delta(count).max(1);
    Totals {
        server_assignment_count: per_second(|t| t.server_assignment_count),
        xact_count: per_second(|t| t.xact_count),
        query_count: per_second(|t| t.query_count),
        received: per_second(|t| t.received),
        sent: per_second(|t| t.sent),
        xact_time: per_item(|t| t.xact_time, |t| t.xact_count),
        query_time: per_item(|t| t.query_time, |t| t.query_count),
        wait_time: per_second(|t| t.wait_time),
        client_parse_count: per_second(|t| t.client_parse_count),
        server_parse_count: per_second(|t| t.server_parse_count),
        bind_count: per_second(|t| t.bind_count),
        client_login_count: per_second(|t| t.client_login_count),
    }
}
