//! `bookend run` as a child process with files of its own.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::upstream::Upstream;

const PATIENCE: Duration = Duration::from_secs(15);

/// Asks until there is an answer.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A running process; killed when dropped.
pub struct Process {
    child: Child,
    folder: TempDir,
    pub front: u16,
    admin: u16,
}

/// A file and its ports.
pub struct Config {
    text: String,
    front: u16,
    admin: u16,
}

impl Process {
    /// Returns an lb.yaml with one upstream; `more` is added at the top level, `servers` to its servers.
    pub fn config(front: u16, admin: u16, server: u16, more: &str, servers: &str) -> Config {
        let text = format!(
            "listeners:\n  - {{ address: 127.0.0.1:{front}, max_connections: 100 }}\nadmin:\n  address: 127.0.0.1:{admin}\n\
             {more}\nupstreams:\n  django:\n    servers:\n      - {{ name: web-1, address: 127.0.0.1:{server} }}\n{servers}\n    \
             health_check: {{ path: /, interval: 200ms }}\nroutes:\n  - {{ path_prefix: /, upstream: django }}\n"
        );
        Config { text, front, admin }
    }

    /// Starts the program and does not wait for it.
    pub fn spawn(config: &Config) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lb = folder.path().join("lb.yaml");
        fs::write(&lb, &config.text).unwrap();
        let [log, access_log] = ["log", "access.log"].map(|name| fs::File::create(folder.path().join(name)).unwrap());
        let mut command = Command::new(env!("CARGO_BIN_EXE_bookend"));
        command.arg("run").arg("--lb").arg(&lb).stdout(access_log).stderr(log).env_remove("BOOKEND_LOG");
        // SAFETY: prctl(2) is async-signal-safe. The child is gone with the thread that started it, even if the test dies.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        Self { child: command.spawn().unwrap(), folder, front: config.front, admin: config.admin }
    }

    /// Starts the program in front of `upstream` and waits until it is ready.
    pub fn start(upstream: &Upstream, more: &str, servers: &str) -> Self {
        let process = Self::spawn(&Self::config(free_port(), free_port(), upstream.port(), more, servers));
        process.ready();
        process
    }

    pub fn ready(&self) {
        eventually("ready", || self.try_admin("/ready").filter(|answer| answer.starts_with("HTTP/1.1 200 ")));
    }

    /// Returns the path of its lb.yaml.
    pub fn lb(&self) -> String {
        self.folder.path().join("lb.yaml").to_str().unwrap().to_owned()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    pub fn access_log(&self) -> String {
        fs::read_to_string(self.folder.path().join("access.log")).unwrap()
    }

    /// Returns a file of its directory in /proc.
    pub fn proc(&self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).unwrap()
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: kill(2) on the child this value owns and has not reaped.
        assert_eq!(unsafe { libc::kill(self.child.id().cast_signed(), signal) }, 0);
    }

    /// Returns whether it has a handler for `signal` (SigCgt of proc_pid_status(5)).
    pub fn catches(&self, signal: i32) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0");
        u64::from_str_radix(caught.trim(), 16).is_ok_and(|caught| caught & (1 << (signal - 1)) != 0)
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < patience, "still there after {patience:?}:\n{}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Returns a page of the admin listener with its header.
    pub fn admin(&self, path: &str) -> String {
        self.try_admin(path).unwrap_or_else(|| panic!("no answer for {path}:\n{}", self.log()))
    }

    fn try_admin(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.admin)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// Runs one of the commands that talk to a running process; returns its exit code and what it said.
    pub fn command(&self, arguments: &[&str]) -> (i32, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_bookend"))
            .args(arguments)
            .args(["--admin", &format!("http://127.0.0.1:{}", self.admin)])
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap_or(-1), said)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
