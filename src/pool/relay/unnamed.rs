//! The statement without a name. PostgreSQL keeps it until the next Parse without a name or simple Query of the session,
//! and on a pooled server those are whoever's comes next.
//!
//! Most drivers parse and bind it in one batch. Some describe it in one batch and bind it in the next (lib/pq, pgx in its
//! describe mode), which may reach another server, or this one after another client has parsed something of its own: what
//! ran would be that client's statement. So nothing that stood on a server before a lease is ever used. A client's last
//! text is kept when a batch ends without having bound it, and sent again ahead of the first Bind or Describe of a lease;
//! where there is none, a Close goes ahead and PostgreSQL itself says that there is no such statement.
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
    prepared::{Batch, Statement, client::Told, server::Need, text},
    wire::{
        frame::{self, Header},
        frontend,
        read::ParseBody,
        tag::frontend as tag,
    },
};

/// Longest message whose text is kept for another lease, or given a name.
const KEPT_MAX: usize = TEXT_MAX;

/// A client's statement without a name, between two leases.
#[derive(Debug, Clone)]
pub(super) enum Kept {
    /// Text and types.
    Text(Arc<[u8]>),
    /// It was given a name.
    Statement(Arc<Statement>),
}

/// What there was of it before a batch.
#[derive(Debug, Default)]
pub(super) struct Before {
    own: bool,
    kept: Option<Box<Kept>>,
}

/// What a lease knows of it.
#[derive(Debug, Default)]
pub(super) struct Unnamed {
    /// Text and types of the last Parse; empty when it was too long, or was given a name.
    definition: Vec<u8>,
    /// What the last Parse was given a name for. The server knows it under that name alone, unless `own`.
    statement: Option<Arc<Statement>>,
    /// The batch in which `statement` was bound or described by its name.
    used: Option<Batch>,
    /// The batch of the last Parse.
    batch: Batch,
    bound: bool,
    /// What is on the server without a name is this client's, or nothing.
    own: bool,
    /// Its text was looked at for the Bind that comes next: each run of it may leave something.
    noted: bool,
}

/// What of it a failed batch has lost.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// A Parse of the client's.
    parse: bool,
    /// A Parse of ours, which put the client's text where this lease looks for it, or a Close, which left nothing there.
    ours: bool,
    /// A Close of the client's did not happen.
    kept: Option<Arc<Statement>>,
}

impl Lost {
    /// Notes a request that was discarded. Comes last one first.
    pub(super) fn note(&mut self, entry: &mut Entry) {
        match (entry.kind, entry.action, entry.change.as_deref_mut()) {
            (Kind::Parse | Kind::Close, Action::Skip, None) => self.ours = true,
            (Kind::Parse, _, None | Some(Change::Parsed { whose: Whose::Unnamed, .. })) => self.parse = true,
            (Kind::Close, _, Some(Change::UnnamedClosed { statement })) => self.kept = Some(statement.clone()),
            _ => {}
        }
    }
}

impl Session<'_> {
    /// A Parse without a name: it is given one, or passes.
    pub(super) fn parse_unnamed(&mut self, header: Header, body: &[u8], out: &mut Sink<'_>) -> Verdict {
        if let Some(statement) = self.find_unnamed(header, body) {
            self.forget_deallocate();
            self.name_unnamed(statement, out);
            return Verdict::Skip;
        }
        let Some(hints) = self.note_text(header, body, 1) else { return Verdict::NeedMore };
        self.forget_deallocate();
        let dropped = match hints.contains(Hints::DEALLOCATE).then(|| self.parse_deallocate(&body[1..], out)) {
            Some(Deallocate::Later) => return Verdict::Later,
            other => matches!(other, Some(Deallocate::Replaced)),
        };
        self.passes_unnamed(header, body);
        self.unnamed.noted = true;
        let passed = self.pass_extended(Kind::Parse);
        if dropped { Verdict::Skip } else { passed }
    }

    fn passes_unnamed(&mut self, header: Header, body: &[u8]) {
        self.client.unnamed = None;
        let unnamed = &mut self.unnamed;
        unnamed.definition.clear();
        if body.len() == header.body_len() && body.len() <= KEPT_MAX {
            unnamed.definition.extend_from_slice(body.get(1..).unwrap_or_default());
        }
        (unnamed.own, unnamed.bound, unnamed.batch) = (true, false, self.batch);
        (unnamed.statement, unnamed.used) = (None, None);
    }

    /// Returns the statement that a Parse without a name stands for, if it may be given its name.
    fn find_unnamed(&mut self, header: Header, body: &[u8]) -> Option<Arc<Statement>> {
        let may = self.limits.prepare_unnamed_statements
            && self.client.pipelines == 0
            && self.heal.would_heal()
            && !self.reads_alone();
        if !may || body.len() < header.body_len() || body.len() > KEPT_MAX {
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
        self.batch_open = true;
        self.pace.sent();
        self.counts.client_parses += 1;
        if self.server.statements.touch(statement.id) {
            self.server.owed.push(Kind::Parse, Action::Fake);
        } else {
            let ticket = self.ticket();
            match self.server.statements.prepare(&statement, ticket).need {
                Need::Nothing => self.server.owed.push(Kind::Parse, Action::Fake), // sent in this very batch
                need => self.send_parse(&statement, need, ticket, Whose::Unnamed, out),
            }
        }
        self.stands_for(statement);
    }

    fn stands_for(&mut self, statement: Arc<Statement>) {
        self.client.unnamed = None;
        let unnamed = &mut self.unnamed;
        unnamed.definition.clear();
        (unnamed.own, unnamed.bound, unnamed.batch) = (false, false, self.batch);
        (unnamed.statement, unnamed.used) = (Some(statement), None);
    }

    /// Returns what there is of it before a batch that may be sent again.
    pub(super) fn unnamed_before(&self) -> Before {
        let unnamed = &self.unnamed;
        let statement = unnamed.statement.as_ref().filter(|_| !unnamed.own);
        let named = statement.map(|statement| Box::new(Kept::Statement(statement.clone())));
        Before { own: unnamed.own, kept: named.or_else(|| self.client.unnamed.clone()) }
    }

    /// The batch is sent again: what it did to it has not been.
    pub(super) fn restore_unnamed(&mut self, before: Before) {
        self.drop_unnamed();
        self.unnamed.own = before.own;
        self.client.unnamed = before.kept;
    }

    /// A message of a batch that is sent again, which was answered: a Parse or Close of it must have been, for those behind.
    pub(super) fn repeat_unnamed(&mut self, header: Header, body: &[u8], out: &mut Sink<'_>) {
        let kind = match (header.tag, body) {
            (tag::PARSE, [0, ..]) => {
                if let Some(statement) = self.find_unnamed(header, body) {
                    return self.stands_for(statement);
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
        let unnamed = &self.unnamed;
        let parsed_here = (unnamed.own || unnamed.statement.is_some()) && unnamed.batch == self.batch;
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
        let definition = match (&self.unnamed.statement, self.client.unnamed.as_deref()) {
            (Some(statement), _) | (None, Some(Kept::Statement(statement))) => Some(statement.definition()),
            (None, Some(Kept::Text(definition))) => Some(&**definition),
            (None, None) => None,
        };
        match definition {
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
        let statement = match (&self.unnamed.statement, self.client.unnamed.as_deref()) {
            (Some(statement), _) | (None, Some(Kept::Statement(statement))) => statement.clone(),
            _ => return None,
        };
        let may = self.heal.would_heal() || self.unnamed.used == Some(self.batch);
        (may && statement.scope() == self.scope()).then_some(statement)
    }

    /// A Bind or Describe of it goes out with the name it was given.
    pub(super) fn named_unnamed(&mut self, kind: Kind) {
        self.unnamed.used = Some(self.batch);
        self.unnamed.bound |= kind == Kind::Bind;
        self.heal.rely();
    }

    /// A Bind of it passes: what is parsed and bound in one batch need not be kept.
    pub(super) fn bind_unnamed(&mut self) -> Verdict {
        self.unnamed.bound = true;
        if !std::mem::take(&mut self.unnamed.noted) {
            self.note_run();
        }
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
        let definition = match (&self.unnamed.statement, self.client.unnamed.as_deref()) {
            _ if !self.unnamed.definition.is_empty() => &self.unnamed.definition,
            (Some(statement), _) | (None, Some(Kept::Statement(statement))) => statement.definition(),
            (None, Some(Kept::Text(definition))) => &**definition,
            (None, None) => return,
        };
        if !sql::hints(definition).is_empty() {
            let definition = definition.to_vec();
            self.note_definition(&definition);
        }
    }

    /// A batch ends: a text that was not bound in it may be in another lease.
    pub(super) fn keep_unnamed(&mut self) {
        self.unnamed.noted = false;
        let unnamed = &self.unnamed;
        if unnamed.bound {
            return;
        }
        if let Some(statement) = &unnamed.statement {
            self.client.unnamed = Some(Box::new(Kept::Statement(statement.clone())));
        } else if !unnamed.definition.is_empty() {
            self.client.unnamed = Some(Box::new(Kept::Text(unnamed.definition.as_slice().into())));
        }
    }

    /// A Close of it passes. What was given a name, the server does not have without one: closing that is no error.
    pub(super) fn close_unnamed(&mut self) -> Verdict {
        let statement = self.unnamed.statement.take();
        self.drop_unnamed();
        self.batch_open = true;
        self.pace.sent();
        match statement {
            Some(statement) => {
                let change = Change::UnnamedClosed { statement };
                self.server.owed.push_change(Kind::Close, Action::Forward, change);
            }
            None => self.server.owed.push(Kind::Close, Action::Forward),
        }
        Verdict::Pass
    }

    /// A simple Query or a Close passes: the server drops it.
    pub(super) fn drop_unnamed(&mut self) {
        self.unnamed.definition.clear();
        (self.unnamed.statement, self.unnamed.used) = (None, None);
        self.client.unnamed = None;
    }

    /// A batch failed: a Parse of it left nothing, or what had been there before.
    pub(super) fn undo_unnamed(&mut self, lost: Lost) {
        if let Some(statement) = lost.kept
            && !self.unnamed.own
        {
            self.unnamed.statement.get_or_insert(statement);
        }
        if lost.ours {
            self.unnamed.own = false;
        }
        // Syncs that are not answered are of later batches.
        if lost.parse && self.unnamed.batch <= self.batch - self.server.owed.syncs() {
            self.drop_unnamed();
            self.unnamed.own = false;
        }
    }
}
