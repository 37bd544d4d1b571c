//! How the rest of the pool reaches into a running relay: end this client, let go of the server when you can.

use std::{
    sync::atomic::{AtomicBool, AtomicU8, Ordering},
    task::Waker,
};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::pool::{error::PoolError, pins::Pins};

/// Why a client is ended. Chooses what it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kill {
    /// `KILL` on the console.
    Admin = 1,
    Shutdown,
    DatabaseRemoved,
}

impl Kill {
    fn error(self) -> PoolError {
        match self {
            Self::Admin => PoolError::Killed,
            Self::Shutdown => PoolError::Shutdown,
            Self::DatabaseRemoved => PoolError::DatabaseRemoved,
        }
    }
}

/// One client's switchboard. Shared by `Arc`; every method may be called from any thread.
#[derive(Debug, Default)]
pub struct Control {
    kill: AtomicU8,
    draining: AtomicBool,
    /// A query of our own is under way, ahead of the client's.
    replaying: AtomicBool,
    /// [`Pins`]: why the client keeps its server.
    pins: AtomicU8,
    pinned_since: Mutex<Option<Instant>>,
    waker: AtomicWaker,
}

impl Control {
    /// Ends the client now, whatever it is doing. The first reason counts.
    pub fn kill(&self, why: Kill) {
        let _ = self.kill.compare_exchange(0, why as u8, Ordering::AcqRel, Ordering::Acquire);
        self.waker.wake();
    }

    /// Asks for the client's server at the next transaction boundary; in session mode too.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Returns whether a cancel would hit the client's own query. While its settings are replayed, or the server is asked
    /// what remains, it would hit that instead, and must be dropped: the client's query has not begun, or is over.
    pub fn is_cancellable(&self) -> bool {
        !self.replaying.load(Ordering::Acquire)
    }

    /// Returns what to end the client with.
    pub fn killed(&self) -> Option<PoolError> {
        let why = match self.kill.load(Ordering::Acquire) {
            0 => return None,
            1 => Kill::Admin,
            2 => Kill::Shutdown,
            _ => Kill::DatabaseRemoved,
        };
        Some(why.error())
    }

    /// Returns whether the server is asked for.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Returns why the client keeps its server between transactions; nothing while it does not.
    pub fn pins(&self) -> Pins {
        Pins::from_bits(self.pins.load(Ordering::Relaxed))
    }

    /// Makes the relay look again.
    pub fn wake(&self) {
        self.waker.wake();
    }

    /// Returns since when the client has kept its server.
    pub fn pinned_since(&self) -> Option<Instant> {
        *self.pinned_since.lock()
    }

    /// Nearly always there were none and are none: that takes no lock.
    pub(super) fn set_pins(&self, pins: Pins) {
        let before = self.pins();
        if before == pins {
            return;
        }
        self.pins.store(pins.bits(), Ordering::Relaxed);
        if before.is_empty() != pins.is_empty() {
            *self.pinned_since.lock() = (!pins.is_empty()).then(Instant::now);
        }
    }

    pub(super) fn set_replaying(&self, replaying: bool) {
        self.replaying.store(replaying, Ordering::Release);
    }

    pub(super) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }
}
