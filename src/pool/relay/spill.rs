//! What a client has not taken yet is kept for it, within bounds, so that it does not keep a server.
//!
//! A server whose client takes nothing is read on into the client's backlog, up to `spill_buffer`, and goes back to the pool
//! at its boundary; the client takes the rest without a server ([`Untaken`]). These bytes are the client's own answer and
//! nobody else's, so the server's boundary is proven without them. All clients together may keep `spill_memory`: where that
//! or the client's own bound is reached, the server is not read any further and waits for its client, and that is counted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use super::backlog::Backlog;
use crate::pool::error::PoolError;

/// How long a client may take to read why it is ended.
const FAREWELL: Duration = Duration::from_secs(3);
/// What a TLS stream may hold back by itself until its socket takes it (rustls's `DEFAULT_BUFFER_LIMIT`). It does not tell
/// how much it is.
const STREAM_HOLDS: usize = 64 * 1024;

/// The memory that all clients' untaken answers share, and what became of it.
#[derive(Debug, Default)]
pub struct SpillMemory {
    limit: AtomicUsize,
    used: AtomicUsize,
    overflows: AtomicU64,
    /// Microseconds.
    held: AtomicU64,
}

impl SpillMemory {
    /// Starts with nothing kept; `limit` is `spill_memory`, in bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit: AtomicUsize::new(limit), ..Self::default() })
    }

    /// Takes another `spill_memory`. What is kept already stays.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Relaxed);
    }

    /// Returns the bytes that are kept now.
    pub fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// Returns how many leases had more to keep than there was room for.
    pub fn overflows(&self) -> u64 {
        self.overflows.load(Relaxed)
    }

    /// Returns how long servers have waited for clients that took nothing, all together.
    pub fn held(&self) -> Duration {
        Duration::from_micros(self.held.load(Relaxed))
    }

    pub(super) fn overflowed(&self) {
        self.overflows.fetch_add(1, Relaxed);
    }

    pub(super) fn held_for(&self, time: Duration) {
        self.held.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }
}

/// One client's part of the memory. Given back when dropped.
#[derive(Debug)]
pub(super) struct Reserved {
    memory: Arc<SpillMemory>,
    bytes: usize,
}

impl Reserved {
    pub(super) fn new(memory: &Arc<SpillMemory>) -> Self {
        Self { memory: memory.clone(), bytes: 0 }
    }

    /// Makes it at least `bytes`; returns false, and changes nothing, when that is more than there is.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let limit = self.memory.limit.load(Relaxed);
        let grown = self.memory.used.fetch_update(Relaxed, Relaxed, |used| {
            let used = used.checked_add(more)?;
            (more == 0 || used <= limit).then_some(used)
        });
        self.bytes += grown.map_or(0, |_| more);
        grown.is_ok()
    }

    /// Makes it `bytes`, which is what there is.
    pub(super) fn settle(&mut self, bytes: usize) {
        if bytes >= self.bytes {
            self.memory.used.fetch_add(bytes - self.bytes, Relaxed);
        } else {
            self.memory.used.fetch_sub(self.bytes - bytes, Relaxed);
        }
        self.bytes = bytes;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.settle(0);
    }
}

/// The rest of an answer whose server has gone back to the pool. The client is to have all of it before anything else.
#[derive(Debug)]
pub struct Untaken {
    backlog: Backlog,
    last: bool,
    _reserved: Reserved,
}

impl PartialEq for Untaken {
    fn eq(&self, other: &Self) -> bool {
        self.last == other.last && self.backlog.bytes() == other.backlog.bytes()
    }
}

impl Untaken {
    /// `last`: the client said Terminate, and leaves when it has all.
    pub(super) fn new(backlog: Backlog, reserved: Reserved, last: bool) -> Self {
        Self { backlog, last, _reserved: reserved }
    }

    /// Returns what is to be reserved for `backlog`.
    pub(super) fn size(backlog: &Backlog) -> usize {
        backlog.capacity() + if backlog.holds_back() { STREAM_HOLDS } else { 0 }
    }

    /// Returns whether the client leaves when it has all of it.
    pub fn is_last(&self) -> bool {
        self.last
    }

    /// Gives the client what it takes: ready when it took anything, with whether that was all. An error means that it is gone.
    pub fn poll_take<IO>(&mut self, cx: &mut Context<'_>, io: &mut IO) -> Poll<std::io::Result<bool>>
    where
        IO: AsyncWrite + Unpin,
    {
        let before = self.backlog.len();
        match self.backlog.poll_write_out(cx, io) {
            Poll::Ready(result) => result?,
            Poll::Pending if self.backlog.len() < before => return Poll::Ready(Ok(false)),
            Poll::Pending => return Poll::Pending,
        }
        ready!(self.backlog.poll_stream(cx, io))?;
        Poll::Ready(Ok(true))
    }

    /// Says `error` behind what is left, if the client takes that soon.
    pub async fn refuse<IO>(self, io: &mut IO, error: &PoolError)
    where
        IO: AsyncWrite + Unpin,
    {
        farewell(self.backlog, io, Some(error)).await;
    }
}

/// Gives the client what is left and then `error`, as far as it takes it in time; what it makes of it is its own affair.
pub(super) async fn farewell<IO>(mut backlog: Backlog, io: &mut IO, error: Option<&PoolError>)
where
    IO: AsyncWrite + Unpin,
{
    if let Some(error) = error {
        error.write(backlog.writer());
    }
    let told = async {
        std::future::poll_fn(|cx| backlog.poll_write_out(cx, io)).await?;
        io.flush().await
    };
    let _ = timeout(FAREWELL, told).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_never_exceeds_the_memory_and_comes_back() {
        let memory = SpillMemory::new(100);
        let mut first = Reserved::new(&memory);
        assert!(first.grow(60));
        let mut second = Reserved::new(&memory);
        assert!(!second.grow(41));
        assert!(second.grow(40));
        assert_eq!(memory.used(), 100);
        assert!(first.grow(50), "no more than it has");
        first.settle(10);
        assert_eq!(memory.used(), 50);
        drop(second);
        assert_eq!(memory.used(), 10);
        memory.set_limit(5);
        assert!(first.grow(10));
        assert!(!first.grow(11));
        drop(first);
        assert_eq!(memory.used(), 0);
    }
}
