//! Signals, caught from the first moment.
//!
//! A process that is told to reload or stop while it is still starting must do so, not die: the handlers stand before the
//! configuration is read, in a small thread of their own, and what arrives early waits in the queue.

use std::{io, thread};

use tokio::{
    runtime,
    signal::unix::{Signal as UnixSignal, SignalKind, signal},
    sync::mpsc,
};

/// Signals waiting to be looked at; more than these are dropped, and would say nothing new.
const QUEUE: usize = 16;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM.
    Stop,
    /// SIGINT: of a pool that runs alone, go when transactions have ended.
    Interrupt,
    /// SIGQUIT: of a pool that runs alone, go at once.
    Quit,
    /// SIGHUP.
    Reload,
    /// SIGUSR1: hold the databases, as PgBouncer does.
    Pause,
    /// SIGUSR2: serve them again.
    Resume,
}

/// Catches the process's signals from now on.
///
/// # Errors
/// When a handler or the thread cannot be made.
pub fn catch() -> io::Result<mpsc::Receiver<Signal>> {
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    let caught = {
        let _inside = runtime.enter();
        Caught {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        }
    };
    let (sender, receiver) = mpsc::channel(QUEUE);
    thread::Builder::new().name("signals".into()).spawn(move || runtime.block_on(caught.pass_on(sender)))?;
    Ok(receiver)
}

struct Caught {
    terminate: UnixSignal,
    interrupt: UnixSignal,
    hangup: UnixSignal,
    quit: UnixSignal,
    user1: UnixSignal,
    user2: UnixSignal,
}

impl Caught {
    async fn pass_on(mut self, sender: mpsc::Sender<Signal>) {
        loop {
            let signal = tokio::select! {
                _ = self.terminate.recv() => Signal::Stop,
                _ = self.interrupt.recv() => Signal::Interrupt,
                _ = self.hangup.recv() => Signal::Reload,
                _ = self.quit.recv() => Signal::Quit,
                _ = self.user1.recv() => Signal::Pause,
                _ = self.user2.recv() => Signal::Resume,
            };
            if let Err(mpsc::error::TrySendError::Closed(_)) = sender.try_send(signal) {
                return;
            }
        }
    }
}
