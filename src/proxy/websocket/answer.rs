//! A server's answer to a handshake, read from its socket.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pingora::protocols::{http::v1::client::HttpSession, l4::stream::Stream as L4Stream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

use super::handshake::{BadAnswer, answer_head};
use crate::proxy::error::Failure;

/// Bytes of an answer's head; as much as pingora's own client would rarely see.
const HEAD_MAX: usize = 64 * 1024;

/// What a server said.
#[derive(Debug)]
pub(super) enum Answer {
    /// It speaks WebSocket from here on.
    Agreed {
        /// Its answer, byte for byte.
        head: Bytes,
        /// What it sent behind it.
        early: Bytes,
    },
    Refused(Refused),
}

/// An ordinary answer, of which the beginning was read.
#[derive(Debug)]
pub(super) struct Refused {
    read: BytesMut,
}

/// Sends a handshake and waits for the head of the answer. Not cancel safe: what was read is lost.
pub(super) async fn ask(
    server: &mut TcpStream,
    request: &[u8],
    send_timeout: Duration,
    read_timeout: Duration,
) -> Result<Answer, Failure> {
    match timeout(send_timeout, server.write_all(request)).await {
        Err(_) => return Err(Failure::SendTimeout),
        Ok(Err(_)) => return Err(Failure::ResetBeforeAnswer),
        Ok(Ok(())) => {}
    }
    let deadline = Instant::now() + read_timeout;
    let mut read = BytesMut::new();
    loop {
        match timeout_at(deadline, server.read_buf(&mut read)).await {
            Err(_) => return Err(Failure::ReadTimeout),
            Ok(Err(_) | Ok(0)) => return Err(Failure::ResetBeforeAnswer),
            Ok(Ok(_)) => {}
        }
        while let Some(head) = answer_head(&read).map_err(|BadAnswer| Failure::BadAnswer)? {
            return match head.status {
                101 if head.agrees => {
                    // Copies, so that a WebSocket does not keep the buffer this was read into.
                    let early = Bytes::copy_from_slice(&read[head.len..]);
                    read.truncate(head.len);
                    Ok(Answer::Agreed { head: read.freeze(), early })
                }
                101 => Err(Failure::UpgradeRefused),
                100..200 => {
                    // An interim answer says nothing about the handshake (RFC 9110 15.2).
                    let _ = read.split_to(head.len);
                    continue;
                }
                _ => Ok(Answer::Refused(Refused { read })),
            };
        }
        if read.len() > HEAD_MAX {
            return Err(Failure::BadAnswer);
        }
    }
}

impl Refused {
    /// Returns pingora's session over the rest of the answer, its head read.
    pub(super) async fn read(self, server: TcpStream, read_timeout: Option<Duration>) -> Result<HttpSession, Failure> {
        let mut stream = L4Stream::from(server);
        stream.rewind(&self.read);
        let mut session = HttpSession::new(Box::new(stream));
        session.read_timeout = read_timeout;
        session.read_response().await.map_err(|_| Failure::BadAnswer)?;
        Ok(session)
    }
}
