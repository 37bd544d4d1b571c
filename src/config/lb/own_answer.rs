//! `redirect:` and `respond:` of a route: answers that need no server.

use std::time::Duration;

use crate::config::{
    field::Field,
    lb::template::{Piece, Template},
};

/// `redirect: {to, status}`, or `redirect: URL`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// Where to, e.g. `https://example.com$request_uri`.
    pub to: Template,
    /// 301 (the default), 302, 303, 307 or 308.
    pub status: u16,
}

/// `respond: {status, body, content_type, retry_after}`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Respond {
    /// Default 200.
    pub status: u16,
    /// Default: none.
    pub body: Box<str>,
    /// Default `text/plain; charset=utf-8`.
    pub content_type: Box<str>,
    /// Seconds for `Retry-After`.
    pub retry_after: Option<Duration>,
}

pub(super) fn redirect(field: &Field<'_>) -> Option<Redirect> {
    if !field.is_map() {
        return Some(Redirect { to: to(field)?, status: 301 });
    }
    let mut section = field.section();
    let target = section.require("to", "https://example.com$request_uri");
    let status = section.get("status").map_or(Some(301), |field| {
        let status = field.integer::<u16>(300..=399)?;
        if !matches!(status, 301 | 302 | 303 | 307 | 308) {
            field.reject("must be 301, 302, 303, 307 or 308");
            return None;
        }
        Some(status)
    });
    section.finish();
    Some(Redirect { to: to(&target?)?, status: status? })
}

/// Where a client is sent is the file's to say: a path from the request alone could lead it to another host (`//evil.example`).
fn to(field: &Field<'_>) -> Option<Template> {
    let template = Template::read(field)?;
    let begin = match template.pieces.first() {
        Some(Piece::Text(text)) => text,
        _ => "",
    };
    let has_host = |scheme: &str| {
        let rest = begin.strip_prefix(scheme)?;
        Some(
            !rest.is_empty()
                || matches!(template.pieces.get(1), Some(Piece::Variable(super::template::Variable::Host))),
        )
    };
    let is_path = begin.len() > 1 && begin.starts_with('/') && !begin.starts_with("//");
    let is_root = begin == "/" && template.pieces.len() == 1;
    let is_url = has_host("https://").or_else(|| has_host("http://")).unwrap_or(false);
    let is_clean = |piece: &Piece| match piece {
        Piece::Text(text) => text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\'),
        Piece::Variable(_) => true,
    };
    if !(is_url || is_path || is_root) || !template.pieces.iter().all(is_clean) {
        field
            .reject("must begin with https://, http:// and a host, or with / and something of its own, without spaces");
        return None;
    }
    Some(template)
}

pub(super) fn respond(field: &Field<'_>) -> Respond {
    let mut section = field.section();
    let is_line = |text: &str| !text.is_empty() && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let content_type = section.get("content_type").and_then(|field| {
        let text = field.text()?;
        if !is_line(text) {
            field.reject("must be a media type such as text/html; charset=utf-8");
            return None;
        }
        Some(text.into())
    });
    let status = section.get("status").map_or(Some(200), |field| {
        let status = field.integer::<u16>(200..=599)?;
        if (300..400).contains(&status) {
            field.reject("must not be a redirect's, which says where to: see redirect");
            return None;
        }
        Some(status)
    });
    let body = section.get("body");
    if let (Some(body), Some(204)) = (&body, status) {
        body.error("has no meaning with status 204, which has none");
    }
    let respond = Respond {
        status: status.unwrap_or(200),
        body: body.and_then(|field| field.lines()).unwrap_or_default().into(),
        content_type: content_type.unwrap_or_else(|| "text/plain; charset=utf-8".into()),
        retry_after: section.timeout("retry_after", None),
    };
    section.finish();
    respond
}
