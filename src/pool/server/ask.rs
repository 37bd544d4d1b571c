//! A query of the pool's own on a server connection that no client has: `connect_query` after a login, `server_check_query`
//! after a long rest.
//!
//! Its answer is read to ReadyForQuery and thrown away, whatever rows it holds; strict in all else. Afterwards the session
//! must be outside of a transaction and silent, or the connection is not fit for anybody.

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout_at},
};

use super::{
    error::ServerError,
    login::{error_response, parameter},
};
use crate::pool::wire::{backend::TxStatus, frame, frontend, tag::backend as tag};

/// Bytes of the whole answer: what a query of this kind says is short.
const ANSWER_MAX: usize = 64 * 1024;

/// Parameters by name and value.
type Reported = Vec<(String, String)>;

/// Runs `sql` until `deadline`. Returns the parameters that the server reported meanwhile.
///
/// Not cancel safe: a connection whose query was given up must be closed. The same after an error.
///
/// # Errors
/// The server's own words, or why its answer is not one.
pub async fn ask<S>(stream: &mut S, sql: &str, deadline: Instant) -> Result<Reported, ServerError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let exchange = async {
        let mut query = Vec::with_capacity(sql.len() + 6);
        frontend::query(&mut query, sql.as_bytes());
        stream.write_all(&query).await.map_err(|_| ServerError::Closed)?;
        stream.flush().await.map_err(|_| ServerError::Closed)?;
        let mut bytes = Vec::with_capacity(256); // bound: ANSWER_MAX
        let mut answer = Answer::default();
        while bytes.len() < ANSWER_MAX {
            if stream.read_buf(&mut bytes).await.map_err(|_| ServerError::Closed)? == 0 {
                return Err(ServerError::Closed);
            }
            if answer.take(&bytes)? {
                return answer.refused.map_or(Ok(answer.reported), Err);
            }
        }
        Err(protocol("the answer to a query of the pool's own is too long"))
    };
    timeout_at(deadline, exchange).await.unwrap_or(Err(ServerError::Timeout))
}

/// What has been read of an answer.
#[derive(Default)]
struct Answer {
    /// Bytes of the messages that were taken.
    taken: usize,
    reported: Reported,
    refused: Option<ServerError>,
}

impl Answer {
    /// Takes the messages of `bytes` that are whole and new; returns whether ReadyForQuery was among them.
    fn take(&mut self, bytes: &[u8]) -> Result<bool, ServerError> {
        loop {
            let message =
                frame::whole(&bytes[self.taken..], ANSWER_MAX as u32).map_err(|_| protocol("malformed message"))?;
            let Some(message) = message else { return Ok(false) };
            self.taken += message.total_len();
            match message.tag {
                tag::READY_FOR_QUERY => {
                    return if message.body == [TxStatus::Idle.byte()] && self.taken == bytes.len() {
                        Ok(true)
                    } else {
                        Err(protocol("a query of the pool's own left the session busy"))
                    };
                }
                tag::ERROR_RESPONSE => drop(self.refused.get_or_insert_with(|| error_response(message.body))),
                tag::PARAMETER_STATUS => self.reported.push(parameter(message.body)?), // bound: ANSWER_MAX
                // It waits for data that nobody has.
                tag::COPY_IN_RESPONSE | tag::COPY_BOTH_RESPONSE => {
                    return Err(protocol("a query of the pool's own began a COPY"));
                }
                _ => {}
            }
        }
    }
}

fn protocol(why: &'static str) -> ServerError {
    ServerError::Protocol { why }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pool::wire::backend;

    /// Asks a server that says `answer`, in pieces of one byte if `slowly`.
    async fn answered(answer: &[u8], slowly: bool) -> Result<Reported, ServerError> {
        let (mut stream, mut server) = tokio::io::duplex(64 * 1024);
        let answer = answer.to_vec();
        let task = tokio::spawn(async move {
            let mut query = [0; 6];
            server.read_exact(&mut query).await.unwrap();
            for piece in answer.chunks(if slowly { 1 } else { answer.len().max(1) }) {
                server.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            server
        });
        let asked = ask(&mut stream, "", Instant::now() + Duration::from_secs(5)).await;
        drop(task);
        asked
    }

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u32 + 4).to_be_bytes();
        [&[tag][..], &length, body].concat()
    }

    fn ready(status: u8) -> Vec<u8> {
        message(tag::READY_FOR_QUERY, &[status])
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_read_to_its_end_however_it_comes_in_pieces() {
        let answer = [message(tag::EMPTY_QUERY_RESPONSE, b""), ready(b'I')].concat();
        for slowly in [false, true] {
            assert_eq!(answered(&answer, slowly).await, Ok(Vec::new()));
        }
        let changed = message(tag::PARAMETER_STATUS, b"TimeZone\0Asia/Tokyo\0");
        let answer = [message(tag::COMMAND_COMPLETE, b"SET\0"), changed, ready(b'I')].concat();
        assert_eq!(answered(&answer, true).await, Ok(vec![("TimeZone".into(), "Asia/Tokyo".into())]));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_clean_answer_is_an_error() {
        let mut refused = Vec::new();
        let report = backend::Report {
            severity: backend::Severity::Error,
            sqlstate: "42501",
            message: "permission denied",
            detail: None,
            hint: None,
        };
        backend::error_response(&mut refused, &report);
        refused.extend(ready(b'I'));
        let said = ServerError::refused(Some("42501"), Some("permission denied"));
        assert_eq!(answered(&refused, true).await, Err(said));
        let behind = [ready(b'I'), message(tag::NOTICE_RESPONSE, b"\0")].concat();
        for answer in [ready(b'T'), behind, message(tag::COPY_IN_RESPONSE, &[0, 0, 0]), vec![b'Z', 0, 0, 0, 1]] {
            assert!(matches!(answered(&answer, false).await, Err(ServerError::Protocol { .. })), "{answer:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_nothing_is_given_up_at_the_deadline() {
        let (mut stream, _server) = tokio::io::duplex(64);
        let began = Instant::now();
        let asked = ask(&mut stream, "SELECT 1", began + Duration::from_secs(5)).await;
        assert_eq!((asked, began.elapsed()), (Err(ServerError::Timeout), Duration::from_secs(5)));
    }
}
