//! Answers that a route gives without a server: redirects and fixed texts. Pure.

use http::HeaderValue;

use super::{
    error::{Answer, Failure},
    template::{Values, render},
};
use crate::config::lb::{Redirect, Respond};

/// Returns the answer of a redirect. That it leads to where the file says and not the client, the configuration has seen to.
///
/// # Errors
/// The request says nothing that a client could be sent to.
pub(super) fn redirect(redirect: &Redirect, values: &Values<'_>) -> Result<Answer, Failure> {
    let to = render(&redirect.to, values).ok_or(Failure::BadRequest)?;
    let location = HeaderValue::from_bytes(&to).map_err(|_| Failure::BadRequest)?;
    Ok(Answer { location: Some(location), ..Answer::of(redirect.status, "text/plain; charset=utf-8", Vec::new()) })
}

/// Returns a fixed answer.
pub(super) fn respond(respond: &Respond) -> Answer {
    let retry_after = respond.retry_after.and_then(|after| u32::try_from(after.as_secs()).ok());
    let body = respond.body.as_bytes().to_vec();
    Answer { retry_after, ..Answer::of(respond.status, respond.content_type.to_string(), body) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::lb::{Piece, Template, Variable};

    fn text(text: &str) -> Piece {
        Piece::Text(text.into())
    }

    const HOST: Piece = Piece::Variable(Variable::Host);
    const URI: Piece = Piece::Variable(Variable::RequestUri);

    fn to(pieces: &[Piece], host: Option<&str>, uri: &str) -> Option<String> {
        let values = Values {
            host: host.map(str::as_bytes),
            request_uri: uri.as_bytes(),
            client: [127, 0, 0, 1].into(),
            request_id: "",
        };
        let answer = redirect(&Redirect { to: Template::from(pieces.to_vec()), status: 301 }, &values).ok()?;
        Some(answer.location.unwrap().to_str().unwrap().to_owned())
    }

    #[test]
    fn variables_are_what_was_asked_for_with_its_query() {
        let canonical = [text("https://"), HOST, URI];
        let asked = to(&canonical, Some("WWW.Example.com:80"), "/a%20b?c=d&e").unwrap();
        assert_eq!(asked, "https://www.example.com/a%20b?c=d&e");
        assert_eq!(to(&[text("https://example.com"), URI], None, "/").unwrap(), "https://example.com/");
        assert_eq!(to(&[text("/new"), URI], None, "//x").unwrap(), "/new//x");
        assert_eq!(to(&[text("/moved/")], None, "/x?y").unwrap(), "/moved/");
    }

    #[test]
    fn what_cannot_be_said_is_refused() {
        for host in [Some("a b"), Some(""), Some("a/b\r\n"), None] {
            assert_eq!(to(&[text("https://"), HOST], host, "/"), None);
        }
        for uri in ["*", "/\r\nSet-Cookie: a=b"] {
            assert_eq!(to(&[text("https://a"), URI], None, uri), None);
        }
    }
}
