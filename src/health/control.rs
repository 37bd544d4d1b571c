//! What an operator may ask of the running process, as a seam: `admin` asks, `app` does.

use std::sync::Arc;

/// What a reload changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReloadSummary {
    /// What is different now, one line each, e.g. `upstream django: server web-4 added`.
    pub changed: Vec<String>,
    /// Keys whose new value takes a restart; the running value stays. E.g. `lb.yaml listeners`.
    pub needs_restart: Vec<String>,
}

impl ReloadSummary {
    /// Adds what another part changed.
    pub fn merge(&mut self, other: Self) {
        self.changed.extend(other.changed);
        self.needs_restart.extend(other.needs_restart);
    }
}

/// Why a server could not be drained or taken back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DrainError {
    #[error("no server is named {name}; servers: {}", known.join(", "))]
    Unknown { name: String, known: Vec<String> },
    #[error("{name} is ambiguous; say one of: {}", candidates.join(", "))]
    Ambiguous { name: String, candidates: Vec<String> },
    #[error("no front runs here, so there are no servers to drain")]
    NoFront,
}

/// The process, as far as an operator may steer it. Calls may read files and block: make them from a blocking thread.
pub trait Control: Send + Sync {
    /// Reads both files again and applies them, or changes nothing.
    ///
    /// # Errors
    /// Every error of the configuration, each with its place.
    fn reload(&self) -> Result<ReloadSummary, Vec<String>>;

    /// Gives the server of this name (`web-1` or `django/web-1`) no new requests; those it has finish. Returns how many
    /// it still has.
    ///
    /// # Errors
    /// When no server has the name, or more than one.
    fn drain(&self, name: &str) -> Result<usize, DrainError>;

    /// Takes a drained server back.
    ///
    /// # Errors
    /// When no server has the name, or more than one.
    fn undrain(&self, name: &str) -> Result<(), DrainError>;

    /// Stops lending servers of any database (`true`), as PAUSE in the console does, or lends them again. Returns false when
    /// no pool runs here.
    fn pause(&self, paused: bool) -> bool;
}

impl<C: Control + ?Sized> Control for Arc<C> {
    fn reload(&self) -> Result<ReloadSummary, Vec<String>> {
        (**self).reload()
    }

    fn drain(&self, name: &str) -> Result<usize, DrainError> {
        (**self).drain(name)
    }

    fn undrain(&self, name: &str) -> Result<(), DrainError> {
        (**self).undrain(name)
    }

    fn pause(&self, paused: bool) -> bool {
        (**self).pause(paused)
    }
}
