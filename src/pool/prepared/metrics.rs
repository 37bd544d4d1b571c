//! What the statements of all clients and servers add up to, read when Prometheus asks.

use std::sync::Arc;

use prometheus::{
    IntCounterVec, IntGauge, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::Interner;

struct Statements {
    interner: Arc<Interner>,
    bytes: IntGauge,
    refused: IntCounterVec,
}

/// Registers the statements' metrics.
///
/// # Errors
/// When the registry has metrics of these names already.
pub fn register(registry: &Registry, interner: &Arc<Interner>) -> prometheus::Result<()> {
    let bytes = IntGauge::new(
        "bookend_pool_statement_bytes",
        "Texts of prepared statements that some client or server has. At max_statement_memory clients are refused more.",
    )?;
    let refused = IntCounterVec::new(
        Opts::new(
            "bookend_pool_stale_plans_total",
            "Prepared statements whose result had changed with a table, by what their client saw of it: nothing (healed) \
             or PostgreSQL's error (told).",
        ),
        &["result"],
    )?;
    registry.register(Box::new(Statements { interner: interner.clone(), bytes, refused }))
}

impl Collector for Statements {
    fn desc(&self) -> Vec<&Desc> {
        self.bytes.desc().into_iter().chain(self.refused.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.bytes.set(i64::try_from(self.interner.bytes()).unwrap_or(i64::MAX));
        let (healed, told) = self.interner.refused();
        for (result, count) in [("healed", healed), ("told", told)] {
            let counter = self.refused.with_label_values(&[result]);
            counter.inc_by(count.saturating_sub(counter.get()));
        }
        self.bytes.collect().into_iter().chain(self.refused.collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;

    #[test]
    fn a_scrape_shows_what_there_is_and_counts_once() {
        let (registry, interner) = (Registry::new(), Arc::new(Interner::default()));
        register(&registry, &interner).unwrap();
        let statement = interner.intern(interner.key(0, b"select 1\0\0\0")).unwrap();
        interner.count_refused(true);
        for _ in 0..2 {
            let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
            assert!(text.contains(&format!("bookend_pool_statement_bytes {}", interner.bytes())), "{text}");
            assert!(text.contains("bookend_pool_stale_plans_total{result=\"healed\"} 1"), "{text}");
            assert!(text.contains("bookend_pool_stale_plans_total{result=\"told\"} 0"), "{text}");
        }
        drop(statement);
        assert_eq!(interner.bytes(), 0);
    }
}
