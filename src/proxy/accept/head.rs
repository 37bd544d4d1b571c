//! The request head, read strictly before anything else reads it.
//!
//! Request smuggling lives on heads that two parsers read differently. Whatever is not one clear reading of RFC 9112 is
//! refused here, with a status and a word, so that neither the HTTP engine behind nor the application behind that gets to
//! have an opinion. Pure: bytes in, a verdict out; scanning resumes where it stopped, so a head that arrives byte by byte
//! costs no more than one that arrives whole.

use bytes::BytesMut;
use httparse::{EMPTY_HEADER, Header, Request};
use memchr::{memchr, memrchr};

use super::body::Body;

/// Header lines the HTTP engine takes at most; `max_headers` may not be more.
pub(crate) const HEADERS_HARD_MAX: usize = 256;

/// Bytes of a target the HTTP engine takes at most, whatever `client_header_max_size` allows.
const TARGET_HARD_MAX: usize = 65_534;

/// Bounds of a head, from the configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// `client_header_max_size`.
    pub(crate) bytes: usize,
    /// `max_headers`.
    pub(crate) headers: usize,
}

/// Why a request is refused before it is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// 400, with the reason for the log.
    Malformed(&'static str),
    /// 414: the request line alone is over the limit.
    TargetTooLong,
    /// 431: too many bytes.
    HeadersTooLarge,
    /// 431: too many lines.
    TooManyHeaders,
    /// 405: CONNECT and TRACE are not for a reverse proxy.
    Method,
    /// 501: a transfer coding other than chunked.
    Coding,
    /// 505.
    Version,
    /// 408.
    Timeout,
}

/// A complete head that may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// Bytes of it, the empty line included.
    pub(crate) len: usize,
    /// What follows it.
    pub(crate) body: Body,
}

/// Follows a head while it arrives.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    scanned: usize,
    line_checked: bool,
}

impl Scanner {
    /// Returns the head once `buf` holds all of it.
    pub(crate) fn scan(&mut self, buf: &[u8], bounds: Bounds) -> Result<Option<Head>, Refusal> {
        if self.scanned == 0 && buf.first().is_some_and(|byte| !is_token(*byte)) {
            // A TLS hello or another protocol: say so at once instead of waiting for a line end that never comes.
            return Err(Refusal::Malformed("not http"));
        }
        while let Some(at) = memchr(b'\n', &buf[self.scanned..]) {
            let lf = self.scanned + at;
            if lf >= bounds.bytes {
                return Err(self.too_large());
            }
            if lf == 0 || buf[lf - 1] != b'\r' {
                return Err(Refusal::Malformed("bare line feed"));
            }
            self.scanned = lf + 1;
            if !self.line_checked {
                check_request_line(&buf[..lf - 1])?;
                self.line_checked = true;
            }
            if buf[..lf - 1].ends_with(b"\r\n") {
                let head = &buf[..=lf];
                let body = match with_valid_target(head) {
                    Some(valid) => parse(&valid, bounds)?,
                    None => parse(head, bounds)?,
                };
                return Ok(Some(Head { len: head.len(), body }));
            }
        }
        self.scanned = buf.len();
        if buf.len() >= bounds.bytes {
            return Err(self.too_large());
        }
        Ok(None)
    }

    fn too_large(&self) -> Refusal {
        if self.line_checked { Refusal::HeadersTooLarge } else { Refusal::TargetTooLong }
    }
}

/// Returns how many bytes of line ends stand before a request: old clients send one after a form (RFC 9112 2.2).
pub(crate) fn leading_line_ends(buf: &[u8]) -> usize {
    buf.chunks_exact(2).take_while(|pair| pair == b"\r\n").count() * 2
}

/// Checks `method SP target SP version` as soon as it is there: an HTTP/0.9 client sends no more than that.
fn check_request_line(line: &[u8]) -> Result<(), Refusal> {
    let malformed = Refusal::Malformed("request line");
    let first = memchr(b' ', line).ok_or(malformed)?;
    let last = memrchr(b' ', line).ok_or(malformed)?;
    let (method, version) = (&line[..first], &line[last + 1..]);
    let target = line.get(first + 1..last).ok_or(malformed)?;
    if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
        return Err(Refusal::Malformed("method"));
    }
    if !is_target(target) {
        return Err(Refusal::Malformed("request target"));
    }
    let escapes = target.iter().filter(|byte| is_to_escape(**byte)).count();
    if target.len() + 2 * escapes > TARGET_HARD_MAX {
        return Err(Refusal::TargetTooLong);
    }
    match version {
        b"HTTP/1.1" | b"HTTP/1.0" => Ok(()),
        _ if version.starts_with(b"HTTP/") => Err(Refusal::Version),
        _ => Err(malformed),
    }
}

/// Returns the head with its target as the HTTP engine wants it, when it must be changed for that: the characters that no
/// URI may have (RFC 3986 appendix A) and some clients send all the same are percent-encoded, as browsers do it. What
/// anyone decodes is the same.
pub(crate) fn with_valid_target(head: &[u8]) -> Option<BytesMut> {
    let end = memchr(b'\r', head).unwrap_or(head.len());
    if !head[..end].iter().any(|byte| is_to_escape(*byte)) {
        return None;
    }
    let mut valid = BytesMut::with_capacity(head.len() + 64);
    for byte in &head[..end] {
        match *byte {
            byte if is_to_escape(byte) => valid.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            byte => valid.extend_from_slice(&[byte]),
        }
    }
    valid.extend_from_slice(&head[end..]);
    Some(valid)
}

/// Neither a method nor a version has these, except a backtick, which no known method has.
fn is_to_escape(byte: u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | b'`' | 0x80..)
}

/// An origin, absolute or asterisk form (RFC 9112 3.2) without blanks and control bytes.
fn is_target(target: &[u8]) -> bool {
    let absolute = || {
        let scheme = memchr::memmem::find(target, b"://").map(|end| &target[..end]);
        scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https"))
    };
    target.iter().all(|byte| *byte > b' ' && *byte != 0x7f)
        && (target.starts_with(b"/") || target == b"*" || absolute())
}

/// Returns the authority of a target in absolute form.
fn authority(target: &[u8]) -> Option<&[u8]> {
    if target.starts_with(b"/") {
        return None;
    }
    let rest = &target[memchr::memmem::find(target, b"://")? + 3..];
    rest.split(|byte| matches!(byte, b'/' | b'?' | b'#')).next()
}

/// Checks a whole head; returns how its body is framed.
fn parse(head: &[u8], bounds: Bounds) -> Result<Body, Refusal> {
    let mut headers = [EMPTY_HEADER; HEADERS_HARD_MAX];
    let limit = bounds.headers.min(HEADERS_HARD_MAX);
    let mut request = Request::new(&mut headers[..limit]);
    match request.parse(head) {
        Ok(httparse::Status::Complete(len)) if len == head.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooManyHeaders),
        Err(httparse::Error::HeaderName) => return Err(Refusal::Malformed("header name")),
        Err(httparse::Error::HeaderValue) => return Err(Refusal::Malformed("header value")),
        Ok(_) | Err(_) => return Err(Refusal::Malformed("header")),
    }
    if matches!(request.method, Some("CONNECT" | "TRACE")) {
        return Err(Refusal::Method);
    }
    let modern = request.version == Some(1);
    check_host(request.headers, request.path.unwrap_or_default().as_bytes(), modern)?;
    framing(request.headers, modern)
}

/// Exactly one Host on HTTP/1.1 (RFC 9112 3.2), none or one before; and no other name in the target.
fn check_host(headers: &[Header<'_>], target: &[u8], modern: bool) -> Result<(), Refusal> {
    let mut hosts = values(headers, "host");
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => Err(Refusal::Malformed("two host headers")),
        (None, None) if modern => Err(Refusal::Malformed("no host header")),
        (Some(host), None) if !host.iter().all(|byte| is_host(*byte)) => Err(Refusal::Malformed("host")),
        (Some(host), None) if authority(target).is_some_and(|named| named != host) => {
            Err(Refusal::Malformed("host differs from the target"))
        }
        (None, None) if !authority(target).unwrap_or_default().iter().all(|byte| is_host(*byte)) => {
            Err(Refusal::Malformed("host"))
        }
        _ => Ok(()),
    }
}

/// Decides where the body ends (RFC 9112 6.3), refusing every case a second reader might decide otherwise.
fn framing(headers: &[Header<'_>], modern: bool) -> Result<Body, Refusal> {
    let mut lengths = values(headers, "content-length");
    let mut codings = values(headers, "transfer-encoding");
    match (lengths.next(), codings.next()) {
        (None, None) => Ok(Body::Done),
        (Some(_), Some(_)) => Err(Refusal::Malformed("content-length with transfer-encoding")),
        (Some(length), None) => {
            if lengths.next().is_some() {
                return Err(Refusal::Malformed("two content-length headers"));
            }
            content_length(length).map(Body::of_length).ok_or(Refusal::Malformed("content-length"))
        }
        (None, Some(_)) if !modern => Err(Refusal::Malformed("transfer-encoding on http/1.0")),
        (None, Some(coding)) => {
            if codings.next().is_some() {
                return Err(Refusal::Malformed("two transfer-encoding headers"));
            }
            chunked(coding)
        }
    }
}

/// Digits and nothing else: no sign, no list, no blank inside.
fn content_length(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(value).ok()?.parse().ok()).flatten()
}

fn chunked(coding: &[u8]) -> Result<Body, Refusal> {
    if coding.eq_ignore_ascii_case(b"chunked") {
        return Ok(Body::chunked());
    }
    let last = coding.rsplit(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
    if last.eq_ignore_ascii_case(b"chunked") {
        Err(Refusal::Coding)
    } else {
        Err(Refusal::Malformed("transfer-encoding does not end in chunked"))
    }
}

fn values<'h>(headers: &'h [Header<'_>], name: &'static str) -> impl Iterator<Item = &'h [u8]> {
    headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
}

/// RFC 9110 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What a host and port may be written with (RFC 3986 3.2.2), no userinfo.
pub(crate) fn is_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]%".contains(&byte)
}

#[cfg(test)]
mod tests;
