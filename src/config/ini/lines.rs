//! Text -> sections and keys with their places, `%include` followed.
//!
//! A line is empty, a comment, `%include FILE` (relative to the working directory, as in PgBouncer), `[section]`, after which
//! the line may go on, or `key = value` to the end of the line. A key is letters, digits and `_.-*`, or in quotes. The
//! section stays the same across a file's beginning and end, so that an included file can go on with one or leave another.

use std::path::{Path, PathBuf};

use super::{MAX_DEPTH, MAX_FILES};
use crate::config::{
    Text,
    error::Position,
    node::Key,
    reading::{Reading, Spot},
};

/// One thing that stands in an ini.
#[derive(Debug, PartialEq)]
pub(super) enum Item {
    Section(Key),
    Entry { key: Key, value: String, at: Position },
}

/// Reads `main` and what it includes; what cannot be read is reported, and the rest goes on.
pub(super) fn read(reading: &Reading<'_>, main: &str, text: Text<'_>) -> Vec<Item> {
    let mut lines = Lines { reading, text, items: Vec::new(), files: 1, open: vec![reading.file.to_owned()] };
    lines.file(0, main);
    lines.items
}

struct Lines<'a> {
    reading: &'a Reading<'a>,
    text: Text<'a>,
    items: Vec<Item>,
    files: usize,
    /// The files that are being read, from the first to the innermost.
    open: Vec<PathBuf>,
}

impl Lines<'_> {
    fn file(&mut self, number: usize, text: &str) {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (index, line) in text.split('\n').enumerate() {
            let place = Place { reading: self.reading, number, line: index + 1, whole: line };
            self.line(&place, line.trim_start());
        }
    }

    fn line(&mut self, place: &Place<'_>, rest: &str) {
        let included = rest.strip_prefix("%include").filter(|name| name.starts_with([' ', '\t']));
        if let Some(name) = included {
            self.include(place, name.trim());
        } else if let Some(section) = rest.strip_prefix('[') {
            match section.split_once(']') {
                Some((name, after)) => {
                    self.items.push(Item::Section(Key { at: place.of(rest), name: name.to_owned() }));
                    self.line(place, after.trim_start());
                }
                None => place.error(rest, "a section must end with ]"),
            }
        } else if !rest.trim_end().is_empty() && !rest.starts_with([';', '#']) {
            self.entry(place, rest);
        }
    }

    fn entry(&mut self, place: &Place<'_>, rest: &str) {
        const FORM: &str = "must be a section, a comment, or a key with = and a value";
        let Some((name, after)) = name(rest) else { return place.error(rest, FORM) };
        let Some(value) = after.trim_start_matches([' ', '\t']).strip_prefix('=') else {
            return place.error(rest, FORM);
        };
        let value = value.trim();
        let key = Key { at: place.of(rest), name };
        self.items.push(Item::Entry { key, value: value.to_owned(), at: place.of(value) });
    }

    fn include(&mut self, place: &Place<'_>, name: &str) {
        let path = Path::new(name);
        if self.open.iter().any(|open| open == path) {
            return place.error(place.whole, format!("{name} would include itself"));
        }
        if self.open.len() > MAX_DEPTH {
            return place.error(place.whole, format!("is more than {MAX_DEPTH} files deep"));
        }
        if self.files >= MAX_FILES {
            return place.error(place.whole, format!("is one file too many: an ini may consist of {MAX_FILES}"));
        }
        match (self.text)(path) {
            Ok(text) => {
                self.files += 1;
                let number = self.reading.includes(path);
                self.open.push(path.to_owned());
                self.file(number, &text);
                self.open.pop();
            }
            Err(error) => place.error(place.whole, format!("{name} {}", error.message)),
        }
    }
}

/// Takes a key off the front.
fn name(text: &str) -> Option<(String, &str)> {
    if let Some(quoted) = text.strip_prefix('\'') {
        // PgBouncer's: no way to have a quote inside.
        return quoted
            .split_once('\'')
            .filter(|(name, _)| !name.is_empty())
            .map(|(name, rest)| (name.to_owned(), rest));
    }
    if let Some(mut rest) = text.strip_prefix('"') {
        // Its manual's.
        let mut name = String::new();
        loop {
            let (part, after) = rest.split_once('"')?;
            name.push_str(part);
            match after.strip_prefix('"') {
                Some(after) => {
                    name.push('"');
                    rest = after;
                }
                None => return (!name.is_empty()).then_some((name, after)),
            }
        }
    }
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '*');
    let end = text.find(|c| !plain(c)).unwrap_or(text.len());
    (end > 0).then(|| (text[..end].to_owned(), &text[end..]))
}

/// A line of a file.
struct Place<'a> {
    reading: &'a Reading<'a>,
    number: usize,
    line: usize,
    whole: &'a str,
}

impl Place<'_> {
    /// Returns the place of `part`, which is a part of this line.
    fn of(&self, part: &str) -> Position {
        let bytes = (part.as_ptr() as usize).saturating_sub(self.whole.as_ptr() as usize).min(self.whole.len());
        let column = self.whole.get(..bytes).map_or(1, |before| before.chars().count() + 1);
        self.reading.position(self.number, Position { line: self.line, column })
    }

    /// Reports an error; the line is not quoted, it may hold a password.
    fn error(&self, part: &str, message: impl Into<String>) {
        self.reading.error(&Spot { at: self.of(part), key: String::new() }, message, None);
    }
}
