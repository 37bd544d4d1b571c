//! Clients waiting for a server, in the order in which they came.
//!
//! Each waiter has a slot (a oneshot) into which its server is put: hand-off, so that nobody who comes later can be quicker.
//! A waiter that goes away closes its slot first and looks into it once more, so that a server which was put there in the
//! same moment goes on to the next instead of being lost.

use std::collections::VecDeque;

use tokio::{sync::oneshot, time::Instant};

use super::store::Refusal;

/// What a waiter bears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Waits out failed logins until `query_wait_timeout`: a client whose transaction begins.
    UntilTimeout,
    /// As above, but goes at once when the server refuses the login for good (no such database, wrong password): a client
    /// whose own login needs the first server of a cold pool.
    UntilRefused,
}

/// What is put into a slot.
pub(super) type Served<T> = Result<T, Refusal>;

#[derive(Debug)]
struct Waiter<T> {
    ticket: u64,
    since: Instant,
    patience: Patience,
    slot: oneshot::Sender<Served<T>>,
}

/// The queue. Its length is bounded by `max_client_conn`: a client waits at most once.
#[derive(Debug)]
pub(super) struct Queue<T> {
    waiters: VecDeque<Waiter<T>>,
    next_ticket: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { waiters: VecDeque::new(), next_ticket: 0 }
    }
}

impl<T> Queue<T> {
    /// Joins the end; returns the ticket to leave with and the slot.
    pub(super) fn join(&mut self, patience: Patience, now: Instant) -> (u64, oneshot::Receiver<Served<T>>) {
        let (slot, receiver) = oneshot::channel();
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiters.push_back(Waiter { ticket, since: now, patience, slot });
        (ticket, receiver)
    }

    /// Leaves before being served; no effect afterwards. Tickets are in order, so this is a binary search.
    pub(super) fn leave(&mut self, ticket: u64) {
        if let Ok(at) = self.waiters.binary_search_by_key(&ticket, |waiter| waiter.ticket) {
            self.waiters.remove(at);
        }
    }

    /// Puts `server` into the first slot whose waiter is still there; gives it back when nobody is.
    pub(super) fn serve(&mut self, mut server: T) -> Option<T> {
        while let Some(waiter) = self.waiters.pop_front() {
            match waiter.slot.send(Ok(server)) {
                Ok(()) => return None,
                Err(Ok(back)) => server = back,
                Err(Err(_)) => return None,
            }
        }
        Some(server)
    }

    /// Refuses everybody who came before `moment` or at it.
    pub(super) fn refuse_until(&mut self, moment: Instant, refusal: &Refusal) {
        while self.waiters.front().is_some_and(|waiter| waiter.since <= moment) {
            let Some(waiter) = self.waiters.pop_front() else { return };
            // Whoever left in this moment has nothing to be told.
            drop(waiter.slot.send(Err(refusal.clone())));
        }
    }

    /// Refuses everybody.
    pub(super) fn refuse_all(&mut self, refusal: &Refusal) {
        for waiter in std::mem::take(&mut self.waiters) {
            drop(waiter.slot.send(Err(refusal.clone())));
        }
    }

    /// Refuses those who do not bear a refused login.
    pub(super) fn refuse_impatient(&mut self, refusal: &Refusal) {
        if self.waiters.iter().all(|waiter| waiter.patience == Patience::UntilTimeout) {
            return;
        }
        for waiter in std::mem::take(&mut self.waiters) {
            match waiter.patience {
                Patience::UntilTimeout => self.waiters.push_back(waiter),
                Patience::UntilRefused => drop(waiter.slot.send(Err(refusal.clone()))),
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Returns since when the first waiter waits.
    pub(super) fn front_since(&self) -> Option<Instant> {
        self.waiters.front().map(|waiter| waiter.since)
    }
}
