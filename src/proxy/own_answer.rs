//! Answers that a route gives without a server: redirects and fixed texts. Pure.

use http::HeaderValue;

use super::{
    error::{Answer, Failure},
    route::host,
};
use crate::config::lb::{Piece, Redirect, Respond, Template, Variable};

/// Returns the answer of a redirect for a request in origin form, which asked for `host` and `request_uri`.
///
/// # Errors
/// The request says nothing that a client could be sent to.
pub(super) fn redirect(redirect: &Redirect, host: Option<&[u8]>, request_uri: &[u8]) -> Result<Answer, Failure> {
    let to = location(&redirect.to, host, request_uri).ok_or(Failure::BadRequest)?;
    let location = HeaderValue::from_bytes(&to).map_err(|_| Failure::BadRequest)?;
    Ok(Answer { location: Some(location), ..Answer::of(redirect.status, "text/plain; charset=utf-8", Vec::new()) })
}

/// Returns a fixed answer.
pub(super) fn respond(respond: &Respond) -> Answer {
    let retry_after = respond.retry_after.and_then(|after| u32::try_from(after.as_secs()).ok());
    let body = respond.body.as_bytes().to_vec();
    Answer { retry_after, ..Answer::of(respond.status, respond.content_type.to_string(), body) }
}

fn location(template: &Template, asked: Option<&[u8]>, request_uri: &[u8]) -> Option<Vec<u8>> {
    let mut to = Vec::with_capacity(128);
    for piece in &template.0 {
        match piece {
            Piece::Text(text) => to.extend_from_slice(text.as_bytes()),
            Piece::Variable(Variable::Host) => {
                let mut buffer = [0; host::LENGTH_MAX];
                to.extend_from_slice(host::normalised(asked?, &mut buffer)?);
            }
            // `OPTIONS *` and its like have no path.
            Piece::Variable(Variable::RequestUri) if !request_uri.starts_with(b"/") => return None,
            // A path may begin with two slashes and mean one of this host; behind nothing it would mean another host.
            Piece::Variable(Variable::RequestUri) if to == b"/" => {
                let slashes = request_uri.iter().take_while(|byte| matches!(byte, b'/' | b'\\')).count();
                to.extend_from_slice(&request_uri[slashes..]);
            }
            Piece::Variable(Variable::RequestUri) => to.extend_from_slice(request_uri),
        }
    }
    Some(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(pieces: &[Piece]) -> Template {
        Template(pieces.into())
    }

    fn text(text: &str) -> Piece {
        Piece::Text(text.into())
    }

    const HOST: Piece = Piece::Variable(Variable::Host);
    const URI: Piece = Piece::Variable(Variable::RequestUri);

    fn to(pieces: &[Piece], host: &str, uri: &str) -> Option<String> {
        let to = location(&template(pieces), Some(host.as_bytes()), uri.as_bytes())?;
        Some(String::from_utf8(to).unwrap())
    }

    #[test]
    fn variables_are_what_was_asked_for_with_its_query() {
        let canonical = [text("https://"), HOST, URI];
        assert_eq!(
            to(&canonical, "WWW.Example.com:80", "/a%20b?c=d&e").unwrap(),
            "https://www.example.com/a%20b?c=d&e"
        );
        assert_eq!(to(&[text("https://example.com"), URI], "a", "/").unwrap(), "https://example.com/");
        assert_eq!(to(&[text("/new"), URI], "a", "//x").unwrap(), "/new//x");
        assert_eq!(to(&[text("/moved/")], "a", "/x?y").unwrap(), "/moved/");
    }

    #[test]
    fn nobody_is_led_to_another_host_by_what_it_asked_for() {
        for uri in ["//evil.example/", "/\\evil.example", "///evil.example", "/\\/\\evil.example"] {
            let led = to(&[text("/"), URI], "a", uri).unwrap();
            assert_eq!(led.trim_end_matches('/'), "/evil.example", "{uri}");
        }
    }

    #[test]
    fn what_cannot_be_said_is_refused() {
        assert_eq!(to(&[text("https://"), HOST], "a b", "/"), None);
        assert_eq!(to(&[text("https://"), HOST], "", "/"), None);
        assert_eq!(to(&[text("https://a"), URI], "a", "*"), None);
        assert_eq!(location(&template(&[text("https://"), HOST]), None, b"/"), None);
        let split = Redirect { to: template(&[text("https://a"), URI]), status: 301 };
        assert!(redirect(&split, None, b"/\r\nSet-Cookie: a=b").is_err());
    }
}
