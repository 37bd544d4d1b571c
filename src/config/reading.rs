//! One file being read: where its errors gather, and what the outside world answers.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::config::error::{ConfigError, Position};

/// How long all host names of a configuration may take to resolve, together.
const RESOLVE_TIME: Duration = Duration::from_secs(5);

type Env = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;
type Resolve = Box<dyn Fn(&str, Duration) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// What a configuration depends on beside its files: environment variables and name resolution.
pub struct Surroundings {
    env: Env,
    resolve: Resolve,
}

impl Surroundings {
    /// Returns the process's own. Resolving blocks: load a configuration on a thread that may.
    pub fn system() -> Self {
        Self::new(|name| std::env::var(name).ok(), resolve_in_time)
    }

    /// Returns surroundings made up for a test: `env` looks a variable up, `resolve` turns a host name into addresses
    /// within a time.
    pub fn new(
        env: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
        resolve: impl Fn(&str, Duration) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self { env: Box::new(env), resolve: Box::new(resolve) }
    }
}

/// `getaddrinfo` knows no deadline: it gets a thread of its own, which is left behind when it takes too long.
fn resolve_in_time(host: &str, time: Duration) -> io::Result<Vec<IpAddr>> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let name = host.to_owned();
    thread::Builder::new().name("resolve".into()).spawn(move || {
        let found = (name.as_str(), 0).to_socket_addrs();
        // Nobody listens any more after the deadline.
        let _ = sender.send(found.map(|addresses| addresses.map(|address| address.ip()).collect()));
    })?;
    receiver.recv_timeout(time).unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")))
}

/// A place errors can point at.
#[derive(Debug, Clone)]
pub(super) struct Spot {
    pub at: Position,
    pub key: String,
}

/// One file being read.
pub(super) struct Reading<'a> {
    pub file: &'a Path,
    around: &'a Surroundings,
    started: Instant,
    errors: RefCell<Vec<ConfigError>>,
    /// Every key that some section asked for, as `upstreams.*.servers[].weight`: what the sample files must explain.
    known: RefCell<BTreeSet<String>>,
}

impl<'a> Reading<'a> {
    pub fn new(file: &'a Path, around: &'a Surroundings) -> Self {
        Self { file, around, started: Instant::now(), errors: RefCell::default(), known: RefCell::default() }
    }

    /// Adds an error at `spot`.
    pub fn error(&self, spot: &Spot, message: impl Into<String>, hint: Option<String>) {
        self.errors.borrow_mut().push(ConfigError {
            position: Some(spot.at),
            key: spot.key.clone(),
            hint,
            ..ConfigError::of_file(self.file, message)
        });
    }

    /// Adds errors that are complete already (of a syntax, or of another file that this one names).
    pub fn extend(&self, errors: impl IntoIterator<Item = ConfigError>) {
        self.errors.borrow_mut().extend(errors);
    }

    pub fn env(&self) -> &dyn Fn(&str) -> Option<String> {
        &self.around.env
    }

    /// Resolves a host name to all its addresses; at least one.
    pub fn resolve_all(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let time = RESOLVE_TIME.saturating_sub(self.started.elapsed());
        let found = (self.around.resolve)(host, time)?;
        if found.is_empty() { Err(io::Error::other("it has no address")) } else { Ok(found) }
    }

    /// Resolves a host name. IPv4 first, since that is what application servers bind by default.
    pub fn resolve(&self, host: &str, port: u16) -> io::Result<SocketAddr> {
        let time = RESOLVE_TIME.saturating_sub(self.started.elapsed());
        let found = (self.around.resolve)(host, time)?;
        let address = found.iter().find(|address| address.is_ipv4()).or(found.first());
        address.map(|ip| SocketAddr::new(*ip, port)).ok_or_else(|| io::Error::other("it has no address"))
    }

    pub fn knows(&self, pattern: String) {
        self.known.borrow_mut().insert(pattern);
    }

    /// Returns what is wrong, and every key that was asked for.
    pub fn finish(self) -> (Vec<ConfigError>, BTreeSet<String>) {
        (self.errors.into_inner(), self.known.into_inner())
    }

    /// Returns a path named in the file, which is relative to the file.
    pub fn beside(&self, path: &str) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(path)
    }
}
