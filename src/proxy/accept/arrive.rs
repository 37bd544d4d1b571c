//! How a connection begins: whose it is, TLS, and which HTTP is spoken, as far as the listener asks for any of it.
//!
//! TLS is ours and not pingora's, which has no say over the deadline of a handshake (60 s), and whose listeners cannot have
//! their certificates exchanged, gain TLS or lose it while they listen. Whether a client speaks HTTP/2 is said by ALPN;
//! without TLS by the preface that such a connection begins with (RFC 9113 sections 3.3 and 3.4).

use std::{future::poll_fn, net::SocketAddr, time::Duration};

use bytes::{Buf, BytesMut};
use pingora::protocols::Stream;
use tokio::time::timeout;

use super::layer::{Early, Secure};
use crate::{
    config::lb::Listener,
    proxy::{
        metrics::Refusal,
        proxy_protocol::{self, Header},
        scratch,
    },
    tls,
};

/// What an HTTP/2 client says first (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HTTP2: &[u8] = b"h2";

/// How connections of a listener begin.
#[derive(Debug)]
pub(crate) struct Manner {
    tls: Option<(tls::Accept, Duration)>,
    http2: bool,
    proxy_protocol: bool,
}

/// A connection that is ready for HTTP.
pub(super) struct Arrived {
    pub(super) io: Stream,
    /// Read of it already; empty with HTTP/2, whose stream gives it again.
    pub(super) early: BytesMut,
    pub(super) http2: bool,
}

/// It did not get that far: gone, too slow, or not what the listener expects. With the reason to count, if there is one.
#[derive(Debug)]
pub(super) struct NotArrived(pub(super) Option<Refusal>);

impl Manner {
    pub(super) fn of(listener: &Listener) -> Self {
        let tls = listener.tls.as_ref().map(|tls| (tls.accept.clone(), tls.handshake_timeout));
        Self { tls, http2: listener.http2, proxy_protocol: listener.proxy_protocol }
    }

    /// Returns whether nothing comes before HTTP/1.1.
    pub(super) fn is_plain(&self) -> bool {
        self.tls.is_none() && !self.http2 && !self.proxy_protocol
    }

    /// Returns whether words that are not encrypted mean nothing to the client.
    pub(super) fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// Makes a connection ready for HTTP. A client that says nothing has `patience`, and for TLS the handshake's own time. Not
    /// cancel safe: what was read is lost.
    pub(super) async fn arrive(&self, mut io: Stream, patience: Duration) -> Result<Arrived, NotArrived> {
        let mut early = BytesMut::new();
        if self.proxy_protocol {
            let Ok(Ok(header)) = timeout(patience, proxy_header(&mut io, &mut early)).await else {
                return Err(NotArrived(Some(Refusal::ProxyProtocol)));
            };
            io = Box::new(Early::said(io, early.split(), header));
        }
        if let Some((accept, limit)) = &self.tls {
            let socket = io.get_socket_digest();
            let Ok(Ok(io)) = timeout(*limit, accept.handshake(io)).await else {
                return Err(NotArrived(Some(Refusal::Handshake)));
            };
            let http2 = io.get_ref().1.alpn_protocol() == Some(HTTP2);
            return Ok(Arrived { io: Box::new(Secure::new(io, socket)), early, http2 });
        }
        match self.http2 {
            true => timeout(patience, by_preface(io)).await.unwrap_or(Err(NotArrived(None))),
            false => Ok(Arrived { io, early, http2: false }),
        }
    }
}

/// Reads the header that says whose connection this is; what follows it is left in `early`.
async fn proxy_header(io: &mut Stream, early: &mut BytesMut) -> Result<Option<SocketAddr>, NotArrived> {
    loop {
        match proxy_protocol::read(early) {
            Ok(Header::Whole { source, length }) => {
                early.advance(length);
                return Ok(source);
            }
            Ok(Header::Incomplete) => more(io, early).await?,
            Err(_) => return Err(NotArrived(None)),
        }
    }
}

/// Reads until it is clear whether a connection begins with the preface.
async fn by_preface(mut io: Stream) -> Result<Arrived, NotArrived> {
    let mut early = BytesMut::new();
    loop {
        more(&mut io, &mut early).await?;
        let known = early.len().min(PREFACE.len());
        if early[..known] != PREFACE[..known] {
            return Ok(Arrived { io, early, http2: false });
        }
        if known == PREFACE.len() {
            return Ok(Arrived { io: Box::new(Early::new(io, early)), early: BytesMut::new(), http2: true });
        }
    }
}

/// Reads once; an end is none.
async fn more(io: &mut Stream, early: &mut BytesMut) -> Result<(), NotArrived> {
    let read = poll_fn(|cx| {
        scratch::poll_read(io, cx, |bytes, _| {
            early.extend_from_slice(bytes);
            bytes.len()
        })
    });
    match read.await {
        Ok(1..) => Ok(()),
        _ => Err(NotArrived(None)),
    }
}
