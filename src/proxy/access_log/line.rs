//! One line: what is in it, and its JSON.
//!
//! Names follow nginx's variables where there is one; times are in seconds with six decimals, and say so. What a client
//! sent is escaped and cut to a bound: it can neither end the line, nor add a field, nor speak to a terminal.

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::super::address_text::AddressText;

/// Bytes of a client's text that are kept.
const URI_MAX: usize = 4096;
const TEXT_MAX: usize = 1024;

/// A request that ended, or a WebSocket. Borrowed: a line is formatted where it ends.
#[derive(Debug, Clone)]
pub struct Line<'a> {
    /// When the request began.
    pub time: SystemTime,
    pub request_id: &'a str,
    pub client: IpAddr,
    pub method: &'a str,
    pub host: Option<&'a [u8]>,
    /// Path and query as they came.
    pub uri: &'a [u8],
    /// `HTTP/1.1`
    pub protocol: &'static str,
    pub route: Option<&'a str>,
    pub upstream: Option<&'a str>,
    /// The server that answered, or was asked last.
    pub server: Option<(&'a str, SocketAddr)>,
    /// Servers asked.
    pub attempts: u32,
    pub status: u16,
    /// Bytes of the request's body (for a WebSocket: from the client).
    pub bytes_in: u64,
    /// Bytes of the answer's body (for a WebSocket: to the client).
    pub bytes_out: u64,
    pub total: Duration,
    /// In line for a server with room; `None` for who had one at once.
    pub queued: Option<Duration>,
    /// Of the last try; `None` on a reused connection.
    pub connect: Option<Duration>,
    /// From the request's begin to the first byte of the server's answer.
    pub first_byte: Option<Duration>,
    /// [`super::super::error::Failure::reason`]
    pub reason: Option<&'static str>,
    pub user_agent: Option<&'a [u8]>,
    pub referer: Option<&'a [u8]>,
    /// This line ends a WebSocket; `total` is how long it was open.
    pub websocket: bool,
}

impl Line<'_> {
    /// Appends the line and its end to `out`. Allocates nothing but what `out` has to grow.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"time\":\"");
        timestamp(self.time, out);
        out.push(b'"');
        text("request_id", self.request_id.as_bytes(), TEXT_MAX, out);
        address("client", &AddressText::of(self.client), out);
        text("method", self.method.as_bytes(), TEXT_MAX, out);
        optional("host", self.host, out);
        text("uri", self.uri, URI_MAX, out);
        text("protocol", self.protocol.as_bytes(), TEXT_MAX, out);
        number("status", self.status.into(), out);
        optional("route", self.route.map(str::as_bytes), out);
        optional("upstream", self.upstream.map(str::as_bytes), out);
        if let Some((name, socket)) = self.server {
            text("server", name.as_bytes(), TEXT_MAX, out);
            address("server_address", &AddressText::of_socket(socket), out);
        }
        number("attempts", self.attempts.into(), out);
        number("bytes_in", self.bytes_in, out);
        number("bytes_out", self.bytes_out, out);
        seconds("total_seconds", Some(self.total), out);
        seconds("queue_seconds", self.queued, out);
        seconds("connect_seconds", self.connect, out);
        seconds("first_byte_seconds", self.first_byte, out);
        optional("reason", self.reason.map(str::as_bytes), out);
        optional("user_agent", self.user_agent, out);
        optional("referer", self.referer, out);
        if self.websocket {
            key("websocket", out);
            out.extend_from_slice(b"true");
        }
        out.extend_from_slice(b"}\n");
    }
}

fn key(name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn optional(name: &str, value: Option<&[u8]>, out: &mut Vec<u8>) {
    if let Some(value) = value {
        text(name, value, TEXT_MAX, out);
    }
}

fn text(name: &str, value: &[u8], max: usize, out: &mut Vec<u8>) {
    key(name, out);
    out.push(b'"');
    escape(&value[..value.len().min(max)], out);
    if value.len() > max {
        out.extend_from_slice("…".as_bytes());
    }
    out.push(b'"');
}

fn number(name: &str, value: u64, out: &mut Vec<u8>) {
    key(name, out);
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn address(name: &str, value: &AddressText, out: &mut Vec<u8>) {
    key(name, out);
    out.push(b'"');
    out.extend_from_slice(value.as_bytes());
    out.push(b'"');
}

fn seconds(name: &str, value: Option<Duration>, out: &mut Vec<u8>) {
    if let Some(value) = value {
        key(name, out);
        out.extend_from_slice(itoa::Buffer::new().format(value.as_secs()).as_bytes());
        out.push(b'.');
        out.extend_from_slice(&digits::<6>(value.subsec_micros().into()));
    }
}

/// The last `N` digits of a number, zeros in front: `fmt` takes ten times as long.
fn digits<const N: usize>(mut number: u64) -> [u8; N] {
    let mut digits = [b'0'; N];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    digits
}

/// JSON's escapes (RFC 8259 section 7), control characters of both sets (a terminal obeys C1 too), and `\xNN` as text for bytes
/// that are not UTF-8, as nginx writes them.
fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    let special = |byte: u8| !matches!(byte, b' '..=b'~') | (byte == b'"') | (byte == b'\\');
    // Without a way out in the middle it is done sixteen bytes at a time, and there is hardly ever one.
    if !bytes.iter().fold(false, |any, &byte| any | special(byte)) {
        return out.extend_from_slice(bytes);
    }
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\t' => out.extend_from_slice(b"\\t"),
                control if control.is_control() => {
                    let _ = write!(out, "\\u{:04x}", u32::from(control));
                }
                character => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\\\x{byte:02x}");
        }
    }
}

/// `2026-11-23T14:09:12.345Z`
fn timestamp(time: SystemTime, out: &mut Vec<u8>) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, of_day) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let parts: [(&[u8], u8); 7] = [
        (&digits::<4>(year), b'-'),
        (&digits::<2>(month), b'-'),
        (&digits::<2>(day), b'T'),
        (&digits::<2>(hour), b':'),
        (&digits::<2>(minute), b':'),
        (&digits::<2>(second), b'.'),
        (&digits::<3>(since.subsec_millis().into()), b'Z'),
    ];
    for (digits, end) in parts {
        out.extend_from_slice(digits);
        out.push(end);
    }
}

/// Year, month and day, from days since 1970-01-01. Counted in years that begin in March, so that the leap day is the last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day_of_year - (153 * march_month + 2) / 5 + 1)
}
