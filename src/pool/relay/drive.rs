//! Moves the bytes: one future that polls both sockets in both directions.
//!
//! A direction never waits for the other: "send the batch, then read" deadlocks as soon as both socket buffers are full. Each
//! thread has one buffer to read into; what is read is looked at and written on from there, and only what the other side
//! would not take is copied into the lease's own backlog, whose source is not read until it is gone (a server is read on within
//! the bounds of [`super::spill`]). So an open lease with nothing under way has no buffers at all, and a message costs no
//! allocation, no timer and no clock of its own.

use std::{
    cell::RefCell,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    ClientState, Control, Fate, Limits, Outcome, ServerState,
    backlog::Backlog,
    pace::Pace,
    session::Session,
    sink::Sink,
    spill::{Reserved, SpillMemory, Untaken, farewell},
};
use crate::{
    config::pool::PoolMode,
    pool::{
        error::PoolError,
        notify::Post,
        pins::Pins,
        stats::{self, Stats},
    },
};

/// Bytes read at once. Once per thread, so it may be generous: each read and each write is a system call that wakes the
/// other side (a result of 100 KiB: 3.2 writes, with half of this 5.1), and loopback hands over up to 64 KiB at a time.
const CHUNK_LEN: usize = 64 * 1024;
/// Rounds of reading and writing before other tasks of the thread get their turn.
const ROUNDS: usize = 8;
/// A client this far ahead of the server's answers is not read. More than what fits a server's output buffer (8 KiB of
/// answers of five bytes), which it may hold back until a Sync: waiting for its answers cannot wait for ever.
const OWED_MAX: usize = 16 * 1024;
/// When a timer is looked at again whose limit has gone.
const NEXT_LOOK: Duration = Duration::from_secs(600);
/// Notifications that a client is given at once, or little more.
pub const MAIL_MAX: usize = 16 * 1024;
/// Bytes that passed in a lease before the statistics hear of them, unless a request ends first.
const UNCOUNTED_MAX: u64 = 256 * 1024;
/// A client with this much to take is not read.
const ANSWERS_MAX: usize = 32 * 1024;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch { chunk: vec![0; CHUNK_LEN].into(), staged: Vec::new() });
}

/// What a thread's relays share, between two polls always empty.
struct Scratch {
    chunk: Box<[u8]>,
    staged: Vec<u8>,
}

/// What a relay is given beside the two sides.
#[derive(Debug)]
pub struct Given<'a> {
    /// When the server was lent.
    pub now: Instant,
    pub limits: &'a Limits,
    pub stats: &'a Stats,
    pub control: &'a Control,
    pub spill: &'a Arc<SpillMemory>,
    /// The rest of something that the client was told: it gets this first.
    pub untold: Vec<u8>,
    /// How the client can listen without a server, if it may.
    pub post: Option<&'a Post<'a>>,
}

/// Relays between a client and a server until the lease is over; returns how, and when that was.
///
/// `first` is what was read of the client already, at least a message header. Not cancel safe: when dropped before it is
/// ready, both streams stand somewhere inside a message and must be closed.
pub async fn run<C, S>(
    client: &mut C,
    first: &[u8],
    client_state: &mut ClientState,
    server: &mut S,
    server_state: &mut ServerState,
    given: Given<'_>,
) -> (Outcome, Instant)
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Given { now, limits, stats, control, spill, untold, post } = given;
    let mut relay = Relay {
        client,
        server,
        session: Session::new(client_state, server_state, limits, control, Pace::new(now)),
        stats,
        spill,
        first,
        carry: Vec::new(),
        to_server: Backlog::default(),
        to_client: Backlog::of(untold),
        reserved: None,
        overflowed: false,
        blocked: false,
        blocked_since: None,
        stalled: false,
        client_deaf: false,
        server_deaf: false,
        timed: false,
        pin_timed: false,
        begun: false,
        alone: None,
        sent: 0,
        received: first.len() as u64,
    };
    relay.session.post = post;
    let mut leave_by = None;
    let end = std::future::poll_fn(|cx| {
        if let Poll::Ready(end) = relay.poll(cx) {
            return Poll::Ready(end);
        }
        relay.poll_timer(cx, &mut leave_by)
    })
    .await;
    relay.account();
    relay.note_blocked(false);
    let at = relay.session.pace.now;
    control.set_replaying(false);
    control.set_pins(Pins::none());
    let outcome = match end {
        End::Released { server } => match relay.untaken(false) {
            None => Outcome::Released { server },
            Some(untaken) => Outcome::Spilled { server, untaken },
        },
        End::Said { server } => match relay.untaken(true) {
            None => Outcome::Left { server },
            Some(untaken) => Outcome::Spilled { server, untaken },
        },
        End::Left { server } => Outcome::Left { server },
        End::Failed { error } => {
            // On the heap, like all that is rare: every lease pays for the size of this future.
            Box::pin(relay.farewell(&error)).await;
            Outcome::Ended { error }
        }
    };
    (outcome, at)
}

/// Why a relay is over.
enum End {
    Released {
        server: Fate,
    },
    /// The client said that it leaves, and what it asked before is answered.
    Said {
        server: Fate,
    },
    Left {
        server: Fate,
    },
    Failed {
        error: PoolError,
    },
}

struct Relay<'a, C, S> {
    client: &'a mut C,
    server: &'a mut S,
    session: Session<'a>,
    stats: &'a Stats,
    spill: &'a Arc<SpillMemory>,
    /// What the caller had read, as far as it has not been looked at.
    first: &'a [u8],
    /// What was read of the client and could not be looked at yet. At most a chunk.
    carry: Vec<u8>,
    to_server: Backlog,
    to_client: Backlog,
    /// The part of the spill memory that `to_client` has.
    reserved: Option<Reserved>,
    /// More was to be kept for the client than there is room for: the server waits until it has taken all.
    overflowed: bool,
    /// The server waits for the client to take something, and since when.
    blocked: bool,
    blocked_since: Option<Instant>,
    /// The client's next message waits for an answer of the server.
    stalled: bool,
    /// The client takes nothing more; it left, and what it sent before is seen through.
    client_deaf: bool,
    /// The server takes nothing more; what it said last is still to be read.
    server_deaf: bool,
    /// The timer is set for this lease.
    timed: bool,
    /// The timer knows that the client keeps its server.
    pin_timed: bool,
    /// Others are on their way out of a database, for a statement that waits for it.
    alone: Option<Box<AbortOnDropHandle<()>>>,
    /// This is not the first wake-up.
    begun: bool,
    sent: u64,
    received: u64,
}

impl<C, S> Relay<'_, C, S>
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.session.control.register(cx.waker());
        if let Some(error) = self.session.control.killed() {
            return Poll::Ready(End::Failed { error });
        }
        // The first time it is the moment of the lease.
        let begun = std::mem::replace(&mut self.begun, true);
        if begun {
            self.session.pace.now = Instant::now();
        }
        if self.session.may_put_mail() && self.to_client.len() < ANSWERS_MAX {
            self.session.put_mail(self.to_client.writer());
        }
        let end = SCRATCH.with_borrow_mut(|scratch| self.rounds(cx, scratch, begun));
        if end.is_pending() {
            self.note_blocked(self.blocked);
            self.session.pace.settle(self.session.rest());
            self.account_if_due();
        }
        end
    }

    /// `answered`: what woke this is the server's answer, as far as one can guess, so the client is not asked for more before
    /// that was looked at: nearly always it is the last of the lease.
    fn rounds(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch, answered: bool) -> Poll<End> {
        scratch.staged.clear(); // after an error half of an output may be left in it
        let mut first = answered;
        // The server has nothing more, and will wake us.
        let mut drained = false;
        for _ in 0..ROUNDS {
            let asked = match std::mem::take(&mut first) {
                true => Ok(true),
                false => self.client_turn(cx, scratch),
            };
            let asked = match asked {
                Ok(asked) => asked,
                Err(end) => return Poll::Ready(end),
            };
            let moved = if asked || !drained || !self.to_client.is_empty() {
                match self.server_turn(cx, scratch) {
                    Ok(more) => {
                        drained = !more;
                        asked | more
                    }
                    Err(end) => return Poll::Ready(end),
                }
            } else {
                false
            };
            if let Err(end) = self.flush(cx) {
                return Poll::Ready(end);
            }
            if let Some(end) = self.ended() {
                return Poll::Ready(end);
            }
            if !moved {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// From the client to the server. Returns whether anything moved.
    fn client_turn(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Result<bool, End> {
        if !self.to_server.is_empty() {
            match self.to_server.poll_write_out(cx, self.server) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => self.deafen_server(),
            }
        }
        if self.server_deaf {
            return Ok(false);
        }
        let turn = self.session.wants_turn();
        let waits = self.stalled && !turn;
        let Scratch { chunk, staged } = scratch;
        if !self.first.is_empty() || !self.carry.is_empty() || turn {
            if waits {
                return Ok(false);
            }
            let first = std::mem::take(&mut self.first);
            let carry = std::mem::take(&mut self.carry);
            // `first` comes before anything read here, and nothing is read while there is any of it.
            let input = if first.is_empty() { &carry[..] } else { first };
            let taken = self.take_from_client(cx, input, staged)?;
            if first.is_empty() {
                self.keep(carry, taken);
            } else {
                self.first = &first[taken..];
            }
            return Ok(taken > 0 || turn);
        }
        if waits || !self.may_read_client() {
            return Ok(false);
        }
        let mut buf = ReadBuf::new(chunk);
        match Pin::new(&mut *self.client).poll_read(cx, &mut buf) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                let input = buf.filled();
                self.received += input.len() as u64;
                let taken = self.take_from_client(cx, input, staged)?;
                self.carry.extend_from_slice(&input[taken..]);
                Ok(true)
            }
            Poll::Ready(_) => Err(self.left()),
        }
    }

    fn may_read_client(&self) -> bool {
        !self.session.leaving
            && self.to_client.len() < ANSWERS_MAX
            && self.to_server.is_empty()
            && self.session.server.owed.len() < OWED_MAX
    }

    fn take_from_client(&mut self, cx: &mut Context<'_>, input: &[u8], staged: &mut Vec<u8>) -> Result<usize, End> {
        let mut out = Sink::new(input, staged);
        let fed = self.session.client_bytes(input, &mut out, self.to_client.writer());
        let fed = fed.map_err(|error| End::Failed { error })?;
        self.stalled = fed.waiting;
        let (staged, run) = out.into_parts();
        if self.to_server.write_through(cx, self.server, staged, run).is_err() {
            self.deafen_server();
        }
        Ok(fed.taken)
    }

    /// Keeps what was not taken, in the buffer it was in.
    fn keep(&mut self, mut carry: Vec<u8>, taken: usize) {
        if taken < carry.len() {
            carry.drain(..taken);
            self.carry = carry;
        }
    }

    /// From the server to the client. Returns whether anything moved.
    fn server_turn(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Result<bool, End> {
        self.blocked = false;
        let mut room = CHUNK_LEN;
        if !self.to_client.is_empty() {
            if self.client_deaf {
                self.to_client.clear();
            }
            match self.to_client.poll_write_out(cx, self.client) {
                Poll::Pending => {
                    room = self.room_ahead();
                    if room == 0 {
                        self.blocked = true;
                        return Ok(false);
                    }
                }
                Poll::Ready(Ok(())) => {
                    self.reserved = None;
                    self.overflowed &= !self.session.server.owed.is_empty();
                }
                Poll::Ready(Err(_)) => self.deafen_client()?,
            }
        }
        let Scratch { chunk, staged } = scratch;
        let mut buf = ReadBuf::new(&mut chunk[..room]);
        let read = match Pin::new(&mut *self.server).poll_read(cx, &mut buf) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                self.take_from_server(cx, buf.filled(), staged)?;
                self.stalled = false;
                Ok(true)
            }
            Poll::Ready(_) if self.session.leaving => Err(End::Left { server: Fate::Close }),
            Poll::Ready(_) => Err(End::Failed { error: PoolError::ServerGone }),
        };
        if self.to_client.is_empty() {
            self.reserved = None;
        } else if let Some(reserved) = &mut self.reserved {
            reserved.settle(self.to_client.capacity());
        }
        read
    }

    /// Returns how much may be read of the server although the client takes nothing.
    fn room_ahead(&mut self) -> usize {
        let limit = self.session.limits.spill_buffer;
        if self.overflowed || limit == 0 {
            return 0;
        }
        let room = limit.saturating_sub(self.to_client.held()).min(CHUNK_LEN);
        if room > 0 && self.reserve(self.to_client.capacity() + room) {
            return room;
        }
        if !self.session.server.owed.is_empty() {
            self.overflow();
        }
        0
    }

    /// Returns whether what the client has not taken may be kept for it without its server.
    fn may_be_kept(&mut self) -> bool {
        let limit = self.session.limits.spill_buffer;
        if limit == 0 {
            return false;
        }
        let kept = self.to_client.len() <= limit && self.reserve(Untaken::size(&self.to_client));
        if !kept {
            self.overflow();
            self.blocked = true;
        }
        kept
    }

    fn reserve(&mut self, bytes: usize) -> bool {
        let memory = self.spill;
        self.reserved.get_or_insert_with(|| Reserved::new(memory)).grow(bytes)
    }

    /// Counts once, until the client has taken all.
    fn overflow(&mut self) {
        if !std::mem::replace(&mut self.overflowed, true) {
            self.spill.overflowed();
        }
    }

    fn note_blocked(&mut self, blocked: bool) {
        let now = self.session.pace.now;
        match self.blocked_since {
            None if blocked => self.blocked_since = Some(now),
            Some(since) if !blocked => {
                self.blocked_since = None;
                self.spill.held_for(now.saturating_duration_since(since));
            }
            _ => {}
        }
    }

    /// Takes what is kept for the client out of the relay.
    fn untaken(&mut self, last: bool) -> Option<Box<Untaken>> {
        if self.client_deaf || self.to_client.is_flushed() {
            return None;
        }
        let reserved = self.reserved.take()?;
        Some(Box::new(Untaken::new(std::mem::take(&mut self.to_client), reserved, last)))
    }

    fn take_from_server(&mut self, cx: &mut Context<'_>, input: &[u8], staged: &mut Vec<u8>) -> Result<(), End> {
        let mut out = Sink::new(input, staged);
        let result = self.session.server_bytes(input, &mut out);
        let (staged, run) = out.into_parts();
        self.sent += (staged.len() + run.len()) as u64;
        if self.client_deaf {
            staged.clear();
        } else if self.to_client.write_through(cx, self.client, staged, run).is_err() {
            self.deafen_client()?;
        }
        result.map_err(|error| End::Failed { error })
    }

    /// Flushes streams that buffer by themselves: once for each round, whatever number of messages it moved.
    fn flush(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        if let Poll::Ready(Err(_)) = self.to_server.poll_stream(cx, self.server) {
            self.deafen_server();
        }
        if let Poll::Ready(Err(_)) = self.to_client.poll_stream(cx, self.client) {
            self.deafen_client()?;
        }
        Ok(())
    }

    /// The server's socket is broken. It may have said why before: that is read until its end.
    fn deafen_server(&mut self) {
        self.server_deaf = true;
        self.to_server.clear();
    }

    /// The client's socket is broken.
    fn deafen_client(&mut self) -> Result<(), End> {
        self.to_client.clear();
        if !self.session.leaving {
            return Err(self.left());
        }
        self.client_deaf = true;
        Ok(())
    }

    /// The client is gone without a word.
    fn left(&self) -> End {
        let sent_all = self.to_server.is_empty() && self.first.is_empty() && self.carry.is_empty();
        End::Left { server: if sent_all { self.session.fate() } else { Fate::Close } }
    }

    fn ended(&mut self) -> Option<End> {
        if !self.to_server.is_flushed() || self.server_deaf {
            return None;
        }
        if self.session.leaving {
            // What it sent before it left is answered first, as PostgreSQL does: the server is fit for others then. The answer
            // is the client's while it takes it; what does not fit is lost to it, rather than the server to everybody.
            if !self.session.is_answered() {
                return None;
            }
            let server = self.session.fate();
            let kept = !self.client_deaf && !self.to_client.is_flushed() && self.may_be_kept();
            return Some(if kept { End::Said { server } } else { End::Left { server } });
        }
        let keeps = self.session.limits.mode == PoolMode::Session || self.session.is_pinned();
        let done = self.session.is_at_boundary()
            && !self.session.wants_turn()
            && self.first.is_empty()
            && self.carry.is_empty()
            && (!keeps || self.session.control.is_draining() || self.session.is_cut_off())
            && (self.to_client.is_flushed() || self.may_be_kept());
        done.then(|| End::Released { server: self.session.fate() })
    }

    /// Adds to the statistics in the middle of a lease: when a request has ended, much has passed, or something was noted that
    /// is told to people.
    fn account_if_due(&mut self) {
        let much = self.sent + self.received > UNCOUNTED_MAX;
        if much || self.session.pace.has_sums() || self.session.notes.is_some() {
            self.account();
        }
    }

    /// Adds what happened since the last time to the statistics.
    fn account(&mut self) {
        let sums = self.session.pace.take();
        let counts = std::mem::take(&mut self.session.counts);
        stats::add(&self.stats.sent, std::mem::take(&mut self.sent));
        stats::add(&self.stats.received, std::mem::take(&mut self.received));
        stats::add(&self.stats.xact_count, sums.xacts);
        stats::add(&self.stats.xact_time, micros(sums.xact_time));
        self.stats.queries(sums.queries, sums.query_time);
        stats::add(&self.stats.client_parse_count, counts.client_parses);
        stats::add(&self.stats.server_parse_count, counts.server_parses);
        stats::add(&self.stats.bind_count, counts.binds);
        while let Some((reason, statement)) = self.session.take_pinned() {
            self.stats.pinned(reason, &statement);
        }
        if self.session.is_at_boundary() {
            self.alone = None;
        }
        if let Some(database) = self.session.take_wanted_alone() {
            self.alone = self.stats.wanted_alone(&database).map(Box::new);
        }
    }

    /// Looks whether a limit is reached. The timer is the server's and goes from lease to lease: it is set anew when it has
    /// fired, or would fire too late. That it fires too early, for a limit that is no more, does no harm.
    fn poll_timer(&mut self, cx: &mut Context<'_>, leave_by: &mut Option<Instant>) -> Poll<End> {
        let limits = self.session.limits;
        if self.session.leaving && leave_by.is_none() {
            let at = self.session.pace.now + limits.rollback_timeout;
            *leave_by = Some(at);
            self.set_timer(at);
        }
        let soonest = limits.soonest(self.session.is_pinned());
        // A limit more than there was: the timer may be set for later than it allows.
        let pinned = self.session.is_pinned() && !std::mem::replace(&mut self.pin_timed, true);
        if (!self.timed || pinned)
            && leave_by.is_none()
            && let Some(soonest) = soonest
        {
            self.set_timer(self.session.pace.now + soonest);
        }
        if !self.timed {
            return Poll::Pending;
        }
        while let Some(timer) = &mut self.session.server.timer {
            if timer.as_mut().poll(cx).is_pending() {
                break;
            }
            let now = Instant::now();
            let due = self.session.pace.due(limits);
            match (due, *leave_by) {
                (_, Some(at)) if at <= now => return Poll::Ready(End::Left { server: Fate::Close }),
                (Some((at, error)), None) if at <= now => return Poll::Ready(End::Failed { error }),
                (_, Some(at)) => timer.as_mut().reset(at),
                (due, None) => {
                    let later = now + soonest.unwrap_or(NEXT_LOOK);
                    timer.as_mut().reset(due.map_or(later, |(at, _)| at.min(later)));
                }
            }
        }
        Poll::Pending
    }

    /// Lets the timer fire no later than `at`.
    fn set_timer(&mut self, at: Instant) {
        self.timed = true;
        match &mut self.session.server.timer {
            Some(timer) if timer.deadline() <= at => {}
            Some(timer) => timer.as_mut().reset(at),
            none => *none = Some(Box::pin(sleep_until(at))),
        }
    }

    /// Tells the client why it is ended, if the stream stands between two messages and the server has not said it already.
    async fn farewell(&mut self, error: &PoolError) {
        if self.client_deaf {
            return;
        }
        let said = self.session.may_speak() && !self.session.dying && !error.is_silent();
        farewell(std::mem::take(&mut self.to_client), self.client, said.then_some(error)).await;
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made anew for each lease and moved a few times on its way.
    #[test]
    fn the_future_of_a_lease_stays_small() {
        type Io = tokio::net::TcpStream;
        fn future<'a>(
            client: &'a mut Io,
            state: &'a mut ClientState,
            server: &'a mut Io,
            server_state: &'a mut ServerState,
            given: Given<'a>,
        ) -> impl Future<Output = (Outcome, Instant)> {
            run(client, &[], state, server, server_state, given)
        }
        type Make<'a, T> = fn(&'a mut Io, &'a mut ClientState, &'a mut Io, &'a mut ServerState, Given<'a>) -> T;
        fn size_of<'a, T>(_make: Make<'a, T>) -> usize {
            std::mem::size_of::<T>()
        }
        let size = size_of(future);
        assert!(size <= 1088, "{size} bytes");
    }
}
