//! Drivers and frameworks as people use them, on three servers in transaction mode: they see what PostgreSQL itself shows them.
//!
//! Each script of tests/drivers has its own assertions and runs them from several connections at once, first without the pool
//! (what fails there says nothing of it), then through it. `SHOW STATS` tells that the servers did change hands.

#[path = "../support/postgres.rs"]
#[allow(dead_code, reason = "what the pool's own tests need of it")]
pub mod postgres;

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use postgres::{Cluster, PASSWORD, USER};
use tempfile::TempDir;
use tokio_postgres::SimpleQueryMessage;

use crate::support::{dies_with_us, eventually, free_ports, turn};

const SERVERS: u64 = 3;

/// Scripts in `tests/drivers`.
const DRIVERS: &[&str] = &[
    "with_psycopg2.py",
    "with_psycopg.py",
    "with_psycopg_async.py",
    "with_asyncpg.py",
    "with_sqlalchemy.py",
    "with_django.py",
    "node/with_node_postgres.js",
];

#[test]
fn drivers_see_through_the_pool_what_they_see_without_it() {
    let _turn = turn();
    let cluster = Cluster::start();
    let pool = Pool::start(&cluster);
    let mut failed = Vec::new();
    for driver in DRIVERS {
        for (way, port) in [("direct", cluster.port), ("pooled", pool.port)] {
            let (began, before) = (Instant::now(), pool.assignments());
            let output = script(driver, port);
            println!("{driver} {way}: {:.1} s, {}", began.elapsed().as_secs_f32(), output.status);
            if !output.status.success() {
                failed.push(format!("{driver} {way}"));
                println!("{}", String::from_utf8_lossy(&output.stderr));
            } else if way == "pooled" {
                let lent = pool.assignments() - before;
                assert!(lent > 20 * SERVERS, "{driver}: its clients did not take turns: {lent} leases");
            }
        }
    }
    assert!(failed.is_empty(), "{failed:?}; what they say stands above; the pool's log:\n{}", pool.log());
}

fn script(driver: &str, port: u16) -> std::process::Output {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/");
    let program = if driver.ends_with(".js") { "node".to_owned() } else { format!("{root}.cache/drivers/bin/python") };
    Command::new("timeout")
        .args(["100", &program, &format!("{root}tests/drivers/{driver}")])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("NODE_PATH", format!("{root}.cache/drivers-node/node_modules"))
        .envs([("PGHOST", "127.0.0.1"), ("PGUSER", USER), ("PGPASSWORD", PASSWORD), ("PGDATABASE", "postgres")])
        .env("PGPORT", port.to_string())
        .stdin(Stdio::null())
        .output()
        .expect("`scripts/setup --test` installs the drivers")
}

/// `bookend run --pool` alone. Dropped: killed.
pub struct Pool {
    child: Child,
    folder: TempDir,
    pub port: u16,
}

impl Pool {
    pub fn start(cluster: &Cluster) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ports = free_ports(2);
        let file = format!(
            "pool: {{ listen_addr: 127.0.0.1, listen_port: {}, admin_users: [{USER}], pool_mode: transaction, \
             default_pool_size: {SERVERS}, query_wait_timeout: 30s }}\nadmin: {{ address: 127.0.0.1:{} }}\ndatabases:\n  \
             postgres: {{ host: 127.0.0.1, port: {} }}\nusers:\n  {USER}: {{ password: {PASSWORD} }}\n",
            ports[0], ports[1], cluster.port,
        );
        fs::write(folder.path().join("pool.yaml"), file).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_bookend"));
        command.args(["run", "--pool", "pool.yaml"]).current_dir(folder.path()).stdout(Stdio::null());
        command.stderr(fs::File::create(folder.path().join("log")).unwrap());
        let child = dies_with_us(&mut command).spawn().unwrap();
        let pool = Self { child, folder, port: ports[0] };
        eventually("the pool answers", Duration::from_secs(30), || pool.stats());
        pool
    }

    /// How often a server was lent so far.
    fn assignments(&self) -> u64 {
        self.stats().unwrap_or_else(|| panic!("no SHOW STATS; the log says {}", self.log()))
    }

    fn stats(&self) -> Option<u64> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let console = postgres::connect(self.port, "pgbouncer", "").await.ok()?;
            let rows = console.simple_query("SHOW STATS").await.ok()?;
            let counts = rows.iter().filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get("total_server_assignment_count")?.parse::<u64>().ok(),
                _ => None,
            });
            Some(counts.sum())
        })
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
