//! The process's own metrics, and the text that Prometheus scrapes.
//!
//! Process metrics have the names every Prometheus client library gives them (`process_resident_memory_bytes`, …), so that
//! dashboards made for any program show this one; everything else starts with `bookend_`.

use std::{
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use prometheus::{
    Counter, Encoder, Gauge, IntCounterVec, IntGauge, Opts, TextEncoder,
    core::{Collector, Desc},
    proto::MetricFamily,
};
/// What components register their metrics into; and what is wrong when one cannot; all of the library that others name.
pub use prometheus::{Error as MetricsError, Registry};

use crate::telemetry::{
    procfs::Process,
    view::{Page, View},
};

/// What became of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadResult {
    Applied,
    /// The configuration had errors; the running one stays.
    Rejected,
}

impl ReloadResult {
    const ALL: [Self; 2] = [Self::Applied, Self::Rejected];

    fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Rejected => "rejected",
        }
    }
}

/// Metrics of the program as a whole.
#[derive(Debug, Clone)]
pub struct ProgramMetrics {
    reloads: IntCounterVec,
    last_reload: Gauge,
    last_reload_successful: IntGauge,
}

impl ProgramMetrics {
    /// Registers the program's and the process's metrics; `started` is when the process began.
    pub fn register(registry: &Registry, started: Started) -> prometheus::Result<Self> {
        let build_info = IntGauge::with_opts(
            Opts::new(
                "bookend_build_info",
                "Always 1; the version that runs is in the label. For everyone comparing releases.",
            )
            .const_label("version", env!("CARGO_PKG_VERSION")),
        )?;
        build_info.set(1);
        let reloads = IntCounterVec::new(
            Opts::new(
                "bookend_config_reloads_total",
                "Reloads asked for, by what became of them. A rejected one means that the files on disk do not run.",
            ),
            &["result"],
        )?;
        for result in ReloadResult::ALL {
            reloads.with_label_values(&[result.as_str()]).inc_by(0);
        }
        let last_reload = Gauge::new(
            "bookend_config_last_reload_success_timestamp_seconds",
            "When the running configuration was loaded, in Unix time.",
        )?;
        last_reload.set(unix_seconds(started.at));
        let last_reload_successful = IntGauge::new(
            "bookend_config_last_reload_successful",
            "1 unless the last reload was rejected. Alert on 0: a restart would fail.",
        )?;
        last_reload_successful.set(1);
        registry.register(Box::new(build_info))?;
        registry.register(Box::new(reloads.clone()))?;
        registry.register(Box::new(last_reload.clone()))?;
        registry.register(Box::new(last_reload_successful.clone()))?;
        registry.register(Box::new(ProcessCollector::new(started)?))?;
        Ok(Self { reloads, last_reload, last_reload_successful })
    }

    /// Counts a reload that ended at `now`.
    pub fn reloaded(&self, result: ReloadResult, now: SystemTime) {
        self.reloads.with_label_values(&[result.as_str()]).inc();
        self.last_reload_successful.set((result == ReloadResult::Applied).into());
        if result == ReloadResult::Applied {
            self.last_reload.set(unix_seconds(now));
        }
    }
}

/// When the process began, on both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Started {
    pub at: SystemTime,
    pub instant: Instant,
}

impl Started {
    /// Begins now.
    pub fn now() -> Self {
        Self { at: SystemTime::now(), instant: Instant::now() }
    }
}

fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// A gauge and what it shows of the process.
type Reading = (IntGauge, fn(&Process) -> Option<u64>);

/// Reads the process anew at each scrape.
struct ProcessCollector {
    started: Started,
    uptime: Gauge,
    start_time: Gauge,
    cpu: Mutex<Counter>,
    gauges: [Reading; 5],
}

impl ProcessCollector {
    fn new(started: Started) -> prometheus::Result<Self> {
        let start_time = Gauge::new("process_start_time_seconds", "When the process started, in Unix time.")?;
        start_time.set(unix_seconds(started.at));
        Ok(Self {
            started,
            uptime: Gauge::new("bookend_uptime_seconds", "How long the process has run.")?,
            start_time,
            cpu: Mutex::new(Counter::new("process_cpu_seconds_total", "User and system CPU time spent, in seconds.")?),
            gauges: [
                (IntGauge::new("process_resident_memory_bytes", "Resident memory.")?, |process| process.resident_bytes),
                (IntGauge::new("process_virtual_memory_bytes", "Virtual memory.")?, |process| process.virtual_bytes),
                (IntGauge::new("process_threads", "Threads of the process.")?, |process| process.threads),
                (
                    IntGauge::new("process_open_fds", "Open file descriptors: two for each proxied connection.")?,
                    |process| process.open_fds,
                ),
                (
                    IntGauge::new(
                        "process_max_fds",
                        "The soft limit of open file descriptors; alert before it is reached.",
                    )?,
                    |process| process.max_fds,
                ),
            ],
        })
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        // The counter sits behind a lock and cannot lend its description; the registry needs one to tell collectors
        // apart, and these do.
        let mut descs = self.uptime.desc();
        descs.extend(self.start_time.desc());
        descs.extend(self.gauges.iter().flat_map(|(gauge, _)| gauge.desc()));
        descs
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let process = Process::read();
        self.uptime.set(self.started.instant.elapsed().as_secs_f64());
        let mut families = self.uptime.collect();
        families.extend(self.start_time.collect());
        if let Some(seconds) = process.cpu_seconds {
            // Two scrapes at once must not both add the difference.
            let cpu = self.cpu.lock();
            cpu.inc_by((seconds - cpu.get()).max(0.0));
            families.extend(cpu.collect());
        }
        for (gauge, read) in &self.gauges {
            if let Some(value) = read(&process) {
                gauge.set(value as i64);
                families.extend(gauge.collect());
            }
        }
        families
    }
}

/// `/metrics`: everything registered, in Prometheus's text format.
pub struct MetricsView {
    registry: Arc<Registry>,
}

impl MetricsView {
    /// Shows `registry`.
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { registry }
    }
}

impl View for MetricsView {
    fn render(&self) -> Page {
        let mut body = Vec::with_capacity(16 * 1024);
        match TextEncoder::new().encode(&self.registry.gather(), &mut body) {
            Ok(()) => Page { status: 200, content_type: "text/plain; version=0.0.4; charset=utf-8", body },
            Err(error) => {
                tracing::error!(%error, "metrics cannot be encoded");
                Page {
                    status: 500,
                    content_type: "text/plain; charset=utf-8",
                    body: b"metrics cannot be encoded\n".to_vec(),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(registry: &Arc<Registry>) -> String {
        let page = MetricsView::new(registry.clone()).render();
        assert_eq!(page.status, 200);
        String::from_utf8(page.body).unwrap()
    }

    #[test]
    fn a_scrape_names_the_version_and_the_process() {
        let registry = Arc::new(Registry::new());
        let _metrics = ProgramMetrics::register(&registry, Started::now()).unwrap();
        let text = text(&registry);
        let version = env!("CARGO_PKG_VERSION");
        assert!(text.contains(&format!("bookend_build_info{{version=\"{version}\"}} 1\n")), "{text}");
        for name in ["process_open_fds", "process_resident_memory_bytes", "process_cpu_seconds_total"] {
            assert!(text.contains(&format!("\n{name} ")), "{name} is missing:\n{text}");
        }
    }

    #[test]
    fn reloads_are_counted_from_zero_by_result() {
        let registry = Arc::new(Registry::new());
        let metrics = ProgramMetrics::register(&registry, Started::now()).unwrap();
        assert!(text(&registry).contains("bookend_config_reloads_total{result=\"rejected\"} 0\n"));
        let before = metrics.last_reload.get();
        metrics.reloaded(ReloadResult::Rejected, SystemTime::now() + std::time::Duration::from_secs(60));
        assert_eq!(metrics.last_reload.get(), before, "a rejected reload changes nothing");
        let text = text(&registry);
        assert!(text.contains("bookend_config_reloads_total{result=\"rejected\"} 1\n"));
        assert!(text.contains("bookend_config_last_reload_successful 0\n"));
    }

    #[test]
    fn two_programs_live_in_one_process() {
        for _ in 0..2 {
            ProgramMetrics::register(&Registry::new(), Started::now()).unwrap();
        }
    }

    #[test]
    fn processor_time_never_goes_back() {
        let collector = ProcessCollector::new(Started::now()).unwrap();
        collector.cpu.lock().inc_by(1e9);
        collector.collect();
        assert_eq!(collector.cpu.lock().get(), 1e9);
    }
}
