//! What may lie between a socket and HTTP: TLS, or bytes that were read to find out what is spoken.
//!
//! pingora wants more of a stream than to be read and written; the rest is passed on here from the socket below.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType, raw_connect::ProxyDigest, tls::SslDigest,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::tls::{Accepted, Suite};

/// A stream whose first bytes have been read, and are given again.
#[derive(Debug)]
pub(super) struct Early {
    io: Stream,
    early: BytesMut,
    /// Whose connection it is, where a proxy has said so; else the socket's own.
    socket: Option<Arc<SocketDigest>>,
}

impl Early {
    pub(super) fn new(io: Stream, early: BytesMut) -> Self {
        Self { io, early, socket: None }
    }

    /// Returns a stream whose other end is `source`, where it is known, whoever is at the socket.
    pub(super) fn said(io: Stream, early: BytesMut, source: Option<SocketAddr>) -> Self {
        let socket = source.map(|source| {
            let own = SocketDigest::from_raw_fd(io.id());
            // Both are empty still: they are filled here or never.
            let _ = own.peer_addr.set(Some(source.into()));
            let local = io.get_socket_digest().and_then(|socket| socket.local_addr().cloned());
            let _ = own.local_addr.set(local);
            Arc::new(own)
        });
        Self { io, early, socket }
    }
}

/// A stream under TLS.
#[derive(Debug)]
pub(super) struct Secure {
    io: Accepted<Stream>,
    socket: Option<Arc<SocketDigest>>,
    /// Version and cipher suite; for the rest of the front, the sign that this is HTTPS.
    digest: Arc<SslDigest>,
}

impl Secure {
    /// `socket` is what is known of the socket below.
    pub(super) fn new(io: Accepted<Stream>, socket: Option<Arc<SocketDigest>>) -> Self {
        let suite = Suite::of(io.get_ref().1).describe();
        let (version, cipher) = suite.split_once('/').unwrap_or_default();
        let digest = SslDigest::new(cipher.to_owned(), version.to_owned(), None, None, Vec::new());
        Self { io, socket, digest: Arc::new(digest) }
    }

    fn below(&self) -> &Stream {
        self.io.get_ref().0
    }
}

impl AsyncRead for Early {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let part = self.early.len().min(buf.remaining());
        buf.put_slice(&self.early[..part]);
        self.early.advance(part);
        if self.early.is_empty() {
            self.early = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Secure {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Ssl for Early {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.io.get_ssl_digest()
    }
}

impl Ssl for Secure {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        Some(self.digest.clone())
    }
}

impl GetSocketDigest for Early {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.socket.clone().or_else(|| self.io.get_socket_digest())
    }
}

impl GetSocketDigest for Secure {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.socket.clone()
    }
}

/// What both pass on. `$below` is how the stream below is had.
macro_rules! pass_on {
    ($layer:ty, $below:expr) => {
        impl AsyncWrite for $layer {
            fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.io).poll_write(cx, buf)
            }

            fn poll_write_vectored(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
            }

            fn is_write_vectored(&self) -> bool {
                self.io.is_write_vectored()
            }

            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.io).poll_flush(cx)
            }

            fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.io).poll_shutdown(cx)
            }
        }

        #[async_trait]
        impl Shutdown for $layer {
            async fn shutdown(&mut self) {
                // Who is gone needs no farewell.
                let _ = AsyncWriteExt::shutdown(&mut self.io).await;
            }
        }

        impl UniqueID for $layer {
            fn id(&self) -> UniqueIDType {
                let below: fn(&Self) -> &Stream = $below;
                below(self).id()
            }
        }

        impl GetTimingDigest for $layer {
            fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
                let below: fn(&Self) -> &Stream = $below;
                below(self).get_timing_digest()
            }
        }

        impl GetProxyDigest for $layer {
            fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
                let below: fn(&Self) -> &Stream = $below;
                below(self).get_proxy_digest()
            }
        }

        impl Peek for $layer {}
    };
}

pass_on!(Early, |layer| &layer.io);
pass_on!(Secure, |layer| layer.below());
