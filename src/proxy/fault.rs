//! What an error of pingora's means.
//!
//! pingora says who failed (server, client, itself) and how; a request's failure is both together, and whether an answer
//! had begun. The reason a client's body broke its framing is further down the chain of causes.

use std::io;

use pingora::{Error, ErrorSource, ErrorType};

use super::{accept::body::BadBody, error::Failure};

/// Returns the failure behind `error`. `answered`: a head of the server's answer was seen.
pub(super) fn of(error: &Error, answered: bool) -> Failure {
    match error.esource() {
        ErrorSource::Upstream => of_server(error.etype(), answered),
        ErrorSource::Downstream => of_client(error),
        ErrorSource::Internal | ErrorSource::Unset => Failure::Internal,
    }
}

fn of_server(kind: &ErrorType, answered: bool) -> Failure {
    match kind {
        ErrorType::ConnectTimedout => Failure::ConnectTimeout,
        ErrorType::ConnectRefused => Failure::ConnectRefused,
        ErrorType::ConnectNoRoute | ErrorType::ConnectError | ErrorType::SocketError | ErrorType::BindError => {
            Failure::ConnectFailed
        }
        ErrorType::ReadTimedout => Failure::ReadTimeout,
        ErrorType::WriteTimedout => Failure::SendTimeout,
        ErrorType::InvalidHTTPHeader | ErrorType::H1Error => Failure::BadAnswer,
        ErrorType::InternalError => Failure::Internal,
        _ if answered => Failure::ResetWithinAnswer,
        _ => Failure::ResetBeforeAnswer,
    }
}

fn of_client(error: &Error) -> Failure {
    let io = error.root_cause().downcast_ref::<io::Error>();
    match error.etype() {
        // The client's body broke its framing.
        _ if io.and_then(|io| io.get_ref()).is_some_and(|inner| inner.is::<BadBody>()) => Failure::BadRequest,
        // It took nothing of the answer for too long.
        ErrorType::WriteError if io.is_some_and(|io| io.kind() == io::ErrorKind::TimedOut) => Failure::ClientTooSlow,
        ErrorType::ReadTimedout => Failure::BodyTimeout,
        ErrorType::WriteTimedout => Failure::ClientTooSlow,
        ErrorType::InvalidHTTPHeader => Failure::BadRequest,
        _ => Failure::ClientGone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::accept::body::Body;

    #[test]
    fn a_server_that_fails_is_told_by_how_and_when() {
        for (kind, before, within) in [
            (ErrorType::ConnectRefused, Failure::ConnectRefused, Failure::ConnectRefused),
            (ErrorType::ConnectTimedout, Failure::ConnectTimeout, Failure::ConnectTimeout),
            (ErrorType::ReadTimedout, Failure::ReadTimeout, Failure::ReadTimeout),
            (ErrorType::ConnectionClosed, Failure::ResetBeforeAnswer, Failure::ResetWithinAnswer),
            (ErrorType::InvalidHTTPHeader, Failure::BadAnswer, Failure::BadAnswer),
        ] {
            let error = Error::new_up(kind);
            assert_eq!((of(&error, false), of(&error, true)), (before, within), "{error}");
        }
    }

    #[test]
    fn a_client_that_breaks_its_framing_is_told_from_one_that_left() {
        let bad = Body::chunked().advance(b"zz").unwrap_err();
        let broken = Error::because(ErrorType::ReadError, "reading body", io::Error::other(bad)).into_down();
        assert_eq!(of(&broken, false), Failure::BadRequest);
        assert_eq!(of(&Error::new_down(ErrorType::ReadError), false), Failure::ClientGone);
        assert_eq!(of(&Error::new_down(ErrorType::ReadTimedout), false), Failure::BodyTimeout);
        let stalled = Error::because(ErrorType::WriteError, "", io::Error::from(io::ErrorKind::TimedOut)).into_down();
        assert_eq!(of(&stalled, true), Failure::ClientTooSlow);
    }
}
