//! What becomes of a client's message: nearly always it passes, and an entry says what the server owes for it.

use super::{
    deallocate::Deallocate,
    framer::Verdict,
    owed::{Action, Change, Kind},
    session::{Replay, Session},
    sink::Sink,
    sql::Hints,
};
use crate::pool::{
    error::PoolError,
    wire::{frame::Header, tag::frontend as tag},
};

/// PostgreSQL's limit on messages that are short by nature (`PQ_SMALL_MESSAGE_LIMIT`). It ends a session that sends a longer
/// one, and here the session would be another client's next.
const SMALL_MESSAGE_MAX: usize = 10_000;

impl Session<'_> {
    /// Decides one message. Called again with more of it while the answer is [`Verdict::NeedMore`].
    pub(super) fn on_client(&mut self, header: Header, body: &[u8], out: &mut Sink<'_>) -> Result<Verdict, PoolError> {
        check(header)?;
        if self.leaving || self.replay == Replay::Awaited || self.counting {
            return Ok(Verdict::Later);
        }
        if header.tag == tag::TERMINATE {
            self.leaving = true;
            return Ok(Verdict::Skip);
        }
        if self.discarding && header.tag != tag::SYNC {
            return Ok(Verdict::Skip);
        }
        if let Some(verdict) = self.watch_batch(header, body.len(), out) {
            return Ok(verdict);
        }
        self.put_probe(out);
        let copies = matches!(header.tag, tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL);
        if !copies && (self.server.owed.is_past_copy() || self.probe) {
            return Ok(Verdict::Later);
        }
        let verdict = self.decide(header, body, out)?;
        if self.heal.is_keeping() && !matches!(verdict, Verdict::NeedMore | Verdict::Later) {
            self.keep(header, body);
        }
        Ok(verdict)
    }

    /// Decides a message that nothing is in the way of.
    pub(super) fn decide(&mut self, header: Header, body: &[u8], out: &mut Sink<'_>) -> Result<Verdict, PoolError> {
        if self.server.columns.is_holding()
            && let Some(verdict) = self.settle_held(header, body, out)
        {
            return Ok(verdict);
        }
        match header.tag {
            tag::PARSE => self.on_parse(header, body, out),
            tag::BIND => self.on_bind(header, body, out),
            tag::DESCRIBE => self.on_describe(header, body, out),
            tag::CLOSE => self.on_close(header, body),
            tag::EXECUTE if self.deallocates() => Ok(self.execute_deallocate()),
            tag::EXECUTE => Ok(self.pass_extended(Kind::Execute)),
            tag::SYNC => Ok(self.on_sync()),
            // What it asked before is answered first, so that it can tell what was refused.
            tag::QUERY if self.limits.disable_pqexec && self.server.owed.awaits_ready() => Ok(Verdict::Later),
            tag::QUERY if self.limits.disable_pqexec => Err(PoolError::SimpleQuery),
            tag::QUERY if self.unnamed_is_undecided() => Ok(Verdict::Later),
            tag::QUERY => {
                let Some(hints) = self.note_text(header, body, 0) else { return Ok(Verdict::NeedMore) };
                if hints.contains(Hints::DEALLOCATE) {
                    match self.on_deallocate(body, out) {
                        Deallocate::Pass => {}
                        Deallocate::Later => return Ok(Verdict::Later),
                        Deallocate::Replaced => return Ok(Verdict::Skip),
                    }
                }
                let was = self.drop_unnamed();
                self.pass_simple();
                match was {
                    Some(was) => {
                        let change = Change::UnnamedWas(Some(was));
                        self.server.owed.push_change(Kind::Query, Action::Forward, change);
                    }
                    None => self.server.owed.push(Kind::Query, Action::Forward),
                }
                Ok(Verdict::Pass)
            }
            tag::FUNCTION_CALL => {
                match body.first_chunk() {
                    Some(function) => self.note_function(u32::from_be_bytes(*function)),
                    None if header.body_len() >= size_of::<u32>() => return Ok(Verdict::NeedMore),
                    None => {} // the server will say what is wrong with it
                }
                self.pass_simple();
                self.server.owed.push(Kind::FunctionCall, Action::Forward);
                Ok(Verdict::Pass)
            }
            tag::FLUSH => {
                self.pace.sent();
                Ok(Verdict::Pass)
            }
            // Outside COPY the server ignores these: the client had not seen yet that its COPY failed.
            tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL if self.server.owed.is_empty() => Ok(Verdict::Skip),
            // It asks for nothing: what holds for this one holds for those behind it.
            tag::COPY_DATA => Ok(Verdict::PassAlike),
            tag::COPY_DONE | tag::COPY_FAIL => {
                self.server.owed.push(Kind::CopyEnd, Action::Forward);
                Ok(Verdict::Pass)
            }
            _ => Err(PoolError::Protocol { why: "invalid frontend message type" }),
        }
    }

    /// An extended-protocol message passes.
    pub(super) fn pass_extended(&mut self, kind: Kind) -> Verdict {
        self.flushed &= kind != Kind::Execute;
        self.batch_open = true;
        self.pace.sent();
        self.server.owed.push(kind, Action::Forward);
        Verdict::Pass
    }

    /// A message passes that is answered by itself. It ends an extended batch before it: a simple Query commits what the
    /// batch has done, and the unnamed statement goes.
    pub(super) fn pass_simple(&mut self) {
        self.behind_batch |= self.batch_open;
        self.batch_open = false;
        self.pace.sent();
    }

    fn on_sync(&mut self) -> Verdict {
        self.discarding = false;
        (self.batch_open, self.behind_batch) = (false, false);
        self.keep_unnamed();
        self.batch += 1;
        self.pace.sent();
        let ignored_if_still_in_copy = self.copy_in && !self.server.owed.has_copy_end();
        self.server.owed.push_sync(ignored_if_still_in_copy);
        Verdict::Pass
    }
}

fn check(header: Header) -> Result<(), PoolError> {
    let small = matches!(
        header.tag,
        tag::CLOSE | tag::DESCRIBE | tag::EXECUTE | tag::FLUSH | tag::SYNC | tag::COPY_DONE | tag::COPY_FAIL
    );
    if small && header.body_len() > SMALL_MESSAGE_MAX {
        return Err(PoolError::PacketTooLarge { len: header.total_len() as u64, limit: SMALL_MESSAGE_MAX as u64 });
    }
    Ok(())
}
