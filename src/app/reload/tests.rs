use std::{path::PathBuf, time::Duration};

use super::*;
use crate::{
    config::lb::{Admin, Sources},
    telemetry::{
        metrics::{MetricsView, Registry, Started},
        view::View,
    },
};

/// Remembers the grace periods it was handed: any value that tells configurations apart.
#[derive(Default)]
struct Remembers(Mutex<Vec<u64>>);

impl Part for Remembers {
    fn reload(&self, config: &Config) -> ReloadSummary {
        let seconds = config.shutdown.grace_period.as_secs();
        self.0.lock().push(seconds);
        ReloadSummary { changed: vec![format!("part: {seconds}")], needs_restart: Vec::new() }
    }
}

fn config(grace_seconds: u64, admin: &str) -> Config {
    Config {
        lb: None,
        pool: None,
        admin: Some(Admin { address: admin.parse().unwrap() }),
        shutdown: Shutdown { pre_stop_delay: Duration::ZERO, grace_period: Duration::from_secs(grace_seconds) },
        sources: Sources { lb: Some(PathBuf::from("lb.yaml")), pool: None },
        notes: Vec::new(),
    }
}

struct World {
    reloader: Reloader,
    part: Arc<Remembers>,
    registry: Arc<Registry>,
}

fn world(load: impl Fn() -> Result<Config, Vec<String>> + Send + Sync + 'static) -> World {
    let part = Arc::new(Remembers::default());
    let registry = Arc::new(Registry::new());
    let started = config(30, "127.0.0.1:9180");
    let reloader = Reloader {
        load: Box::new(move |_| load()),
        running: Arc::new(ArcSwap::from_pointee(started.clone())),
        turn: Mutex::default(),
        started,
        parts: vec![part.clone()],
        servers: None,
        databases: None,
        metrics: ProgramMetrics::register(&registry, Started::now()).unwrap(),
        open_files_limit: u64::MAX,
        log: Log::default(),
    };
    World { reloader, part, registry }
}

fn scrape(world: &World) -> String {
    String::from_utf8(MetricsView::new(world.registry.clone()).render().body).unwrap()
}

#[test]
fn a_bad_configuration_changes_nothing_and_names_every_error() {
    let world = world(|| Err(vec!["lb.yaml:3:5: a".into(), "pool.yaml:1:1: b".into()]));
    assert_eq!(world.reloader.reload().unwrap_err().len(), 2);
    assert!(world.part.0.lock().is_empty());
    assert_eq!(world.reloader.shutdown().grace_period, Duration::from_secs(30));
    assert!(scrape(&world).contains("bookend_config_reloads_total{result=\"rejected\"} 1\n"));
}

#[test]
fn a_good_one_reaches_every_part_and_is_counted() {
    let world = world(|| Ok(config(5, "127.0.0.1:9180")));
    let summary = world.reloader.reload().unwrap();
    assert_eq!(*world.part.0.lock(), [5]);
    assert_eq!(summary.changed, ["shutdown: pre_stop_delay 0ns, grace_period 5s", "part: 5"]);
    assert!(summary.needs_restart.is_empty());
    assert_eq!(world.reloader.shutdown().grace_period, Duration::from_secs(5));
    assert!(scrape(&world).contains("bookend_config_reloads_total{result=\"applied\"} 1\n"));
}

#[test]
fn a_stop_does_not_wait_for_a_reload() {
    let world = Arc::new(std::sync::OnceLock::<World>::new());
    let asked = world.clone();
    let reading = move || {
        // As a resolver that hangs: the files are being read, and somebody stops the process.
        let asked = asked.clone();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || tell.send(asked.get().map(|world| world.reloader.shutdown())));
        let shutdown = told.recv_timeout(Duration::from_secs(20)).expect("an answer while files are read");
        assert_eq!(shutdown.map(|shutdown| shutdown.grace_period), Some(Duration::from_secs(30)));
        Ok(config(5, "127.0.0.1:9180"))
    };
    assert!(world.set(self::world(reading)).is_ok());
    world.get().unwrap().reloader.reload().unwrap();
}

#[test]
fn what_takes_a_restart_is_said_until_the_restart() {
    let world = world(|| Ok(config(30, "127.0.0.1:9999")));
    for _ in 0..2 {
        assert_eq!(world.reloader.reload().unwrap().needs_restart, ["admin.address"]);
    }
}

#[test]
fn without_a_front_there_is_nothing_to_drain() {
    let world = world(|| Err(Vec::new()));
    assert_eq!(world.reloader.drain("web-1"), Err(DrainError::NoFront));
}
