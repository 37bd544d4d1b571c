//! One file being read: where its errors gather, and what the outside world answers.

use std::{
    cell::{Cell, RefCell},
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

/// Bits of a line's number; those above are the number of the file, for an ini that includes others.
const LINE_BITS: u32 = usize::BITS / 2;
const LINE_MASK: usize = (1 << LINE_BITS) - 1;

/// One file being read.
pub(super) struct Reading<'a> {
    pub file: &'a Path,
    around: &'a Surroundings,
    started: Instant,
    errors: RefCell<Vec<ConfigError>>,
    /// Every key that some section asked for, as `upstreams.*.servers[].weight`: what the sample files must explain.
    known: RefCell<BTreeSet<String>>,
    is_ini: Cell<bool>,
    /// What the file includes.
    included: RefCell<Vec<PathBuf>>,
    notes: RefCell<Vec<String>>,
    without_effect: RefCell<Vec<(&'static str, &'static str)>>,
}

impl<'a> Reading<'a> {
    pub fn new(file: &'a Path, around: &'a Surroundings) -> Self {
        Self {
            file,
            around,
            started: Instant::now(),
            errors: RefCell::default(),
            known: RefCell::default(),
            is_ini: Cell::default(),
            included: RefCell::default(),
            notes: RefCell::default(),
            without_effect: RefCell::default(),
        }
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

    /// The file is PgBouncer's: what PgBouncer does not mind is no error.
    pub fn becomes_ini(&self) {
        self.is_ini.set(true);
    }

    /// Returns whether the file is PgBouncer's.
    pub fn is_ini(&self) -> bool {
        self.is_ini.get()
    }

    /// Adds a file that the first one includes, and returns its number; the first one has 0.
    pub fn includes(&self, path: &Path) -> usize {
        let mut included = self.included.borrow_mut();
        included.push(path.to_owned());
        included.len()
    }

    /// Returns a place of file `number`, to be told apart from one of the first file.
    pub fn position(&self, number: usize, at: Position) -> Position {
        Position { line: number << LINE_BITS | at.line & LINE_MASK, ..at }
    }

    /// Adds what the operator should know, though it is no error.
    pub fn note(&self, note: &str) {
        self.notes.borrow_mut().push(note.to_owned());
    }

    /// Adds a key that is taken and has no effect, and why.
    pub fn takes_without_effect(&self, key: &'static str, why: &'static str) {
        self.without_effect.borrow_mut().push((key, why));
    }

    /// Returns the keys that have no effect, with the reasons.
    pub fn without_effect(&self) -> Vec<(&'static str, &'static str)> {
        self.without_effect.borrow().clone()
    }

    /// Returns what the operator should know.
    pub fn notes(&self) -> Vec<String> {
        self.notes.borrow().clone()
    }

    /// Returns what is wrong, and every key that was asked for.
    pub fn finish(self) -> (Vec<ConfigError>, BTreeSet<String>) {
        let mut errors = self.errors.into_inner();
        let included = self.included.into_inner();
        for error in errors.iter_mut().filter(|error| error.file == self.file) {
            if let Some(at) = &mut error.position
                && at.line > LINE_MASK
            {
                error.file = included.get((at.line >> LINE_BITS) - 1).cloned().unwrap_or_default();
                at.line &= LINE_MASK;
            }
            // In an ini the settings have a section, not a key above them.
            if self.is_ini.get()
                && let Some(key) = error.key.strip_prefix("pool.")
            {
                error.key = key.to_owned();
            }
        }
        (errors, self.known.into_inner())
    }

    /// Returns a path named in the file, which is relative to the file.
    pub fn beside(&self, path: &str) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(path)
    }
}
