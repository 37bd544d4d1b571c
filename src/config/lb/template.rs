//! Texts with variables, in nginx's words: `https://$host$request_uri`. `$$` is the character itself.

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
        let mut pieces: Vec<Piece> = Vec::new();
        let mut text = String::new();
        let mut rest = field.text()?;
        while let Some(at) = rest.find('$') {
            text.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(behind) = rest.strip_prefix('$') {
                text.push('$');
                rest = behind;
                continue;
            }
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            let (name, behind) = rest.split_at(end);
            let Some((_, variable)) = VARIABLES.iter().find(|(known, _)| *known == name) else {
                let known = VARIABLES.map(|(name, _)| format!("${name}")).join(", ");
                field.error(format!("${name} is no variable; there are {known}, and $$ for the character itself"));
                return None;
            };
            if !text.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut text).into()));
            }
            pieces.push(Piece::Variable(*variable));
            rest = behind;
        }
        text.push_str(rest);
        if !text.is_empty() {
            pieces.push(Piece::Text(text.into()));
        }
        Some(Self { pieces: pieces.into(), hidden: field.is_from_environment() })
    }
}

impl Template {
    /// Returns the text if it is the same for every request.
    pub fn fixed(&self) -> Option<String> {
        let text = |piece: &Piece| match piece {
            Piece::Text(text) => Some(text.to_string()),
            Piece::Variable(_) => None,
        };
        self.pieces.iter().map(text).collect()
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
            Piece::Text(text) => f.write_str(&text.replace('$', "$$")),
            Piece::Variable(variable) => {
                let name = VARIABLES.iter().find(|(_, known)| known == variable).map_or("", |(name, _)| name);
                write!(f, "${name}")
            }
        })
    }
}
