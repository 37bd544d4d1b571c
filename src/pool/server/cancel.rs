//! A cancel request to the server: a connection of its own, one packet, and no answer but its end.
//!
//! The end matters: PostgreSQL closes after it has signalled the backend, so a server connection that is reused before
//! could have the next client's query cancelled. Whoever cancels waits for this function.

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use super::{error::ServerError, login::BackendKey, secure::secure};
use crate::{
    config::pool::ServerTls,
    pool::{socket::Endpoint, wire::frontend},
};

/// Cancels what the session of `key` runs at `server` (the very address it is connected to: a name may have several) and
/// waits until the server has closed, at most `limit`. `host` and `tls` as for the sessions: where they must have TLS, a key
/// is not shown without it.
///
/// Cancel safe, but then it is not known whether the signal is still on its way.
pub async fn cancel(
    server: &Endpoint,
    (host, tls): (&str, Option<&ServerTls>),
    key: &BackendKey,
    limit: Duration,
) -> Result<(), ServerError> {
    let work = async {
        let (stream, _) = server.connect().await.map_err(|e| ServerError::Connect { why: e.kind().to_string() })?;
        request(secure(stream, host, tls).await?, key).await
    };
    timeout(limit, work).await.unwrap_or(Err(ServerError::Timeout))
}

/// Sends the request over `stream` and reads to its end.
pub async fn request<S>(mut stream: S, key: &BackendKey) -> Result<(), ServerError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut out = Vec::with_capacity(16);
    frontend::cancel_request(&mut out, key.pid, &key.secret);
    stream.write_all(&out).await.map_err(|_| ServerError::Closed)?;
    stream.flush().await.map_err(|_| ServerError::Closed)?;
    let mut byte = [0];
    match stream.read(&mut byte).await {
        // A reset is an end too: libpq takes it for one.
        Ok(0) | Err(_) => Ok(()),
        Ok(_) => Err(ServerError::Protocol { why: "an answer to a cancel request" }),
    }
}
