//! The statement without a name. PostgreSQL keeps it until the next Parse without a name or simple Query of the session,
//! and on a pooled server those are whoever's comes next.
//!
//! Most drivers parse and bind it in one batch. Some describe it in one batch and bind it in the next (lib/pq, pgx in its
//! describe mode), or prepare it without a name and run it as often as they like (PHP, Ruby); the next batch may reach another
//! server, or this one after another client has parsed something of its own: what ran would be that client's statement. So
//! nothing that stood on a server before a lease is ever used. A client's last text is kept, and sent again ahead of the
//! first Bind or Describe of a lease; where there is none, a Close goes ahead and PostgreSQL itself says that there is no such
//! statement.
//!
//! It goes when PostgreSQL executes a Parse without a name, sound or not, its Close, or a Query (`drop_unnamed_stmt` in
//! postgres.c). What is skipped after an error leaves it: a message that may yet be skipped keeps what was there before it
//! ([`Was`]), to be put back. Nothing in front of it in its batch, and it cannot be.
//!
//! Parsing and planning the same text for every transaction is most of what a short query costs PostgreSQL. So a text that
//! came before is prepared under a name, once for each server ([`crate::pool::prepared`]), its Parse is answered by us, and
//! Bind and Describe go to the server with that name. Nothing else changes:
//!
//! - a text is parsed as it is the first time, so its errors are PostgreSQL's; one that comes once costs nothing;
//! - a plan that no longer holds, which a statement without a name never is, must be healed unseen ([`super::heal`]): only
//!   the first Bind or Describe of a batch that could be sent again names it. So not inside a transaction block, nor for a
//!   client that sends batch upon batch; where it cannot be named, the text is parsed again, without a name;
//! - once its first Bind or Describe has passed, the rest of the batch may use it: the transaction holds the tables;
//! - what decides how a text is read is part of what makes it the same ([`crate::pool::prepared::statement`]), and one that
//!   means another day tomorrow is left alone ([`crate::pool::prepared::text`]).

use std::sync::Arc;

use super::{
    deallocate::Deallocate,
    framer::Verdict,
    leftovers::TEXT_MAX,
    owed::{Action, Change, Entry, Kind, Named, Whose},
    session::Session,
    sink::Sink,
    sql::{self, Hints},
    statements::Found,
};
use crate::pool::{
    prepared::{Batch, Long, Statement, client::Told, server::Need, text},
    wire::{
        frame::{self, Header},
        frontend,
        read::ParseBody,
        tag::frontend as tag,
    },
};

/// Longest message whose text is given a name. For another lease a longer one is kept too, up to `max_held_message`, and of
/// all clients together up to half of `max_statement_memory`.
const NAMED_MAX: usize = TEXT_MAX;

/// A client's statement without a name.
#[derive(Debug, Clone, Default)]
pub(super) enum Kept {
    /// There is none, or it is too long.
    #[default]
    Nothing,
    /// Text and types. At most [`NAMED_MAX`].
    Text(Vec<u8>),
    /// Longer ones. bound: `max_statement_memory`
    Long(Arc<Long>),
    /// It was given a name. The server knows it under that name alone, unless [`Unnamed::own`].
    Statement(Arc<Statement>),
}

impl Kept {
    fn definition(&self) -> Option<&[u8]> {
        match self {
            Self::Nothing => None,
            Self::Text(definition) => Some(definition),
            Self::Long(long) => Some(long.definition()),
            Self::Statement(statement) => Some(statement.definition()),
        }
    }
}

/// What there was of it before a batch that may be sent again.
#[derive(Debug, Default)]
pub(super) struct Before {
    own: bool,
    /// `None`: what there is now.
    kept: Option<Kept>,
}

impl Before {
    pub(super) fn is_kept(&self) -> bool {
        self.kept.is_some()
    }
}

/// What there was of it before a message that the server may skip.
#[derive(Debug)]
pub(super) struct Was {
    kept: Kept,
    own: bool,
    used: Option<Batch>,
    batch: Batch,
}

/// What a lease knows of it.
#[derive(Debug, Default)]
pub(super) struct Unnamed {
    /// The batch in which a statement that stands for it was bound or described by its name.
    used: Option<Batch>,
    /// The batch of the last message that changed it.
    batch: Batch,
    /// What is on the server without a name is this client's, or nothing.
    own: bool,
    /// It was parsed in the batch under way, and whether it was bound since.
    bound: Option<bool>,
    /// Its text was looked at for the Bind that comes next: each run of it may leave something.
    noted: bool,
}

impl Unnamed {
    /// Notes a request that was discarded; last one first, and the one that failed is `first`.
    pub(super) fn undo(&mut self, kept: &mut Kept, entry: &mut Entry, first: bool) {
        let change = entry.change.as_deref_mut();
        let ours = entry.action == Action::Skip && change.is_none();
        match (entry.kind, change) {
            (Kind::Parse | Kind::Close, None) if ours => self.own = false,
            (_, Some(Change::UnnamedWas(was) | Change::Parsed { whose: Whose::Unnamed(was), .. }))
                if !first && was.is_some() =>
            {
                if let Some(was) = was.take() {
                    (*kept, self.own, self.used, self.batch) = (was.kept, was.own, was.used, was.batch);
                }
            }
            // Executed: it leaves nothing.
            (Kind::Parse, None | Some(Change::UnnamedWas(_) | Change::Parsed { whose: Whose::Unnamed(_), .. })) => {
                *kept = Kept::Nothing;
                (self.own, self.used) = (false, None);
            }
            _ => {}
        }
    }

    /// Returns whether what there is of it was made in `batch` or before.
    pub(super) fn is_of(&self, batch: Batch) -> bool {
        self.batch <= batch
    }
}

impl Session<'_> {
    /// A Parse without a name: it is given one, or passes.
    pub(super) fn parse_unnamed(&mut self, header: Header, body: &[u8], out: &mut Sink<'_>) -> Verdict {
        if self.unnamed_is_undecided() {
            return Verdict::Later;
        }
        if let Some(statement) = self.find_unnamed(header, body) {
            self.forget_deallocate();
            self.name_unnamed(statement, out);
            return Verdict::Skip;
        }
        // Another lease may need it.
        if body.len() < header.body_len() && header.body_len() <= self.limits.max_held_message {
            return Verdict::NeedMore;
        }
        let Some(hints) = self.note_text(header, body, 1) else { return Verdict::NeedMore };
        self.forget_deallocate();
        let dropped = match hints.contains(Hints::DEALLOCATE).then(|| self.parse_deallocate(&body[1..], out)) {
            Some(Deallocate::Later) => return Verdict::Later,
            other => matches!(other, Some(Deallocate::Replaced)),
        };
        let was = self.passes_unnamed(header, body);
        self.unnamed.noted = true;
        self.push_unnamed(Kind::Parse, Action::Forward, was);
        if dropped { Verdict::Skip } else { Verdict::Pass }
    }

    /// Returns whether the server may skip what is sent next, because something before it in its batch fails.
    fn may_be_skipped(&self) -> bool {
        (self.batch_open || self.behind_batch) && !self.server.owed.is_empty()
    }

    /// Returns whether a message that changes it must wait: what it would put back may itself be put back.
    pub(super) fn unnamed_is_undecided(&self) -> bool {
        self.may_be_skipped() && self.server.owed.awaits_ready() && !self.copy_in
    }

    /// Takes what there is out of the way of something else, as far as it may have to be put back.
    fn save_unnamed(&mut self) -> Option<Was> {
        let skippable = self.may_be_skipped();
        let before = self.heal.unnamed_before();
        if before.is_none() && !skippable {
            return None;
        }
        let kept = std::mem::take(&mut self.client.unnamed);
        if !skippable {
            if let Some(before) = before {
                before.kept = Some(kept);
            }
            return None;
        }
        if let Some(before) = before {
            before.kept = Some(kept.clone());
        }
        let Unnamed { own, used, batch, .. } = self.unnamed;
        Some(Was { kept, own, used, batch })
    }

    pub(super) fn push_unnamed(&mut self, kind: Kind, action: Action, was: Option<Was>) {
        self.batch_open = true;
        self.pace.sent();
        match was {
            Some(was) => self.server.owed.push_change(kind, action, Change::UnnamedWas(Some(was))),
            None => self.server.owed.push(kind, action),
        }
    }

    fn passes_unnamed(&mut self, header: Header, body: &[u8]) -> Option<Was> {
        let was = self.save_unnamed();
        let whole = body.len() == header.body_len() && body.len() <= self.limits.max_held_message;
        match (&mut self.client.unnamed, body.get(1..).filter(|_| whole)) {
            (kept, Some(definition)) if definition.len() > NAMED_MAX => {
                *kept = self.client.interner.hold(definition).map_or(Kept::Nothing, Kept::Long);
            }
            (Kept::Text(text), Some(definition)) => {
                text.clear();
                text.extend_from_slice(definition);
            }
            (kept, Some(definition)) => *kept = Kept::Text(definition.into()),
            (kept, None) => *kept = Kept::Nothing,
        }
        let unnamed = &mut self.unnamed;
        (unnamed.own, unnamed.used, unnamed.batch, unnamed.bound) = (true, None, self.batch, Some(false));
        was
    }

    /// Returns the statement that a Parse without a name stands for, if it may be given its name.
    fn find_unnamed(&mut self, header: Header, body: &[u8]) -> Option<Arc<Statement>> {
        let may = self.limits.prepare_unnamed_statements
            && self.client.pipelines == 0
            && self.heal.would_heal()
            && !self.reads_alone();
        if !may || body.len() < header.body_len() || body.len() > NAMED_MAX {
            return None;
        }
        let parse = ParseBody::parse(body).ok()?; // the server will say what is wrong with it
        let scope = self.scope();
        let interner = &self.client.interner;
        let key = interner.key(scope, parse.definition);
        if let Some(known) = self.server.statements.find(key) {
            return Some(known.clone());
        }
        if !text::is_worth_a_name(parse.definition) || !interner.seen(key) {
            return None;
        }
        interner.intern_unnamed(key).ok() // without room it is parsed as it is
    }

    fn name_unnamed(&mut self, statement: Arc<Statement>, out: &mut Sink<'_>) {
        let was = self.stands_for(statement.clone());
        self.counts.client_parses += 1;
        if !self.server.statements.touch(statement.id) {
            let ticket = self.ticket();
            match self.server.statements.prepare(&statement, ticket).need {
                Need::Nothing => {} // sent in this very batch
                need => {
                    self.batch_open = true;
                    self.pace.sent();
                    return self.send_parse(&statement, need, ticket, Whose::Unnamed(was), out);
                }
            }
        }
        self.push_unnamed(Kind::Parse, Action::Fake, was);
    }

    fn stands_for(&mut self, statement: Arc<Statement>) -> Option<Was> {
        let was = self.save_unnamed();
        self.client.unnamed = Kept::Statement(statement);
        let unnamed = &mut self.unnamed;
        (unnamed.own, unnamed.used, unnamed.batch) = (false, None, self.batch);
        was
    }

    /// Returns what there is of it before a batch that may be sent again.
    pub(super) fn unnamed_before(&self) -> Before {
        Before { own: self.unnamed.own, kept: None }
    }

    /// The batch is sent again: what it did to it has not been.
    pub(super) fn restore_unnamed(&mut self, before: Before) {
        if let Some(kept) = before.kept {
            self.client.unnamed = kept;
        }
        (self.unnamed.own, self.unnamed.used) = (before.own, None);
    }

    /// A message of a batch that is sent again, which was answered: a Parse or Close of it must have been, for those behind.
    pub(super) fn repeat_unnamed(&mut self, header: Header, body: &[u8], out: &mut Sink<'_>) {
        let kind = match (header.tag, body) {
            (tag::PARSE, [0, ..]) => {
                if let Some(statement) = self.find_unnamed(header, body) {
                    self.stands_for(statement);
                    return;
                }
                self.passes_unnamed(header, body);
                Kind::Parse
            }
            (tag::CLOSE, b"S\0") => {
                self.drop_unnamed();
                Kind::Close
            }
            _ => return,
        };
        frame::write(out.writer(), header.tag, |out| out.extend_from_slice(body));
        self.server.owed.push(kind, Action::Skip);
    }

    /// A Bind or Describe is about to pass: what it finds on the server must be the client's own.
    pub(super) fn ensure_unnamed(&mut self, out: &mut Sink<'_>) -> Found {
        let is_named = matches!(self.client.unnamed, Kept::Statement(_));
        let parsed_here = (self.unnamed.own || is_named) && self.unnamed.batch == self.batch;
        if !parsed_here && self.server.owed.awaits_ready() && !self.copy_in {
            return Found::Verdict(Verdict::Later); // the batch of its Parse may yet fail
        }
        if self.unnamed.own {
            return Found::Verdict(Verdict::Pass);
        }
        if let Some(statement) = self.unnamed_by_name() {
            return Found::Statement(Named { name: None, statement, made: 0 }, Told::default());
        }
        self.unnamed.own = true;
        self.unnamed.noted = false;
        match self.client.unnamed.definition() {
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
        Found::Verdict(Verdict::Pass)
    }

    /// Returns the statement that was given a name, if it may be used by it now.
    fn unnamed_by_name(&mut self) -> Option<Arc<Statement>> {
        let Kept::Statement(statement) = &self.client.unnamed else { return None };
        let statement = statement.clone();
        let may = self.heal.would_heal() || self.unnamed.used == Some(self.batch);
        (may && statement.scope() == self.scope()).then_some(statement)
    }

    /// A Bind or Describe of it goes out with the name it was given.
    pub(super) fn named_unnamed(&mut self) {
        self.unnamed.used = Some(self.batch);
        self.heal.rely();
    }

    /// A Bind of it passes.
    pub(super) fn bind_unnamed(&mut self) -> Verdict {
        if !std::mem::take(&mut self.unnamed.noted) {
            self.note_run();
        }
        self.unnamed.bound = self.unnamed.bound.map(|_| true);
        self.pass_extended(Kind::Bind)
    }

    /// A Query of ours passes at a boundary: as any Query it drops what is there without a name. What was kept of it is sent
    /// again before its next use, as in another lease.
    pub(super) fn lose_unnamed(&mut self) {
        self.unnamed.own = false;
        self.unnamed.noted = false;
    }

    /// A text that was looked at before is about to run again.
    fn note_run(&mut self) {
        let Some(definition) = self.client.unnamed.definition() else { return };
        if !sql::hints(definition).is_empty() {
            let definition = definition.to_vec();
            self.note_definition(&definition);
        }
    }

    /// A batch ends: each later run of it is looked at again. What was bound where it was parsed is hardly bound again, and a
    /// long one is not kept for that.
    pub(super) fn keep_unnamed(&mut self) {
        self.unnamed.noted = false;
        if self.unnamed.bound.take() == Some(true) && matches!(self.client.unnamed, Kept::Long(_)) {
            self.client.unnamed = Kept::Nothing;
        }
    }

    /// A Close of it passes. What was given a name, the server does not have without one: closing that is no error.
    pub(super) fn close_unnamed(&mut self) -> Verdict {
        if self.unnamed_is_undecided() {
            return Verdict::Later;
        }
        let was = self.drop_unnamed();
        self.push_unnamed(Kind::Close, Action::Forward, was);
        Verdict::Pass
    }

    /// A simple Query or a Close passes: the server drops it.
    pub(super) fn drop_unnamed(&mut self) -> Option<Was> {
        let was = self.save_unnamed();
        self.client.unnamed = Kept::Nothing;
        (self.unnamed.used, self.unnamed.batch) = (None, self.batch);
        was
    }
}
