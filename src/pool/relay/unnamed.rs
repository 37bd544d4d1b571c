//! The statement without a name. PostgreSQL keeps it until the next Parse without a name or simple Query of the session,
//! and on a pooled server those are whoever's comes next.
//!
//! Most drivers parse and bind it in one batch. Some describe it in one batch and bind it in the next (lib/pq, pgx in its
//! describe mode), which may reach another server, or this one after another client has parsed something of its own: what
//! ran would be that client's statement. So nothing that stood on a server before a lease is ever used. A client's last
//! text is kept when a batch ends without having bound it, and sent again ahead of the first Bind or Describe of a lease;
//! where there is none, a Close goes ahead and PostgreSQL itself says that there is no such statement.

use super::{
    framer::Verdict,
    leftovers::TEXT_MAX,
    owed::{Action, Entry, Kind},
    session::Session,
    sink::Sink,
};
use crate::pool::{
    prepared::Batch,
    wire::{frame::Header, frontend},
};

/// Longest message whose text is kept for another lease.
const KEPT_MAX: usize = TEXT_MAX;

/// What a lease knows of it.
#[derive(Debug, Default)]
pub(super) struct Unnamed {
    /// Text and types of the last Parse; empty when it was too long.
    definition: Vec<u8>,
    /// The batch of the last Parse.
    batch: Batch,
    bound: bool,
    /// What is on the server is this client's, or nothing.
    own: bool,
}

impl Session<'_> {
    /// A Parse without a name passes.
    pub(super) fn parse_unnamed(&mut self, header: Header, body: &[u8]) -> Verdict {
        if !self.note_text(header, body) {
            return Verdict::NeedMore;
        }
        self.client.unnamed = None;
        let unnamed = &mut self.unnamed;
        unnamed.definition.clear();
        if body.len() == header.body_len() && body.len() <= KEPT_MAX {
            unnamed.definition.extend_from_slice(body.get(1..).unwrap_or_default());
        }
        (unnamed.own, unnamed.bound, unnamed.batch) = (true, false, self.batch);
        self.pass_extended(Kind::Parse)
    }

    /// A Bind or Describe is about to pass: what it finds on the server must be the client's own.
    pub(super) fn ensure_unnamed(&mut self, out: &mut Sink<'_>) -> Verdict {
        let parsed_here = self.unnamed.own && self.unnamed.batch == self.batch;
        if !parsed_here && self.server.owed.awaits_ready() && !self.copy_in {
            return Verdict::Later; // the batch of its Parse may yet fail
        }
        if self.unnamed.own {
            return Verdict::Pass;
        }
        self.unnamed.own = true;
        match &self.client.unnamed {
            Some(definition) => {
                frontend::parse(out.writer(), b"", definition);
                self.server.owed.push(Kind::Parse, Action::Skip);
                self.counts.server_parses += 1;
            }
            None => {
                frontend::close_statement(out.writer(), b"");
                self.server.owed.push(Kind::Close, Action::Skip);
            }
        }
        Verdict::Pass
    }

    /// A Bind of it passes: what is parsed and bound in one batch need not be kept.
    pub(super) fn bind_unnamed(&mut self) -> Verdict {
        self.unnamed.bound = true;
        self.pass_extended(Kind::Bind)
    }

    /// A batch ends: a text that was not bound in it may be in another lease.
    pub(super) fn keep_unnamed(&mut self) {
        if !self.unnamed.bound && !self.unnamed.definition.is_empty() {
            self.client.unnamed = Some(self.unnamed.definition.as_slice().into());
        }
    }

    /// A simple Query or a Close passes: the server drops it.
    pub(super) fn drop_unnamed(&mut self) {
        self.unnamed.definition.clear();
        self.client.unnamed = None;
    }

    /// A Parse of it in `batch` failed or was discarded: it left nothing, or what had been there before.
    pub(super) fn undo_unnamed(&mut self, batch: Batch) {
        if self.unnamed.batch <= batch {
            self.drop_unnamed();
            self.unnamed.own = false;
        }
    }
}

/// Returns whether a request was a Parse without a name, passed on for the client.
pub(super) fn is_unnamed_parse(entry: &Entry) -> bool {
    entry.kind == Kind::Parse && entry.action != Action::Fake && entry.change.is_none()
}
