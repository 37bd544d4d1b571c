//! What a scrape shows.

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
        assert!(text.contains("bookend_pool_listeners{database=\"*\"} 3"), "{text}");
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
