//! One read buffer per thread, for connections that mostly wait.
//!
//! A connection that owns a buffer pays for it while nothing arrives: ten thousand idle WebSockets or keep-alive
//! connections would hold ten thousand buffers. Here the bytes of one read live in the thread's buffer for the length of
//! one call; whoever must keep some copies just those.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

/// Bytes of one read. Also the most a reader ever has to keep of it.
pub(super) const SCRATCH_SIZE: usize = 16 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_SIZE].into_boxed_slice());
}

/// Reads once into the thread's buffer and hands the bytes (none at the end of the stream) to `take`.
///
/// Nothing is lost when the result is `Pending`. `take` must not read through this function itself.
pub(super) fn poll_read<S, T>(
    io: &mut S,
    cx: &mut Context<'_>,
    take: impl FnOnce(&[u8], &mut Context<'_>) -> T,
) -> Poll<io::Result<T>>
where
    S: AsyncRead + Unpin + ?Sized,
{
    SCRATCH.with_borrow_mut(|scratch| {
        let mut buf = ReadBuf::new(scratch);
        ready!(Pin::new(io).poll_read(cx, &mut buf))?;
        Poll::Ready(Ok(take(buf.filled(), cx)))
    })
}
