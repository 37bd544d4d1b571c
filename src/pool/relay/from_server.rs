//! What becomes of a server's message: whose answer it is, and what it tells about the server.
//!
//! Nearly every message is decided by its tag and the oldest request. Four are seen whole: ParameterStatus, ReadyForQuery,
//! ErrorResponse, and CommandComplete, whose tag says what SQL has done to the session; and the few rows of a census.

use super::{
    framer::Verdict,
    owed::{Action, Change, Kind, Named},
    session::{Replay, Session},
    sink::Sink,
};
use crate::{
    config::pool::PoolMode,
    pool::{
        error::PoolError,
        wire::{
            backend::{self, TxStatus},
            frame::{self, Header},
            read::{ErrorFields, ParameterStatus},
            tag::backend as tag,
        },
    },
};

/// PostgreSQL's own limit on a command tag (`COMPLETION_TAG_BUFSIZE`).
const COMMAND_TAG_MAX: usize = 64;

impl Session<'_> {
    /// Decides one message. Called again with more of it while the answer is [`Verdict::NeedMore`].
    pub(super) fn on_server(&mut self, header: Header, body: &[u8], out: &mut Sink<'_>) -> Result<Verdict, PoolError> {
        self.put_fakes(out);
        if !matches!(header.tag, tag::ERROR_RESPONSE | tag::PARAMETER_STATUS | tag::NOTICE_RESPONSE) {
            self.put_description(out);
        }
        match header.tag {
            tag::PARAMETER_STATUS => self.on_parameter(header, body),
            tag::NOTIFICATION_RESPONSE if self.moving.is_some() || self.client.listening.is_some() => {
                self.on_notification(header, body)
            }
            tag::NOTICE_RESPONSE if self.is_replaying() => Ok(Verdict::Skip),
            tag::NOTICE_RESPONSE if self.counting => Ok(Verdict::Skip),
            tag::NOTICE_RESPONSE | tag::NOTIFICATION_RESPONSE => Ok(Verdict::Pass),
            tag::READY_FOR_QUERY => self.on_ready(header, body, out),
            tag::ERROR_RESPONSE => self.on_error(header, body, out),
            _ => self.on_answer(header, body),
        }
    }

    fn is_replaying(&self) -> bool {
        self.server.owed.front().is_some_and(|entry| entry.kind == Kind::Replay)
    }

    /// A setting changed, for whatever reason; rollbacks are reported too.
    fn on_parameter(&mut self, header: Header, body: &[u8]) -> Result<Verdict, PoolError> {
        if body.len() < header.body_len() {
            return self.hold(header);
        }
        let status = ParameterStatus::parse(body).map_err(|_| confused("malformed ParameterStatus"))?;
        self.server.params.set(status.name, status.value);
        self.client.scope = None;
        self.client.renamed = true;
        if self.is_replaying() {
            return Ok(Verdict::Skip); // the client is told at the replay's end what it does not know
        }
        self.client.params.update(status.name, status.value);
        if status.name == "search_path" {
            self.client.look_at_path();
        }
        Ok(Verdict::Pass)
    }

    /// Part of an answer to the oldest request.
    fn on_answer(&mut self, header: Header, body: &[u8]) -> Result<Verdict, PoolError> {
        self.settle_doubt();
        let Some(front) = self.server.owed.front() else { return Err(confused("an answer nobody asked for")) };
        let verdict = if front.action == Action::Skip { Verdict::Skip } else { Verdict::Pass };
        match (header.tag, front.kind) {
            // Part of an answer that goes on: after it the same request is the oldest, and in no more doubt than before.
            (tag::DATA_ROW | tag::COPY_DATA, Kind::Execute | Kind::Query) if verdict == Verdict::Pass => {
                return Ok(Verdict::PassAlike);
            }
            (tag::PARSE_COMPLETE, Kind::Parse)
            | (tag::BIND_COMPLETE, Kind::Bind)
            | (tag::CLOSE_COMPLETE, Kind::Close)
            | (tag::EMPTY_QUERY_RESPONSE | tag::PORTAL_SUSPENDED, Kind::Execute) => self.complete()?,
            (tag::ROW_DESCRIPTION | tag::NO_DATA, Kind::Describe) => {
                if !self.note_columns(header, body)? {
                    return Ok(Verdict::NeedMore);
                }
                self.complete()?;
            }
            (tag::PARAMETER_DESCRIPTION, Kind::Describe) if verdict == Verdict::Skip => {}
            (tag::PARAMETER_DESCRIPTION, Kind::Describe) => return Ok(self.hold_description(header, body)),
            (tag::COMMAND_COMPLETE, Kind::Execute | Kind::Query) => {
                if header.body_len() <= COMMAND_TAG_MAX {
                    if body.len() < header.body_len() {
                        return Ok(Verdict::NeedMore);
                    }
                    self.note_command(body.strip_suffix(b"\0").unwrap_or(body));
                }
                self.on_command_complete()?;
            }
            (tag::COPY_IN_RESPONSE, Kind::Execute | Kind::Query) => {
                self.copy_in = true;
                self.server.owed.doubt_syncs_in_copy();
            }
            (tag::DATA_ROW | tag::COPY_OUT_RESPONSE | tag::COPY_DATA | tag::COPY_DONE, Kind::Execute | Kind::Query)
            | (tag::ROW_DESCRIPTION | tag::EMPTY_QUERY_RESPONSE, Kind::Query)
            | (tag::FUNCTION_CALL_RESPONSE, Kind::FunctionCall)
            | (tag::ROW_DESCRIPTION | tag::DATA_ROW | tag::COMMAND_COMPLETE, Kind::Replay) => {}
            (tag::DATA_ROW, Kind::Census) => {
                if body.len() < header.body_len() {
                    return self.hold(header);
                }
                self.on_census_row(body)?;
            }
            (tag::ROW_DESCRIPTION | tag::COMMAND_COMPLETE, Kind::Census) | (tag::COMMAND_COMPLETE, Kind::Move) => {}
            (tag::COPY_BOTH_RESPONSE, _) => return Err(confused("replication cannot be pooled")),
            _ => return Err(confused("an answer to another request")),
        }
        Ok(verdict)
    }

    /// The oldest request is answered.
    fn complete(&mut self) -> Result<(), PoolError> {
        let Some(entry) = self.server.owed.pop() else { return Ok(()) };
        if matches!(entry.change.as_deref(), Some(Change::Reject(_))) {
            return Err(confused("what had to fail did not"));
        }
        if entry.action == Action::Forward {
            self.heal.answered(entry.kind);
        }
        self.confirm(entry.change);
        self.pop_copy_ends();
        Ok(())
    }

    fn on_command_complete(&mut self) -> Result<(), PoolError> {
        if self.copy_in {
            self.copy_in = false;
            self.server.owed.finish_copy();
        }
        match self.server.owed.front() {
            Some(entry) if entry.kind == Kind::Execute => self.complete(),
            _ => Ok(()),
        }
    }

    /// A ReadyForQuery answers exactly one Sync, Query or FunctionCall.
    fn on_ready(&mut self, header: Header, body: &[u8], out: &mut Sink<'_>) -> Result<Verdict, PoolError> {
        if body.is_empty() && header.body_len() > 0 {
            return Ok(Verdict::NeedMore);
        }
        let status = match body {
            [byte] => TxStatus::from_byte(*byte),
            _ => None,
        };
        let status = status.ok_or(confused("malformed ReadyForQuery"))?;
        let entry = match self.server.owed.front() {
            Some(entry) if entry.kind == Kind::Replay => return self.on_replayed(status, out),
            Some(entry) if entry.kind == Kind::Census => {
                self.on_census_end(status)?;
                return Ok(Verdict::Skip);
            }
            Some(entry) if entry.kind == Kind::Move => {
                self.on_moved(status)?;
                return Ok(Verdict::Skip);
            }
            Some(entry) if entry.kind.is_ready() => self.server.owed.pop(),
            _ => None,
        };
        let entry = entry.ok_or(confused("ready for what nobody asked"))?;
        self.server.tx = status;
        self.copy_in = false;
        self.pop_copy_ends();
        // Which of two Syncs was answered, if the first may have been ignored in COPY? What is answered next tells.
        let doubt = entry.doubtful || self.server.owed.front().is_some_and(|next| next.doubtful);
        self.probe = doubt && self.server.owed.doubt_leading_syncs();
        if self.ends_failed_batch() {
            if status != TxStatus::Idle {
                return Err(confused("a transaction that failed goes on"));
            }
            return Ok(Verdict::Skip);
        }
        if entry.action == Action::Skip {
            return Ok(Verdict::Skip);
        }
        if status != TxStatus::Idle && self.limits.mode == PoolMode::Statement {
            return Err(PoolError::TransactionBlock);
        }
        if status == TxStatus::Idle && self.server.owed.is_empty() {
            self.frees = false; // portals are gone
        }
        if self.reshapes && status == TxStatus::Idle {
            self.note_changed_tables();
        }
        let noted = self.notes.is_some() || self.sets_seen > 0;
        if noted && status == TxStatus::Idle && self.server.owed.is_empty() {
            self.settle_notes(out);
        }
        if self.client.listening.is_some() && status == TxStatus::Idle {
            self.tend_listening(out);
        }
        self.pace.ready(status, !self.server.owed.is_empty());
        Ok(Verdict::Pass)
    }

    /// The server has the client's settings now. The client learns how the server spells them, if it does not know.
    fn on_replayed(&mut self, status: TxStatus, out: &mut Sink<'_>) -> Result<Verdict, PoolError> {
        if status != TxStatus::Idle {
            return Err(confused("in a transaction between two clients"));
        }
        self.server.owed.pop();
        self.pop_copy_ends();
        self.client.params.adopt(&self.server.params, |name, value| {
            backend::parameter_status(out.writer(), name, value);
        });
        self.client.scope = None;
        self.client.proven = true;
        self.client.renamed = true;
        self.replay = Replay::Done;
        self.control.set_replaying(false);
        Ok(Verdict::Skip)
    }

    fn on_error(&mut self, header: Header, body: &[u8], out: &mut Sink<'_>) -> Result<Verdict, PoolError> {
        if body.len() < header.body_len() {
            return self.hold(header);
        }
        let fields = ErrorFields::parse(body);
        if fields.is_fatal() {
            self.put_description(out);
            self.dying = true;
            return Ok(Verdict::Pass);
        }
        self.settle_doubt();
        self.note_failure();
        match self.server.owed.front().map(|entry| entry.kind) {
            Some(Kind::Census) => {
                self.on_census_error();
                Ok(Verdict::Skip)
            }
            Some(Kind::Move) => {
                self.on_move_error();
                Ok(Verdict::Skip)
            }
            None => Err(confused("an error nobody caused")),
            Some(Kind::Replay) => Err(PoolError::ParametersRefused {
                sqlstate: String::from_utf8_lossy(fields.code).into_owned(),
                message: String::from_utf8_lossy(fields.message).into_owned(),
            }),
            Some(Kind::Sync | Kind::Query | Kind::FunctionCall) => {
                self.copy_in = false;
                self.give_up_healing();
                Ok(Verdict::Pass)
            }
            Some(_) if self.heals(&fields) => Ok(Verdict::Skip),
            Some(_) => {
                self.give_up_healing();
                self.put_description(out);
                let verdict = self.tell(body, &fields, out);
                self.copy_in = false;
                self.discard_batch();
                Ok(verdict)
            }
        }
    }

    /// Says what went wrong, in the client's words.
    fn tell(&self, body: &[u8], fields: &ErrorFields<'_>, out: &mut Sink<'_>) -> Verdict {
        if let Some(told) = self.reword(fields) {
            told.write(out.writer());
            return Verdict::Skip;
        }
        let named = self.server.owed.front().and_then(|front| front.named.as_ref());
        match named.and_then(|named| in_clients_words(body, named)) {
            Some(body) => {
                frame::write(out.writer(), tag::ERROR_RESPONSE, |out| out.extend_from_slice(&body));
                Verdict::Skip
            }
            None => Verdict::Pass,
        }
    }

    /// Returns what to say instead of an error that names a statement as only servers know it.
    fn reword(&self, fields: &ErrorFields<'_>) -> Option<PoolError> {
        let front = self.server.owed.front()?;
        match (fields.code, front.change.as_deref()) {
            (b"42P05", Some(Change::Reject(error @ PoolError::DuplicatePreparedStatement { .. })))
            | (b"26000", Some(Change::Reject(error))) => Some(error.clone()),
            (b"26000", None) => {
                let name = front.named.as_ref()?.name.as_deref().unwrap_or_default();
                Some(PoolError::NoPreparedStatement { name: String::from_utf8_lossy(name).into_owned() })
            }
            _ => None,
        }
    }

    /// Something is answered that is not a Sync: doubtful ones before it were ignored in COPY, or their answer was taken for
    /// the one before.
    #[inline]
    fn settle_doubt(&mut self) {
        if self.server.owed.front().is_some_and(|entry| entry.doubtful) {
            self.server.owed.pop_doubtful();
            self.probe = false;
        }
    }

    /// Markers that a COPY has not taken are nothing: outside COPY the server ignores what they stand for.
    pub(super) fn pop_copy_ends(&mut self) {
        while self.server.owed.has_copy_end()
            && self.server.owed.front().is_some_and(|entry| entry.kind == Kind::CopyEnd)
        {
            self.server.owed.pop();
        }
    }

    /// Asks for the whole of a message, if that is not too much.
    pub(super) fn hold(&self, header: Header) -> Result<Verdict, PoolError> {
        if header.body_len() > self.limits.max_held_message {
            return Err(confused("a report longer than max_held_message"));
        }
        Ok(Verdict::NeedMore)
    }
}

/// Puts the client's name for a statement where an error has the servers' name, quoted as PostgreSQL quotes it: a Bind with
/// too few values names the statement. Returns nothing when it does not have it.
fn in_clients_words(body: &[u8], named: &Named) -> Option<Vec<u8>> {
    let quoted = |name: &[u8]| [b"\"", name, b"\""].concat();
    let theirs = quoted(named.statement.name());
    let finder = memchr::memmem::Finder::new(&theirs);
    finder.find(body)?;
    let ours = quoted(named.name.as_deref().unwrap_or_default());
    let (mut told, mut from) = (Vec::with_capacity(body.len()), 0);
    for at in finder.find_iter(body) {
        told.extend_from_slice(&body[from..at]);
        told.extend_from_slice(&ours);
        from = at + theirs.len();
    }
    told.extend_from_slice(&body[from..]);
    Some(told)
}

fn confused(why: &'static str) -> PoolError {
    PoolError::ServerProtocol { why }
}
