//! TLS towards a server: the question whether it has it, and the handshake.
//!
//! The answer is one byte, and exactly one is read: what somebody on the way put behind it goes into the handshake and fails
//! there, instead of being taken for something the server said under TLS (CVE-2021-23222 in libpq).
//!
//! Source: PostgreSQL documentation, "SSL Session Encryption"; `server.c` of PgBouncer for what each mode does.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{error::ServerError, stream::ServerStream};
use crate::{
    config::pool::{ServerTls, SslMode},
    pool::{socket::Socket, wire::frontend},
    tls::without_names,
};

/// Makes a fresh connection to `host` as private as `tls` wants it. Who calls bounds the time.
///
/// A Unix socket does not leave the machine, and PostgreSQL has no TLS on it: libpq and PgBouncer do not ask there either.
pub async fn secure(mut socket: Socket, host: &str, tls: Option<&ServerTls>) -> Result<ServerStream, ServerError> {
    // `allow` asks for nothing, as in PgBouncer.
    let tls = tls.filter(|tls| tls.mode >= SslMode::Prefer && matches!(socket, Socket::Tcp(_)));
    let Some(tls) = tls else { return Ok(ServerStream::Plain(socket)) };
    if tls.direct {
        let stream = shake_hands(tls, host, socket).await?;
        // Anything else that speaks TLS answers too; only PostgreSQL answers to this name (libpq, fe-secure-openssl.c).
        return match &stream {
            ServerStream::Tls(inner) if inner.get_ref().1.alpn_protocol().is_none() => Err(ServerError::Tls {
                why: "direct TLS was begun, and the server does not speak PostgreSQL's protocol under it (ALPN)".into(),
            }),
            _ => Ok(stream),
        };
    }
    let mut request = Vec::with_capacity(8);
    frontend::ssl_request(&mut request);
    socket.write_all(&request).await.map_err(|_| ServerError::Closed)?;
    let mut answer = [0];
    socket.read_exact(&mut answer).await.map_err(|_| ServerError::Closed)?;
    match answer[0] {
        b'S' => shake_hands(tls, host, socket).await,
        b'N' if tls.mode.is_required() => Err(ServerError::NoTls),
        b'N' => Ok(ServerStream::Plain(socket)),
        // What follows was not said under TLS and is not to be believed (CVE-2024-10977).
        b'E' => Err(ServerError::Protocol { why: "an error instead of an answer to SSLRequest" }),
        _ => Err(ServerError::Protocol { why: "no answer to SSLRequest" }),
    }
}

async fn shake_hands(tls: &ServerTls, host: &str, socket: Socket) -> Result<ServerStream, ServerError> {
    match tls.connect.handshake(host, socket).await {
        Ok(stream) => Ok(ServerStream::Tls(Box::new(stream))),
        Err(error) => {
            // The names are for the operator alone: what is returned, clients that wait are told.
            tracing::warn!(host, %error, "TLS with a server failed");
            Err(ServerError::Tls { why: without_names(&error) })
        }
    }
}
