//! `auth_ident_file`: which certificates and system users may log in as which users. PostgreSQL's pg_ident.conf without
//! regular expressions, as PgBouncer reads it: `map-name system-name user`, where `user` may be `all`.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    sync::Arc,
};

use super::words::{self, Field};
use crate::config::error::{ConfigError, Position};

/// One map: who is who.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdentMap {
    /// System name and user.
    pairs: HashSet<(Box<str>, Box<str>)>,
    /// System names that may be anybody.
    anybody: HashSet<Box<str>>,
}

impl IdentMap {
    /// Returns whether whoever is proven to be `system` may log in as `user`.
    pub fn allows(&self, system: &str, user: &str) -> bool {
        self.anybody.contains(system) || self.pairs.contains(&(system.into(), user.into()))
    }
}

/// The maps of a file by name.
pub type IdentMaps = BTreeMap<String, Arc<IdentMap>>;

/// Reads the text of one; `path` is named in errors.
///
/// # Errors
/// Every line that is broken.
pub fn parse(path: &Path, text: &str) -> Result<IdentMaps, Vec<ConfigError>> {
    let mut maps: BTreeMap<String, IdentMap> = BTreeMap::new();
    let mut errors = Vec::new();
    for line in words::lines(text) {
        let read =
            line.fields.map_err(|column| (column, "has a quote that is not closed")).and_then(|fields| entry(&fields));
        match read {
            Ok((name, system, user)) => {
                let map = maps.entry(name).or_default();
                match user {
                    Some(user) => drop(map.pairs.insert((system, user))),
                    None => drop(map.anybody.insert(system)),
                }
            }
            Err((column, why)) => {
                let position = Some(Position { line: line.number, column });
                errors.push(ConfigError { position, ..ConfigError::of_file(path, why) });
            }
        }
    }
    let maps = maps.into_iter().map(|(name, map)| (name, Arc::new(map))).collect();
    if errors.is_empty() { Ok(maps) } else { Err(errors) }
}

type Entry = (String, Box<str>, Option<Box<str>>);

/// Reads a line: the map's name, the system's, and the user's (`None`: all).
fn entry(fields: &[Field]) -> Result<Entry, (usize, &'static str)> {
    const FORM: &str = "must be a map's name, a system name and a user";
    let [name, system, user] = fields else {
        return Err((fields.first().map_or(1, |field| field.column), FORM));
    };
    for field in fields {
        let [word] = &field.words[..] else { return Err((field.column, FORM)) };
        if !word.quoted && word.text.starts_with('/') {
            return Err((field.column, "a regular expression is PostgreSQL's; not offered here"));
        }
        if !word.quoted && word.text.starts_with('+') {
            return Err((field.column, "a group (+role) is PostgreSQL's; not offered here"));
        }
    }
    let first = |field: &Field| field.words[0].text.clone(); // each has exactly one: looked at above
    let anybody = user.words[0].is("all");
    Ok((first(name), first(system).into(), (!anybody).then(|| first(user).into())))
}
