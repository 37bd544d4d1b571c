//! What a server still owes, in order: the one thing a pooler must never lose count of.
//!
//! Each request sent to a server has an entry until it is answered. The entry says whose answer it is: the client's
//! (forward), ours (skip), or one we give ourselves when its turn comes (fake). After an error PostgreSQL discards
//! everything up to the next Sync; [`Owed::discard_batch`] takes the same entries out and hands their changes back, last one
//! first, so that they can be taken back.

use std::{collections::VecDeque, sync::Arc};

use super::unnamed::Was;
use crate::pool::{
    error::PoolError,
    prepared::{Statement, Ticket, client::Closed},
};

/// A request that has an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Parse,
    Bind,
    Describe,
    Execute,
    Close,
    Sync,
    Query,
    FunctionCall,
    /// A CopyDone or CopyFail. It has no answer of its own: it marks where the server leaves COPY, if it is in it.
    CopyEnd,
    /// Our own Query that gives the server its client's settings.
    Replay,
    /// Our own Query that asks what the client has left on the server.
    Census,
    /// Our own Query that takes what the client listens to away from the server.
    Move,
}

impl Kind {
    /// Returns whether its answer ends with a ReadyForQuery that can say something new. Those of our own say `I` or is an error.
    pub(super) fn is_ready(self) -> bool {
        matches!(self, Self::Sync | Self::Query | Self::FunctionCall)
    }
}

/// Whose answer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Forward,
    Skip,
    Fake,
}

/// What an answer decides.
#[derive(Debug)]
pub(super) enum Change {
    /// A Parse: whose it is, and the statement on the server if it was sent there.
    Parsed { ticket: Ticket, statement: Arc<Statement>, whose: Whose, sent: Sent },
    /// A Close by the client, answered by us.
    ClientClosed { ticket: Ticket, closed: Closed },
    /// A message of the client's that ends the statement without a name: what that was, if it may yet be skipped.
    UnnamedWas(Option<Was>),
    /// A Close of our own.
    ServerClosed { ticket: Ticket, id: u64 },
    /// A message of our own that leaves nothing to remember.
    Nothing,
    /// Sent so that the server fails, in its own order and state, where we want to say this.
    Reject(PoolError),
}

/// Who sent a Parse.
#[derive(Debug)]
pub(super) enum Whose {
    /// The client, under this name of its own.
    Client(Arc<[u8]>),
    /// The client, without a name: as in [`Change::UnnamedWas`].
    Unnamed(Option<Was>),
    Ours,
}

/// Whether a Parse went to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    No,
    /// `fresh`: nothing of its name was there.
    Yes {
        fresh: bool,
    },
}

/// The statement a Bind or Describe was made to name.
#[derive(Debug, Clone)]
pub(super) struct Named {
    /// The client's name for it; it may have none.
    pub name: Option<Arc<[u8]>>,
    pub statement: Arc<Statement>,
    /// Which Parse of it, on the server ([`crate::pool::prepared::server::Have::made`]).
    pub made: u64,
}

/// One request.
#[derive(Debug)]
pub(super) struct Entry {
    pub kind: Kind,
    pub action: Action,
    /// A Sync that the server may have read, and ignored, while it was in COPY.
    pub doubtful: bool,
    /// Of a Bind or Describe whose name was replaced: for error texts. Of a Describe of a portal that was bound to such a
    /// name: for what it says of columns. Of a Query: the statement whose name it drops.
    pub named: Option<Named>,
    /// Boxed: most requests change nothing, and their entries stay small.
    pub change: Option<Box<Change>>,
}

/// The queue. Bound: the driver stops reading a client that is this far ahead ([`super::drive`]).
#[derive(Debug, Default)]
pub(super) struct Owed {
    queue: VecDeque<Entry>,
    /// Entries for which [`Kind::is_ready`] holds, and those of some kinds.
    ready_count: usize,
    queries: usize,
    executes: usize,
    copy_ends: usize,
    fakes: usize,
}

impl Owed {
    pub(super) fn push(&mut self, kind: Kind, action: Action) {
        self.push_entry(Entry { kind, action, doubtful: false, named: None, change: None });
    }

    pub(super) fn push_named(&mut self, kind: Kind, named: Named) {
        self.push_named_change(kind, named, None);
    }

    pub(super) fn push_named_change(&mut self, kind: Kind, named: Named, change: Option<Change>) {
        let (named, change) = (Some(named), change.map(Box::new));
        self.push_entry(Entry { kind, action: Action::Forward, doubtful: false, named, change });
    }

    /// A Bind or Describe of our own.
    pub(super) fn push_own(&mut self, kind: Kind, named: Named) {
        let named = Some(named);
        self.push_entry(Entry { kind, action: Action::Skip, doubtful: false, named, change: None });
    }

    pub(super) fn push_change(&mut self, kind: Kind, action: Action, change: Change) {
        self.push_entry(Entry { kind, action, doubtful: false, named: None, change: Some(Box::new(change)) });
    }

    pub(super) fn push_sync(&mut self, doubtful: bool) {
        self.push_entry(Entry { kind: Kind::Sync, action: Action::Forward, doubtful, named: None, change: None });
    }

    fn push_entry(&mut self, entry: Entry) {
        self.ready_count += usize::from(entry.kind.is_ready());
        self.queries += usize::from(entry.kind == Kind::Query);
        self.executes += usize::from(entry.kind == Kind::Execute);
        self.copy_ends += usize::from(entry.kind == Kind::CopyEnd);
        self.fakes += usize::from(entry.action == Action::Fake);
        self.queue.push_back(entry);
    }

    pub(super) fn front(&self) -> Option<&Entry> {
        self.queue.front()
    }

    pub(super) fn pop(&mut self) -> Option<Entry> {
        let entry = self.queue.pop_front()?;
        self.uncount(&entry);
        Some(entry)
    }

    fn uncount(&mut self, entry: &Entry) {
        self.ready_count -= usize::from(entry.kind.is_ready());
        self.queries -= usize::from(entry.kind == Kind::Query);
        self.executes -= usize::from(entry.kind == Kind::Execute);
        self.copy_ends -= usize::from(entry.kind == Kind::CopyEnd);
        self.fakes -= usize::from(entry.action == Action::Fake);
    }

    /// Returns whether it is our turn to answer: the oldest request is one that the server has not been sent.
    pub(super) fn is_fake_next(&self) -> bool {
        self.fakes > 0 && self.front().is_some_and(|entry| entry.action == Action::Fake)
    }

    /// Returns whether a Query is still to be answered: its text may do anything.
    pub(super) fn awaits_query(&self) -> bool {
        self.queries > 0
    }

    /// Returns whether an Execute is still to be answered.
    pub(super) fn awaits_execute(&self) -> bool {
        self.executes > 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Returns whether nothing is owed but the answer to a replay, after which the server is idle. A client's message, which
    /// is what asks, waits for the answer to a census.
    pub(super) fn is_at_most_replay(&self) -> bool {
        debug_assert!(self.queue.iter().all(|entry| entry.kind != Kind::Census), "nothing passes a census");
        self.queue.iter().all(|entry| entry.kind == Kind::Replay)
    }

    /// Returns whether all answers are given by us, and there are any: no answer of the server will bring their turn.
    pub(super) fn is_all_fakes(&self) -> bool {
        self.fakes > 0 && self.fakes == self.queue.len()
    }

    /// One of the Syncs at the front may have been answered already, or ignored; which, the next answer will tell. Returns
    /// whether there are any.
    pub(super) fn doubt_leading_syncs(&mut self) -> bool {
        let leading = self.queue.iter_mut().take_while(|entry| matches!(entry.kind, Kind::Sync | Kind::CopyEnd));
        leading.filter(|entry| entry.kind == Kind::Sync).map(|entry| entry.doubtful = true).count() > 0
    }

    /// Takes out the doubtful Syncs at the front: something behind them was answered.
    pub(super) fn pop_doubtful(&mut self) {
        while self.front().is_some_and(|entry| entry.doubtful || entry.kind == Kind::CopyEnd) {
            self.pop();
        }
    }

    /// Returns whether all that is owed is doubtful, so that nothing on its way will tell.
    pub(super) fn is_all_doubtful(&self) -> bool {
        self.queue.iter().all(|entry| entry.doubtful || entry.kind == Kind::CopyEnd)
    }

    /// Returns whether a ReadyForQuery is still to come: the transaction's status is not known until it has.
    pub(super) fn awaits_ready(&self) -> bool {
        self.ready_count > 0
    }

    /// Takes out what the server discards after an error: everything before the next Sync. Calls `undo` with each,
    /// last one first, and whether it is the first, which failed. Returns whether a Sync is on its way already.
    pub(super) fn discard_batch(&mut self, mut undo: impl FnMut(Entry, bool)) -> bool {
        let sync = self.queue.iter().position(|entry| entry.kind == Kind::Sync);
        let end = sync.unwrap_or(self.queue.len());
        for (index, entry) in self.queue.drain(..end).enumerate().rev() {
            self.ready_count -= usize::from(entry.kind.is_ready());
            self.queries -= usize::from(entry.kind == Kind::Query);
            self.executes -= usize::from(entry.kind == Kind::Execute);
            self.copy_ends -= usize::from(entry.kind == Kind::CopyEnd);
            self.fakes -= usize::from(entry.action == Action::Fake);
            undo(entry, index == 0);
        }
        sync.is_some()
    }

    /// Returns how many Syncs are to be answered. Walks the queue: after an error.
    pub(super) fn syncs(&self) -> u64 {
        self.queue.iter().filter(|entry| entry.kind == Kind::Sync).count() as u64
    }

    /// A COPY from the client began: Syncs before its end are ignored by a server that is still in it (`CopyGetData` in
    /// PostgreSQL's copyfromparse.c), and answered by one that left it early.
    pub(super) fn doubt_syncs_in_copy(&mut self) {
        for entry in self.queue.iter_mut().skip(1).take_while(|entry| entry.kind != Kind::CopyEnd) {
            entry.doubtful |= entry.kind == Kind::Sync;
        }
    }

    /// A COPY from the client ran to its end: the server has read, and ignored, the Syncs before it.
    pub(super) fn finish_copy(&mut self) {
        let Some(end) = self.queue.iter().position(|entry| entry.kind == Kind::CopyEnd) else { return };
        let mut index = 0;
        let (ready_count, queries, copy_ends) = (&mut self.ready_count, &mut self.queries, &mut self.copy_ends);
        let fakes = &mut self.fakes;
        self.queue.retain(|entry| {
            let ignored = (1..=end).contains(&index) && (entry.doubtful || index == end);
            index += 1;
            if ignored {
                *ready_count -= usize::from(entry.kind.is_ready());
                *queries -= usize::from(entry.kind == Kind::Query);
                *copy_ends -= usize::from(entry.kind == Kind::CopyEnd);
                *fakes -= usize::from(entry.action == Action::Fake);
            }
            !ignored
        });
    }

    /// Returns whether the end of a COPY has been sent.
    pub(super) fn has_copy_end(&self) -> bool {
        self.copy_ends > 0
    }

    /// Returns whether a COPY's end and what is answered after it are on their way: a ReadyForQuery will come of itself, and
    /// until it has come it is not known which Sync it answers.
    pub(super) fn is_past_copy(&self) -> bool {
        self.copy_ends > 0 && self.queue.back().is_some_and(|entry| entry.kind.is_ready())
    }
}
