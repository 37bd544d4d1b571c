//! The probe's way to its server: that of a pool's connections, so that what must not be said to a stranger the probe does
//! not say either. Names, addresses and TLS are `server`'s; tokio-postgres gets a stream that leads to PostgreSQL, and that
//! ends when the server asks for what `server_require_auth` does not allow.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};
use tokio_postgres::{
    Client, Config,
    config::{SslMode, SslNegotiation},
    tls::{ChannelBinding, TlsConnect, TlsStream},
};

use crate::{
    config::pool::{Asked, Database, DatabaseServers, LoadBalance, Pool, RequireAuth, ServerTls, Tcp},
    pool::{
        names::Names,
        server::{
            connect::{connect, share},
            error::ServerError,
            hosts::{Host, Hosts},
            secure::secure,
            stream::ServerStream,
        },
        wire::tag::backend as tag,
    },
    tls::server_end_point,
};

/// How the servers of a database are reached.
#[derive(Clone, PartialEq)]
pub(super) struct Way {
    hosts: Arc<Hosts>,
    port: u16,
    tls: Option<Arc<ServerTls>>,
    require_auth: RequireAuth,
    tcp: Tcp,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Postgres(#[from] tokio_postgres::Error),
}

impl Way {
    /// Returns the way to the servers of `database`. Of several hosts the first one that is there answers for all.
    pub(super) fn of(pool: &Pool, database: &Database, names: &Names) -> Self {
        let servers = DatabaseServers { load_balance_hosts: LoadBalance::Disable, ..database.servers.clone() };
        Self {
            hosts: Hosts::of(&Database { servers, ..database.clone() }, names),
            port: database.port,
            tls: pool.server_tls.clone(),
            require_auth: pool.server_require_auth,
            tcp: pool.tcp,
        }
    }

    /// Opens a session, to the first of the hosts that is there, within `limit`.
    ///
    /// Cancel safe: an abandoned call closes the connection.
    pub(super) async fn log_in(&self, login: &Config, limit: Duration) -> Result<Client, Failed> {
        let deadline = Instant::now() + limit;
        let mut last = ServerError::Resolve { why: "there is no host".into() };
        let mut hosts = self.hosts.in_turn();
        while let Some((at, host)) = hosts.next() {
            match self.reach(host, share(deadline, hosts.len() + 1)).await {
                Ok(stream) => return Ok(hand_over(Guarded::new(stream, self.require_auth), login).await?),
                Err(error) if error.is_transient() => {
                    self.hosts.failed(at);
                    last = error;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(last.into())
    }

    async fn reach(&self, host: &Host, deadline: Instant) -> Result<ServerStream, ServerError> {
        let reached = connect(host, self.port, &self.tcp, deadline).await?;
        let secured = secure(reached.socket, &host.text, self.tls.as_deref());
        tokio::time::timeout_at(deadline, secured).await.unwrap_or(Err(ServerError::Timeout))
    }
}

/// Lets tokio-postgres log in on a stream that is as private as it is to be: it is told to begin TLS itself, and that has
/// been done.
async fn hand_over(stream: Guarded, login: &Config) -> Result<Client, tokio_postgres::Error> {
    let mut login = login.clone();
    login.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
    let (client, connection) = login.connect_raw(stream, Secured).await?;
    // It ends when the client is dropped or the socket breaks; the client then says `is_closed`.
    tokio::spawn(connection);
    Ok(client)
}

struct Secured;

impl TlsConnect<Guarded> for Secured {
    type Stream = Guarded;
    type Error = Infallible;
    type Future = Ready<Result<Guarded, Infallible>>;

    fn connect(self, stream: Guarded) -> Self::Future {
        ready(Ok(stream))
    }
}

/// A stream that fails as soon as the server asks for what it may not.
struct Guarded {
    stream: ServerStream,
    first: Option<FirstAsked>,
    allowed: RequireAuth,
}

impl Guarded {
    fn new(stream: ServerStream, allowed: RequireAuth) -> Self {
        Self { stream, first: Some(FirstAsked::default()), allowed }
    }

    fn look(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(kind) = self.first.as_mut().and_then(|first| first.find(bytes)) else { return Ok(()) };
        self.first = None;
        match asked(kind) {
            Some(asked) if !self.allowed.allows(asked) => {
                Err(io::Error::other(ServerError::NotAllowed { asked: asked.word() }))
            }
            // What is neither is tokio-postgres's to refuse.
            _ => Ok(()),
        }
    }
}

/// Returns what an Authentication request asks for, by its number. Source: PostgreSQL documentation, "Message Formats".
fn asked(kind: u32) -> Option<Asked> {
    match kind {
        0 => Some(Asked::Nothing),
        3 => Some(Asked::Password),
        5 => Some(Asked::Md5),
        10 => Some(Asked::Scram),
        _ => None,
    }
}

/// Finds the first Authentication request among the messages of a server, however they are cut.
#[derive(Default)]
struct FirstAsked {
    /// Tag, length and number of the message that is being read.
    head: [u8; 9],
    have: usize,
    /// Bytes of a message of another kind that are still to come.
    skip: usize,
}

impl FirstAsked {
    /// Takes the next bytes; returns the number of the request once it is there.
    fn find(&mut self, mut bytes: &[u8]) -> Option<u32> {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            let (next, rest) = bytes.get(skipped..)?.split_first()?;
            bytes = rest;
            self.head[self.have] = *next;
            self.have += 1;
            let [tag, a, b, c, d, kind @ ..] = self.head;
            match (tag, self.have) {
                (tag::AUTHENTICATION, 9) => return Some(u32::from_be_bytes(kind)),
                (tag::AUTHENTICATION, _) | (_, ..5) => {}
                _ => {
                    let length = u32::from_be_bytes([a, b, c, d]);
                    self.skip = (length as usize).saturating_sub(4);
                    self.have = 0;
                }
            }
        }
    }
}

impl TlsStream for Guarded {
    fn channel_binding(&self) -> ChannelBinding {
        let end_point = match &self.stream {
            ServerStream::Plain(_) => None,
            ServerStream::Tls(stream) => server_end_point(stream),
        };
        end_point.map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

impl AsyncRead for Guarded {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        let before = buf.filled().len();
        let read = std::task::ready!(Pin::new(&mut me.stream).poll_read(cx, buf));
        Poll::Ready(read.and_then(|()| me.look(&buf.filled()[before..])))
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_first_is_found_behind_other_messages_and_however_it_is_cut() {
        let all = b"N\0\0\0\x09hello\x53\0\0\0\x04R\0\0\0\x08\0\0\0\x03R\0\0\0\x08\0\0\0\x05";
        for step in 1..all.len() {
            let mut first = FirstAsked::default();
            let found = all.chunks(step).find_map(|chunk| first.find(chunk));
            assert_eq!(found.and_then(asked), Some(Asked::Password), "{step} bytes at a time");
        }
    }

    #[test]
    fn a_message_of_no_length_does_not_hide_what_follows() {
        let mut first = FirstAsked::default();
        assert_eq!(first.find(b"N\0\0\0\0R\0\0\0\x08\0\0\0\x0a"), Some(10));
    }
}
