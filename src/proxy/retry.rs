//! Whether a request that failed at a server may be sent again, and where. Pure: the table is the file.
//!
//! The rule behind it: a request must not be carried out twice unless it is idempotent (RFC 9110 section 9.2.2), and a
//! client must not see two answers mixed. Nothing was sent before a connection stood, so that is always safe. A server that
//! is slow is not asked again elsewhere: it works on the request still, and one heavy page would occupy a worker on every
//! server in turn (nginx does retry timeouts; this is a deliberate difference).

use http::Method;

use super::error::Failure;

/// How much of the request the server may have seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sent {
    Nothing,
    /// The header, or some of it.
    Head,
    /// Some of the body too.
    Body,
}

/// A try that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    pub failure: Failure,
    /// Of the method.
    pub idempotent: bool,
    pub has_body: bool,
    pub sent: Sent,
    /// The client was sent something of an answer, or we have read some of it.
    pub answer_seen: bool,
    /// The connection had served a request before.
    pub reused: bool,
    /// The request already failed on a reused connection once.
    pub reused_failed_before: bool,
    /// Servers that may still be asked by `tries`, this one not counted.
    pub tries_left: u32,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    GiveUp,
    /// Ask a server that was not asked yet.
    OtherServer,
    /// Ask again without counting the server as tried or failed: it closed an idle connection, which is its right.
    SameServer,
}

/// Decides.
pub fn decide(attempt: &Attempt) -> Decision {
    if attempt.answer_seen {
        return Decision::GiveUp;
    }
    let other = if attempt.tries_left == 0 { Decision::GiveUp } else { Decision::OtherServer };
    match attempt.failure {
        Failure::ConnectRefused | Failure::ConnectTimeout | Failure::ConnectFailed => other,
        Failure::ResetBeforeAnswer => {
            let repeatable = attempt.sent == Sent::Nothing || (attempt.idempotent && attempt.sent < Sent::Body);
            if attempt.reused && !attempt.reused_failed_before && repeatable {
                Decision::SameServer
            } else if attempt.sent == Sent::Nothing || (attempt.idempotent && !attempt.has_body) {
                other
            } else {
                Decision::GiveUp
            }
        }
        _ => Decision::GiveUp,
    }
}

/// Returns whether carrying out a request with this method twice is as good as once (RFC 9110 section 9.2.2).
pub fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE)
}

#[cfg(test)]
mod tests {
    use super::{Decision::*, Failure::*, *};

    /// A GET that was sent whole on a fresh connection, with tries left.
    const GET: Attempt = Attempt {
        failure: ResetBeforeAnswer,
        idempotent: true,
        has_body: false,
        sent: Sent::Head,
        answer_seen: false,
        reused: false,
        reused_failed_before: false,
        tries_left: 2,
    };
    /// The same for a POST with its body on the way.
    const POST: Attempt = Attempt { idempotent: false, has_body: true, sent: Sent::Body, ..GET };

    #[test]
    fn a_post_is_never_sent_again_once_a_byte_was() {
        for sent in [Sent::Head, Sent::Body] {
            for reused in [false, true] {
                assert_eq!(decide(&Attempt { sent, reused, ..POST }), GiveUp, "{sent:?} reused={reused}");
            }
        }
        assert_eq!(decide(&Attempt { has_body: false, sent: Sent::Head, ..POST }), GiveUp);
    }

    #[test]
    fn nothing_is_sent_again_once_an_answer_was_seen() {
        for failure in Failure::ALL {
            assert_eq!(
                decide(&Attempt { failure, answer_seen: true, sent: Sent::Nothing, reused: true, ..GET }),
                GiveUp
            );
        }
    }

    #[test]
    fn a_connect_failure_goes_to_another_server_whatever_the_request() {
        for failure in [ConnectRefused, ConnectTimeout, ConnectFailed] {
            for attempt in [GET, POST] {
                let attempt = Attempt { failure, sent: Sent::Nothing, ..attempt };
                assert_eq!(decide(&attempt), OtherServer);
                assert_eq!(decide(&Attempt { tries_left: 0, ..attempt }), GiveUp);
            }
        }
    }

    #[test]
    fn an_idempotent_request_without_a_body_goes_to_another_server() {
        assert_eq!(decide(&GET), OtherServer);
        assert_eq!(decide(&Attempt { tries_left: 0, ..GET }), GiveUp);
        assert_eq!(decide(&Attempt { has_body: true, ..GET }), GiveUp, "a PUT");
        assert_eq!(decide(&Attempt { has_body: true, sent: Sent::Body, ..GET }), GiveUp);
    }

    #[test]
    fn a_reused_connection_found_closed_is_replaced_once() {
        let get = Attempt { reused: true, ..GET };
        assert_eq!(decide(&get), SameServer);
        assert_eq!(decide(&Attempt { tries_left: 0, ..get }), SameServer, "it does not count as a try");
        assert_eq!(decide(&Attempt { reused_failed_before: true, ..get }), OtherServer);
        assert_eq!(decide(&Attempt { has_body: true, ..get }), SameServer, "a PUT whose body was not sent yet");
        assert_eq!(decide(&Attempt { has_body: true, sent: Sent::Body, ..get }), GiveUp);
        assert_eq!(decide(&Attempt { reused: true, sent: Sent::Nothing, ..POST }), SameServer);
    }

    #[test]
    fn slow_and_broken_answers_and_our_own_refusals_are_final() {
        for failure in Failure::ALL {
            let may = matches!(failure, ConnectRefused | ConnectTimeout | ConnectFailed | ResetBeforeAnswer);
            assert_eq!(decide(&Attempt { failure, ..GET }) != GiveUp, may, "{failure:?}");
        }
    }

    #[test]
    fn methods_are_idempotent_as_the_standard_says() {
        for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE] {
            assert!(is_idempotent(&method), "{method}");
        }
        for method in ["POST", "PATCH", "CONNECT", "LOCK", "get"] {
            assert!(!is_idempotent(&Method::from_bytes(method.as_bytes()).unwrap()), "{method}");
        }
    }
}
