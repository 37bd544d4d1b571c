//! Two connections joined: bytes of an established WebSocket, both ways, unchanged.
//!
//! One small future per WebSocket. It reads into the thread's scratch buffer, writes on at once, and allocates only what
//! the other side would not take; until that is gone it reads no more, so a slow reader costs at most one scratch buffer
//! and then slows the sender down. End of stream is passed on for each direction on its own. A tunnel in which nothing
//! moved for the idle timeout is ended; the timer is set once and looked at when it fires, not moved at every message.
//!
//! When the process leaves, each tunnel waits for its own moment within the grace period, so that ten thousand clients do
//! not come back in the same second. Then the client is sent a Close (1001) between two frames of the server, the server's
//! further frames are dropped, and what the client sends still goes through, its own Close last. A server that did not
//! get one from the client in time gets one from us.

use std::{
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep_until},
};

use super::frame::{self, Frames};
use crate::{health::drain::Drain, proxy::scratch};

/// How long a side may take to answer a Close.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// What is drawn by lot for one tunnel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lot {
    /// Where in the grace period it is closed: 0 = at once, 1 = at its end.
    pub(crate) moment: f32,
    /// Masks the Close to the server.
    pub(crate) key: [u8; 4],
}

/// Why a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Both sides closed.
    Closed,
    /// Nothing moved for the idle timeout.
    Idle,
    /// The process leaves.
    Drained,
    /// A connection broke.
    Broken,
}

/// A finished tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) end: End,
    /// Bytes that reached the server.
    pub(crate) to_server: u64,
    /// Bytes that reached the client.
    pub(crate) to_client: u64,
}

/// Runs until both sides are closed, nothing moves any more, or the process leaves. `early` bytes came with the
/// handshake: from the client behind its request, from the server behind its answer. Not cancel safe: dropping it cuts
/// both connections.
pub(super) async fn run<C, S>(
    mut client: C,
    mut server: S,
    early: (Bytes, Bytes),
    idle_timeout: Duration,
    lot: Lot,
    mut drain: Drain,
) -> Summary
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut pair = Pair { up: Way::new(early.0), down: Way::new(early.1), last_moved: Instant::now(), parted: false };
    let mut stage = Stage::Open;
    let mut timer = pin!(sleep_until(pair.last_moved + idle_timeout));
    let end = loop {
        // Polling the drain takes an uncontended lock, some 20 ns beside two system calls per message.
        let leave = async {
            match stage {
                Stage::Open => drain.draining().await,
                Stage::Drained { .. } | Stage::Closing(_) => {
                    drain.cut().await;
                    Instant::now()
                }
            }
        };
        tokio::select! {
            biased;
            result = std::future::poll_fn(|cx| pair.poll(cx, &mut client, &mut server)) => match (result, stage) {
                (Ok(Moved::Parted), Stage::Open | Stage::Drained { .. }) => {
                    stage = Stage::Closing(End::Closed);
                    timer.as_mut().reset(Instant::now() + CLOSE_WAIT);
                }
                (Ok(Moved::Parted), Stage::Closing(_)) => {}
                (_, Stage::Closing(end)) => break end,
                (Ok(Moved::Ended), _) => break End::Closed,
                (Err(_), _) => break End::Broken,
            },
            () = &mut timer => match stage {
                Stage::Open if pair.last_moved + idle_timeout > Instant::now() => {
                    timer.as_mut().reset(pair.last_moved + idle_timeout);
                }
                Stage::Open => {
                    stage = pair.close(End::Idle);
                    timer.as_mut().reset(Instant::now() + CLOSE_WAIT);
                }
                Stage::Drained { deadline } => {
                    stage = pair.close(End::Drained);
                    timer.as_mut().reset((Instant::now() + CLOSE_WAIT).min(deadline));
                }
                Stage::Closing(end) => {
                    pair.close_server(&mut server, lot.key).await;
                    break end;
                }
            },
            deadline = leave => match stage {
                Stage::Open => {
                    stage = Stage::Drained { deadline };
                    timer.as_mut().reset(moment(Instant::now(), deadline, lot.moment));
                }
                Stage::Drained { .. } | Stage::Closing(_) => break End::Drained,
            },
        }
    };
    Summary { end, to_server: pair.up.passed, to_client: pair.down.passed }
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Open,
    /// Waiting for its moment.
    Drained {
        deadline: Instant,
    },
    /// A Close is on its way or waits for the end of a frame.
    Closing(End),
}

/// Returns when to close: spread over the grace period, with room at its end for the close handshake.
fn moment(now: Instant, deadline: Instant, share: f32) -> Instant {
    let grace = deadline.saturating_duration_since(now);
    let room = CLOSE_WAIT.min(grace / 2);
    now + (grace - room).mul_f32(share.clamp(0.0, 1.0))
}

/// What there is to say of both directions.
enum Moved {
    /// A side ended after a Close went by: the other one will, or will be ended soon. Said once.
    Parted,
    /// Both ended.
    Ended,
}

/// Both directions.
struct Pair {
    /// From the client to the server.
    up: Way,
    /// From the server to the client.
    down: Way,
    last_moved: Instant,
    parted: bool,
}

impl Pair {
    fn poll<C, S>(&mut self, cx: &mut Context<'_>, client: &mut C, server: &mut S) -> Poll<io::Result<Moved>>
    where
        C: AsyncRead + AsyncWrite + Unpin,
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let before = (self.up.seen, self.down.seen);
        let up = self.up.poll(cx, client, server)?;
        let down = self.down.poll(cx, server, client)?;
        if before != (self.up.seen, self.down.seen) {
            self.last_moved = Instant::now();
        }
        let said_close = self.up.frames.closed() || self.down.frames.closed();
        match (up.is_ready(), down.is_ready()) {
            (true, true) => Poll::Ready(Ok(Moved::Ended)),
            (true, false) | (false, true) if said_close && !self.parted => {
                self.parted = true;
                Poll::Ready(Ok(Moved::Parted))
            }
            _ => Poll::Pending,
        }
    }

    fn close(&mut self, end: End) -> Stage {
        self.down.close_wanted = true;
        Stage::Closing(end)
    }

    /// Sends the server a Close of our own if the client's never came and a frame may begin; as much of it as is taken at
    /// once, since nothing waits for it any more.
    async fn close_server<S: AsyncWrite + Unpin>(&mut self, server: &mut S, key: [u8; 4]) {
        if self.up.state == State::Open
            && self.up.unsent.is_empty()
            && self.up.frames.at_boundary()
            && !self.up.frames.closed()
        {
            let close = frame::close_to_server(frame::GOING_AWAY, key);
            let write = std::future::poll_fn(|cx| match Pin::new(&mut *server).poll_write(cx, &close) {
                Poll::Pending => Poll::Ready(Ok(0)),
                ready => ready,
            });
            // Whether it arrives or not, the connection is closed next.
            let _ = write.await;
        }
    }
}

/// One direction.
struct Way {
    /// Read, but not yet taken by the other side; nothing more is read until it is. At most one scratch buffer.
    unsent: Bytes,
    frames: Frames,
    /// Bytes the other side took.
    passed: u64,
    /// Bytes that moved in any sense, for the idle timeout.
    seen: u64,
    state: State,
    /// Wants a Close at the next frame boundary; only set on the way to the client.
    close_wanted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// A Close was put in; what follows from the source is dropped.
    Dropping,
    /// The source ended; the other side is told once all is sent.
    Ending,
    Ended,
}

impl Way {
    fn new(early: Bytes) -> Self {
        let mut frames = Frames::default();
        frames.pass(&early);
        Self { unsent: early, frames, passed: 0, seen: 0, state: State::Open, close_wanted: false }
    }

    /// Moves what can be moved; ready once the direction is closed.
    fn poll<F, T>(&mut self, cx: &mut Context<'_>, from: &mut F, to: &mut T) -> Poll<io::Result<()>>
    where
        F: AsyncRead + Unpin,
        T: AsyncWrite + Unpin,
    {
        loop {
            ready!(self.poll_unsent(cx, to))?;
            if self.close_wanted && self.state == State::Open && self.frames.at_boundary() {
                self.state = State::Dropping;
                self.unsent = Bytes::copy_from_slice(&frame::close_to_client(frame::GOING_AWAY));
                continue;
            }
            match self.state {
                State::Ended => return Poll::Ready(Ok(())),
                State::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.state = State::Ended;
                }
                State::Open | State::Dropping => {
                    ready!(scratch::poll_read(from, cx, |bytes, cx| self.take(bytes, cx, to)))??;
                }
            }
        }
    }

    fn poll_unsent<T: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, to: &mut T) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let sent = ready!(Pin::new(&mut *to).poll_write(cx, &self.unsent))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.advance(sent);
            self.count(sent);
            if self.unsent.is_empty() {
                self.unsent = Bytes::new();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Passes on bytes that were just read; keeps what is not taken.
    fn take<T: AsyncWrite + Unpin>(&mut self, bytes: &[u8], cx: &mut Context<'_>, to: &mut T) -> io::Result<()> {
        if bytes.is_empty() {
            self.state = State::Ending;
            return Ok(());
        }
        if self.state == State::Dropping {
            return Ok(());
        }
        let rest = if self.close_wanted { self.frames.rest_of_frame(bytes) } else { None };
        let bytes = &bytes[..rest.unwrap_or(bytes.len())];
        self.frames.pass(bytes);
        let sent = match Pin::new(to).poll_write(cx, bytes) {
            Poll::Ready(sent) => sent?,
            Poll::Pending => 0,
        };
        self.count(sent);
        self.seen += 1;
        self.unsent = Bytes::copy_from_slice(&bytes[sent..]);
        Ok(())
    }

    fn count(&mut self, sent: usize) {
        self.passed += sent as u64;
        self.seen += sent as u64;
    }
}

#[cfg(test)]
mod tests;
