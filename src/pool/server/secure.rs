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

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::{
        config::pool::TlsFiles,
        tls::{Connect, Verify, Versions},
    };

    /// Asks a server for TLS that answers with these bytes, and hangs up if it is told to.
    async fn answered(mode: SslMode, answer: &'static [u8], hangs_up: bool) -> Result<ServerStream, ServerError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let mut stream = listener.accept().await.unwrap().0;
            let mut request = [0; 8];
            stream.read_exact(&mut request).await.unwrap();
            assert_eq!(request, *b"\0\0\0\x08\x04\xd2\x16\x2f");
            stream.write_all(answer).await.unwrap();
            // What a client of TLS would say is not answered: the handshake has what was sent already.
            if !hangs_up {
                let _said = stream.read_to_end(&mut Vec::new()).await;
            }
        });
        let connect = Connect::new(Verify::Nothing, None, Versions::Both, &[b"postgresql"]).unwrap();
        let tls = ServerTls { mode, direct: false, files: TlsFiles::default(), connect };
        let socket = Socket::Tcp(TcpStream::connect(address).await.unwrap());
        let stream = secure(socket, "localhost", Some(&tls)).await;
        if stream.is_err() {
            server.await.unwrap();
        }
        stream
    }

    /// Somebody on the way has put a whole login behind the server's yes (CVE-2021-23222).
    #[tokio::test]
    async fn what_stands_behind_a_servers_yes_is_never_taken_for_what_it_says_under_tls() {
        let injected = b"SR\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";
        for mode in [SslMode::Prefer, SslMode::Require] {
            assert!(matches!(answered(mode, injected, false).await, Err(ServerError::Tls { .. })));
        }
    }

    #[tokio::test]
    async fn an_error_instead_of_an_answer_is_not_believed() {
        let error = b"E\0\0\0\x1eSFATAL\0C28000\0Mgive up!\0\0";
        for mode in [SslMode::Prefer, SslMode::Require] {
            let told = answered(mode, error, true).await.map(drop).unwrap_err();
            assert!(matches!(told, ServerError::Protocol { .. }));
            assert!(!told.to_string().contains("give up"), "{told}");
        }
    }

    #[tokio::test]
    async fn only_who_prefers_tls_goes_on_without_it() {
        assert!(matches!(answered(SslMode::Prefer, b"N", true).await, Ok(ServerStream::Plain(_))));
        assert!(matches!(answered(SslMode::Require, b"N", true).await, Err(ServerError::NoTls)));
        assert!(matches!(answered(SslMode::Prefer, b"", true).await, Err(ServerError::Closed)));
        assert!(matches!(answered(SslMode::Prefer, b"?", true).await, Err(ServerError::Protocol { .. })));
    }
}
