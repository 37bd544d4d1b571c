//! Everything that can go wrong with a request, and the one place that chooses what its sender sees of it.
//!
//! Each failure has a status, a word that logs and metrics know it by, and one safe sentence. 502, 503 and 504 are told
//! apart because they ask for different work: 502 = a server refused or broke off, 503 = there was no server to ask (come
//! back later, hence `Retry-After`), 504 = a server was too slow. The body is a small page or JSON, whichever `Accept`
//! prefers (RFC 9110 section 12.5.1), and says nothing about servers, addresses or versions.

use std::{borrow::Cow, fmt::Write as _};

use http::HeaderValue;

/// Why a request was not answered by a server, or not to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Failure {
    // The request itself.
    BadRequest,
    TargetTooLong,
    HeaderTooLarge,
    TooManyHeaders,
    HeaderTimeout,
    BodyTooLarge,
    BodyTimeout,
    MethodNotAllowed,
    ExpectationFailed,
    TransferCodingUnknown,
    VersionNotSupported,
    WebSocketHandshake,
    // The configuration.
    HostUnknown,
    PathUnknown,
    Forbidden,
    // This process.
    Overloaded,
    Draining,
    Internal,
    // No server to ask.
    NoServer,
    DatabaseDown,
    QueueFull,
    QueueTimeout,
    // A server.
    ConnectRefused,
    ConnectTimeout,
    ConnectFailed,
    ResetBeforeAnswer,
    ResetWithinAnswer,
    BadAnswer,
    UpgradeRefused,
    SendTimeout,
    ReadTimeout,
    // The client.
    ClientGone,
    ClientTooSlow,
}

/// What can be asked of a failure; one row of the table below.
struct Row {
    status: u16,
    reason: &'static str,
    text: &'static str,
}

const fn row(status: u16, reason: &'static str, text: &'static str) -> Row {
    Row { status, reason, text }
}

impl Failure {
    /// All there are, in the order of their declaration: metrics are made from it.
    pub const ALL: [Self; 33] = [
        Self::BadRequest,
        Self::TargetTooLong,
        Self::HeaderTooLarge,
        Self::TooManyHeaders,
        Self::HeaderTimeout,
        Self::BodyTooLarge,
        Self::BodyTimeout,
        Self::MethodNotAllowed,
        Self::ExpectationFailed,
        Self::TransferCodingUnknown,
        Self::VersionNotSupported,
        Self::WebSocketHandshake,
        Self::HostUnknown,
        Self::PathUnknown,
        Self::Forbidden,
        Self::Overloaded,
        Self::Draining,
        Self::Internal,
        Self::NoServer,
        Self::DatabaseDown,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::ConnectRefused,
        Self::ConnectTimeout,
        Self::ConnectFailed,
        Self::ResetBeforeAnswer,
        Self::ResetWithinAnswer,
        Self::BadAnswer,
        Self::UpgradeRefused,
        Self::SendTimeout,
        Self::ReadTimeout,
        Self::ClientGone,
        Self::ClientTooSlow,
    ];

    const fn row(self) -> Row {
        match self {
            Self::BadRequest => row(400, "bad_request", "The request could not be understood."),
            Self::TargetTooLong => row(414, "target_too_long", "The request's address is too long."),
            Self::HeaderTooLarge => row(431, "header_too_large", "The request's header is too large."),
            Self::TooManyHeaders => row(431, "too_many_headers", "The request has too many header fields."),
            Self::HeaderTimeout => row(408, "header_timeout", "The request's header did not arrive in time."),
            Self::BodyTooLarge => row(413, "body_too_large", "The request's body is larger than allowed here."),
            Self::BodyTimeout => row(408, "body_timeout", "The request's body did not arrive in time."),
            Self::MethodNotAllowed => row(405, "method_not_allowed", "This method is not allowed here."),
            Self::ExpectationFailed => row(417, "expectation_failed", "The request expects what cannot be met."),
            Self::TransferCodingUnknown => {
                row(501, "transfer_coding_unknown", "The request's transfer coding is not known.")
            }
            Self::VersionNotSupported => row(505, "version_not_supported", "This HTTP version is not supported."),
            Self::WebSocketHandshake => row(400, "websocket_handshake", "This is not a valid WebSocket handshake."),
            Self::HostUnknown => row(404, "host_unknown", "There is nothing here by this name."),
            Self::PathUnknown => row(404, "path_unknown", "There is nothing here."),
            Self::Forbidden => row(403, "forbidden", "You may not see this from where you are."),
            Self::Overloaded => row(503, "overloaded", "Too many requests at once. Please try again in a moment."),
            Self::Draining => row(503, "draining", "This service is restarting. Please try again in a moment."),
            Self::Internal => row(500, "internal", "Something went wrong here."),
            Self::NoServer => row(503, "no_server", "The service is not available. Please try again in a moment."),
            Self::DatabaseDown => {
                row(503, "database_down", "The service is waiting for its database. Please try again in a moment.")
            }
            Self::QueueFull => row(503, "queue_full", "Too many requests are waiting. Please try again in a moment."),
            Self::QueueTimeout => row(503, "queue_timeout", "The service is busy. Please try again in a moment."),
            Self::ConnectRefused => row(502, "connect_refused", "The service could not be reached."),
            Self::ConnectTimeout => row(504, "connect_timeout", "The service could not be reached in time."),
            Self::ConnectFailed => row(502, "connect_failed", "The service could not be reached."),
            Self::ResetBeforeAnswer => row(502, "reset_before_answer", "The service broke off before it answered."),
            Self::ResetWithinAnswer => row(502, "reset_within_answer", "The service broke off while it answered."),
            Self::BadAnswer => row(502, "bad_answer", "The service gave an answer that could not be understood."),
            Self::UpgradeRefused => row(502, "upgrade_refused", "The service gave a wrong answer to a handshake."),
            Self::SendTimeout => row(504, "send_timeout", "The service did not take the request in time."),
            Self::ReadTimeout => row(504, "read_timeout", "The service did not answer in time."),
            Self::ClientGone => row(499, "client_gone", "The client went away."),
            Self::ClientTooSlow => row(499, "client_too_slow", "The client did not take the answer in time."),
        }
    }

    /// Returns the status: what is sent, and what is logged. 499 (nginx's) is only logged; nobody is there to read it.
    pub fn status(self) -> u16 {
        self.row().status
    }

    /// Returns the word for it in logs and metrics.
    pub fn reason(self) -> &'static str {
        self.row().reason
    }

    /// Returns whether it tells against the server (nginx's `error timeout`).
    pub fn blames_server(self) -> bool {
        matches!(
            self,
            Self::ConnectRefused
                | Self::ConnectTimeout
                | Self::ConnectFailed
                | Self::ResetBeforeAnswer
                | Self::ResetWithinAnswer
                | Self::BadAnswer
                | Self::SendTimeout
                | Self::ReadTimeout
        )
    }

    /// Returns whether the client connection can serve another request after the answer: what of the request is still to
    /// come must be known.
    pub fn keeps_connection(self) -> bool {
        matches!(
            self,
            Self::HostUnknown
                | Self::PathUnknown
                | Self::Forbidden
                | Self::NoServer
                | Self::DatabaseDown
                | Self::QueueFull
                | Self::QueueTimeout
                | Self::ConnectRefused
                | Self::ConnectTimeout
                | Self::ConnectFailed
        )
    }

    /// Returns seconds for `Retry-After`.
    pub fn retry_after(self) -> Option<u32> {
        (self.status() == 503).then_some(RETRY_AFTER_SECONDS)
    }

    /// Returns the answer for a client that sent this `Accept` header.
    pub fn answer(self, accept: Option<&[u8]>, request_id: Option<&str>) -> Answer {
        let Row { status, reason, text } = self.row();
        let title = phrase(status);
        let id = request_id.unwrap_or_default();
        let mut body = String::with_capacity(512);
        let (content_type, written) = if prefers_json(accept) {
            let written = writeln!(
                body,
                "{{\"status\":{status},\"error\":\"{title}\",\"reason\":\"{reason}\",\"detail\":\"{text}\",\"request_id\":\"{id}\"}}"
            );
            ("application/json", written)
        } else {
            let written = write!(
                body,
                "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{status} {title}</title></head>\n\
                 <body><h1>{title}</h1><p>{text}</p>"
            )
            .and_then(|()| if id.is_empty() { Ok(()) } else { write!(body, "<p><small>Request {id}</small></p>") })
            .and_then(|()| body.write_str("</body></html>\n"));
            ("text/html; charset=utf-8", written)
        };
        debug_assert!(written.is_ok(), "writing to a String cannot fail");
        Answer { retry_after: self.retry_after(), ..Answer::of(status, content_type, body.into_bytes()) }
    }
}

/// A cluster whose servers restart is back within a few checks.
const RETRY_AFTER_SECONDS: u32 = 5;

/// The value of the `Server` header of our own answers: no version.
pub const SERVER: &str = "bookend";

/// An answer of our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub content_type: Cow<'static, str>,
    pub retry_after: Option<u32>,
    /// Where a redirect leads to.
    pub location: Option<HeaderValue>,
    pub body: Vec<u8>,
}

impl Answer {
    /// Returns an answer with nothing else said.
    pub fn of(status: u16, content_type: impl Into<Cow<'static, str>>, body: Vec<u8>) -> Self {
        Self { status, content_type: content_type.into(), retry_after: None, location: None, body }
    }
}

fn phrase(status: u16) -> &'static str {
    match status {
        499 => "Client Closed Request",
        _ => http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Error"),
    }
}

/// Returns whether JSON is wanted more than HTML. Quality decides, then which was named more exactly; a tie is a page.
fn prefers_json(accept: Option<&[u8]>) -> bool {
    let Some(accept) = accept.and_then(|accept| std::str::from_utf8(accept).ok()) else { return false };
    let wanted = |kind: &str, subtype: &str| {
        let mut best = (0, 0);
        for range in accept.split(',').take(RANGES_MAX) {
            let mut parts = range.split(';').map(str::trim);
            let exactness = match parts.next().unwrap_or_default().split_once('/') {
                Some(("*", "*")) => 1,
                Some((own, "*")) if own.eq_ignore_ascii_case(kind) => 2,
                Some((own, sub)) if own.eq_ignore_ascii_case(kind) && matches(sub, subtype) => 3,
                _ => continue,
            };
            // The most exact range that matches gives the quality (RFC 9110 section 12.5.1).
            if exactness > best.1 {
                best = (parts.find_map(quality).unwrap_or(1000), exactness);
            }
        }
        best
    };
    let json = wanted("application", "json");
    json.0 > 0 && json > wanted("text", "html")
}

/// More ranges than any client sends.
const RANGES_MAX: usize = 32;

/// `json`, or a format made of it: `problem+json`.
fn matches(subtype: &str, wanted: &str) -> bool {
    subtype.eq_ignore_ascii_case(wanted)
        || subtype.rsplit_once('+').is_some_and(|(_, suffix)| suffix.eq_ignore_ascii_case(wanted))
}

/// Returns thousandths of a `q=` parameter.
fn quality(parameter: &str) -> Option<u16> {
    let (name, value) = parameter.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("q") {
        return None;
    }
    let quality: f32 = value.trim().parse().ok().filter(|quality| (0.0..=1.0).contains(quality)).unwrap_or(0.0);
    // At most 1000.
    Some((quality * 1000.0) as u16)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_failure_is_listed_once_with_a_word_of_its_own() {
        let words: HashSet<_> = Failure::ALL.iter().map(|failure| failure.reason()).collect();
        assert_eq!(words.len(), Failure::ALL.len());
        for (place, failure) in Failure::ALL.iter().enumerate() {
            assert_eq!(*failure as usize, place, "{failure:?}");
        }
        assert_eq!(Failure::ClientTooSlow as usize + 1, Failure::ALL.len(), "the last one is listed too");
    }

    #[test]
    fn gateway_errors_are_told_apart() {
        for failure in [Failure::ConnectRefused, Failure::ResetBeforeAnswer, Failure::ResetWithinAnswer] {
            assert_eq!(failure.status(), 502, "{failure:?}");
        }
        for failure in [Failure::NoServer, Failure::DatabaseDown, Failure::Overloaded, Failure::Draining] {
            assert_eq!((failure.status(), failure.retry_after().is_some()), (503, true), "{failure:?}");
        }
        for failure in [Failure::ConnectTimeout, Failure::ReadTimeout, Failure::SendTimeout] {
            assert_eq!((failure.status(), failure.retry_after()), (504, None), "{failure:?}");
        }
        assert_eq!(Failure::ClientGone.status(), 499);
    }

    #[test]
    fn only_what_a_server_did_tells_against_it() {
        for failure in Failure::ALL {
            let server = matches!(failure.status(), 502 | 504) && failure != Failure::UpgradeRefused;
            assert_eq!(failure.blames_server(), server, "{failure:?}");
        }
    }

    #[test]
    fn json_is_sent_when_it_is_wanted_more() {
        for (accept, json) in [
            (None, false),
            (Some("*/*"), false),
            (Some("application/json"), true),
            (Some("application/json, text/plain, */*"), true),
            (Some("application/problem+json"), true),
            (Some("application/vnd.api+json;q=0.9, */*;q=0.1"), true),
            (Some("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"), false),
            (Some("text/html, application/json"), false),
            (Some("text/html;q=0.5, application/json"), true),
            (Some("application/json;q=0.5, text/html;q=0.6"), false),
            (Some("application/json; charset=utf-8; q=0, */*"), false),
            (Some("application/json;q=0"), false),
            (Some("application/json;q=bad, text/html;q=0.1"), false),
            (Some("APPLICATION/JSON"), true),
            (Some("application/*"), true),
            (Some("text/event-stream"), false),
            (Some(";;,,/"), false),
        ] {
            assert_eq!(prefers_json(accept.map(str::as_bytes)), json, "{accept:?}");
        }
        assert!(!prefers_json(Some(b"application/json\xff")));
    }

    #[test]
    fn json_bodies_parse_and_carry_the_request_id() {
        for failure in Failure::ALL {
            let answer = failure.answer(Some(b"application/json"), Some("abc-1"));
            let value: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(value["status"], failure.status());
            assert_eq!(value["reason"], failure.reason());
            assert_eq!(value["request_id"], "abc-1");
        }
    }

    #[test]
    fn pages_name_neither_version_nor_server() {
        for failure in Failure::ALL {
            let body = String::from_utf8(failure.answer(None, None).body).unwrap().to_lowercase();
            assert!(body.starts_with("<!doctype html>"), "{body}");
            for secret in ["pingora", env!("CARGO_PKG_VERSION"), "127.0.0.1", "django"] {
                assert!(!body.contains(secret), "{body}");
            }
        }
    }
}
