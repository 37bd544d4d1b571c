//! The server is asked what a client has left on it: one Query of our own at a boundary, if anything looked like it.
//!
//! It asks only about what is suspected, or about everything when the client is pinned and may no longer need to be. The
//! client has its ReadyForQuery by then; its next message waits for the answer. Every function, operator and relation is
//! named with its schema, since the client's `search_path` is in force (CVE-2025-12819 was a pooler that left that out).
//! Values come in ASCII, octal escapes for the rest, so that `client_encoding` has no say in what is kept.
//!
//! A question that fails (a `statement_timeout` of a millisecond will do it) is answered by the worst: the client is pinned.

use super::{
    owed::{Action, Kind},
    session::Session,
    sink::Sink,
    sql::Name,
};
use crate::pool::{
    error::PoolError,
    notify::Channel,
    pins::{Pins, Reason},
    wire::{
        backend::TxStatus,
        frame,
        read::{Malformed, Reader},
        tag::frontend as tag,
    },
};

/// Bytes of names and values kept for one client, as PostgreSQL lets a startup packet have (`MAX_STARTUP_PACKET_LENGTH`).
/// With more the client is pinned.
const KEPT_MAX: usize = 10_000;

/// What can be asked about; a row of the answer begins with the letter.
const QUESTIONS: [(Reason, &str); 5] = [
    // What is in a schema depends on it: one look into an index, and no kind of object is left out.
    (
        Reason::Temp,
        "SELECT 't' WHERE EXISTS(SELECT FROM pg_catalog.pg_depend WHERE \
         refclassid OPERATOR(pg_catalog.=) 2615::pg_catalog.oid AND \
         refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema());",
    ),
    (Reason::Cursor, "SELECT 'c' FROM pg_catalog.pg_cursors WHERE is_holdable LIMIT 1;"),
    // Those of a transaction are gone by now.
    (
        Reason::AdvisoryLock,
        "SELECT 'a' FROM pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory' AND \
         pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() LIMIT 1;",
    ),
    (Reason::Listen, "SELECT 'l', channel FROM pg_catalog.pg_listening_channels() AS channel LIMIT 100001;"),
    (Reason::Prepare, "SELECT 'p' FROM pg_catalog.pg_prepared_statements WHERE from_sql LIMIT 1;"),
];

/// A question, and what has been answered of it.
#[derive(Debug, Default)]
pub(super) struct Question {
    about: Pins,
    /// Settings, in the order in which their values come, and whether each was only reset.
    names: Vec<(Name, bool)>,
    /// `None` where there is no such setting.
    values: Vec<Option<Vec<u8>>>,
    found: Pins,
    /// What the server listens to. bound: what is asked for
    channels: Vec<Channel>,
    failed: bool,
}

impl Session<'_> {
    /// Returns whether the server is to be asked before it is given back. While a client is pinned for good nobody need be.
    pub(super) fn needs_census(&self) -> bool {
        !self.suspects.is_empty() && !self.is_pinned_for_good() && !self.leaving && self.is_at_boundary()
    }

    pub(super) fn is_pinned_for_good(&self) -> bool {
        self.pins.contains(Reason::Load) || self.pins.contains(Reason::Setting)
    }

    /// Asks, if there is something to ask.
    pub(super) fn put_census(&mut self, out: &mut Sink<'_>) {
        if !self.needs_census() {
            return;
        }
        let suspects = std::mem::take(&mut self.suspects);
        let everything = !self.pins.is_empty();
        let notes = self.notes.get_or_insert_default();
        let names = notes.take_names();
        frame::write(out.writer(), tag::QUERY, |out| {
            put_settings(out, &names);
            for (reason, question) in QUESTIONS {
                if everything || suspects.contains(reason) {
                    out.extend_from_slice(question.as_bytes());
                }
            }
            out.push(0);
        });
        notes.question = Question { about: suspects, names, ..Question::default() };
        self.server.owed.push(Kind::Census, Action::Skip);
        self.pace.asked();
        self.lose_unnamed();
        self.counting = true;
        self.control.set_replaying(true);
    }

    /// A row of the answer.
    pub(super) fn on_census_row(&mut self, body: &[u8]) -> Result<(), PoolError> {
        let Some(notes) = &mut self.notes else { return Ok(()) };
        notes.question.row(body).map_err(|_| PoolError::ServerProtocol { why: "malformed DataRow" })
    }

    pub(super) fn on_census_error(&mut self) {
        if let Some(notes) = &mut self.notes {
            notes.question.failed = true;
        }
    }

    /// The answer is all there.
    pub(super) fn on_census_end(&mut self, status: TxStatus) -> Result<(), PoolError> {
        if status != TxStatus::Idle {
            return Err(PoolError::ServerProtocol { why: "in a transaction of ours" });
        }
        self.server.owed.pop();
        self.pace.told();
        self.counting = false;
        self.control.set_replaying(false);
        let Some(notes) = &mut self.notes else { return Ok(()) };
        let question = std::mem::take(&mut notes.question);
        if question.failed || question.values.len() != question.names.len() {
            let mut worst = question.about;
            worst.insert(Reason::Setting);
            self.pin(worst);
            return Ok(());
        }
        let is_known = self.pins.contains(Reason::Listen);
        let fits = question.names.is_empty() || self.keep_settings(&question);
        let listen = [Reason::Listen].into_iter().collect();
        self.set_pins(self.pins.and(question.found).or(question.found.and(listen)));
        if !fits {
            self.pin([Reason::Setting].into_iter().collect());
        }
        self.pin(question.found.without(listen));
        if !question.found.contains(Reason::Listen) {
            self.moving = None;
        } else {
            self.found_listening(question.channels);
            if self.moving.is_none() && !is_known {
                // It stays here, and that is news.
                self.set_pins(self.pins.without(listen));
                self.pin(listen);
            }
        }
        if self.notes.as_ref().is_some_and(|notes| notes.is_spent()) {
            self.notes = None;
        }
        Ok(())
    }

    /// Keeps the settings that were asked for as the client's own. Returns false when they are too much.
    fn keep_settings(&mut self, question: &Question) -> bool {
        let mut options = self.client.options.as_ref().map(|options| (**options).clone()).unwrap_or_default();
        let startup = self.client.startup_options().cloned();
        // Whether the server has what the client has from now on.
        let mut exact = !self.notes.as_ref().is_some_and(|notes| notes.shaken);
        for ((name, only_reset), now) in question.names.iter().zip(&question.values) {
            let unchanged = options.value(name).map(|before| &**before) == now.as_deref();
            let at_startup = startup.as_ref().and_then(|startup| startup.value(name));
            let value = match now {
                // The RESET failed or was rolled back, or has changed nothing.
                _ if unchanged => continue,
                // The server tells a default of its own; the client's is what it asked for at startup.
                Some(_) if *only_reset => {
                    exact &= at_startup.is_none();
                    at_startup.map(|value| &**value)
                }
                now => now.as_deref(),
            };
            match value {
                Some(value) => drop(options.add(name, value)), // the name was checked before it was asked for
                None => options.remove(name),
            }
        }
        let fits = options.weight() <= KEPT_MAX;
        if fits {
            self.client.set_options(options);
            self.client.scope = None;
            // Clients of one application set the same: one value for all of them.
            if let Some(shared) = self.server.applied.known()
                && Some(&**shared) == self.client.options.as_deref()
            {
                self.client.options = Some(shared.clone());
            }
            if exact {
                self.server.applied.set(self.client.options.as_ref());
            } else {
                self.stale = true;
            }
        }
        fits
    }
}

/// Appends the question for the values of settings.
fn put_settings(out: &mut Vec<u8>, names: &[(Name, bool)]) {
    if names.is_empty() {
        return;
    }
    out.extend_from_slice(b"SELECT 's'");
    for (name, _) in names {
        out.extend_from_slice(b",pg_catalog.encode(pg_catalog.convert_to(pg_catalog.current_setting('");
        // Letters, digits, `_`, `$` and dots.
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"',true),pg_catalog.getdatabaseencoding()),'escape')");
    }
    out.push(b';');
}

impl Question {
    pub(super) fn row(&mut self, body: &[u8]) -> Result<(), Malformed> {
        let mut reader = Reader::new(body);
        let columns = reader.i16()?;
        let mut column = || -> Result<Option<&[u8]>, Malformed> {
            match reader.i32()? {
                -1 => Ok(None),
                len => reader.bytes(usize::try_from(len).map_err(|_| Malformed)?).map(Some),
            }
        };
        let found = match column()? {
            Some(b"t") => Reason::Temp,
            Some(b"c") => Reason::Cursor,
            Some(b"a") => Reason::AdvisoryLock,
            Some(b"p") => Reason::Prepare,
            Some(b"l") => {
                self.channels.extend(column()?.map(Channel::from));
                Reason::Listen
            }
            Some(b"s") => {
                self.values = (1..columns).map(|_| Ok(column()?.map(unescaped))).collect::<Result<_, Malformed>>()?;
                return Ok(());
            }
            _ => return Err(Malformed),
        };
        self.found.insert(found);
        Ok(())
    }
}

/// Undoes `encode(…, 'escape')`: `\\`, and `\ooo` for bytes with the high bit.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    loop {
        match rest {
            [] => return out,
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
                out.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
                rest = &rest[4..];
            }
            [b'\\', byte, ..] => {
                out.push(*byte);
                rest = &rest[2..];
            }
            [byte, ..] => {
                out.push(*byte);
                rest = &rest[1..];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_escapes_is_read_as_it_was() {
        assert_eq!(unescaped(b"a, \"B\""), b"a, \"B\"");
        assert_eq!(unescaped(br"\303\266\\n\"), b"\xc3\xb6\\n\\");
    }
}
