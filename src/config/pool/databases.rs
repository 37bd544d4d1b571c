//! A look at `databases:` before it is read: what its entries say decides what `users:` and `pool:` must say.

use crate::config::{field::Field, node::Value, section::Section};

/// The entries, not checked yet.
pub(super) struct Databases<'a>(Vec<(&'a str, Field<'a>)>);

impl<'a> Databases<'a> {
    /// Looks at the entries; what is wrong with them is not reported here.
    pub fn peek(file: &mut Section<'a>) -> Self {
        let field = file.get("databases").filter(|field| matches!(field.node.value, Value::Map(_)));
        Self(field.map(|field| field.entries()).unwrap_or_default())
    }

    /// Returns whether an entry has the key.
    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(_, field)| value(field, key).is_some())
    }

    /// Returns whether an entry has the key with this text.
    pub fn any_is(&self, key: &str, text: &str) -> bool {
        self.0.iter().any(|(_, field)| matches!(value(field, key), Some(Value::Scalar(scalar)) if scalar.text == text))
    }

    /// Returns the entries that do not have the key.
    pub fn without(&self, key: &'static str) -> impl Iterator<Item = &Field<'a>> {
        self.0.iter().map(|(_, field)| field).filter(move |field| value(field, key).is_none())
    }
}

fn value<'a>(field: &Field<'a>, key: &str) -> Option<&'a Value> {
    let Value::Map(entries) = &field.node.value else { return None };
    entries
        .iter()
        .find(|(name, _)| name.name == key)
        .map(|(_, node)| &node.value)
        .filter(|value| **value != Value::Null)
}
