//! The exporter that most PgBouncer dashboards are made of, unmodified, reads the console.

use std::{
    collections::BTreeMap,
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{
    drivers::{
        Pool,
        postgres::{self, Cluster, PASSWORD, USER},
    },
    support::{dies_with_us, eventually, free_ports, load, turn},
};

struct Exporter(Child);

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_unmodified_exporter_shows_what_the_pool_does() {
    let _turn = turn();
    let cluster = Cluster::start();
    let pool = Pool::start(&cluster);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = postgres::connect(pool.port, "postgres", "").await.unwrap();
        for _ in 0..7 {
            client.simple_query("SELECT 1").await.unwrap();
        }
    });
    let (folder, port) = (tempfile::tempdir().unwrap(), free_ports(1)[0]);
    let log = folder.path().join("log");
    let _exporter = Exporter(exporter(&folder, port, pool.port).spawn().unwrap());
    let said = || fs::read_to_string(&log).unwrap_or_default();

    let shown = eventually("the exporter shows the statistics", Duration::from_secs(30), || {
        let answer = load::get(&format!("http://127.0.0.1:{port}/metrics"))?;
        let shown = samples(&answer.text());
        (shown.get("pgbouncer_stats_queries_total{database=\"postgres\"}")? >= &7.0).then_some(shown)
    });

    assert_eq!(shown["pgbouncer_up"], 1.0, "{}", said());
    assert_eq!(
        shown["pgbouncer_databases_database_pool_size{backend_database=\"postgres\",database=\"postgres\"}"],
        3.0
    );
    for family in ["pgbouncer_stats_", "pgbouncer_pools_", "pgbouncer_databases_", "pgbouncer_config_"] {
        assert!(shown.keys().any(|name| name.starts_with(family)), "{family}: {shown:?}\n{}", said());
    }
    assert!(!said().contains("\"ERROR\"") && !said().contains("Traceback"), "{}", said());
}

/// Its words go into `log`.
fn exporter(folder: &tempfile::TempDir, port: u16, pool: u16) -> Command {
    let config = folder.path().join("config.yml");
    let dsn = format!("postgresql://{USER}:{PASSWORD}@127.0.0.1:{pool}/pgbouncer");
    let text = format!(
        "exporter_host: 127.0.0.1\nexporter_port: {port}\npgbouncers:\n  - dsn: {dsn}\n    connect_timeout: 5\n"
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.cache/drivers/bin/python"));
    command.args(["-W", "ignore", "-c", "from prometheus_pgbouncer_exporter.cli import main; main()", "--config"]);
    command.arg(&config).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(fs::File::create(folder.path().join("log")).unwrap());
    dies_with_us(&mut command);
    command
}

/// Returns the pool's samples by name and labels.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| line.starts_with("pgbouncer_"));
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}
