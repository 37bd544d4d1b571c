//! `bookend run --pool` as a process of its own, in front of the shared cluster.

use std::{
    fs,
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, ExitStatus},
    time::Duration,
};

use tempfile::TempDir;

use crate::support::*;

/// A running process; killed when dropped.
pub struct Process {
    child: Child,
    folder: TempDir,
    pub port: u16,
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Returns a pool.yaml; `settings` stand below `pool:`, a line each, and what follows a line `---` as it is.
fn yaml(cluster: &Cluster, port: u16, settings: &str) -> String {
    let (settings, more) = settings.split_once("---\n").unwrap_or((settings, ""));
    let settings: String = settings.lines().map(|line| format!("  {}\n", line.trim())).collect();
    format!(
        "pool:\n  listen_port: {port}\n  admin_users: [{USER}]\n{settings}\
         databases:\n  {DATABASE}: {{ host: 127.0.0.1, port: {server}, dbname: postgres }}\n\
         users:\n  {USER}: {{ password: {PASSWORD} }}\n\
         admin: false\nshutdown: {{ grace_period: 20s }}\n{more}",
        server = cluster.port,
    )
}

impl Process {
    /// Starts a pool and does not wait for it. `FOLDER` in the settings is the process's own folder.
    pub fn spawn(cluster: &Cluster, port: u16, settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings.replace("FOLDER", folder.path().to_str().unwrap());
        fs::write(folder.path().join("pool.yaml"), yaml(cluster, port, &settings)).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_bookend"));
        command.args(["run", "--pool", "pool.yaml"]).current_dir(folder.path()).stderr(log).env_remove("BOOKEND_LOG");
        // SAFETY: prctl(2) is async-signal-safe. The child is gone with the thread that started it, even if the test dies.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        Self { child: command.spawn().unwrap(), folder, port }
    }

    /// Starts a pool and waits until its log says that it serves.
    pub async fn start(cluster: &Cluster, port: u16, settings: &str) -> Self {
        let process = Self::spawn(cluster, port, settings);
        eventually("it has begun", || process.log().contains("database changed")).await;
        process
    }

    /// Writes another configuration in place of its own and has it read.
    pub fn reload(&self, cluster: &Cluster, settings: &str) {
        let settings = settings.replace("FOLDER", self.folder.path().to_str().unwrap());
        fs::write(self.folder.path().join("pool.yaml"), yaml(cluster, self.port, &settings)).unwrap();
        self.signal(libc::SIGHUP);
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns the file of its Unix socket, if it has one in its folder.
    pub fn socket(&self) -> PathBuf {
        self.path(&format!(".s.PGSQL.{}", self.port))
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: kill(2) on the child this value owns and has not reaped.
        assert_eq!(unsafe { libc::kill(self.pid(), signal) }, 0);
    }

    /// Waits for the process to end by itself.
    pub async fn end(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("it ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap()
    }

    /// Connects over TCP.
    pub async fn client(&self) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        postgres::connect(self.port, DATABASE, "connect_timeout=5").await
    }

    /// Connects to the Unix socket in a folder, or of an abstract name.
    pub async fn unix_client(
        &self,
        folder: &str,
        database: &str,
        user: &str,
    ) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(folder.replace('@', "\0")).port(self.port).dbname(database).user(user).password(PASSWORD);
        let (client, connection) =
            config.connect_timeout(Duration::from_secs(5)).connect(tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    pub fn folder(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
