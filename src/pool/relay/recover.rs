//! Making a server fit for the next client: rolling back what a client left open, resetting what a session left behind.
//!
//! Strict where a relay is tolerant: nobody is listening, so anything unexpected, an error, a late answer, or the deadline
//! means that the server is closed.

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout_at},
};

use super::ServerState;
use crate::pool::{
    params::Applied,
    prepared::server::ServerStatements,
    wire::{
        backend::TxStatus,
        frame, frontend,
        read::{ErrorFields, ParameterStatus},
        tag::backend as tag,
    },
};

/// The answers to a ROLLBACK or DISCARD ALL are short; notices may come between. More than this is not waited for.
const ANSWER_MAX: usize = 64 * 1024;

/// Rolls back the transaction a client left open. Returns false when the server must be closed. Not cancel safe: when
/// dropped before it is ready, the server must be closed.
pub async fn recover<S>(server: &mut S, state: &mut ServerState, deadline: Instant) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    run(server, state, "ROLLBACK", deadline, false).await
}

/// Runs `sql` (`server_reset_query`) after a client. What it did is read from its commands' tags: it need not be `DISCARD ALL`,
/// and what it has left is seen to by the next client's replay. Returns false when the server must be closed. Not cancel safe,
/// as [`recover`].
pub async fn reset<S>(server: &mut S, state: &mut ServerState, sql: &str, deadline: Instant) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    run(server, state, sql, deadline, true).await
}

/// Puts a server back to where its login left it, `connect_query` included: what resets settings takes what that has set with
/// it. Returns false when the server must be closed. Not cancel safe, as [`recover`].
pub async fn renew<S>(server: &mut S, state: &mut ServerState, connect_query: &str, deadline: Instant) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let done =
        reset(server, state, "DISCARD ALL", deadline).await && reset(server, state, connect_query, deadline).await;
    if done {
        state.applied = Applied::default();
        state.touched = false;
    }
    done
}

async fn run<S>(server: &mut S, state: &mut ServerState, sql: &str, deadline: Instant, is_reset: bool) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if !state.owed.is_empty() || state.unfit {
        return false;
    }
    let exchange = async {
        let mut query = Vec::with_capacity(sql.len() + 6);
        frontend::query(&mut query, sql.as_bytes());
        server.write_all(&query).await.ok()?;
        server.flush().await.ok()?;
        let mut answer = Vec::with_capacity(256); // bound: ANSWER_MAX
        while answer.len() < ANSWER_MAX {
            if server.read_buf(&mut answer).await.ok()? == 0 {
                return None;
            }
            if let Some(done) = read(&answer, state, is_reset) {
                return Some(done);
            }
        }
        None
    };
    let done = timeout_at(deadline, exchange).await;
    matches!(done, Ok(Some(true)))
}

/// Reads an answer from its beginning; `None` while its end is not there. A reset may be a SELECT.
fn read(mut answer: &[u8], state: &mut ServerState, is_reset: bool) -> Option<bool> {
    loop {
        let message = match frame::whole(answer, ANSWER_MAX as u32) {
            Ok(message) => message?,
            Err(_) => return Some(false),
        };
        answer = &answer[message.total_len()..];
        match message.tag {
            tag::READY_FOR_QUERY => {
                let idle = message.body == [TxStatus::Idle.byte()] && answer.is_empty();
                state.tx = TxStatus::Idle;
                return Some(idle);
            }
            tag::PARAMETER_STATUS => match ParameterStatus::parse(message.body) {
                Ok(status) => state.params.set(status.name, status.value),
                Err(_) => return Some(false),
            },
            tag::ERROR_RESPONSE => {
                let fields = ErrorFields::parse(message.body);
                tracing::debug!(sqlstate = %String::from_utf8_lossy(fields.code), "a server could not be made fit again");
                return Some(false);
            }
            tag::COMMAND_COMPLETE => note(message.body.strip_suffix(b"\0").unwrap_or(message.body), state),
            tag::NOTICE_RESPONSE => {}
            tag::ROW_DESCRIPTION | tag::DATA_ROW | tag::EMPTY_QUERY_RESPONSE if is_reset => {}
            _ => return Some(false),
        }
    }
}

/// Notes what a command did to the server. May be told of one command several times.
fn note(command: &[u8], state: &mut ServerState) {
    match command {
        b"DISCARD ALL" => {
            state.statements = ServerStatements::default();
            state.applied = Applied::default();
            state.sql_prepared = false;
        }
        b"DEALLOCATE ALL" => {
            state.statements.clear();
            state.sql_prepared = false;
        }
        b"DEALLOCATE" => state.statements.doubt_all(),
        b"SET" | b"RESET" => state.applied.doubt(),
        b"PREPARE" => state.sql_prepared = true,
        _ => {}
    }
}
