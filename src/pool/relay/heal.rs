//! Sending a batch again that failed because tables had changed since one of its statements was prepared.
//!
//! A client that prepares its statements itself knows PostgreSQL's "cached plan must not change result type" and what to do
//! about it. Here somebody else's migration and somebody else's Parse bring it to clients that have done nothing, so where
//! it can be made good unseen it is: the batch is sent again, once, its statements prepared anew.
//!
//! That is right because a batch outside a transaction block is a transaction of its own, which an error rolls back whole
//! (PostgreSQL, "Extended Query", 55.2.3), and because nothing has left for the client that the second run could contradict:
//! at most that a Parse or a statement's Close succeeded, which no rollback takes back, and which are not sent again. So:
//!
//! - only a batch that began on an idle server with nothing else under way is kept, as the client sent it, up to
//!   [`KEPT_MAX`]; no Query, function call or COPY may be part of it, and nothing of the client's may have gone out behind it;
//! - only the first Bind or Describe can be healed: when its answer leaves, the batch is forgotten. The types of a
//!   statement's parameters, which PostgreSQL sends before it looks whether the plan still holds, wait for what follows them;
//! - when the client has not sent its Sync yet (it reads after a Flush), ours ends the failed transaction;
//! - a batch that is sent again is not kept.
//!
//! A client that was told columns and does not ask for them again must be told of their change ([`super::columns`]): the
//! batch is sent again only where it describes what it binds, or may yet do so.
//!
//! The same way is gone when the error says that the statement may not be what its text means today, and somebody else's
//! Parse stands for this client's (a type that was dropped and made again: XX000).
//!
//! Where it cannot be healed the error is PostgreSQL's own, as in a transaction block: the client must begin that again.
//! Either way every server prepares all its statements again before their next use.
//!
//! A statement without a name could never have this error, so where one was given a name ([`super::unnamed`]) and its batch
//! would be forgotten before its first answer, the message that would do that waits for the answer.

use super::{
    framer::Verdict,
    owed::{Action, Entry, Kind},
    session::Session,
    sink::Sink,
    unnamed::Before,
};
use crate::pool::{
    error::PoolError,
    prepared::client::NO_COLUMNS,
    wire::{
        backend::TxStatus,
        frame::{self, HEADER_LEN, Header},
        frontend,
        read::{ErrorFields, Reader, Target},
        tag::frontend as tag,
    },
};

/// Bytes of a batch that is kept, as its client sends it.
pub(super) const KEPT_MAX: usize = 16 * 1024;
/// A buffer longer than this is given back to the allocator when its batch is over.
const KEEP_CAPACITY: usize = 4 * 1024;
/// A client that sent a batch before the last was answered is taken to go on so for as many batches.
const PIPELINES: u8 = 64;
/// PostgreSQL's function that finds that a statement's columns have changed (plancache.c).
const STALE_PLAN_ROUTINE: &[u8] = b"RevalidateCachedQuery";

/// The batch under way: what its client sent, and what waits to be told to it.
#[derive(Debug, Default)]
pub(super) struct Batch {
    sent: Vec<u8>,
    /// Bytes of that which were sent again.
    again: usize,
    /// A ParameterDescription whose RowDescription has not come.
    description: Vec<u8>,
}

/// How far it has come.
#[derive(Debug, Default)]
pub(super) struct Heal {
    state: State,
    /// Its messages that were answered: the first so many that have answers.
    answered: usize,
    /// The client's Sync is in it.
    synced: bool,
    /// A statement that its client gave no name was named in it.
    relied_on: bool,
    /// A Flush of ours asked for its answer.
    flushed: bool,
    /// Nothing was bound, described or executed in it.
    pristine: bool,
    /// The statement without a name, as it was.
    before: Before,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No batch, or one that cannot be sent again.
    #[default]
    Off,
    Keeping,
    /// It failed; a Sync of ours must end its transaction.
    Failed,
    /// It failed; the ReadyForQuery of its Sync is to come, and is not for the client.
    Ending,
    /// It is to be sent again; the rest of it, when something of it waits for an answer.
    Due,
    /// It is being sent again.
    Again,
}

impl Heal {
    pub(super) fn is_keeping(&self) -> bool {
        self.state == State::Keeping
    }

    /// Returns whether a batch has failed and was not sent again yet.
    pub(super) fn is_under_way(&self) -> bool {
        matches!(self.state, State::Failed | State::Ending | State::Due)
    }

    /// Returns whether the batch is being sent again. Of what is in it nothing waited the first time.
    pub(super) fn is_repeating(&self) -> bool {
        self.state == State::Again
    }

    /// Returns whether something is to be sent without the client's doing.
    pub(super) fn wants_turn(&self) -> bool {
        matches!(self.state, State::Failed | State::Due)
    }

    /// Returns whether a plan that is bound or described next could be healed if it is refused.
    pub(super) fn would_heal(&self) -> bool {
        self.state == State::Again || (self.state == State::Keeping && self.pristine)
    }

    /// A statement that its client gave no name is named: the batch must not be forgotten before its answer.
    pub(super) fn rely(&mut self) {
        self.relied_on = true;
    }

    /// Returns where to keep the statement without a name that is about to be another, the first time in a batch.
    pub(super) fn unnamed_before(&mut self) -> Option<&mut Before> {
        (self.is_keeping() && !self.before.is_kept()).then_some(&mut self.before)
    }

    /// An answer leaves for the client.
    pub(super) fn answered(&mut self, kind: Kind) {
        if self.state == State::Keeping {
            match kind {
                Kind::Parse | Kind::Close => self.answered += 1,
                _ => self.state = State::Off,
            }
        }
    }
}

impl Session<'_> {
    /// Looks at a client's message before it is decided. Returns a verdict when that decides it.
    pub(super) fn watch_batch(&mut self, header: Header, here: usize, out: &mut Sink<'_>) -> Option<Verdict> {
        if self.heal.is_under_way() {
            return Some(Verdict::Later);
        }
        let extended = matches!(header.tag, tag::PARSE | tag::BIND | tag::DESCRIBE | tag::EXECUTE | tag::CLOSE);
        if self.heal.is_keeping() && (self.heal.synced || !(extended || matches!(header.tag, tag::FLUSH | tag::SYNC))) {
            self.client.pipelines = if self.heal.synced { PIPELINES } else { self.client.pipelines };
            if self.must_wait_to_forget(out) {
                return Some(Verdict::Later);
            }
        }
        if extended && !self.batch_open && !self.heal.is_keeping() && self.maps_names() {
            self.begin_batch();
        }
        if self.heal.is_keeping() {
            let room = KEPT_MAX.min(self.limits.max_held_message);
            if self.server.kept.sent.len() + header.total_len() > room {
                return self.must_wait_to_forget(out).then_some(Verdict::Later);
            }
            if here < header.body_len() {
                return Some(Verdict::NeedMore); // so that nothing of it is in between when something of ours must go out
            }
        }
        None
    }

    fn begin_batch(&mut self) {
        let server = &mut *self.server;
        if server.tx != TxStatus::Idle || self.copy_in || !server.owed.is_at_most_replay() {
            if server.owed.awaits_ready() {
                self.client.pipelines = PIPELINES;
            }
            return;
        }
        self.client.pipelines = self.client.pipelines.saturating_sub(1);
        server.kept.clear();
        let before = self.unnamed_before();
        self.heal = Heal { state: State::Keeping, pristine: true, before, ..Heal::default() };
    }

    /// The batch can no longer be sent again. Returns true when the message at hand must wait until that does not matter.
    fn must_wait_to_forget(&mut self, out: &mut Sink<'_>) -> bool {
        if !self.heal.relied_on {
            self.heal.state = State::Off;
            return false;
        }
        if !self.heal.synced && !self.heal.flushed {
            frame::write(out.writer(), tag::FLUSH, |_| {}); // a server may hold answers back until it is asked for them
            self.heal.flushed = true;
        }
        true
    }

    /// A message of a batch that is kept was decided.
    pub(super) fn keep(&mut self, header: Header, body: &[u8]) {
        if self.server.kept.sent.capacity() == 0 {
            self.server.kept.sent.reserve(1024);
        }
        self.server.kept.sent.extend_from_slice(&header.bytes());
        self.server.kept.sent.extend_from_slice(body);
        match header.tag {
            tag::SYNC => self.heal.synced = true,
            tag::BIND | tag::DESCRIBE | tag::EXECUTE => self.heal.pristine = false,
            _ => {}
        }
    }

    /// A ParameterDescription: what follows it may be an error that the client is not to see. Returns what becomes of it.
    pub(super) fn hold_description(&mut self, header: Header, body: &[u8]) -> Verdict {
        let healable = self.heal.is_keeping() && self.server.owed.front().is_some_and(|entry| entry.named.is_some());
        if !healable || header.body_len() > KEPT_MAX {
            self.heal.answered(Kind::Describe);
            return Verdict::Pass;
        }
        if body.len() < header.body_len() {
            return Verdict::NeedMore;
        }
        let description = &mut self.server.kept.description;
        description.extend_from_slice(&header.bytes());
        description.extend_from_slice(body);
        Verdict::Skip
    }

    /// What follows a ParameterDescription leaves for the client, and so does that.
    pub(super) fn put_description(&mut self, out: &mut Sink<'_>) {
        let description = &mut self.server.kept.description;
        if !description.is_empty() {
            out.put(description);
            description.clear();
        }
    }

    /// The oldest request failed. Returns true when the client need not know: the batch will be sent again.
    pub(super) fn heals(&mut self, fields: &ErrorFields<'_>) -> bool {
        let outdated = self.note_outdated(fields);
        let front = self.server.owed.front();
        let Some(Entry { kind: Kind::Bind | Kind::Describe, named: Some(named), .. }) = front else {
            self.note_refusal(fields);
            return false;
        };
        let id = named.statement.id;
        // The server has not what it had: DEALLOCATE in a function, for instance.
        let lost = fields.code == b"26000";
        if lost {
            self.server.statements.doubt(id);
        }
        let refused = self.note_refusal(fields);
        let healing = self.heal.is_keeping() && (refused || lost || outdated) && !self.must_be_told();
        if refused {
            self.client.interner.count_refused(healing);
        }
        if !healing {
            return false;
        }
        debug_assert!(
            !self.heal.synced || self.server.owed.syncs() == 1,
            "nothing goes out behind a batch that is kept"
        );
        self.server.kept.description.clear();
        self.discard_batch();
        self.discarding = false;
        self.heal.state = if self.heal.synced { State::Ending } else { State::Failed };
        true
    }

    /// Returns whether what the oldest request named may be no longer what its text means: PostgreSQL's own client would
    /// have had it parsed when it asked for that, and here it was taken for what somebody had parsed before. What a plan
    /// depends on is looked up anew, but not the types of parameters, say, of a type that was dropped and made again.
    fn note_outdated(&mut self, fields: &ErrorFields<'_>) -> bool {
        let internal = fields.code == b"XX000" || (fields.code == b"0A000" && fields.routine != STALE_PLAN_ROUTINE);
        // Class 42 is what can be wrong with a text. A cursor that exists is not.
        if !(internal || fields.code.starts_with(b"42") && fields.code != b"42P03") {
            return false;
        }
        let Some(front) = self.server.owed.front() else { return false };
        if !matches!(front.kind, Kind::Bind | Kind::Describe | Kind::Execute) {
            return false;
        }
        let named = front.named.as_ref().map(|named| named.statement.id);
        self.server.statements.doubt_older();
        named.is_some_and(|id| self.server.statements.outdate(id))
    }

    /// Returns whether the client relies on the columns that it was told of the statement whose Bind is the oldest request.
    fn must_be_told(&mut self) -> bool {
        let Some(Entry { kind: Kind::Bind, named: Some(named), .. }) = self.server.owed.front() else { return false };
        let Some(name) = named.name.as_deref() else { return false };
        let told = self.client.statements.told(name, &named.statement);
        told.is_some_and(|told| told.columns > NO_COLUMNS) && !self.may_describe(name)
    }

    /// Returns whether the client describes what its oldest Bind that is not answered binds, or has sent nothing behind it.
    fn may_describe(&self, name: &[u8]) -> bool {
        let mut messages = Messages(&self.server.kept.sent);
        let bind = messages.by_ref().filter(|(header, _)| header.tag != tag::FLUSH).nth(self.heal.answered);
        let portal = bind.and_then(|(_, whole)| Reader::new(&whole[HEADER_LEN..]).cstr().ok());
        let Some((header, whole)) = messages.next() else { return true };
        match (header.tag, Target::parse(&whole[HEADER_LEN..])) {
            (tag::DESCRIBE, Ok(Target::Statement(described))) => described == name,
            (tag::DESCRIBE, Ok(Target::Portal(described))) => Some(described) == portal,
            _ => false,
        }
    }

    /// Returns whether a plan was refused. Every server is to prepare its statements again then.
    fn note_refusal(&mut self, fields: &ErrorFields<'_>) -> bool {
        let refused = fields.code == b"0A000" && fields.routine == STALE_PLAN_ROUTINE;
        if refused {
            self.client.interner.schema_changed(self.server.statements.schema());
            self.server.statements.refresh(self.client.interner.schema());
        }
        refused
    }

    /// A Sync was answered. Returns true when the client need not know.
    pub(super) fn ends_failed_batch(&mut self) -> bool {
        let ending = self.heal.state == State::Ending;
        self.heal.state = if ending { State::Due } else { State::Off };
        ending
    }

    /// Something else went wrong: the client is told that, and all that follows.
    pub(super) fn give_up_healing(&mut self) {
        if self.heal.state == State::Ending && !self.heal.synced {
            self.discarding = true;
        }
        // Of a batch that is being sent again, the server is given what it is to discard.
        if self.heal.state != State::Due {
            self.heal.state = State::Off;
        }
    }

    /// Returns whether something is to be sent without the client's doing, now.
    pub(super) fn heal_wants_turn(&self) -> bool {
        self.heal.wants_turn() && !self.server.columns.awaits_answer()
    }

    /// Sends what is to be sent: the Sync that ends the failed transaction, or the batch.
    pub(super) fn put_batch_again(&mut self, out: &mut Sink<'_>) -> Result<(), PoolError> {
        match self.heal.state {
            State::Failed => {
                frontend::sync(out.writer());
                self.server.owed.push(Kind::Sync, Action::Skip);
                self.batch += 1;
                self.heal.state = State::Ending;
            }
            State::Due => {
                self.heal.state = State::Again;
                // What the client has sent once is counted once.
                let (binds, parses) = (self.counts.binds, self.counts.client_parses);
                let sent = std::mem::take(&mut self.server.kept.sent);
                let done = self.put_unanswered(&sent, out);
                self.server.kept.sent = sent;
                (self.counts.binds, self.counts.client_parses) = (binds, parses);
                self.heal.state = if done? { State::Off } else { State::Due };
                if self.heal.state == State::Off {
                    self.server.kept.clear();
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Nothing is owed when it begins, and all of every message is here, so that none has to wait but for what
    /// [`super::columns`] asks. Returns whether all was sent.
    fn put_unanswered(&mut self, sent: &[u8], out: &mut Sink<'_>) -> Result<bool, PoolError> {
        if self.server.kept.again == 0 {
            let before = std::mem::take(&mut self.heal.before);
            self.restore_unnamed(before);
        }
        for (header, whole) in Messages(&sent[self.server.kept.again..]) {
            let body = &whole[HEADER_LEN..];
            if self.heal.answered > 0 && header.tag != tag::FLUSH {
                self.heal.answered -= 1;
                self.repeat_unnamed(header, body, out);
            } else if !self.discarding || header.tag == tag::SYNC {
                match self.decide(header, body, out)? {
                    Verdict::Pass | Verdict::PassAlike => out.put(whole),
                    Verdict::PassBodyFrom(from) => out.put(&body[from..]),
                    Verdict::Skip => {}
                    Verdict::Later if self.server.columns.awaits_answer() => return Ok(false),
                    Verdict::NeedMore | Verdict::Later => {
                        return Err(PoolError::ServerProtocol { why: "a batch could not be sent again" });
                    }
                }
            }
            self.server.kept.again += whole.len();
        }
        Ok(true)
    }
}

/// The messages in a batch that is kept, each with its bytes.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = (Header, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let header = Header::peek(self.0, i32::MAX as u32).ok()??;
        let (whole, rest) = self.0.split_at_checked(header.total_len())?;
        self.0 = rest;
        Some((header, whole))
    }
}

impl Batch {
    fn clear(&mut self) {
        self.again = 0;
        self.description.clear();
        self.sent.clear();
        if self.sent.capacity() > KEEP_CAPACITY {
            self.sent = Vec::new();
        }
    }
}
