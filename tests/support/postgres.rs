//! A real PostgreSQL of the test's own: made in a temporary directory, on a free port, gone when the last user drops it.
//!
//! PostgreSQL refuses to run as root, so under root it runs as `postgres` or `nobody`. A missing server fails the test.

use std::{
    fs,
    net::TcpListener,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, Weak},
    time::{Duration, Instant},
};

use tempfile::TempDir;

pub const USER: &str = "arena";
pub const PASSWORD: &str = "pencil";

/// Longest time a start or stop may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// One running cluster.
pub struct Cluster {
    /// The folder of its programs, if they are not the usual ones.
    programs: Option<PathBuf>,
    /// Further arguments of `postgres`.
    more: Vec<String>,
    dir: TempDir,
    pub port: u16,
    owner: Option<(u32, u32)>,
    server: Mutex<Option<Child>>,
}

/// Returns the cluster that the tests of this process share. It is stopped when the last of them is over.
pub fn shared() -> Arc<Cluster> {
    static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let cluster = Arc::new(Cluster::start());
        *shared = Arc::downgrade(&cluster);
        cluster
    })
}

/// As [`shared`], of PostgreSQL 18: its clients may speak protocol 3.2, and it reports `search_path`.
pub fn shared_18() -> Arc<Cluster> {
    static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let cluster = Arc::new(Cluster::start_of(Some(version_18()), |_, _| Vec::new()));
        *shared = Arc::downgrade(&cluster);
        cluster
    })
}

impl Cluster {
    /// Makes and starts a cluster.
    pub fn start() -> Self {
        Self::start_with(|_, _| Vec::new())
    }

    /// Makes and starts a cluster that has TLS, with this certificate and key (PEM).
    pub fn start_with_tls(certificate: &str, key: &str) -> Self {
        Self::start_with_files(&[("ssl_cert_file", "server.crt", certificate), ("ssl_key_file", "server.key", key)])
    }

    /// The same; and whoever connects is asked for a certificate of this authority, and may do without.
    pub fn start_with_tls_that_asks(certificate: &str, key: &str, authority: &str) -> Self {
        Self::start_with_files(&[
            ("ssl_cert_file", "server.crt", certificate),
            ("ssl_key_file", "server.key", key),
            ("ssl_ca_file", "authority.crt", authority),
        ])
    }

    /// Setting, name and text of each.
    fn start_with_files(files: &[(&str, &str, &str)]) -> Self {
        Self::start_with(|dir, owner| {
            let mut more = vec!["-c".to_owned(), "ssl=on".to_owned()];
            for (setting, name, text) in files {
                let path = dir.join(name);
                fs::write(&path, text).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
                if let Some((uid, gid)) = owner {
                    chown(&path, Some(uid), Some(gid)).unwrap();
                }
                more.extend(["-c".to_owned(), format!("{setting}={}", path.display())]);
            }
            more
        })
    }

    fn start_with(arguments: impl FnOnce(&Path, Option<(u32, u32)>) -> Vec<String>) -> Self {
        Self::start_of(None, arguments)
    }

    fn start_of(programs: Option<PathBuf>, arguments: impl FnOnce(&Path, Option<(u32, u32)>) -> Vec<String>) -> Self {
        let dir = tempfile::Builder::new().prefix("bookend-pg-").tempdir().unwrap();
        let owner = owner();
        let password = dir.path().join("password");
        fs::write(&password, PASSWORD).unwrap();
        if let Some((uid, gid)) = owner {
            chown(dir.path(), Some(uid), Some(gid)).unwrap();
            chown(&password, Some(uid), Some(gid)).unwrap();
        }
        let more = arguments(dir.path(), owner);
        let cluster = Self { programs, more, port: free_port(), owner, server: Mutex::new(None), dir };
        let made = cluster
            .command("initdb")
            .args(["--no-sync", "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--username", USER])
            .arg("--pwfile")
            .arg(&password)
            .arg(cluster.data())
            .output()
            .expect("initdb must be installed");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        cluster.up();
        cluster
    }

    /// Starts the server and waits until it answers.
    pub fn up(&self) {
        let child = self
            .command("postgres")
            .arg("-D")
            .arg(self.data())
            .args(["-p", &self.port.to_string(), "-k", &self.dir.path().to_string_lossy()])
            .args(["-c", "listen_addresses=127.0.0.1,127.0.0.2", "-c", "fsync=off", "-c", "max_connections=200"])
            .args(["-c", "log_min_messages=fatal"])
            .args(&self.more)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("postgres must be installed");
        *self.server.lock().unwrap() = Some(child);
        let begun = Instant::now();
        while !self.answers() {
            assert!(begun.elapsed() < PATIENCE, "PostgreSQL does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops the server as `pg_ctl stop -m fast` does: sessions are told 57P01.
    pub fn down(&self) {
        self.signal(libc::SIGINT);
    }

    /// Signals the server and waits for its end.
    fn signal(&self, signal: i32) {
        let Some(mut child) = self.server.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take() else {
            return;
        };
        if let Ok(pid) = i32::try_from(child.id()) {
            // SAFETY: plain system call; the pid is that of a child that has not been waited for.
            unsafe { libc::kill(pid, signal) };
        }
        let _ = child.wait();
    }

    /// A startup packet that is answered at all, and not with "starting up".
    fn answers(&self) -> bool {
        let ready = self.command("pg_isready").args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]).status();
        ready.is_ok_and(|status| status.success())
    }

    /// Returns the folder of its Unix socket.
    pub fn socket_folder(&self) -> String {
        self.dir.path().to_str().unwrap().to_owned()
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        let own = self.programs.as_ref().map(|folder| folder.join(program)).filter(|path| path.exists());
        let mut command = Command::new(own.unwrap_or_else(|| find(program)));
        command.current_dir(self.dir.path());
        if let Some((uid, gid)) = self.owner {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Connects past the pool.
    pub async fn direct(&self) -> tokio_postgres::Client {
        connect(self.port, "postgres", "").await.unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.signal(libc::SIGQUIT);
    }
}

/// Connects to `port` as the cluster's user; `more` is added to the connection string.
pub async fn connect(port: u16, dbname: &str, more: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    Ok(connect_with_socket(port, dbname, more).await?.0)
}

/// As [`connect`], with the task that has the socket: ending it closes that without a word.
pub async fn connect_with_socket(
    port: u16,
    dbname: &str,
    more: &str,
) -> Result<(tokio_postgres::Client, tokio::task::JoinHandle<()>), tokio_postgres::Error> {
    let config = format!("host=127.0.0.1 port={port} user={USER} password={PASSWORD} dbname={dbname} {more}");
    let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls).await?;
    let socket = tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok((client, socket))
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Whom the server runs as, when we are root.
fn owner() -> Option<(u32, u32)> {
    // SAFETY: plain system call.
    if unsafe { libc::geteuid() } != 0 {
        return None;
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let entry = |name: &str| {
        let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    Some(entry("postgres").or_else(|| entry("nobody")).expect("a user that is not root"))
}

/// The folder of PostgreSQL 18's programs: `PG18_BIN`, or what scripts/setup has put there.
fn version_18() -> PathBuf {
    let given = std::env::var_os("PG18_BIN").map(PathBuf::from);
    let folder = given.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/tools/postgresql-18/bin"));
    assert!(folder.join("postgres").exists(), "no PostgreSQL 18 in {}: run scripts/setup --test", folder.display());
    folder
}

/// Finds a program: in `PG_BIN`, in the newest version of Debian's, which keeps them out of the path, or in the path.
pub fn find(program: &str) -> PathBuf {
    if let Some(given) = std::env::var_os("PG_BIN").map(|folder| PathBuf::from(folder).join(program))
        && given.exists()
    {
        return given;
    }
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<_> = versions.map(|version| version.path().join("bin").join(program)).collect();
    found.retain(|path| path.exists());
    found.sort();
    found.pop().unwrap_or_else(|| Path::new(program).to_owned())
}
