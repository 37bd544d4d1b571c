//! File -> text -> tree with positions. The only user of the two YAML libraries.
//!
//! `serde_yaml` (libyaml inside) says whether a text is YAML at all: its messages are the ones operators know, and it
//! refuses deep nesting. `saphyr-parser` then gives the events with line and column, from which the tree is built here;
//! this is also where duplicate keys are found (all of them, with both places), aliases are followed and `${VAR}` is
//! replaced. JSON is YAML. Nothing here knows a key.

use std::{collections::HashMap, fs::File, io::Read, path::Path};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};
use serde::{Serialize, de::IgnoredAny};

use crate::config::{
    env::{self, Lookup},
    error::{ConfigError, Position},
    node::{Key, Node, Scalar, Value},
};

/// Bytes of a configuration file that are read at most.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// Memory of a file's tree, aliases followed: an alias bomb ends here.
const MAX_TREE_BYTES: usize = 64 << 20;
const MAX_DEPTH: usize = 64;

/// Reads a text file whole.
///
/// # Errors
/// It cannot be read, is larger than 4 MiB, or is not UTF-8.
pub(super) fn read_file(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |error: std::io::Error| ConfigError::of_file(path, format!("cannot be read: {error}"));
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(ConfigError::of_file(path, "is larger than 4MiB"));
    }
    utf8(path, bytes)
}

/// Checks the encoding.
///
/// # Errors
/// The place of the first byte that is not UTF-8.
pub(super) fn utf8(path: &Path, bytes: Vec<u8>) -> Result<String, ConfigError> {
    String::from_utf8(bytes).map_err(|error| {
        let valid = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]);
        let line_start = valid.rfind('\n').map_or(0, |newline| newline + 1);
        let line = valid.matches('\n').count() + 1;
        let position = Position { line, column: valid[line_start..].chars().count() + 1 };
        ConfigError { position: Some(position), ..ConfigError::of_file(path, "is not UTF-8 text") }
    })
}

/// Builds the tree of one YAML document.
///
/// What can be reported without giving up (duplicate keys, missing variables) is added to `errors`, and the value is
/// [`Value::Broken`].
///
/// # Errors
/// The text is not YAML, or goes beyond a bound.
pub(super) fn parse(
    path: &Path,
    text: &str,
    lookup: Lookup<'_>,
    errors: &mut Vec<ConfigError>,
) -> Result<Node, ConfigError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut tree = Tree { path, lookup, errors, open: Vec::new(), anchors: HashMap::new(), bytes: 0, root: None };
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Node { at: Position { line: 1, column: 1 }, value: Value::Null });
    }
    serde_yaml::from_str::<IgnoredAny>(text).map_err(|error| syntax_error(path, &error))?;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| tree.error(position(error.marker()), error.info()))?;
        tree.event(event, position(&span.start))?;
    }
    Ok(tree.root.unwrap_or(Node { at: Position { line: 1, column: 1 }, value: Value::Null }))
}

/// Writes `value` as YAML.
pub(super) fn to_yaml(value: &impl Serialize) -> String {
    serde_yaml::to_string(value).unwrap_or_else(|error| format!("# cannot be shown: {error}\n"))
}

fn position(marker: &Marker) -> Position {
    Position { line: marker.line(), column: marker.col() + 1 }
}

/// Takes libyaml's message apart: the place goes in front, where all errors have it.
fn syntax_error(path: &Path, error: &serde_yaml::Error) -> ConfigError {
    let message = error.to_string();
    let (problem, context) = message.split_once(" at line ").unwrap_or((&message, ""));
    let context = context.split_once(", ").map_or("", |(_, context)| context);
    let message = if context.is_empty() { problem.to_owned() } else { format!("{problem}, {context}") };
    let position = error.location().map(|place| Position { line: place.line(), column: place.column() });
    ConfigError { position, ..ConfigError::of_file(path, format!("not YAML: {message}")) }
}

/// The tree while it grows. A stack instead of recursion: depth is a number here, not a stack overflow.
struct Tree<'a> {
    path: &'a Path,
    lookup: Lookup<'a>,
    errors: &'a mut Vec<ConfigError>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    bytes: usize,
    root: Option<Node>,
}

/// A list or mapping whose end has not come yet.
struct Open {
    at: Position,
    anchor: usize,
    inside: Inside,
}

enum Inside {
    List(Vec<Node>),
    Map { entries: Vec<(Key, Node)>, seen: HashMap<String, Position>, key: Option<Key> },
}

impl Tree<'_> {
    fn error(&self, at: Position, message: impl Into<String>) -> ConfigError {
        ConfigError { position: Some(at), ..ConfigError::of_file(self.path, message) }
    }

    fn event(&mut self, event: Event<'_>, at: Position) -> Result<(), ConfigError> {
        match event {
            Event::Scalar(_, _, _, Some(_)) | Event::SequenceStart(_, Some(_)) | Event::MappingStart(_, Some(_)) => {
                Err(self.error(at, "YAML tags (!…) have no meaning here"))
            }
            Event::Scalar(text, style, anchor, None) => {
                if self.at_key() {
                    return self.key(Key { at, name: text.into_owned() });
                }
                let node = self.scalar(&text, style, at);
                self.value(node, anchor)
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(node) => {
                    let weight = weight(node);
                    self.charge(at, weight)?;
                    let node = self.anchors[&anchor].clone();
                    self.value(node, 0)
                }
                None => Err(self.error(at, "an alias may not stand inside what it names")),
            },
            Event::SequenceStart(anchor, None) => self.start(at, anchor, Inside::List(Vec::new())),
            Event::MappingStart(anchor, None) => {
                self.start(at, anchor, Inside::Map { entries: Vec::new(), seen: HashMap::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                Ok(())
            }
        }
    }

    /// Returns whether the next node is a mapping's key.
    fn at_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { inside: Inside::Map { key: None, .. }, .. }))
    }

    fn key(&mut self, new: Key) -> Result<(), ConfigError> {
        if let Some(Open { inside: Inside::Map { seen, key, .. }, .. }) = self.open.last_mut() {
            let first = *seen.entry(new.name.clone()).or_insert(new.at);
            if first != new.at {
                let message = format!("duplicate key {}, first on line {}", new.name, first.line);
                self.errors.push(ConfigError { position: Some(new.at), ..ConfigError::of_file(self.path, message) });
            }
            *key = Some(new);
        }
        Ok(())
    }

    fn start(&mut self, at: Position, anchor: usize, inside: Inside) -> Result<(), ConfigError> {
        if self.at_key() {
            return Err(self.error(at, "a key must be a single value"));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(self.error(at, format!("is nested deeper than {MAX_DEPTH} levels")));
        }
        self.open.push(Open { at, anchor, inside });
        Ok(())
    }

    fn end(&mut self) -> Result<(), ConfigError> {
        let Some(Open { at, anchor, inside }) = self.open.pop() else { return Ok(()) };
        let value = match inside {
            Inside::List(items) => Value::List(items),
            Inside::Map { entries, .. } => Value::Map(entries),
        };
        self.value(Node { at, value }, anchor)
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, at: Position) -> Node {
        if style == ScalarStyle::Plain && matches!(text, "" | "~" | "null" | "Null" | "NULL") {
            return Node { at, value: Value::Null };
        }
        let value = match env::substitute(text, self.lookup) {
            Ok(done) => Value::Scalar(Scalar { text: done.text, quotable: !done.replaced }),
            Err(messages) => {
                let key = self.key_path();
                self.errors.extend(messages.into_iter().map(|message| ConfigError {
                    position: Some(at),
                    key: key.clone(),
                    ..ConfigError::of_file(self.path, message)
                }));
                Value::Broken
            }
        };
        Node { at, value }
    }

    fn charge(&mut self, at: Position, bytes: usize) -> Result<(), ConfigError> {
        self.bytes += bytes;
        if self.bytes > MAX_TREE_BYTES { Err(self.error(at, "is too large once aliases are followed")) } else { Ok(()) }
    }

    /// Puts a finished node where it belongs.
    fn value(&mut self, mut node: Node, anchor: usize) -> Result<(), ConfigError> {
        self.charge(node.at, 2 * size_of::<Node>())?;
        if anchor != 0 {
            self.charge(node.at, weight(&node))?;
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.inside) {
            None => self.root = Some(node),
            Some(Inside::List(items)) => items.push(node),
            Some(Inside::Map { entries, key, seen }) => {
                let Some(key) = key.take() else {
                    return Err(self.error(node.at, "a key must be a single value"));
                };
                // An absent value has no first character of its own.
                if node.value == Value::Null {
                    node.at = key.at;
                }
                // Of duplicates the first stays, so that the rest of the file is still checked.
                if seen.get(&key.name) == Some(&key.at) {
                    entries.push((key, node));
                }
            }
        }
        Ok(())
    }

    /// Returns the path of the value that is about to come.
    fn key_path(&self) -> String {
        let mut path = String::new();
        for open in &self.open {
            match &open.inside {
                Inside::List(items) => path = format!("{path}[{}]", items.len()),
                Inside::Map { key: Some(key), .. } => path = join(&path, &key.name),
                Inside::Map { key: None, .. } => {}
            }
        }
        path
    }
}

/// Appends a key to a path; one that holds more than letters, digits, `_`, `-` and `*` is put in brackets.
pub(super) fn join(path: &str, key: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '*');
    match (path.is_empty(), !key.is_empty() && key.chars().all(plain)) {
        (true, true) => key.to_owned(),
        (false, true) => format!("{path}.{key}"),
        (_, false) => format!("{path}[{key:?}]"),
    }
}

/// Returns roughly what a copy of `node` costs in bytes.
fn weight(node: &Node) -> usize {
    size_of::<Node>()
        + match &node.value {
            Value::List(items) => items.iter().map(weight).sum(),
            Value::Map(entries) => {
                entries.iter().map(|(key, node)| size_of::<Key>() + key.name.len() + weight(node)).sum()
            }
            Value::Scalar(scalar) => scalar.text.len(),
            Value::Null | Value::Broken => 0,
        }
}
