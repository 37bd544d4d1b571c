//! PostgreSQL and Django replicas, run by `deploy/stack/stack.py` and driven over its JSON lines.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};

use super::python::python;

/// A running stack. Dropped: everything it started ends.
pub struct Stack {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    pub postgres: Postgres,
}

/// How to reach the stack's PostgreSQL directly.
#[derive(Clone)]
pub struct Postgres {
    pub port: u16,
    pub user: String,
    pub password: String,
    pub database: String,
}

impl Postgres {
    /// Returns a connection string for tokio-postgres and psycopg.
    pub fn dsn(&self, port: u16) -> String {
        format!("host=127.0.0.1 port={port} user={} password={} dbname={}", self.user, self.password, self.database)
    }
}

impl Stack {
    /// Starts PostgreSQL with the sample project's data; replicas come with [`Stack::start_replicas`].
    pub fn start() -> Self {
        let mut child = Command::new(python())
            .args(["deploy/stack/stack.py", "--no-replicas"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("stack.py starts; `scripts/setup` installs what it needs");
        let stdin = child.stdin.take();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let ready = read_line(&mut stdout);
        let postgres = &ready["postgres"];
        let text = |key: &str| postgres[key].as_str().unwrap_or_else(|| panic!("{key} in {ready}")).to_owned();
        let postgres = Postgres {
            port: u16::try_from(postgres["port"].as_u64().unwrap()).unwrap(),
            user: text("user"),
            password: text("password"),
            database: text("database"),
        };
        Self { child, stdin, stdout, postgres }
    }

    /// Starts three replicas (`web-1` …) whose databases are behind the pool.
    pub fn start_replicas(&mut self, pool_port: u16, ports: &[u16], environment: &Value) {
        self.command(json!({
            "cmd": "start_replicas", "count": ports.len(), "ports": ports,
            "db_host": "127.0.0.1", "db_port": pool_port, "env": environment,
        }));
    }

    /// Sends one command and returns its answer; an answer that is not ok fails the test.
    pub fn command(&mut self, command: Value) -> Value {
        let stdin = self.stdin.as_mut().unwrap();
        writeln!(stdin, "{command}").unwrap();
        stdin.flush().unwrap();
        let answer = read_line(&mut self.stdout);
        assert!(answer.get("error").is_none(), "{command} answered {answer}");
        answer
    }

    /// Kills a replica the hard way.
    pub fn kill(&mut self, replica: &str) {
        self.command(json!({"cmd": "kill", "replica": replica, "signal": "KILL"}));
    }

    /// Starts a replica again and waits until it answers.
    pub fn revive(&mut self, replica: &str) {
        self.command(json!({"cmd": "start", "replica": replica}));
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

fn read_line(stdout: &mut BufReader<ChildStdout>) -> Value {
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("stack.py said {line:?}: {error}"))
}
