//! `request_headers:` and `response_headers:`, for all routes or for one: what is put into requests and answers, and taken out.

use http::{HeaderName, HeaderValue};

use crate::config::{
    field::Field,
    lb::template::{Piece, Template},
    section::Section,
};

/// `{set, add, remove}`. Names are taken out first, then set, then added.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderRules {
    /// In place of those that are there.
    pub set: Vec<(HeaderName, Template)>,
    /// Beside those that are there.
    pub add: Vec<(HeaderName, Template)>,
    pub remove: Vec<HeaderName>,
}

/// What says where a message ends and what becomes of its connection is not the file's to say.
const FRAMING: [&str; 8] =
    ["connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

impl HeaderRules {
    /// Returns whether they change nothing.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }

    /// Reads the rules that stand under `key`.
    pub(super) fn read(section: &mut Section<'_>, key: &'static str) -> Self {
        let Some(field) = section.get(key) else { return Self::default() };
        let mut section = field.section();
        let values = |field: Option<Field<'_>>| {
            let entries = field.map(|field| field.entries()).unwrap_or_default();
            entries
                .iter()
                .filter_map(|(name, field)| {
                    let header = header_name(name, field)?;
                    let value = value(&header, field)?;
                    Some((header, value))
                })
                .collect()
        };
        let rules = Self {
            set: values(section.get("set")),
            add: values(section.get("add")),
            remove: section.list("remove").iter().filter_map(|field| header_name(field.text()?, field)).collect(),
        };
        section.finish();
        rules
    }
}

pub(super) fn header_name(name: &str, field: &Field<'_>) -> Option<HeaderName> {
    let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
        field.error(format!("{name:?} is no header's name"));
        return None;
    };
    if FRAMING.contains(&header.as_str()) {
        field.error(format!("{header} says where a message or its connection ends, and is not to be changed"));
        return None;
    }
    Some(header)
}

/// Headers whose values are passwords, wherever they come from.
const CREDENTIALS: [&str; 4] = ["authorization", "proxy-authorization", "cookie", "set-cookie"];

/// Returns whether the value of a header may be a secret.
pub(super) fn is_secret(name: &HeaderName, field: &Field<'_>) -> bool {
    CREDENTIALS.contains(&name.as_str()) || field.is_from_environment()
}

fn value(name: &HeaderName, field: &Field<'_>) -> Option<Template> {
    let mut template = Template::read(field)?;
    template.hidden = is_secret(name, field);
    let is_value = |piece: &Piece| match piece {
        Piece::Text(text) => HeaderValue::from_str(text).is_ok(),
        Piece::Variable(_) => true,
    };
    if !template.pieces.iter().all(is_value) {
        field.reject("must be a header's value: visible ASCII and spaces");
        return None;
    }
    Some(template)
}
