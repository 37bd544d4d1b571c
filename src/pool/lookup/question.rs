//! One question to one server: the bytes of `auth_query`, and what the answer means.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use crate::{
    config::{pool::PoolMode, secret::Secret},
    pool::{
        database::Pool,
        lease::Lease,
        prepared::Interner,
        relay::{self, Control, Fate, Given, Limits, Outcome},
        server::pooled::Connector,
        stats::Stats,
        wire::{
            frame, frontend,
            read::{ErrorFields, Reader},
            tag::backend as tag,
        },
    },
};

/// A name, a secret, and notices: more than this is no answer.
const ANSWER_MAX: usize = 64 * 1024;

/// A question that has a server.
pub(super) struct Question {
    pub lease: Lease<Connector>,
    pub pool: Arc<Pool>,
    pub query: String,
    pub user: String,
}

impl Question {
    /// Asks, gives the server back, and returns the user's secret; `None`: no such user, or none who may log in.
    ///
    /// # Errors
    /// Why there is no answer, for the log.
    pub async fn ask(mut self, statements: Arc<Interner>) -> Result<Option<Secret>, String> {
        let mut request = Vec::with_capacity(self.query.len() + self.user.len() + 64);
        let definition = [self.query.as_bytes(), &[0, 0, 0]].concat();
        frontend::parse(&mut request, b"", &definition);
        frontend::bind_text(&mut request, &[self.user.as_bytes()]);
        frontend::execute(&mut request);
        frontend::sync(&mut request);

        let welcome = self.pool.welcome().ok_or("the server has told nothing of itself")?;
        let state = relay::ClientState::new(&welcome.tracked, [], &[], &statements);
        let mut state = state.map_err(|error| error.to_string())?;
        let rules = self.pool.rules.load_full();
        let limits = Limits { mode: PoolMode::Transaction, ..rules.limits.clone() };
        let mut client = Client::default();
        let server = self.lease.connection();
        let (stats, control) = (Stats::default(), Control::default());
        let given = Given {
            now: Instant::now(),
            limits: &limits,
            stats: &stats,
            control: &control,
            spill: &self.pool.spill,
            untold: Vec::new(),
            post: None,
        };
        let (outcome, _) =
            relay::run(&mut client, &request, &mut state, &mut server.stream, &mut server.state, given).await;
        match outcome {
            Outcome::Released { server: Fate::Reusable } => self.lease.release(Instant::now()),
            // Left in a transaction, or too much was said: it is closed.
            Outcome::Released { .. } | Outcome::Spilled { .. } | Outcome::Left { .. } => {}
            Outcome::Ended { error } => return Err(error.to_string()),
        }
        read(&client.answer)
    }
}

/// Reads the whole answer.
pub(super) fn read(mut answer: &[u8]) -> Result<Option<Secret>, String> {
    const GARBLED: &str = "the answer is not what PostgreSQL sends";
    let mut found = None;
    let mut rows = 0;
    while !answer.is_empty() {
        let message = frame::whole(answer, ANSWER_MAX as u32).ok().flatten().ok_or(GARBLED)?;
        match message.tag {
            tag::DATA_ROW => {
                rows += 1;
                found = row(message.body)?;
            }
            tag::ERROR_RESPONSE => {
                let fields = ErrorFields::parse(message.body);
                let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                return Err(format!("{} (SQLSTATE {})", text(fields.message), text(fields.code)));
            }
            tag::READY_FOR_QUERY if rows > 1 => return Err("auth_query returned more than one row".into()),
            tag::READY_FOR_QUERY => return Ok(found),
            _ => {}
        }
        answer = &answer[message.total_len()..];
    }
    Err(GARBLED.into())
}

/// Reads name and secret. NULL as either means that there is nobody who may log in.
fn row(body: &[u8]) -> Result<Option<Secret>, String> {
    const GARBLED: &str = "a row that is not what PostgreSQL sends";
    let mut reader = Reader::new(body);
    let columns = reader.i16().map_err(|_| GARBLED)?;
    if columns != 2 {
        return Err(format!("auth_query must return name and password, not {columns} columns"));
    }
    let mut value = || -> Result<Option<&[u8]>, &str> {
        let len = reader.i32().map_err(|_| GARBLED)?;
        let Ok(len) = usize::try_from(len) else { return Ok(None) };
        reader.bytes(len).map(Some).map_err(|_| GARBLED)
    };
    let (name, secret) = (value()?, value()?);
    let (Some(_), Some(secret)) = (name, secret) else { return Ok(None) };
    let secret = std::str::from_utf8(secret).map_err(|_| "the password is not UTF-8")?;
    Ok(Some(Secret::new(secret)))
}

/// A client that has said everything and keeps what it is told.
#[derive(Default)]
struct Client {
    /// bound: ANSWER_MAX
    answer: Vec<u8>,
}

impl AsyncRead for Client {
    /// Says nothing more, and does not leave: nobody need be woken for it.
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Client {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.answer.len() + bytes.len() > ANSWER_MAX {
            return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into()));
        }
        self.answer.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        frame::write(&mut out, tag, |out| out.extend_from_slice(body));
        out
    }

    fn row_of(values: &[Option<&str>]) -> Vec<u8> {
        let mut body = (values.len() as u16).to_be_bytes().to_vec();
        for value in values {
            let len = value.map_or(-1, |value| value.len() as i32);
            body.extend_from_slice(&len.to_be_bytes());
            body.extend_from_slice(value.unwrap_or_default().as_bytes());
        }
        message(b'D', &body)
    }

    fn answer(rows: &[Vec<u8>]) -> Vec<u8> {
        [message(b'1', b""), message(b'2', b""), rows.concat(), message(b'C', b"SELECT 1\0"), message(b'Z', b"I")]
            .concat()
    }

    #[test]
    fn a_row_is_a_user_and_none_or_null_is_nobody() {
        assert_eq!(read(&answer(&[row_of(&[Some("app"), Some("pw")])])), Ok(Some(Secret::new("pw"))));
        assert_eq!(read(&answer(&[])), Ok(None));
        assert_eq!(read(&answer(&[row_of(&[Some("app"), None])])), Ok(None));
        assert_eq!(read(&answer(&[row_of(&[None, Some("pw")])])), Ok(None));
    }

    #[test]
    fn whatever_else_comes_lets_nobody_in_and_quotes_no_secret() {
        let two = answer(&[row_of(&[Some("a"), Some("hunter2")]), row_of(&[Some("b"), Some("hunter2")])]);
        let one_column = answer(&[row_of(&[Some("hunter2")])]);
        let three = answer(&[row_of(&[Some("a"), Some("hunter2"), None])]);
        let cut = message(b'D', b"\0\x02\0\0\0\x09hunter2");
        let open = row_of(&[Some("a"), Some("hunter2")]);
        let error = [row_of(&[Some("a"), Some("x")]), message(b'E', b"SERROR\0C42883\0Mno such function\0\0")].concat();
        for bytes in [two, one_column, three, cut, open, Vec::new(), b"D\0\0".to_vec(), error] {
            let why = read(&bytes).unwrap_err();
            assert!(!why.contains("hunter2"), "{why}");
        }
    }
}
