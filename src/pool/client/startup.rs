//! The first packets of a connection, before anything is known of who sends them.
//!
//! In: a fresh connection. Out: [`First`], what the peer wants. Everything here is reachable by anybody who can reach the
//! port, so the length is checked before a buffer grows to it, the packet is capped at PostgreSQL's 10,000 bytes, each
//! kind of encryption may be asked for once, and nothing that arrives behind such a question is ever used: it may have
//! been put there by somebody else (CVE-2021-3935, and CVE-2021-23214 in PostgreSQL itself). Reads are exact: no byte of
//! what follows the startup packet is taken from the stream.
//!
//! Source: PostgreSQL documentation, "Message Flow: Start-up"; `ProcessStartupPacket` in backend_startup.c.

pub mod options;
pub mod packet;

#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::pool::{
    client::{deadline::LoginDeadline, startup::packet::Packet},
    error::PoolError,
    wire::{backend, frame::LENGTH_LEN, read},
};

/// Longest startup packet, length field included: PostgreSQL's MAX_STARTUP_PACKET_LENGTH.
pub const PACKET_LEN_MAX: usize = 10_000;

/// The first byte of a TLS record that carries a handshake.
pub const TLS_HANDSHAKE: u8 = 0x16;
/// A fatal TLS alert, `handshake_failure`: what makes a client that began TLS unasked say so instead of "bad record".
const TLS_ALERT: [u8; 7] = [0x15, 3, 1, 0, 2, 2, 40];
/// "Encryption is not available; you may go on without."
const NO_ENCRYPTION: u8 = b'N';
/// "Begin the handshake."
const BEGIN_TLS: u8 = b'S';

/// What a client that asks for TLS is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// There is none here.
    Unavailable,
    /// It may have it, or must.
    Offered { required: bool },
    /// It has it.
    On,
}

/// What a fresh connection wants.
#[derive(PartialEq)]
pub enum First {
    /// Cancel what that session runs. Never answered: the connection is closed when it is done.
    Cancel { pid: i32, secret: Box<[u8]> },
    /// Log in.
    Startup(StartupRequest),
    /// Shake hands: it asked, and was told to begin. What it wants it will say again then.
    Tls,
}

/// What a replication connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replication {
    /// `replication=true`: the whole cluster's WAL, without a database.
    Physical,
    /// `replication=database`: one database's changes, and SQL beside them.
    Logical,
}

impl Replication {
    /// Returns PgBouncer's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Physical => "physical",
            Self::Logical => "logical",
        }
    }

    /// Returns the startup parameter's value.
    pub fn parameter(self) -> &'static str {
        match self {
            Self::Physical => "true",
            Self::Logical => "database",
        }
    }
}

/// A login that has not been authenticated yet.
#[derive(Clone, PartialEq, Eq)]
pub struct StartupRequest {
    pub user: String,
    /// The user's name when the client named none.
    pub database: String,
    /// Settings sent as parameters of their own (`application_name`, `client_encoding`, …), in the client's order.
    pub params: Vec<(String, String)>,
    /// Settings sent inside `options` (`-c name=value`), in the client's order.
    pub options: Vec<(String, String)>,
    pub replication: Option<Replication>,
    /// The protocol's minor version that is spoken: what it asked for, or the newest there is.
    pub minor: u32,
}

impl StartupRequest {
    /// Returns every setting in the order in which PostgreSQL applies them: a later one of the same name wins
    /// (`process_startup_options`: the command line first, then the parameters).
    pub fn settings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.options.iter().chain(&self.params).map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Returns the setting that is in force at the end.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings().filter(|(n, _)| n.eq_ignore_ascii_case(name)).last().map(|(_, value)| value)
    }
}

impl fmt::Debug for First {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Whoever knows the key can cancel the session's queries.
            Self::Cancel { pid, .. } => f.debug_struct("Cancel").field("pid", pid).finish_non_exhaustive(),
            Self::Startup(request) => f.debug_tuple("Startup").field(request).finish(),
            Self::Tls => f.write_str("Tls"),
        }
    }
}

impl fmt::Debug for StartupRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values of settings can be secrets of the application.
        let names: Vec<_> = self.settings().map(|(name, _)| name).collect();
        let mut shown = f.debug_struct("StartupRequest");
        shown.field("user", &self.user).field("database", &self.database).field("settings", &names).finish()
    }
}

/// Reads up to and including the first packet that says what the peer wants, and answers what must be answered on the way
/// (encryption, as `encryption` says; a newer protocol: the newest there is). `ignored` is `ignore_startup_parameters`.
///
/// Not cancel safe: an abandoned call leaves the stream inside a packet.
pub async fn read_first<S>(
    io: &mut S,
    ignored: &[String],
    encryption: Encryption,
    deadline: LoginDeadline,
) -> Result<First, PoolError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    deadline.guard(first(io, ignored, encryption)).await
}

async fn first<S>(io: &mut S, ignored: &[String], encryption: Encryption) -> Result<First, PoolError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut asked_tls, mut asked_gss) = (false, false);
    loop {
        let body = read_packet(io).await?;
        match packet::parse(&body, ignored)? {
            Packet::Cancel { pid, secret } => return Ok(First::Cancel { pid, secret: secret.into() }),
            Packet::TlsRequest | Packet::GssRequest if encryption == Encryption::On => {
                return Err(PoolError::StartupPacket { why: "encryption was asked for twice" });
            }
            Packet::TlsRequest if matches!(encryption, Encryption::Offered { .. }) => {
                nothing_behind(io).await?;
                io.write_all(&[BEGIN_TLS]).await.map_err(gone)?;
                io.flush().await.map_err(gone)?;
                return Ok(First::Tls);
            }
            Packet::TlsRequest if !asked_tls => asked_tls = true,
            Packet::GssRequest if !asked_gss => asked_gss = true,
            Packet::TlsRequest | Packet::GssRequest => {
                return Err(PoolError::StartupPacket { why: "encryption was asked for twice" });
            }
            Packet::Startup { .. } if encryption == (Encryption::Offered { required: true }) => {
                return Err(PoolError::TlsRequired);
            }
            Packet::Startup { request, negotiate } => {
                if let Some(unknown) = negotiate {
                    let mut out = Vec::new();
                    let version = read::code::PROTOCOL_3_0 | request.minor;
                    backend::negotiate_protocol_version(&mut out, version, &unknown);
                    io.write_all(&out).await.map_err(gone)?;
                }
                return Ok(First::Startup(request));
            }
        }
        nothing_behind(io).await?;
        io.write_all(&[NO_ENCRYPTION]).await.map_err(gone)?;
        io.flush().await.map_err(gone)?;
    }
}

/// Reads one packet and returns what stands after its length.
async fn read_packet<S>(io: &mut S) -> Result<Vec<u8>, PoolError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut len = [0; LENGTH_LEN];
    io.read_exact(&mut len).await.map_err(gone)?;
    if len[0] == TLS_HANDSHAKE {
        let _ = io.write_all(&TLS_ALERT).await;
        return Err(PoolError::DirectTls);
    }
    let len = match read::startup_len(&len, PACKET_LEN_MAX) {
        Ok(Some(len)) => len,
        Ok(None) | Err(_) => return Err(PoolError::StartupPacket { why: "its length is not 8 to 10,000 bytes" }),
    };
    let mut body = vec![0; len - LENGTH_LEN];
    io.read_exact(&mut body).await.map_err(gone)?;
    Ok(body)
}

/// Checks that the peer waits for our answer: one look, without waiting, at what has already arrived.
async fn nothing_behind<S>(io: &mut S) -> Result<(), PoolError>
where
    S: AsyncRead + Unpin,
{
    std::future::poll_fn(|cx| Poll::Ready(peek(Pin::new(&mut *io), cx))).await
}

fn peek<S: AsyncRead>(io: Pin<&mut S>, cx: &mut Context<'_>) -> Result<(), PoolError> {
    let mut byte = [0];
    let mut buf = ReadBuf::new(&mut byte);
    match io.poll_read(cx, &mut buf) {
        Poll::Pending => Ok(()),
        Poll::Ready(Ok(())) if !buf.filled().is_empty() => Err(PoolError::EarlyData),
        Poll::Ready(_) => Err(PoolError::ClientGone),
    }
}

fn gone(_: io::Error) -> PoolError {
    PoolError::ClientGone
}
