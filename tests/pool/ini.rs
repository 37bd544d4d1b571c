//! The real binary on a pgbouncer.ini, in front of a real PostgreSQL.

use std::{
    fs,
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
};

use tempfile::TempDir;

use crate::support::*;

/// `bookend run --pool pgbouncer.ini`; killed when dropped.
pub struct Process {
    child: Child,
    dir: TempDir,
    pub port: u16,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    /// Starts with an ini that is made of the files' directory and the port to listen on.
    pub fn start(arguments: &[&str], ini: impl FnOnce(&Path, u16) -> String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        fs::write(dir.path().join("userlist.txt"), format!("\"{USER}\" \"{PASSWORD}\"\n")).unwrap();
        fs::write(dir.path().join("pgbouncer.ini"), ini(dir.path(), port)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_bookend"));
        command.arg("run").args(arguments).arg("--pool").arg(dir.path().join("pgbouncer.ini"));
        command.stderr(fs::File::create(dir.path().join("stderr")).unwrap()).env_remove("BOOKEND_LOG");
        // SAFETY: prctl(2) is async-signal-safe. The child is gone with the thread that started it, even if the test dies.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        Self { child: command.spawn().unwrap(), dir, port }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap_or_default()
    }

    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: kill(2) on the child this value owns and has not reaped.
        assert_eq!(unsafe { libc::kill(self.pid(), signal) }, 0);
    }

    async fn ends(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the process ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap()
    }

    /// Connects, once the process listens.
    pub async fn connect(&self, database: &str) -> tokio_postgres::Client {
        let begun = tokio::time::Instant::now();
        loop {
            match postgres::connect(self.port, database, "").await {
                Ok(client) => return client,
                Err(error) => {
                    assert!(begun.elapsed() < 20 * SECOND, "{error:?}: {}", self.text("stderr"));
                    tokio::time::sleep(SECOND / 50).await;
                }
            }
        }
    }
}

/// One database `shop`, which is the cluster's; `more` goes into `[pgbouncer]`.
pub fn ini(cluster: &Cluster, dir: &Path, port: u16, more: &str) -> String {
    let (dir, server) = (dir.display(), cluster.port);
    format!(
        "[databases]\nshop = host=127.0.0.1 port={server} dbname=postgres\n\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
         listen_port = {port}\nunix_socket_dir =\nauth_file = {dir}/userlist.txt\nadmin_users = {USER}, nobody_else\n{more}\n\
         [bookend]\nadmin = false\n"
    )
}

async fn setting(console: &tokio_postgres::Client, name: &str) -> String {
    let rows = rows(console, "SHOW CONFIG").await;
    let row = rows.iter().find(|row| row.get("key") == Some(name));
    row.unwrap_or_else(|| panic!("{name} is not in SHOW CONFIG")).get("value").unwrap_or_default().to_owned()
}

#[tokio::test]
async fn an_ini_runs_as_it_is_and_is_read_again() {
    let cluster = postgres::shared();
    let process = Process::start(&[], |dir, port| {
        ini(&cluster, dir, port, &format!("logfile = {0}/log\npidfile = {0}/pid\npkt_buf = 8192", dir.display()))
    });
    let client = process.connect("shop").await;
    assert_eq!(ask(&client, "SELECT 41 + 1").await.unwrap(), "42");
    client.batch_execute("CREATE TEMPORARY TABLE mine (a int)").await.unwrap();
    assert_eq!(ask(&client, "SELECT count(*) FROM mine").await.unwrap(), "0", "pool_mode is session");
    assert_eq!(process.text("pid"), format!("{}\n", process.child.id()));
    let console = process.connect("pgbouncer").await;
    assert_eq!(setting(&console, "max_client_conn").await, "100");
    let log = process.text("log");
    assert!(log.contains("have no effect here: pkt_buf\"") && log.contains("nobody_else"), "{log}");

    // A mistake is answered and changes nothing.
    let good = process.text("pgbouncer.ini");
    fs::write(process.file("pgbouncer.ini"), good.replace("pkt_buf", "max_client_conn = 7\nmax_client_con")).unwrap();
    let error = console.simple_query("RELOAD").await.unwrap_err();
    assert!(told(&error).1.contains("pgbouncer.ini:13:1: max_client_con: unknown key"), "{error:?}");
    assert_eq!(setting(&console, "max_client_conn").await, "100");

    // A new log file after the old one was rotated away.
    fs::rename(process.file("log"), process.file("log.1")).unwrap();
    let more = format!("{}\n[databases]\nsecond = host=127.0.0.1 port={} dbname=postgres\n", good, cluster.port);
    fs::write(process.file("pgbouncer.ini"), more.replace("pkt_buf", "max_client_conn = 50\npkt_buf")).unwrap();
    console.simple_query("RELOAD").await.unwrap();
    assert_eq!(setting(&console, "max_client_conn").await, "50");
    assert_eq!(ask(&process.connect("second").await, "SELECT 1").await.unwrap(), "1");
    eventually("the log is begun anew", || process.text("log").contains("configuration reloaded")).await;

    // By signal, too.
    fs::write(process.file("pgbouncer.ini"), &good).unwrap();
    process.signal(libc::SIGHUP);
    eventually("it is read again", || process.text("log").matches("configuration reloaded").count() > 1).await;
    assert_eq!(setting(&console, "max_client_conn").await, "100");
}

#[tokio::test]
async fn a_quiet_process_logs_to_its_file_alone_and_takes_its_pidfile_with_it() {
    let cluster = postgres::shared();
    let mut process = Process::start(&["-q", "-v"], |dir, port| {
        ini(&cluster, dir, port, &format!("logfile = {0}/log\npidfile = {0}/pid", dir.display()))
    });
    drop(process.connect("shop").await);
    assert!(postgres::connect(process.port, "nowhere", "").await.is_err());
    eventually("what clients are told is logged", || process.text("log").contains("login refused")).await;
    assert_eq!(process.text("stderr"), "");
    process.signal(libc::SIGTERM);
    assert!(process.ends().await.success());
    assert!(!process.file("pid").exists());
}

#[tokio::test]
async fn a_setting_of_the_console_holds_until_the_next_reload() {
    let cluster = postgres::shared();
    let process = Process::start(&[], |dir, port| ini(&cluster, dir, port, "pool_mode = transaction"));
    let console = process.connect("pgbouncer").await;
    let (first, second) = (process.connect("shop").await, process.connect("shop").await);
    console.simple_query("SET default_pool_size = 1").await.unwrap();
    console.simple_query("SET query_wait_timeout TO '0.2'").await.unwrap();
    assert_eq!(setting(&console, "default_pool_size").await, "1");
    assert_eq!(setting(&console, "query_wait_timeout").await, "0.2");
    first.batch_execute("BEGIN").await.unwrap();
    let error = ask(&second, "SELECT 1").await.unwrap_err();
    assert!(told(&error).1.starts_with("query_wait_timeout"), "{error:?}");

    // A mistake is answered and changes nothing; what has been written into the file meanwhile waits for a reload.
    fs::write(process.file("pgbouncer.ini"), ini(&cluster, process.dir.path(), process.port, "reserve_pool_size = 7"))
        .unwrap();
    let refusals = [
        ("SET max_client_conn = many", "max_client_conn: must be"),
        ("SET nonsense = 1", "nonsense: unknown key"),
        ("SET listen_port = 1", "listen_port cannot be changed while the process runs"),
        ("SET auth_type = nonsense", "auth_type: "),
    ];
    for (text, reason) in refusals {
        let error = console.simple_query(text).await.unwrap_err();
        assert!(told(&error).1.starts_with(reason), "{error:?}");
    }
    console.simple_query("SET max_client_conn = 50").await.unwrap();
    assert_eq!(setting(&console, "default_pool_size").await, "1", "the ones before stay");
    assert_eq!(setting(&console, "reserve_pool_size").await, "0");
    console.simple_query("RELOAD").await.unwrap();
    assert_eq!(setting(&console, "default_pool_size").await, "20");
    assert_eq!(setting(&console, "max_client_conn").await, "100");
    assert_eq!(setting(&console, "reserve_pool_size").await, "7");
}

#[tokio::test]
async fn a_pool_alone_goes_by_pgbouncers_signals() {
    let cluster = postgres::shared();
    let start = || Process::start(&[], |dir, port| ini(&cluster, dir, port, "pool_mode = transaction"));

    // SIGTERM waits for clients.
    let mut process = start();
    let (console, client) = (process.connect("pgbouncer").await, process.connect("shop").await);
    process.signal(libc::SIGTERM);
    eventually("it waits", || process.text("stderr").contains("waits for its clients to go")).await;
    for _ in 0..3 {
        assert_eq!(ask(&client, "SELECT 1").await.unwrap(), "1");
    }
    assert!(!console.is_closed());
    drop(client);
    assert!(process.ends().await.success());

    // SIGINT waits for transactions.
    let mut process = start();
    let (idle, busy) = (process.connect("shop").await, process.connect("shop").await);
    busy.batch_execute("BEGIN").await.unwrap();
    process.signal(libc::SIGINT);
    eventually("the idle one is gone", || idle.is_closed()).await;
    assert_eq!(ask(&busy, "SELECT 1").await.unwrap(), "1");
    busy.batch_execute("COMMIT").await.unwrap();
    assert!(process.ends().await.success());

    // SIGQUIT waits for nothing.
    let mut process = start();
    let busy = process.connect("shop").await;
    busy.batch_execute("BEGIN").await.unwrap();
    process.signal(libc::SIGQUIT);
    assert!(process.ends().await.success());
    eventually("the client is cut", || busy.is_closed()).await;
}

#[tokio::test]
async fn the_grace_period_is_the_longest_that_clients_are_waited_for() {
    let cluster = postgres::shared();
    let mut process = Process::start(&[], |dir, port| {
        ini(&cluster, dir, port, "pool_mode = transaction") + "shutdown.grace_period = 2\n"
    });
    let (idle, busy) = (process.connect("shop").await, process.connect("shop").await);
    busy.batch_execute("BEGIN").await.unwrap();
    let begun = tokio::time::Instant::now();
    process.signal(libc::SIGTERM);
    assert!(process.ends().await.success());
    assert!((2 * SECOND..8 * SECOND).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    eventually("nobody stays", || idle.is_closed() && busy.is_closed()).await;
}
