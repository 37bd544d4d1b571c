//! A whole deployment in one value: [`Stack`] is PostgreSQL and Django, [`Bookend`] the binary under test.

pub mod bookend;
pub mod load;
pub mod python;
pub mod stack;

use std::{
    net::TcpListener,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

pub use bookend::{Bookend, dies_with_us};
pub use stack::Stack;

/// PostgreSQL, three Django replicas behind the pool, and bookend on both sides of them.
pub struct Deployment {
    pub stack: Stack,
    pub bookend: Bookend,
}

impl Deployment {
    /// Starts one of its own, for a test that breaks things. Waits until it is ready.
    pub fn start() -> Self {
        Self::with(&bookend::Settings::default())
    }

    /// Starts one with other settings.
    pub fn with(settings: &bookend::Settings) -> Self {
        Self::with_replicas(settings, &serde_json::json!({}))
    }

    /// Starts one whose replicas have more in their environment.
    pub fn with_replicas(settings: &bookend::Settings, environment: &serde_json::Value) -> Self {
        let mut stack = Stack::start();
        let replica_ports = free_ports(3);
        let bookend = Bookend::start(&stack.postgres, &replica_ports, settings);
        stack.start_replicas(bookend.pool_port, &replica_ports, environment);
        bookend.wait_ready();
        let deployment = Self { stack, bookend };
        deployment.wait_for_replicas();
        deployment
    }

    /// Waits until every replica has been asked and has answered: the front is ready after its first round of checks,
    /// whatever they said, and the replicas were started after it.
    fn wait_for_replicas(&self) {
        let mut seen = std::collections::BTreeSet::new();
        eventually("all three replicas serve", Duration::from_secs(30), || {
            let answer = load::get(&self.bookend.url("/api/items/1/"))?;
            seen.extend(answer.header("x-replica").map(str::to_owned));
            (seen.len() == 3).then_some(())
        });
    }
}

/// The deployment shared by tests that only look; it must be left as it was found.
pub struct Shared {
    deployment: MutexGuard<'static, Deployment>,
    _turn: MutexGuard<'static, ()>,
}

impl std::ops::Deref for Shared {
    type Target = Deployment;

    fn deref(&self) -> &Deployment {
        &self.deployment
    }
}

/// Returns the shared deployment, started on first use, for one test at a time.
pub fn shared() -> Shared {
    static SHARED: OnceLock<Mutex<Deployment>> = OnceLock::new();
    let turn = turn();
    let deployment = SHARED.get_or_init(|| {
        // Children die with the thread that started them (PR_SET_PDEATHSIG), so this one stays to the end of the process.
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let _ = sender.send(Deployment::start());
            loop {
                std::thread::park();
            }
        });
        Mutex::new(receiver.recv().expect("the shared deployment starts"))
    });
    Shared { deployment: deployment.lock().unwrap_or_else(PoisonError::into_inner), _turn: turn }
}

/// Serialises tests that load the machine: two cores measure one thing at a time.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns ports that were free a moment ago.
pub fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

/// Asks until `check` gives a value; panics with `what` at the deadline.
pub fn eventually<T>(what: &str, patience: Duration, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
