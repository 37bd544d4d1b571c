//! The four messages that name prepared statements.
//!
//! A name is replaced by the one servers know the statement by, and a server that does not have it gets its Parse first, in
//! band, without a Sync of ours (that would end the client's implicit transaction). Where PostgreSQL would refuse a name, we
//! let the server refuse: it then does all that follows from an error itself (failed transaction, discarded batch), and only
//! the text it answers is put right ([`super::from_server`]).

use std::sync::Arc;

use super::{
    framer::Verdict,
    owed::{Action, Change, Kind, Named, Sent, Whose},
    session::Session,
    sink::Sink,
};
use crate::pool::{
    error::PoolError,
    prepared::{
        Statement, Ticket,
        client::{Meaning, Told},
        server::{Have, Need},
        statement::{Full, NAME_PREFIX},
    },
    wire::{
        backend::TxStatus,
        frame::{self, Header, put_cstr},
        frontend,
        read::{Malformed, ParseBody, Target},
        tag::frontend as tag,
    },
};

/// Statements one client may have prepared at a time. Drivers keep 100 to 256 of them.
const CLIENT_STATEMENTS_MAX: usize = 5_000;
/// Their text, in messages of the longest kind that may be held.
const CLIENT_STATEMENT_TEXT: usize = 4;
/// Bytes before the second NUL of a Bind: PostgreSQL itself tells 63 bytes of a name apart.
const NAMES_MAX: usize = 10_000;
/// A name no statement has.
const NOBODY: &[u8] = b"bookend_nobody";
/// A name that is prepared so that preparing it again fails.
const TAKEN: &[u8] = b"bookend_taken";
/// The definition of an empty statement: no text, no types.
pub(super) const EMPTY: &[u8] = b"\0\0\0";

impl Session<'_> {
    pub(super) fn on_parse(&mut self, header: Header, body: &[u8], out: &mut Sink<'_>) -> Result<Verdict, PoolError> {
        if !self.maps_names() {
            let from = memchr::memchr(0, body).map_or(0, |end| end + 1);
            return Ok(match self.note_text(header, body, from) {
                Some(_) => self.pass_extended(Kind::Parse),
                None => Verdict::NeedMore,
            });
        }
        match body.first() {
            None if header.body_len() > 0 => return Ok(Verdict::NeedMore),
            None | Some(0) => return Ok(self.parse_unnamed(header, body, out)),
            Some(_) => {}
        }
        let (len, limit) = (header.body_len() as u64, self.limits.max_held_message as u64);
        if len > limit {
            return Err(PoolError::HeldMessageTooLarge { len, limit });
        }
        if body.len() < header.body_len() {
            return Ok(Verdict::NeedMore);
        }
        let parse = ParseBody::parse(body).map_err(malformed)?;
        if self.names_are_undecided(out) {
            return Ok(Verdict::Later);
        }
        match self.client.statements.look_up(parse.name, self.batch) {
            Meaning::Undecided => return Ok(Verdict::Later),
            // A Query on its way may be DEALLOCATE ALL. In COPY the server does not answer before it has read this.
            Meaning::Statement(..) if self.server.owed.awaits_ready() && !self.copy_in => return Ok(Verdict::Later),
            Meaning::Statement(..) => self.refuse_duplicate(parse, out),
            Meaning::Nothing => self.prepare(parse, out),
        }
        self.batch_open = true;
        self.pace.sent();
        self.counts.client_parses += 1;
        Ok(Verdict::Skip)
    }

    /// A new name: the server may have the statement already.
    fn prepare(&mut self, parse: ParseBody<'_>, out: &mut Sink<'_>) {
        let (scope, alone) = (self.scope(), self.reads_alone());
        let interner = &self.client.interner;
        let key = interner.key(scope, parse.definition);
        // What the same text meant before may be another table by now, which a new Parse must not find.
        let statement = match if alone { interner.intern_anew(key) } else { interner.intern(key) } {
            Ok(statement) => statement,
            Err(Full(limit)) => return self.reject(PoolError::StatementMemory { limit }, out),
        };
        let text_max = self.limits.max_held_message.saturating_mul(CLIENT_STATEMENT_TEXT);
        if self.client.statements.is_full(&statement, CLIENT_STATEMENTS_MAX, text_max) {
            let error = PoolError::TooManyPreparedStatements { limit: CLIENT_STATEMENTS_MAX, bytes: text_max };
            return self.reject(error, out);
        }
        let (name, ticket) = (Arc::<[u8]>::from(parse.name), self.ticket());
        self.client.statements.parsing(name.clone(), statement.clone(), ticket);
        let on_server = &mut self.server.statements;
        // In a failed transaction a server refuses Parse (25P02), and so it must be asked; likewise while an answer is on
        // its way that may say so.
        let tx_is_sound = self.server.tx != TxStatus::Failed && !self.server.owed.awaits_ready();
        let has = on_server.touch(statement.id) || on_server.is_parsing(statement.id, ticket.batch);
        if has && tx_is_sound {
            let change = Change::Parsed { ticket, statement, whose: Whose::Client(name), sent: Sent::No };
            return self.server.owed.push_change(Kind::Parse, Action::Fake, change);
        }
        let need = if has {
            on_server.prepare_again(&statement, ticket);
            Need::CloseAndParse
        } else {
            on_server.prepare(&statement, ticket).need
        };
        self.send_parse(&statement, need, ticket, Whose::Client(name), out);
    }

    /// A name that is taken: PostgreSQL looks at the text first and then says 42P05, so the server is given the text under a
    /// name that is taken there.
    fn refuse_duplicate(&mut self, parse: ParseBody<'_>, out: &mut Sink<'_>) {
        let owed = &mut self.server.owed;
        let name = String::from_utf8_lossy(parse.name).into_owned();
        let writer = out.writer();
        frontend::close_statement(writer, TAKEN);
        owed.push(Kind::Close, Action::Skip);
        frontend::parse(writer, TAKEN, EMPTY);
        owed.push_change(Kind::Parse, Action::Skip, Change::Nothing);
        frontend::parse(writer, TAKEN, parse.definition);
        let change = Change::Reject(PoolError::DuplicatePreparedStatement { name });
        owed.push_change(Kind::Parse, Action::Forward, change);
    }

    pub(super) fn on_bind(&mut self, header: Header, body: &[u8], out: &mut Sink<'_>) -> Result<Verdict, PoolError> {
        if !self.maps_names() {
            self.counts.binds += 1;
            return Ok(self.pass_extended(Kind::Bind));
        }
        let mut nuls = memchr::memchr_iter(0, body);
        let (Some(portal_end), Some(name_end)) = (nuls.next(), nuls.next()) else {
            return match body.len() {
                len if len == header.body_len() => Err(malformed(Malformed)),
                len if len > NAMES_MAX => Err(PoolError::Protocol { why: "name too long" }),
                _ => Ok(Verdict::NeedMore),
            };
        };
        let name = &body[portal_end + 1..name_end];
        let portal = &body[..portal_end];
        let (mut named, told) = match self.named(name, out) {
            Found::Statement(named, told) => (named, told),
            Found::Verdict(verdict) => {
                self.server.columns.rebind(portal, None);
                self.counts.binds += u64::from(verdict != Verdict::Later);
                return Ok(match verdict {
                    Verdict::Pass if name.is_empty() => self.bind_unnamed(),
                    Verdict::Pass => self.pass_extended(Kind::Bind),
                    other => other,
                });
            }
        };
        let statement = &named.statement;
        let body_len = (header.body_len() - name.len() + statement.name().len()) as u64;
        let Ok(len) = i32::try_from(body_len + 4) else {
            return Err(PoolError::PacketTooLarge { len: body_len, limit: i32::MAX as u64 });
        };
        let have = self.ensure(statement, out);
        named.made = have.made;
        if !told.allows(have.made, have.columns) && !self.copy_in {
            return Ok(self.hold_bind(header, body, (portal_end, name_end), named, out));
        }
        self.put_bind(portal, named, Self::is_settled(told, have), len, out);
        Ok(Verdict::PassBodyFrom(name_end + 1))
    }

    /// Writes a Bind up to its statement's name. `len`: as its header says it. `settled`: that its client is told of its
    /// columns would be nothing new.
    pub(super) fn put_bind(&mut self, portal: &[u8], named: Named, settled: bool, len: i32, out: &mut Sink<'_>) {
        self.note_statement(&named.statement);
        self.server.columns.rebind(portal, (!settled && named.name.is_some()).then_some(&named));
        let writer = out.writer();
        writer.push(tag::BIND);
        writer.extend_from_slice(&len.to_be_bytes());
        put_cstr(writer, portal);
        put_cstr(writer, named.statement.name());
        self.counts.binds += 1;
        self.sent_named(Kind::Bind, named);
    }

    pub(super) fn on_describe(
        &mut self,
        header: Header,
        body: &[u8],
        out: &mut Sink<'_>,
    ) -> Result<Verdict, PoolError> {
        if !self.maps_names() || (body.first() == Some(&b'P') && !self.server.columns.has_portals()) {
            return Ok(self.pass_extended(Kind::Describe));
        }
        if body.len() < header.body_len() {
            return Ok(Verdict::NeedMore);
        }
        let name = match Target::parse(body).map_err(malformed)? {
            Target::Portal(portal) => return Ok(self.describe_portal(portal)),
            Target::Statement(name) => name,
        };
        match self.named(name, out) {
            Found::Verdict(Verdict::Pass) => Ok(self.pass_extended(Kind::Describe)),
            Found::Verdict(verdict) => Ok(verdict),
            Found::Statement(mut named, _) => {
                named.made = self.ensure(&named.statement, out).made;
                self.note_asked(&named);
                frame::write(out.writer(), tag::DESCRIBE, |out| {
                    out.push(b'S');
                    put_cstr(out, named.statement.name());
                });
                self.sent_named(Kind::Describe, named);
                Ok(Verdict::Skip)
            }
        }
    }

    /// Others use the statement too, so it stays on the server; the client's name goes.
    pub(super) fn on_close(&mut self, header: Header, body: &[u8]) -> Result<Verdict, PoolError> {
        if !self.maps_names() || body.first() == Some(&b'P') {
            return Ok(self.pass_extended(Kind::Close));
        }
        if body.len() < header.body_len() {
            return Ok(Verdict::NeedMore);
        }
        let name = match Target::parse(body).map_err(malformed)? {
            Target::Portal(_) => return Ok(self.pass_extended(Kind::Close)),
            Target::Statement(b"") => return Ok(self.close_unnamed()),
            Target::Statement(name) => name,
        };
        match self.client.statements.look_up(name, self.batch) {
            Meaning::Undecided => return Ok(Verdict::Later),
            // Made by SQL, or not at all: the server says CloseComplete either way.
            Meaning::Nothing if !is_ours(name) => return Ok(self.pass_extended(Kind::Close)),
            Meaning::Nothing | Meaning::Statement(..) => {}
        }
        self.batch_open = true;
        self.pace.sent();
        let ticket = self.ticket();
        let closed = self.client.statements.closing(name, ticket);
        let change = closed.map_or(Change::Nothing, |closed| Change::ClientClosed { ticket, closed });
        self.server.owed.push_change(Kind::Close, Action::Fake, change);
        Ok(Verdict::Skip)
    }

    /// Finds what a Bind or Describe means by a name.
    fn named(&mut self, name: &[u8], out: &mut Sink<'_>) -> Found {
        if name.is_empty() {
            return self.ensure_unnamed(out);
        }
        if self.names_are_undecided(out) {
            return Found::Verdict(Verdict::Later);
        }
        match self.client.statements.look_up(name, self.batch) {
            Meaning::Undecided => Found::Verdict(Verdict::Later),
            // A Query on its way may be DEALLOCATE ALL: the name may mean nothing by the time this is read.
            Meaning::Statement(..) if self.server.owed.awaits_query() && !self.copy_in => {
                Found::Verdict(Verdict::Later)
            }
            Meaning::Statement(name, statement, told) => {
                self.in_scope(Named { name: Some(name), statement, made: 0 }, told, out)
            }
            // Made by SQL PREPARE, or not at all: the server knows.
            Meaning::Nothing if !is_ours(name) => Found::Verdict(Verdict::Pass),
            Meaning::Nothing => {
                let name = String::from_utf8_lossy(name).into_owned();
                self.refuse(PoolError::NoPreparedStatement { name }, out)
            }
        }
    }

    /// Returns whether what is being executed may be DEALLOCATE ALL, so that no name means anything before its answer has come.
    /// The server is asked for that: nobody knows when the client's Sync will come.
    pub(super) fn names_are_undecided(&mut self, out: &mut Sink<'_>) -> bool {
        // In COPY the server does not answer before it has read what waits here.
        if !self.frees || self.copy_in || self.heal.is_repeating() || !self.server.owed.awaits_execute() {
            return false;
        }
        if !std::mem::replace(&mut self.flushed, true) {
            frame::write(out.writer(), tag::FLUSH, |_| {});
        }
        true
    }

    /// A client whose settings have changed since it prepared a statement must not have the text read under these where
    /// others look for it as read under those.
    fn in_scope(&mut self, mut named: Named, told: Told, out: &mut Sink<'_>) -> Found {
        let scope = self.scope();
        if scope == named.statement.scope() {
            return Found::Statement(named, told);
        }
        // In a failed transaction nothing is parsed; what can be asked of a statement there, it answers as it is.
        if self.server.owed.awaits_ready() && !self.copy_in {
            return Found::Verdict(Verdict::Later);
        }
        if self.server.tx == TxStatus::Failed && self.server.statements.touch(named.statement.id) {
            return Found::Statement(named, told);
        }
        let interner = &self.client.interner;
        match interner.intern(interner.key(scope, named.statement.definition())) {
            Ok(statement) => {
                self.client.statements.replace(named.name.as_deref().unwrap_or_default(), &statement);
                named.statement = statement;
                Found::Statement(named, told)
            }
            Err(Full(limit)) => self.refuse(PoolError::StatementMemory { limit }, out),
        }
    }

    /// A Bind or Describe is refused in the server's own order and state.
    fn refuse(&mut self, error: PoolError, out: &mut Sink<'_>) -> Found {
        self.reject(error, out);
        self.batch_open = true;
        self.pace.sent();
        Found::Verdict(Verdict::Skip)
    }

    /// A message went to the server with the statement's name in place of the client's.
    fn sent_named(&mut self, kind: Kind, named: Named) {
        self.batch_open = true;
        self.pace.sent();
        if named.name.is_none() {
            self.named_unnamed();
        }
        self.server.owed.push_named(kind, named);
    }

    /// Makes the server have `statement` before what is sent next.
    pub(super) fn ensure(&mut self, statement: &Arc<Statement>, out: &mut Sink<'_>) -> Have {
        let ticket = self.ticket();
        let have = self.server.statements.prepare(statement, ticket);
        if have.need != Need::Nothing {
            self.send_parse(statement, have.need, ticket, Whose::Ours, out);
        }
        have
    }

    /// Sends a Parse, the client's or our own. Makes room for it first.
    pub(super) fn send_parse(
        &mut self,
        statement: &Arc<Statement>,
        need: Need,
        ticket: Ticket,
        whose: Whose,
        out: &mut Sink<'_>,
    ) {
        loop {
            let closing = self.ticket();
            let Some(old) = self.server.statements.evict(self.limits.max_prepared_statements, closing) else { break };
            self.send_close(&old, closing, out);
        }
        if need == Need::CloseAndParse {
            self.send_close(statement, ticket, out);
        }
        frontend::parse(out.writer(), statement.name(), statement.definition());
        self.counts.server_parses += 1;
        let action = if matches!(whose, Whose::Ours) { Action::Skip } else { Action::Forward };
        let sent = Sent::Yes { fresh: need == Need::Parse { fresh: true } };
        let change = Change::Parsed { ticket, statement: statement.clone(), whose, sent };
        self.server.owed.push_change(Kind::Parse, action, change);
    }

    fn send_close(&mut self, statement: &Statement, ticket: Ticket, out: &mut Sink<'_>) {
        frontend::close_statement(out.writer(), statement.name());
        let change = Change::ServerClosed { ticket, id: statement.id };
        self.server.owed.push_change(Kind::Close, Action::Skip, change);
    }

    /// Makes the server fail here; its answer's text will be ours.
    pub(super) fn reject(&mut self, error: PoolError, out: &mut Sink<'_>) {
        frame::write(out.writer(), tag::BIND, |out| {
            put_cstr(out, b"");
            put_cstr(out, NOBODY);
            out.extend_from_slice(&[0; 6]); // no formats, no values, no result formats
        });
        self.server.owed.push_change(Kind::Bind, Action::Forward, Change::Reject(error));
    }
}

/// What a Bind or Describe is about.
pub(super) enum Found {
    /// With what the client was told of it.
    Statement(Named, Told),
    /// Decided already.
    Verdict(Verdict),
}

/// A name that could be mistaken for one of ours must not reach a server as it is.
pub(super) fn is_ours(name: &[u8]) -> bool {
    name.starts_with(NAME_PREFIX.as_bytes())
}

fn malformed(_: Malformed) -> PoolError {
    PoolError::Protocol { why: "malformed message" }
}
