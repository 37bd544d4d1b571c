//! A client connection, and the face of it that the HTTP engine sees.
//!
//! [`Conn`] is the connection itself: the socket, bytes read too early, bytes written but not flushed, and where the
//! current request ends. For each request the engine gets a [`Downstream`] around it, which gives the bytes of that one
//! request and no more, and which puts the `Conn` back where it came from when the engine drops it, however the request
//! ended. So the keep-alive loop always gets its connection back: to serve the next request, to close it properly, or to
//! find that a WebSocket took it away.
//!
//! Reads are unbuffered (the engine has buffers of its own while it works); small writes are gathered until the engine
//! flushes or turns to wait for the client, in a buffer that exists only while it holds something. (The engine itself
//! flushes an answer with a Content-Length at its end only: one that is made slowly would be held back until then.) A write
//! the client takes nothing of for `send_timeout` fails: pingora's own timeout covers a whole buffer however fast it goes,
//! and no flush at all.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType, raw_connect::ProxyDigest, tls::SslDigest,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::{Sleep, sleep},
};

use super::{body::Body, limit::Admission};
use crate::proxy::scratch;

/// Writes are gathered up to this many bytes: a response head and a small body leave in one packet.
const GATHER_MAX: usize = 4 * 1024;

/// An accepted connection.
pub(crate) struct Conn {
    pub(super) io: Stream,
    /// Read from the socket, not yet given to anybody. At most one head limit and one scratch buffer.
    pub(super) held: BytesMut,
    /// Written by the engine, not yet to the socket. At most [`GATHER_MAX`].
    unsent: BytesMut,
    /// What is still to come of the current request.
    pub(super) body: Body,
    pub(super) send_timeout: Duration,
    /// Runs while the client takes nothing of what is written.
    stalled: Option<Pin<Box<Sleep>>>,
    /// The place among the open connections, and the token leaving waits for.
    admission: Admission,
}

/// A connection taken out of HTTP, for a tunnel.
pub(crate) struct Taken {
    pub(crate) io: Stream,
    /// Bytes the client sent after its request head.
    pub(crate) early: BytesMut,
    pub(crate) admission: Admission,
}

impl Conn {
    pub(super) fn new(io: Stream, admission: Admission) -> Self {
        Self {
            io,
            held: BytesMut::new(),
            unsent: BytesMut::new(),
            body: Body::Done,
            send_timeout: Duration::MAX,
            stalled: None,
            admission,
        }
    }

    fn into_taken(self) -> Taken {
        Taken { io: self.io, early: self.held, admission: self.admission }
    }

    /// Reads once from the socket and keeps the bytes; 0 at the end. Cancel safe.
    pub(super) async fn read_more(&mut self) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_hold(cx)).await
    }

    fn poll_hold(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let held = &mut self.held;
        scratch::poll_read(&mut self.io, cx, |bytes, _| {
            held.extend_from_slice(bytes);
            bytes.len()
        })
    }

    /// Reads bytes nobody will look at; 0 at the end. Cancel safe.
    pub(super) async fn discard(&mut self) -> io::Result<usize> {
        std::future::poll_fn(|cx| scratch::poll_read(&mut self.io, cx, |bytes, _| bytes.len())).await
    }

    /// Gives up a buffer that holds nothing, before a long wait.
    pub(super) fn rest(&mut self) {
        if self.held.is_empty() {
            self.held = BytesMut::new();
        }
        if self.unsent.is_empty() {
            self.unsent = BytesMut::new();
        }
    }

    /// Writes `bytes`, flushes, and closes our direction. Not cancel safe: what was written stays written.
    pub(super) async fn finish(&mut self, bytes: &[u8]) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_drain(cx)).await?;
        self.io.write_all(bytes).await?;
        self.io.flush().await?;
        AsyncWriteExt::shutdown(&mut self.io).await
    }

    /// Reads bytes of the current request into `buf`, none past its end.
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        self.offer(cx);
        if self.body.is_done() {
            return self.poll_idle(cx);
        }
        let limit = self.body.read_limit().map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        if !self.held.is_empty() {
            let ready = self.held.len().min(buf.remaining());
            let used = self.body.advance(&self.held[..ready]).map_err(bad_body)?;
            buf.put_slice(&self.held[..used]);
            self.held.advance(used);
        } else if limit < buf.remaining() {
            let mut part = ReadBuf::new(buf.initialize_unfilled_to(limit));
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut part))?;
            let read = part.filled().len();
            buf.advance(read);
            self.body.advance(&buf.filled()[before..]).map_err(bad_body)?;
        } else {
            ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
            let read = &buf.filled()[before..];
            let used = self.body.advance(read).map_err(bad_body)?;
            self.held.extend_from_slice(&read[used..]);
            buf.set_filled(before + used);
        }
        Poll::Ready(Ok(()))
    }

    /// The request is complete and its answer under way: only a client that leaves is news. What it sends early is held
    /// back for the next request.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.held.is_empty() {
            return Poll::Pending;
        }
        match ready!(self.poll_hold(cx))? {
            0 => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    }

    /// Writes what the client takes at once of what was gathered. The rest, and an error, are for the next write or flush.
    fn offer(&mut self, cx: &mut Context<'_>) {
        while !self.unsent.is_empty() {
            match Pin::new(&mut self.io).poll_write(cx, &self.unsent) {
                Poll::Ready(Ok(sent @ 1..)) => self.unsent.advance(sent),
                Poll::Ready(_) | Poll::Pending => return,
            }
        }
    }

    /// Writes out what was gathered.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let written = Pin::new(&mut self.io).poll_write(cx, &self.unsent);
            let sent = ready!(self.watch(cx, written))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.advance(sent);
        }
        Poll::Ready(Ok(()))
    }

    /// Times how long a write makes no progress.
    fn watch(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let timer = self.stalled.get_or_insert_with(|| Box::pin(sleep(self.send_timeout)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Gathers small writes; a large one goes straight to the socket after what was gathered before.
    fn poll_gather(&mut self, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let len = bufs.iter().map(|buf| buf.len()).sum::<usize>();
        if self.unsent.len() + len > GATHER_MAX {
            ready!(self.poll_drain(cx))?;
            if len > GATHER_MAX {
                let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
                return self.watch(cx, written);
            }
        }
        for buf in bufs {
            self.unsent.extend_from_slice(buf);
        }
        Poll::Ready(Ok(len))
    }
}

fn bad_body(bad: super::body::BadBody) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, bad)
}

/// Where a connection is put back when the engine is done with it.
#[derive(Clone, Default)]
pub(super) struct Home(Arc<Mutex<Option<Box<Conn>>>>);

impl Home {
    /// Returns the connection; `None` when it was taken away.
    pub(super) fn take(&self) -> Option<Box<Conn>> {
        self.0.lock().take()
    }
}

/// One request's view of a connection.
pub(crate) struct Downstream {
    /// `None` only after [`Downstream::take`].
    conn: Option<Box<Conn>>,
    home: Home,
}

impl Downstream {
    pub(super) fn new(conn: Box<Conn>, home: Home) -> Self {
        Self { conn: Some(conn), home }
    }

    /// Takes the connection out of HTTP for good.
    pub(crate) fn take(mut self) -> Option<Taken> {
        self.conn.take().map(|conn| conn.into_taken())
    }

    fn conn(&mut self) -> io::Result<&mut Conn> {
        self.conn.as_deref_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Downstream {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            *self.home.0.lock() = Some(conn);
        }
    }
}

impl AsyncRead for Downstream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.conn()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Downstream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.conn()?.poll_gather(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.conn()?.poll_gather(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let conn = self.conn()?;
        ready!(conn.poll_drain(cx))?;
        Pin::new(&mut conn.io).poll_flush(cx)
    }

    /// Flushes only: the connection goes home and is closed there.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

#[async_trait]
impl Shutdown for Downstream {
    async fn shutdown(&mut self) {
        // A client that is gone needs no flush; the close that follows will see it too.
        let _ = AsyncWriteExt::flush(self).await;
    }
}

impl std::fmt::Debug for Downstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Downstream").finish_non_exhaustive()
    }
}

impl UniqueID for Downstream {
    fn id(&self) -> UniqueIDType {
        self.conn.as_ref().map_or(-1, |conn| conn.io.id())
    }
}

impl Ssl for Downstream {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.conn.as_ref().and_then(|conn| conn.io.get_ssl_digest())
    }
}

impl Peek for Downstream {}

impl GetTimingDigest for Downstream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.conn.as_ref().map_or_else(Vec::new, |conn| conn.io.get_timing_digest())
    }
}

impl GetProxyDigest for Downstream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.conn.as_ref().and_then(|conn| conn.io.get_proxy_digest())
    }
}

impl GetSocketDigest for Downstream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.conn.as_ref().and_then(|conn| conn.io.get_socket_digest())
    }
}

#[cfg(test)]
mod tests;
