//! What the variables of a configured text stand for. Pure.

use std::{fmt::Write as _, net::IpAddr};

use super::route::host;
use crate::config::lb::{Piece, Template, Variable};

/// What is known of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Values<'a> {
    /// Host header, or the authority of an absolute target.
    pub(super) host: Option<&'a [u8]>,
    /// Of the request in origin form.
    pub(super) request_uri: &'a [u8],
    pub(super) client: IpAddr,
    pub(super) request_id: &'a str,
}

/// Returns the text for a request; `None` if the request lacks something of it.
pub(super) fn render(template: &Template, values: &Values<'_>) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(128);
    for piece in &template.pieces {
        match piece {
            Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
            Piece::Variable(Variable::Host) => {
                let mut buffer = [0; host::LENGTH_MAX];
                out.extend_from_slice(host::normalised(values.host?, &mut buffer)?);
            }
            // `OPTIONS *` and its like have no path.
            Piece::Variable(Variable::RequestUri) if !values.request_uri.starts_with(b"/") => return None,
            Piece::Variable(Variable::RequestUri) => out.extend_from_slice(values.request_uri),
            Piece::Variable(Variable::RemoteAddr) => {
                let mut text = String::with_capacity(40);
                write!(text, "{}", values.client).ok()?;
                out.extend_from_slice(text.as_bytes());
            }
            Piece::Variable(Variable::RequestId) => out.extend_from_slice(values.request_id.as_bytes()),
        }
    }
    Some(out)
}
