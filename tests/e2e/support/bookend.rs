//! The binary under test, with files written for free ports.

use std::{
    fmt::Write as _,
    fs::{self, File},
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus},
    time::Duration,
};

use tempfile::TempDir;

use super::{eventually, free_ports, stack::Postgres};

/// What a test may want otherwise.
pub struct Settings {
    /// Lines added at the top level of lb.yaml.
    pub lb: &'static str,
    /// Lines added below `pool:` (indented by two spaces).
    pub pool: &'static str,
    pub grace_period: &'static str,
}

impl Default for Settings {
    fn default() -> Self {
        Self { lb: "", pool: "", grace_period: "10s" }
    }
}

/// A running `bookend run`. Dropped: killed.
pub struct Bookend {
    child: Child,
    directory: TempDir,
    pub front_port: u16,
    pub admin_port: u16,
    pub pool_port: u16,
}

impl Bookend {
    /// Writes both files and starts the binary; does not wait for readiness.
    pub fn start(postgres: &Postgres, replica_ports: &[u16], settings: &Settings) -> Self {
        let ports = free_ports(3);
        let (front_port, admin_port, pool_port) = (ports[0], ports[1], ports[2]);
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("lb.yaml"), lb_yaml(front_port, admin_port, replica_ports, settings)).unwrap();
        fs::write(directory.path().join("pool.yaml"), pool_yaml(pool_port, postgres, settings)).unwrap();
        let log = |name: &str| File::create(directory.path().join(name)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_bookend"));
        command
            .args(["run", "--lb", "lb.yaml", "--pool", "pool.yaml"])
            .current_dir(directory.path())
            .env("DB_PASSWORD", &postgres.password)
            .stdout(log("access.log"))
            .stderr(log("bookend.log"));
        let child = dies_with_us(&mut command).spawn().unwrap();
        Self { child, directory, front_port, admin_port, pool_port }
    }

    /// Returns a URL on the front.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.front_port)
    }

    /// Returns a URL on the admin listener.
    pub fn admin(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.admin_port)
    }

    /// Waits for `/ready`; shows the program's log when it does not come.
    pub fn wait_ready(&self) {
        let url = self.admin("/ready");
        for _ in 0..600 {
            if super::load::get(&url).is_some_and(|answer| answer.status == 200) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("not ready; /ready says {:?}; log:\n{}", super::load::get(&url), self.log());
    }

    /// Returns the program's own log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("bookend.log")).unwrap_or_default()
    }

    /// Returns the access log so far.
    pub fn access_log(&self) -> String {
        fs::read_to_string(self.directory.path().join("access.log")).unwrap_or_default()
    }

    /// Returns one of its configuration files.
    pub fn file(&self, name: &str) -> String {
        fs::read_to_string(self.directory.path().join(name)).unwrap()
    }

    /// Replaces a configuration file (a reload is asked for separately).
    pub fn write_file(&self, name: &str, text: &str) {
        fs::write(self.directory.path().join(name), text).unwrap();
    }

    /// Sends a signal, e.g. `libc::SIGHUP`.
    pub fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).unwrap();
        // SAFETY: kill(2) on the child this value owns and has not reaped.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    /// Waits for the process to end by itself.
    pub fn wait_exit(&mut self, patience: Duration) -> ExitStatus {
        eventually("bookend exits", patience, || self.child.try_wait().unwrap())
    }

    /// Returns resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Bookend {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Has the kernel kill the child when the thread that starts it ends, so that a killed test leaves nothing behind.
pub fn dies_with_us(command: &mut Command) -> &mut Command {
    // SAFETY: prctl is async-signal-safe and touches nothing but the child.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        })
    }
}

fn lb_yaml(front: u16, admin: u16, replicas: &[u16], settings: &Settings) -> String {
    let mut servers = String::new();
    for (index, port) in replicas.iter().enumerate() {
        writeln!(servers, "      - {{ name: web-{}, address: 127.0.0.1:{port} }}", index + 1).unwrap();
    }
    format!(
        "listeners: [{{ address: 127.0.0.1:{front} }}]
admin: {{ address: 127.0.0.1:{admin} }}
trusted_proxies: [127.0.0.1/32]
shutdown: {{ grace_period: {grace} }}
{extra}
upstreams:
  django:
    balance: round_robin
    servers:
{servers}
    health_check: {{ path: /health/, host: localhost, interval: 500ms, timeout: 1s, rise: 1, fall: 2, database: arena_db }}
  django_websocket: {{ balance: ip_hash, servers_of: django }}
routes:
  - {{ path_prefix: /ws/, upstream: django_websocket }}
  - {{ path: /db/connections/, builtin: db_connections, allow: [127.0.0.0/8] }}
  - {{ path_prefix: /nodb/, upstream: django, needs_database: false }}
  - {{ path_prefix: /upload/, upstream: django, client_max_body_size: 250MiB }}
  - {{ path_prefix: /, upstream: django }}
",
        grace = settings.grace_period,
        extra = settings.lb,
    )
}

fn pool_yaml(port: u16, postgres: &Postgres, settings: &Settings) -> String {
    format!(
        "pool:
  listen_addr: 127.0.0.1
  listen_port: {port}
  auth_type: scram-sha-256
  admin_users: [{user}]
  pool_mode: transaction
  max_client_conn: 2000
  default_pool_size: 25
  reserve_pool_size: 10
  query_wait_timeout: 30s
  probe: {{ interval: 500ms }}
{extra}
databases:
  {database}: {{ host: 127.0.0.1, port: {server} }}
users:
  {user}: {{ password: \"${{DB_PASSWORD}}\" }}
",
        user = postgres.user,
        database = postgres.database,
        server = postgres.port,
        extra = settings.pool,
    )
}
