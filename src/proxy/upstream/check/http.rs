//! One check's exchange: a small HTTP/1.1 GET, and an answer read to its end within its bounds.
//!
//! Done by hand on a socket rather than with a client, because a check wants a fresh connection, one deadline over all
//! of it, and a body that is counted and thrown away.

use std::{io, net::SocketAddr};

use http::{HeaderName, HeaderValue};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time,
};

use super::{Outcome, is_success};
use crate::config::lb::{CheckKind, HealthCheck};

/// Status line and headers of an answer, and trailers.
const HEAD_BYTES_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 100;
/// A chunk's size with its extensions.
const CHUNK_LINE_BYTES_MAX: usize = 1024;
const READ_BYTES: usize = 4 * 1024;

/// Returns the bytes of the request.
pub(super) fn request(check: &HealthCheck, address: SocketAddr) -> Vec<u8> {
    let host = check.host.clone().unwrap_or_else(|| address.to_string());
    let mut request = format!("GET {} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n", check.path).into_bytes();
    let has = |name: &str| check.headers.iter().any(|(own, _)| own == name);
    for (name, value) in [("User-Agent", "bookend-health-check"), ("Accept", "*/*")] {
        if !has(&name.to_ascii_lowercase()) {
            request.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
    }
    for (name, value) in &check.headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            request.extend_from_slice(part);
        }
    }
    request.extend_from_slice(b"\r\n");
    request
}

/// Looks at the server once. Cancel safe: a fresh connection is dropped.
pub(super) async fn look(address: SocketAddr, request: &[u8], check: &HealthCheck) -> Outcome {
    let deadline = time::Instant::now() + check.timeout;
    let Ok(Ok(stream)) = time::timeout_at(deadline, TcpStream::connect(address)).await else {
        return Outcome::NoConnection;
    };
    if check.kind == CheckKind::Tcp {
        return Outcome::Connected;
    }
    time::timeout_at(deadline, exchange(stream, request, check)).await.unwrap_or(Outcome::TimedOut)
}

/// Asks and judges the answer. Cancel safe: the stream is dropped.
pub(super) async fn exchange<S>(mut stream: S, request: &[u8], check: &HealthCheck) -> Outcome
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // A server may answer and close before it has read everything: what it said still counts.
    let _ = stream.write_all(request).await;
    let body = check.expect_body.as_ref().map(|_| Vec::new());
    let mut answer = Answer { stream, buffer: Vec::with_capacity(READ_BYTES), body };
    let head = match answer.head(&check.expect_headers).await {
        Ok(head) => head,
        Err(Broken::Ended) => return Outcome::NoConnection,
        Err(Broken::Malformed | Broken::TooLarge) => return Outcome::NotHttp,
    };
    match answer.skip_body(head.body, check.max_body).await {
        Err(Broken::TooLarge) => Outcome::BodyTooLarge(head.status),
        Err(Broken::Ended | Broken::Malformed) => Outcome::BodyCut(head.status),
        Ok(()) if !is_success(head.status, &check.status) => Outcome::WrongStatus(head.status),
        Ok(()) if !head.as_expected => Outcome::WrongHeader(head.status),
        Ok(()) if !answer.has(check.expect_body.as_deref()) => Outcome::WrongBody(head.status),
        Ok(()) => Outcome::Passed(head.status),
    }
}

struct Head {
    status: u16,
    body: Body,
    /// It has the headers that it must have.
    as_expected: bool,
}

/// How long the body is (RFC 9112 section 6.3).
#[derive(Clone, Copy)]
enum Body {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

enum Broken {
    /// The connection ended or broke.
    Ended,
    Malformed,
    TooLarge,
}

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Self {
        Self::Ended
    }
}

/// An answer being read. `buffer` holds what came and was not looked at yet: never more than a head and one read.
struct Answer<S> {
    stream: S,
    buffer: Vec<u8>,
    /// What has been read of the body, where somebody wants to know. At most `max_body`.
    body: Option<Vec<u8>>,
}

impl<S: AsyncRead + Unpin> Answer<S> {
    /// Reads more; false at the end.
    async fn fill(&mut self) -> Result<bool, Broken> {
        self.buffer.reserve(READ_BYTES);
        Ok(self.stream.read_buf(&mut self.buffer).await? != 0)
    }

    async fn fill_or_end(&mut self) -> Result<(), Broken> {
        if self.fill().await? { Ok(()) } else { Err(Broken::Ended) }
    }

    fn has(&self, text: Option<&str>) -> bool {
        let body = self.body.as_deref().unwrap_or_default();
        text.is_none_or(|text| memchr::memmem::find(body, text.as_bytes()).is_some())
    }

    async fn head(&mut self, expected: &[(HeaderName, HeaderValue)]) -> Result<Head, Broken> {
        loop {
            match parse_head(&self.buffer, expected)? {
                Some((length, head)) => {
                    self.buffer.drain(..length);
                    // 1xx answers come before the one that is meant; 101 was not asked for.
                    if !(100..200).contains(&head.status) {
                        return Ok(head);
                    }
                }
                None if self.buffer.len() > HEAD_BYTES_MAX => return Err(Broken::TooLarge),
                None => self.fill_or_end().await?,
            }
        }
    }

    async fn skip_body(&mut self, body: Body, max: usize) -> Result<(), Broken> {
        let max = max as u64;
        match body {
            Body::None => Ok(()),
            Body::Length(length) if length > max => Err(Broken::TooLarge),
            Body::Length(length) => self.skip(length).await,
            Body::Chunked => self.skip_chunks(max).await,
            Body::UntilClose => {
                let mut seen = 0;
                loop {
                    seen += self.buffer.len() as u64;
                    self.pass(self.buffer.len());
                    if seen > max {
                        return Err(Broken::TooLarge);
                    }
                    if !self.fill().await? {
                        return Ok(());
                    }
                }
            }
        }
    }

    async fn skip_chunks(&mut self, max: u64) -> Result<(), Broken> {
        let mut seen = 0_u64;
        loop {
            let size = self.chunk_size().await?;
            if size == 0 {
                return self.skip_trailers().await;
            }
            seen = seen.saturating_add(size);
            if seen > max {
                return Err(Broken::TooLarge);
            }
            self.skip(size).await?;
            self.skip_line_end().await?;
        }
    }

    async fn chunk_size(&mut self) -> Result<u64, Broken> {
        loop {
            match httparse::parse_chunk_size(&self.buffer).map_err(|_| Broken::Malformed)? {
                httparse::Status::Complete((length, size)) => {
                    self.buffer.drain(..length);
                    return Ok(size);
                }
                httparse::Status::Partial if self.buffer.len() > CHUNK_LINE_BYTES_MAX => return Err(Broken::Malformed),
                httparse::Status::Partial => self.fill_or_end().await?,
            }
        }
    }

    async fn skip_trailers(&mut self) -> Result<(), Broken> {
        while !self.buffer.starts_with(b"\r\n") && memchr::memmem::find(&self.buffer, b"\r\n\r\n").is_none() {
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(Broken::TooLarge);
            }
            self.fill_or_end().await?;
        }
        Ok(())
    }

    async fn skip_line_end(&mut self) -> Result<(), Broken> {
        while self.buffer.len() < 2 {
            self.fill_or_end().await?;
        }
        self.buffer.drain(..2);
        Ok(())
    }

    /// Lets go of bytes of the body.
    fn pass(&mut self, count: usize) {
        let passed = self.buffer.drain(..count);
        if let Some(body) = &mut self.body {
            body.extend(passed);
        }
    }

    async fn skip(&mut self, mut count: u64) -> Result<(), Broken> {
        loop {
            let here = usize::try_from(count).unwrap_or(usize::MAX).min(self.buffer.len());
            self.pass(here);
            count -= here as u64;
            if count == 0 {
                return Ok(());
            }
            self.fill_or_end().await?;
        }
    }
}

fn parse_head(bytes: &[u8], expected: &[(HeaderName, HeaderValue)]) -> Result<Option<(usize, Head)>, Broken> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = response.parse(bytes).map_err(|_| Broken::Malformed)? else {
        return Ok(None);
    };
    let status = response.code.ok_or(Broken::Malformed)?;
    let body = match status {
        100..200 | 204 | 304 => Body::None,
        _ => body_of(response.headers)?,
    };
    let has = |(name, value): &(HeaderName, HeaderValue)| {
        let own = response.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name.as_str()));
        own.map(|header| header.value.trim_ascii()).any(|own| own == value.as_bytes())
    };
    let as_expected = expected.iter().all(has);
    Ok(Some((length, Head { status, body, as_expected })))
}

fn body_of(headers: &[httparse::Header<'_>]) -> Result<Body, Broken> {
    let named = |name: &'static str| headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
    if let Some(coding) = named("transfer-encoding").next_back() {
        // Without chunked as the last coding the body ends with the connection (RFC 9112 section 6.3, rule 4).
        let last = coding.value.rsplit(|&byte| byte == b',').next().unwrap_or_default().trim_ascii();
        return Ok(if last.eq_ignore_ascii_case(b"chunked") { Body::Chunked } else { Body::UntilClose });
    }
    let mut length = None;
    for header in named("content-length") {
        let text = std::str::from_utf8(header.value.trim_ascii()).map_err(|_| Broken::Malformed)?;
        let own = text.parse::<u64>().map_err(|_| Broken::Malformed)?;
        if length.is_some_and(|other| other != own) {
            return Err(Broken::Malformed);
        }
        length = Some(own);
    }
    Ok(length.map_or(Body::UntilClose, Body::Length))
}
