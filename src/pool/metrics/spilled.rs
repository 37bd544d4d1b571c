//! Metrics of the answers that are kept for slow clients, read when Prometheus asks.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::{
    IntCounter, IntGauge,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::pool::relay::SpillMemory;

/// What slow clients are kept, and what they cost.
pub(super) struct Spilled {
    memory: Arc<SpillMemory>,
    bytes: IntGauge,
    overflows: IntCounter,
    held: prometheus::Counter,
    turn: Mutex<()>,
}

impl Spilled {
    pub(super) fn new(memory: Arc<SpillMemory>) -> prometheus::Result<Self> {
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
