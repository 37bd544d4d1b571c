//! Texts with variables, in nginx's words: `https://$host$request_uri`.

use crate::config::field::Field;

/// A text whose variables stand for parts of a request.
#[derive(Clone, PartialEq, Eq)]
pub struct Template {
    pub pieces: Box<[Piece]>,
    /// It may be a secret, and is shown to nobody.
    pub hidden: bool,
}

/// A part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Text(Box<str>),
    Variable(Variable),
}

/// What of a request a variable stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variable {
    /// The host that was asked for, in lower case and without port.
    Host,
    /// Path and query as they came.
    RequestUri,
    /// The client's address, of a trusted proxy the one it tells.
    RemoteAddr,
    RequestId,
}

/// What is shown in place of a value that may be a secret.
pub const HIDDEN: &str = "(hidden)";

const VARIABLES: [(&str, Variable); 4] = [
    ("host", Variable::Host),
    ("request_uri", Variable::RequestUri),
    ("remote_addr", Variable::RemoteAddr),
    ("request_id", Variable::RequestId),
];

impl Template {
    /// Reads a template; a variable that is none is reported with those there are.
    pub(super) fn read(field: &Field<'_>) -> Option<Self> {
        let mut pieces = Vec::new();
        let mut parts = field.text()?.split('$');
        let push_text = |pieces: &mut Vec<Piece>, text: &str| {
            if !text.is_empty() {
                pieces.push(Piece::Text(text.into()));
            }
        };
        push_text(&mut pieces, parts.next().unwrap_or_default());
        for part in parts {
            let end = part.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(part.len());
            let (name, text) = part.split_at(end);
            let Some((_, variable)) = VARIABLES.iter().find(|(known, _)| *known == name) else {
                let what =
                    format!("${name} is no variable; there are $host, $request_uri, $remote_addr and $request_id");
                field.error(what);
                return None;
            };
            pieces.push(Piece::Variable(*variable));
            push_text(&mut pieces, text);
        }
        Some(Self { pieces: pieces.into(), hidden: field.is_from_environment() })
    }
}

impl From<Vec<Piece>> for Template {
    fn from(pieces: Vec<Piece>) -> Self {
        Self { pieces: pieces.into(), hidden: false }
    }
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// As it stands in the file, unless it is hidden.
impl std::fmt::Display for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.hidden {
            return f.write_str(HIDDEN);
        }
        self.pieces.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(text),
            Piece::Variable(variable) => {
                let name = VARIABLES.iter().find(|(_, known)| known == variable).map_or("", |(name, _)| name);
                write!(f, "${name}")
            }
        })
    }
}
