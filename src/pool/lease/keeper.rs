//! One task per pool: opens connections, has idle ones checked, and one timer for all who wait.
//!
//! A timer per waiting client would be a lock on the runtime's timer wheel per transaction (PgDog #1234). The queue is in
//! order of arrival and the timeout is the same for all, so the front's is the only one that matters.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{Connect, Store};

/// Sleep when nothing is to come: the alarm ends it.
const LONG: Duration = Duration::from_secs(3600);

/// Runs until the store has gone.
pub(super) async fn run<C: Connect>(store: Weak<Store<C>>, alarm: Arc<Notify>) {
    loop {
        let next = {
            let Some(store) = store.upgrade() else { return };
            let now = Instant::now();
            let todo = store.step(now);
            for dial in todo.dials {
                // Bounded by LOGINS_AT_A_TIME, and each in time by server_connect_timeout.
                tokio::spawn(dial.run());
            }
            for check in todo.checks {
                // Bounded by the pool's size and by those who wait, in time as a login is.
                tokio::spawn(check.run());
            }
            todo.next.unwrap_or(now + LONG)
        };
        tokio::select! {
            () = alarm.notified() => {}
            () = sleep_until(next) => {}
        }
    }
}
