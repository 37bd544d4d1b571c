//! The protocol by hand: frontend messages as bytes, and a connection that takes and gives them as they are.
//!
//! See PostgreSQL's documentation, "Message Formats".

use std::{io, time::Duration};

use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use rand::{RngExt, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, tcp},
};

use crate::support::{PASSWORD, USER};

/// Longest time any answer may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A message of the server: its tag and body.
pub type Message = (u8, Vec<u8>);

pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &length(body.len() + 4), body].concat()
}

fn length(length: usize) -> [u8; 4] {
    i32::try_from(length).unwrap().to_be_bytes()
}

fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

fn list<T>(items: &[T], each: impl Fn(&T) -> Vec<u8>) -> Vec<u8> {
    let count = u16::try_from(items.len()).unwrap().to_be_bytes();
    items.iter().fold(count.to_vec(), |list, item| [list, each(item)].concat())
}

pub fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &text(sql))
}

pub fn parse(name: &str, sql: &str, types: &[u32]) -> Vec<u8> {
    message(b'P', &[text(name), text(sql), list(types, |oid| oid.to_be_bytes().to_vec())].concat())
}

/// Parameters in text; results in text, or all in binary.
pub fn bind(portal: &str, statement: &str, parameters: &[Option<&str>], binary: bool) -> Vec<u8> {
    let parameters = list(parameters, |parameter| match parameter {
        Some(value) => [&length(value.len()), value.as_bytes()].concat(),
        None => (-1_i32).to_be_bytes().to_vec(),
    });
    let formats = list(&[u16::from(binary)], |format| format.to_be_bytes().to_vec());
    message(b'B', &[text(portal), text(statement), list::<u16>(&[], |_| vec![]), parameters, formats].concat())
}

/// `kind` is `S` for a statement, `P` for a portal.
pub fn describe(kind: u8, name: &str) -> Vec<u8> {
    message(b'D', &[vec![kind], text(name)].concat())
}

pub fn execute(portal: &str, rows_max: i32) -> Vec<u8> {
    message(b'E', &[text(portal), rows_max.to_be_bytes().to_vec()].concat())
}

pub fn close(kind: u8, name: &str) -> Vec<u8> {
    message(b'C', &[vec![kind], text(name)].concat())
}

pub fn sync() -> Vec<u8> {
    message(b'S', b"")
}

pub fn flush() -> Vec<u8> {
    message(b'H', b"")
}

/// A FunctionCall with int4 arguments in text, and its result so.
pub fn function_call(function: u32, arguments: &[&str]) -> Vec<u8> {
    let arguments = list(arguments, |value| [&length(value.len()), value.as_bytes()].concat());
    message(b'F', &[function.to_be_bytes().to_vec(), vec![0, 0], arguments, vec![0, 0]].concat())
}

/// One connection.
pub struct Raw {
    read: tcp::OwnedReadHalf,
    write: tcp::OwnedWriteHalf,
    pub key: Vec<u8>,
    /// What ParameterStatus said at login, in order.
    pub parameters: Vec<Vec<u8>>,
}

impl Raw {
    /// Logs in as the cluster's user, by whatever is asked for.
    pub async fn login(port: u16, database: &str, parameters: &[(&str, &str)]) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        let mut raw = Self { read, write, key: Vec::new(), parameters: Vec::new() };
        let mut packet = vec![0, 3, 0, 0];
        for (name, value) in [("user", USER), ("database", database)].iter().chain(parameters) {
            packet.extend([text(name), text(value)].concat());
        }
        packet.push(0);
        raw.send(&[&length(packet.len() + 4)[..], &packet].concat()).await?;
        let mut scram = ScramSha256::new(PASSWORD.as_bytes(), ChannelBinding::unsupported());
        loop {
            let (tag, body) = raw.read().await?;
            match (tag, body.first_chunk().map_or(0, |kind| u32::from_be_bytes(*kind))) {
                (b'R', 10) => {
                    let first = [&length(scram.message().len())[..], scram.message()].concat();
                    raw.send(&message(b'p', &[text("SCRAM-SHA-256"), first].concat())).await?;
                }
                (b'R', 11) => {
                    scram.update(&body[4..])?;
                    raw.send(&message(b'p', scram.message())).await?;
                }
                (b'R', 12) => scram.finish(&body[4..])?,
                (b'R', 0) => {}
                (b'S', _) => raw.parameters.push(body),
                (b'K', _) => raw.key = body,
                (b'Z', _) => return Ok(raw),
                _ => return Err(io::Error::other(format!("login: {}", shown(&(tag, body))))),
            }
        }
    }

    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write.write_all(bytes).await
    }

    /// Sends in pieces, with pauses as they come on a network.
    pub async fn send_split(&mut self, mut bytes: &[u8], rng: &mut StdRng) -> io::Result<()> {
        while !bytes.is_empty() {
            let longest = [3, 20, 400, 100_000][rng.random_range(0..4)];
            let piece = rng.random_range(1..=bytes.len().min(longest));
            self.send(&bytes[..piece]).await?;
            bytes = &bytes[piece..];
            match rng.random_range(0..10) {
                0 => tokio::time::sleep(Duration::from_millis(1)).await,
                1..=5 => tokio::task::yield_now().await,
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads one message; an answer that does not come is an error.
    pub async fn read(&mut self) -> io::Result<Message> {
        let message = async {
            let tag = self.read.read_u8().await?;
            let mut body = vec![0; (self.read.read_u32().await? as usize).saturating_sub(4)];
            self.read.read_exact(&mut body).await?;
            Ok((tag, body))
        };
        tokio::time::timeout(PATIENCE, message).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Reads to the next ReadyForQuery.
    pub async fn answer(&mut self) -> io::Result<Vec<Message>> {
        let mut messages = Vec::new();
        while messages.last().is_none_or(|(tag, _)| *tag != b'Z') {
            let message = self.read().await.map_err(|error| {
                let came = format!("{error} after {:?}", messages.iter().map(shown).collect::<Vec<_>>());
                io::Error::new(error.kind(), came)
            });
            messages.push(message?);
        }
        Ok(messages)
    }
}

/// Tags of messages, as text.
pub fn tags(messages: &[Message]) -> String {
    messages.iter().map(|(tag, _)| char::from(*tag)).collect()
}

/// The fields of an ErrorResponse or NoticeResponse: kind and text.
pub fn fields(body: &[u8]) -> Vec<(u8, String)> {
    let fields = body.split(|byte| *byte == 0).filter(|field| !field.is_empty());
    fields.map(|field| (field[0], String::from_utf8_lossy(&field[1..]).into_owned())).collect()
}

/// The SQLSTATE of the first error among `messages`.
pub fn sqlstate(messages: &[Message]) -> Option<String> {
    let (_, body) = messages.iter().find(|(tag, _)| *tag == b'E')?;
    fields(body).into_iter().find(|(kind, _)| *kind == b'C').map(|(_, state)| state)
}

/// Texts of the rows' values, one after the other.
pub fn values(messages: &[Message]) -> Vec<String> {
    let mut values = Vec::new();
    for (_, body) in messages.iter().filter(|(tag, _)| *tag == b'D') {
        let mut rest = &body[2..];
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
            values.push(String::from_utf8_lossy(&after[..length]).into_owned());
            rest = &after[length..];
        }
    }
    values
}

/// For a person to read.
pub fn shown((tag, body): &Message) -> String {
    let text: String =
        body.iter().take(300).flat_map(|byte| std::ascii::escape_default(*byte)).map(char::from).collect();
    format!("{} {text}", char::from(*tag))
}
