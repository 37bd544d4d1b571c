//! Metrics of servers, read from them at each scrape: no second copy of a number to drift from the first, and a server
//! that left the configuration is gone at the next scrape.

use std::{sync::Arc, time::Instant};

use arc_swap::ArcSwap;
use prometheus::{
    IntCounterVec, IntGaugeVec,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::{counters, gauges};
use crate::proxy::upstream::{Member, Servers, standing::Verdict};

const LABELS: [&str; 2] = ["upstream", "server"];

pub(super) struct ServersCollector {
    servers: Arc<ArcSwap<Vec<Arc<Servers>>>>,
    descs: Vec<Desc>,
}

/// One scrape's families, empty but for what is put in.
struct Families {
    up: IntGaugeVec,
    in_flight: IntGaugeVec,
    ejected: IntGaugeVec,
    draining: IntGaugeVec,
    picked: IntCounterVec,
    failures: IntCounterVec,
    ejections: IntCounterVec,
    checks: IntCounterVec,
    waiting: IntGaugeVec,
    waited: IntCounterVec,
}

impl ServersCollector {
    pub(super) fn new(servers: Arc<ArcSwap<Vec<Arc<Servers>>>>) -> prometheus::Result<Self> {
        let families = Families::empty()?;
        let descs = families.collectors().into_iter().flat_map(Collector::desc).cloned().collect();
        Ok(Self { servers, descs })
    }
}

impl Collector for ServersCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // The same call succeeded in `new`.
        let Ok(families) = Families::empty() else { return Vec::new() };
        let now = Instant::now();
        for servers in self.servers.load().iter() {
            let database = servers.database();
            for (index, member) in servers.members.iter().enumerate() {
                let up = servers.verdict_of(index, database, true) == Verdict::Serve;
                families.put(member, up, now);
            }
            families.put_queue(servers);
        }
        families.collectors().into_iter().flat_map(Collector::collect).collect()
    }
}

impl Families {
    fn empty() -> prometheus::Result<Self> {
        Ok(Self {
            up: gauges(
                "bookend_upstream_server_up",
                "1 when requests that need the database may go to this server. Alert on 0.",
                &LABELS,
            )?,
            in_flight: gauges(
                "bookend_upstream_in_flight",
                "Requests and WebSockets at this server now, over all upstreams that share it.",
                &LABELS,
            )?,
            ejected: gauges(
                "bookend_upstream_server_ejected",
                "1 while failed requests keep others away from this server.",
                &LABELS,
            )?,
            draining: gauges(
                "bookend_upstream_server_draining",
                "1 while an operator keeps new requests away from this server.",
                &LABELS,
            )?,
            picked: counters(
                "bookend_upstream_picks_total",
                "Requests and WebSockets sent to this server, tries included.",
                &LABELS,
            )?,
            failures: counters(
                "bookend_upstream_failures_total",
                "Requests this server failed: refused, broken off, too slow.",
                &LABELS,
            )?,
            ejections: counters(
                "bookend_upstream_ejections_total",
                "Times failed requests put this server out of use.",
                &LABELS,
            )?,
            checks: counters(
                "bookend_upstream_checks_total",
                "Active checks of this server, by how they ended.",
                &["upstream", "server", "result"],
            )?,
            waiting: gauges(
                "bookend_upstream_queue_length",
                "Requests that wait for a server below its max_conns now. Lasting: too few workers.",
                &["upstream"],
            )?,
            waited: counters(
                "bookend_upstream_queued_total",
                "Requests that had to wait for a server below its max_conns.",
                &["upstream"],
            )?,
        })
    }

    fn collectors(&self) -> [&dyn Collector; 10] {
        [
            &self.up,
            &self.in_flight,
            &self.ejected,
            &self.draining,
            &self.picked,
            &self.failures,
            &self.ejections,
            &self.checks,
            &self.waiting,
            &self.waited,
        ]
    }

    fn put_queue(&self, servers: &Servers) {
        let Some(upstream) = servers.members.first().map(|member| &**member.endpoint.upstream()) else { return };
        let length = i64::try_from(servers.queue.len()).unwrap_or(i64::MAX);
        self.waiting.with_label_values(&[upstream]).set(length);
        self.waited.with_label_values(&[upstream]).inc_by(servers.queue.joined());
    }

    fn put(&self, member: &Member, up: bool, now: Instant) {
        let endpoint = &member.endpoint;
        let labels = [&**endpoint.upstream(), &**endpoint.name()];
        let counts = endpoint.counts();
        let (passed, failed) = endpoint.check_counts();
        for (family, value) in [
            (&self.up, up.into()),
            (&self.in_flight, i64::try_from(counts.in_flight).unwrap_or(i64::MAX)),
            (&self.ejected, member.ejected(now).into()),
            (&self.draining, endpoint.draining().into()),
        ] {
            family.with_label_values(&labels).set(value);
        }
        for (family, value) in
            [(&self.picked, counts.picked), (&self.failures, counts.failures), (&self.ejections, counts.ejections)]
        {
            family.with_label_values(&labels).inc_by(value);
        }
        for (result, value) in [("passed", passed), ("failed", failed)] {
            self.checks.with_label_values(&[labels[0], labels[1], result]).inc_by(value);
        }
    }
}
