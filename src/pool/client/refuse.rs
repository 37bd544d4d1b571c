//! The last words to a client, and a close that lets it hear them.
//!
//! Closing a socket that still holds unread bytes makes the kernel send a reset, and a reset makes the peer's kernel throw
//! away the error that was just sent. So what the peer goes on sending is read and dropped for a moment, within bounds.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::pool::error::PoolError;

/// How long a refused peer may take to hear why.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes that are read and dropped meanwhile.
const LINGER_LEN_MAX: usize = 64 * 1024;

/// Says `error` to the client, unless it is one that cannot be said, and ends the connection.
pub async fn refuse<S>(io: &mut S, error: &PoolError)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if error.is_silent() {
        return;
    }
    let mut out = Vec::with_capacity(256);
    error.write(&mut out);
    // Whether the peer listens is its own affair: neither a failed write nor a peer that lingers is an error here.
    let _ = tokio::time::timeout(LINGER, async {
        io.write_all(&out).await?;
        io.shutdown().await?;
        let mut dropped = [0; 256]; // part of every login's future
        let mut left = LINGER_LEN_MAX;
        while left > 0 {
            match io.read(&mut dropped).await? {
                0 => break,
                n => left = left.saturating_sub(n),
            }
        }
        std::io::Result::Ok(())
    })
    .await;
}
