//! `pgbouncer.ini`, read into the tree that `pool.yaml` is read into.
//!
//! Flow: text -> [`lines`] (sections, keys, `%include`, each with its place) -> [`tree`] (where a key stands in `pool.yaml`,
//! and how [`spelling`] writes its value there) -> the readers of `pool.yaml`, which know nothing of it. So a key that they
//! learn works here under PgBouncer's name at once, and its errors carry the place in the ini. [`settings`] is the table of
//! PgBouncer's settings: how they are written, their defaults (which hold in an ini), and what becomes of those that
//! `pool.yaml` has not.
//!
//! The dialect is what PgBouncer 1.26 accepts when it is run, which is not everywhere what its manual says (libusual's
//! cfparser.c; src/loader.c). More is accepted where that is harmless: units of time, words for flags, names in double
//! quotes; and all errors are told, not the first.

mod connstr;
mod lines;
pub(super) mod settings;
mod settle;
mod spelling;
mod tree;

use std::path::Path;

pub(super) use self::{settle::settle, tree::setting_node};
use crate::config::{Text, error::ConfigError, node::Node, reading::Reading};

/// Files that one ini may consist of, and how deep they may name each other (PgBouncer: 10 deep, any number).
const MAX_FILES: usize = 64;
const MAX_DEPTH: usize = 10;

/// Returns whether a file is PgBouncer's: by its name, or because it begins with a section.
pub(super) fn is_ini(path: &Path, text: &str) -> bool {
    let named = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("ini"));
    let mut lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with([';', '#'])).unwrap_or_default();
    let section = first.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(name, _)| name);
    named
        || first.starts_with("%include ")
        || section.is_some_and(|name| matches!(name, "databases" | "users" | "peers" | "pgbouncer" | "bookend"))
}

/// Builds the tree of an ini and the files it includes, which `text` reads.
///
/// What can be reported without giving up is reported to `reading`.
///
/// # Errors
/// The file cannot be read as an ini at all.
pub(super) fn parse(reading: &Reading<'_>, main: &str, text: Text<'_>) -> Result<Node, ConfigError> {
    reading.becomes_ini();
    let items = lines::read(reading, main, text);
    tree::build(reading, &items)
}

#[cfg(test)]
mod tests;
