//! What others tell a store and ask of it: settings, another way to the servers, PAUSE and RECONNECT, upkeep, and how it is.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Settings, Snapshot, Store};
use crate::pool::{
    lease::{Connect, Connection},
    registry::ServerEntry,
    server::error::ServerError,
};

impl<C: Connect> Store<C> {
    /// Takes new settings; they hold from now on.
    pub fn set_settings(&self, settings: Settings) {
        self.inner.lock().settings = settings;
        self.alarm.notify_one();
    }

    /// Takes another way to connect (host, user or password changed). Existing connections are not touched.
    pub fn set_connect(&self, connect: C) {
        self.connect.store(Arc::new(connect));
        self.login_again();
    }

    /// Closes every connection at its next boundary, idle ones now. New ones are opened as they are needed.
    pub fn reconnect(&self) {
        self.outdate(|_| true);
    }

    /// Closes the connections of which `outdated` says so at their next boundary, idle ones now.
    pub fn outdate(&self, outdated: impl Fn(&ServerEntry) -> bool) {
        for server in self.registry.servers() {
            if Arc::ptr_eq(server.group(), &self.group) && outdated(&server) {
                server.set_close_needed();
            }
        }
        let idle: Vec<_> = self.inner.lock().idle.extract_if(.., |held| held.handle.close_needed()).collect();
        self.bury(idle);
    }

    /// Lends nothing more, closes idle connections now and the others as they come back. Clients wait.
    pub fn pause(&self) {
        let idle = {
            let mut inner = self.inner.lock();
            inner.paused = true;
            std::mem::take(&mut inner.idle)
        };
        self.bury(idle);
    }

    /// Undoes [`Self::pause`].
    pub fn resume(&self) {
        self.inner.lock().paused = false;
        self.alarm.notify_one();
    }

    /// Waits until no connection is left or on its way: the end of a PAUSE. Cancel safe.
    pub async fn emptied(&self) {
        loop {
            let told = self.emptied.notified();
            if self.is_empty() {
                return;
            }
            told.await;
        }
    }

    /// Returns whether no connection exists or is on its way.
    pub fn is_empty(&self) -> bool {
        self.inner.lock().is_empty()
    }

    /// Ends the pause between logins that failed because the server was away: a probe has found it back. A login that was
    /// refused for good is not tried any sooner for that.
    pub fn server_is_up(&self) {
        let away = self.inner.lock().login.error().is_some_and(ServerError::is_transient);
        if away {
            self.login_again();
        }
    }

    /// Forgets failed logins: the way to the server has changed.
    fn login_again(&self) {
        self.inner.lock().login.forget();
        self.alarm.notify_one();
    }

    /// Returns the pool as it is now.
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        let inner = self.inner.lock();
        Snapshot {
            settings: inner.settings,
            open: inner.open,
            idle: inner.idle.len() as u32,
            stale: inner.stale(now) as u32,
            dialing: inner.dialing,
            waiting: inner.queue.len() as u32,
            waited: inner.queue.front_since().map_or(Duration::ZERO, |since| now.saturating_duration_since(since)),
            paused: inner.paused,
            login_error: inner.login.error().cloned(),
        }
    }

    /// Looks through the idle connections: those that speak or ended, those that are too old or idle for too long, and those
    /// above a size that was made smaller are closed. Called every half second or so.
    pub fn sweep(&self, now: Instant) {
        let mut dead = Vec::new();
        {
            let mut inner = self.inner.lock();
            let mut spare = inner.open.saturating_sub(inner.settings.sizes.min);
            let mut over = inner.open.saturating_sub(inner.settings.sizes.most()).max(self.budgets.overdraft());
            let idle_timeout = inner.settings.server_idle_timeout;
            let all = std::mem::take(&mut inner.idle);
            for held in all {
                let resting = now.saturating_duration_since(held.idle_since);
                let tired = spare > 0 && idle_timeout.is_some_and(|limit| resting >= limit);
                if over > 0 || tired || !held.usable(now) || !held.connection.is_quiet() {
                    spare = spare.saturating_sub(1);
                    over = over.saturating_sub(1);
                    dead.push(held);
                } else {
                    inner.idle.push(held);
                }
            }
        }
        self.bury(dead);
        self.alarm.notify_one();
    }
}
