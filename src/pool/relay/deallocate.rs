//! `DEALLOCATE name` of a name that the client gave by the protocol, as psycopg sends it.
//!
//! PostgreSQL has one table for both kinds of names. Here the server does not know this one: it has the statement under a
//! name of its own, for all clients. So the server is given another statement to drop, made just before, and answers as it
//! would have; in a failed transaction it refuses, as it would have. When its answer says that it was done, the client's name
//! goes.

use super::{
    framer::Verdict,
    owed::{Action, Change, Kind, Named},
    session::Session,
    sink::Sink,
    sql,
    statements::EMPTY,
};
use crate::pool::{prepared::client::Meaning, wire::frontend};

/// The statement that is made to be dropped.
const GONE: &[u8] = b"bookend_gone";
/// What drops it.
const DROP: &[u8] = b"DEALLOCATE bookend_gone";
/// The same as in a Parse, without types.
const DROP_DEFINITION: &[u8] = b"DEALLOCATE bookend_gone\0\0\0";

/// What becomes of a DEALLOCATE.
pub(super) enum Deallocate {
    /// It passes as it is: the name is not the client's by the protocol.
    Pass,
    /// Whether it is the client's is not decided yet.
    Later,
    /// The server was given another one.
    Replaced,
}

impl Session<'_> {
    /// A simple Query that begins with DEALLOCATE.
    pub(super) fn on_deallocate(&mut self, text: &[u8], out: &mut Sink<'_>) -> Deallocate {
        let named = match self.deallocated_by(text, out) {
            Ok(found) => found,
            Err(other) => return other,
        };
        let was = self.drop_unnamed();
        self.put_gone(out);
        frontend::query(out.writer(), DROP);
        self.pass_simple();
        self.server.owed.push_named_change(Kind::Query, named, was.map(|was| Change::UnnamedWas(Some(was))));
        Deallocate::Replaced
    }

    /// A Parse without a name, of DEALLOCATE. Another one is sent in its place.
    pub(super) fn parse_deallocate(&mut self, text: &[u8], out: &mut Sink<'_>) -> Deallocate {
        let named = match self.deallocated_by(text, out) {
            Ok(found) => found,
            Err(other) => return other,
        };
        self.put_gone(out);
        frontend::parse(out.writer(), b"", DROP_DEFINITION);
        self.notes.get_or_insert_default().deallocates = named.name;
        Deallocate::Replaced
    }

    /// Returns whether what an Execute runs is such a DEALLOCATE.
    pub(super) fn deallocates(&self) -> bool {
        self.notes.as_ref().is_some_and(|notes| notes.deallocates.is_some())
    }

    /// A Parse comes, of something else.
    pub(super) fn forget_deallocate(&mut self) {
        if let Some(notes) = &mut self.notes {
            notes.deallocates = None;
        }
    }

    /// An Execute: of that Parse, since nothing else has come between.
    pub(super) fn execute_deallocate(&mut self) -> Verdict {
        let Some(name) = self.notes.as_mut().and_then(|notes| notes.deallocates.take()) else {
            return self.pass_extended(Kind::Execute);
        };
        let ticket = self.ticket();
        let Some(closed) = self.client.statements.closing(&name, ticket) else {
            return self.pass_extended(Kind::Execute);
        };
        (self.batch_open, self.flushed) = (true, false);
        self.pace.sent();
        let change = Change::ClientClosed { ticket, closed };
        self.server.owed.push_change(Kind::Execute, Action::Forward, change);
        Verdict::Pass
    }

    /// Finds the client's statement that a text drops, or what else becomes of the text.
    fn deallocated_by(&mut self, text: &[u8], out: &mut Sink<'_>) -> Result<Named, Deallocate> {
        let Some(name) = sql::deallocated(text).filter(|_| self.maps_names()) else { return Err(Deallocate::Pass) };
        if self.names_are_undecided(out) {
            return Err(Deallocate::Later);
        }
        match self.client.statements.look_up(&name, self.batch) {
            Meaning::Nothing => Err(Deallocate::Pass),
            Meaning::Undecided => Err(Deallocate::Later),
            // A Query on its way may be DEALLOCATE ALL.
            Meaning::Statement(..) if self.server.owed.awaits_query() && !self.copy_in => Err(Deallocate::Later),
            Meaning::Statement(name, statement, _) => Ok(Named { name: Some(name), statement, made: 0 }),
        }
    }

    /// Makes the statement that is dropped. Closing what is not there is no error.
    fn put_gone(&mut self, out: &mut Sink<'_>) {
        let writer = out.writer();
        frontend::close_statement(writer, GONE);
        frontend::parse(writer, GONE, EMPTY);
        self.server.owed.push(Kind::Close, Action::Skip);
        self.server.owed.push_change(Kind::Parse, Action::Skip, Change::Nothing);
    }

    /// DEALLOCATE was done. Returns whether it was one of these; of an Execute the name goes with its answer, as that of a
    /// Close.
    pub(super) fn client_deallocated(&mut self) -> bool {
        let Some(front) = self.server.owed.front() else { return false };
        match (front.kind, &front.named, front.change.as_deref()) {
            (Kind::Query, Some(Named { name: Some(name), .. }), _) => {
                let name = name.clone();
                self.client.statements.deallocated(&name);
                true
            }
            (Kind::Execute, _, Some(Change::ClientClosed { .. })) => true,
            _ => false,
        }
    }
}
