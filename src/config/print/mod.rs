//! The configuration in effect, as YAML: every default filled in, every variable replaced, no secret.
//!
//! What is printed is in the form of the files, so that it can be compared with them, and read back once the passwords
//! are put in again.

mod front;
mod pool;

use std::time::Duration;

use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::config::{Config, load, units};

/// Stands where a password would.
const HIDDEN: &str = "(hidden)";

/// Returns the effective configuration: a YAML document for each half that runs.
pub fn print(config: &Config) -> String {
    let mut process = Yaml::map();
    process.put("admin", config.admin.as_ref().map_or(Yaml::Bool(false), front::admin));
    process.put("shutdown", front::shutdown(&config.shutdown));

    let mut documents = Vec::new();
    if let Some(lb) = &config.lb {
        let mut document = front::lb(lb);
        document.append(process.clone());
        documents.push(format!("# lb.yaml, in effect\n{}", load::to_yaml(&document)));
    }
    if let Some(pool) = &config.pool {
        let mut document = pool::pool(pool);
        if config.lb.is_none() {
            document.append(process);
        }
        documents.push(format!("# pool.yaml, in effect\n{}", load::to_yaml(&document)));
    }
    documents.join("---\n")
}

/// Returns the keys and values of `pool:` as they are printed.
pub(super) fn settings(pool: &super::pool::Pool) -> Vec<(String, Yaml)> {
    match pool::settings(pool) {
        Yaml::Map(entries) => entries,
        _ => Vec::new(),
    }
}

/// A YAML value whose mappings keep their order.
#[derive(Debug, Clone)]
pub(super) enum Yaml {
    Null,
    Bool(bool),
    Number(u64),
    Text(String),
    List(Vec<Yaml>),
    Map(Vec<(String, Yaml)>),
}

impl Yaml {
    pub(super) fn map() -> Self {
        Self::Map(Vec::new())
    }

    pub(super) fn put(&mut self, key: &str, value: impl Into<Yaml>) {
        if let Self::Map(entries) = self {
            entries.push((key.to_owned(), value.into()));
        }
    }

    fn append(&mut self, more: Yaml) {
        if let (Self::Map(entries), Self::Map(more)) = (self, more) {
            entries.extend(more);
        }
    }

    pub(super) fn text(text: impl ToString) -> Self {
        Self::Text(text.to_string())
    }

    pub(super) fn list<T>(items: impl IntoIterator<Item = T>, form: impl Fn(T) -> Yaml) -> Self {
        Self::List(items.into_iter().map(form).collect())
    }

    fn size(bytes: u64) -> Self {
        Self::Text(units::format_size(bytes))
    }
}

impl From<bool> for Yaml {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<u32> for Yaml {
    fn from(value: u32) -> Self {
        Self::Number(value.into())
    }
}

impl From<usize> for Yaml {
    fn from(value: usize) -> Self {
        Self::Number(value as u64)
    }
}

impl From<&str> for Yaml {
    fn from(value: &str) -> Self {
        Self::text(value)
    }
}

impl From<Duration> for Yaml {
    fn from(value: Duration) -> Self {
        Self::Text(units::format_duration(value))
    }
}

impl<T: Into<Yaml>> From<Option<T>> for Yaml {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl Serialize for Yaml {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(value) => serializer.serialize_u64(*value),
            Self::Text(value) => serializer.serialize_str(value),
            Self::List(items) => items.serialize(serializer),
            Self::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}
