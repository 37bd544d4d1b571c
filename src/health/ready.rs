//! Readiness as latches: what is still missing before traffic may come.
//!
//! Each component takes a latch with its name at start and drops it when it can serve; what is held is what is missing.
//! Draining turns readiness off for good.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;

/// The process's readiness; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Ready {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    held: Mutex<BTreeMap<String, usize>>,
    leaving: AtomicBool,
}

/// Holds readiness back until dropped.
#[derive(Debug)]
#[must_use = "readiness is given as soon as this is dropped"]
pub struct Latch {
    name: String,
    inner: Arc<Inner>,
}

impl Ready {
    /// Holds readiness back in the name of a component, e.g. `first health checks of upstream django`.
    pub fn latch(&self, name: impl Into<String>) -> Latch {
        let name = name.into();
        *self.inner.held.lock().entry(name.clone()).or_default() += 1;
        Latch { name, inner: self.inner.clone() }
    }

    /// Returns what is missing, sorted; empty when ready.
    pub fn pending(&self) -> Vec<String> {
        let mut pending: Vec<String> = self.inner.held.lock().keys().cloned().collect();
        if self.inner.leaving.load(Ordering::Relaxed) {
            pending.push("shutting down".into());
        }
        pending
    }

    /// Returns whether traffic may come.
    pub fn is_ready(&self) -> bool {
        !self.inner.leaving.load(Ordering::Relaxed) && self.inner.held.lock().is_empty()
    }

    /// Turns readiness off for good: the process is leaving.
    pub fn leave(&self) {
        self.inner.leaving.store(true, Ordering::Relaxed);
    }
}

impl Drop for Latch {
    fn drop(&mut self) {
        let mut held = self.inner.held.lock();
        if let Some(count) = held.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_ready_only_when_every_latch_is_dropped() {
        let ready = Ready::default();
        let first = ready.latch("pool");
        let second = ready.latch("front");
        drop(first);
        assert_eq!(ready.pending(), ["front"]);
        assert!(!ready.is_ready());
        drop(second);
        assert!(ready.is_ready());
    }

    #[test]
    fn leaving_is_for_good() {
        let ready = Ready::default();
        ready.leave();
        assert!(!ready.is_ready());
        assert_eq!(ready.pending(), ["shutting down"]);
    }
}
