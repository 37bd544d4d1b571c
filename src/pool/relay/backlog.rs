//! Bytes one side would not take at once.
//!
//! Bound: while there are any, the driver does not read the side they came from, so there is at most one chunk of input and
//! what was put between its messages; or, towards a client, what [`super::spill`] grants.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::AsyncWrite;

/// The buffer is given back to the allocator above this.
const KEEP_CAPACITY: usize = 64 * 1024;

#[derive(Debug, Default)]
pub(super) struct Backlog {
    buf: Vec<u8>,
    sent: usize,
    /// Something was written that the stream may keep in a buffer of its own until it is flushed.
    unflushed: bool,
}

impl Backlog {
    /// Starts with something to write.
    pub(super) fn of(buf: Vec<u8>) -> Self {
        Self { buf, ..Self::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buf.len() == self.sent
    }

    pub(super) fn len(&self) -> usize {
        self.buf.len() - self.sent
    }

    /// Returns what is left to be written.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buf[self.sent..]
    }

    /// Returns the bytes in the buffer, with those that were written already: what is written makes no room before the rest is.
    pub(super) fn held(&self) -> usize {
        self.buf.len()
    }

    /// Returns the memory it has.
    pub(super) fn capacity(&self) -> usize {
        self.buf.capacity()
    }

    /// Returns whether the stream may keep something of its own that its socket has not taken.
    pub(super) fn holds_back(&self) -> bool {
        self.unflushed
    }

    /// Returns a buffer whose end is next in the output.
    pub(super) fn writer(&mut self) -> &mut Vec<u8> {
        &mut self.buf
    }

    /// Returns whether everything has left for the peer.
    pub(super) fn is_flushed(&self) -> bool {
        self.is_empty() && !self.unflushed
    }

    /// Flushes the stream itself, once for all that was written in a wake-up. Of a TCP stream this is nothing.
    pub(super) fn poll_stream(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes until nothing is left.
    pub(super) fn poll_write_out(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        while self.sent < self.buf.len() {
            self.unflushed = true;
            self.sent += ready!(write(cx, io, &self.buf[self.sent..]))?;
        }
        self.clear();
        Poll::Ready(Ok(()))
    }

    /// Writes `staged` and then `run` behind what is here, and keeps what is not taken. `staged` is left empty.
    pub(super) fn write_through(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncWrite + Unpin),
        staged: &mut Vec<u8>,
        mut run: &[u8],
    ) -> io::Result<()> {
        if !self.is_empty() {
            // Exactly: what it may grow to is granted by the byte.
            self.buf.reserve_exact(staged.len() + run.len());
            self.buf.append(staged);
            self.buf.extend_from_slice(run);
            return settled(self.poll_write_out(cx, io));
        }
        if !staged.is_empty() {
            // One write for both; what was staged is short, or there would be no run behind it in the same chunk.
            staged.extend_from_slice(run);
            let result = self.write_slice(cx, io, staged);
            staged.clear();
            return result;
        }
        self.write_slice(cx, io, std::mem::take(&mut run))
    }

    fn write_slice(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncWrite + Unpin),
        mut bytes: &[u8],
    ) -> io::Result<()> {
        self.unflushed |= !bytes.is_empty();
        while !bytes.is_empty() {
            match write(cx, io, bytes) {
                Poll::Ready(n) => bytes = &bytes[n?..],
                Poll::Pending => {
                    self.buf.extend_from_slice(bytes);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.buf.clear();
        self.sent = 0;
        if self.buf.capacity() > KEEP_CAPACITY {
            self.buf = Vec::new();
        }
    }
}

fn write(cx: &mut Context<'_>, io: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Poll<io::Result<usize>> {
    match ready!(Pin::new(io).poll_write(cx, bytes))? {
        0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        n => Poll::Ready(Ok(n)),
    }
}

fn settled(poll: Poll<io::Result<()>>) -> io::Result<()> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    #[tokio::test]
    async fn what_a_slow_reader_made_it_hold_is_given_back() {
        const LEN: usize = 1 << 20;
        let (mut near, mut far) = duplex(4096);
        let mut backlog = Backlog::default();
        let run = vec![7; LEN];
        std::future::poll_fn(|cx| {
            backlog.write_through(cx, &mut near, &mut Vec::new(), &run).expect("it is open");
            Poll::Ready(())
        })
        .await;
        assert_eq!(backlog.len(), LEN - 4096);
        let mut got = vec![0; LEN];
        let (read, ()) = tokio::join!(far.read_exact(&mut got), async {
            std::future::poll_fn(|cx| backlog.poll_write_out(cx, &mut near)).await.expect("it is open");
        });
        assert!(read.is_ok() && got == run && backlog.is_empty());
        assert!(backlog.capacity() <= KEEP_CAPACITY);
    }
}
