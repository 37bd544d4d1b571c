//! One value being read: typed readings that report what is wrong and where, and go on.
//!
//! Every reading returns `None` after it has reported, so that a reader can take a stand-in and look for further errors;
//! a configuration with an error is never used. A value that came from the environment is never quoted in an error, and
//! [`Field::secret`] quotes nothing at all.

use std::{net::IpAddr, ops::RangeInclusive, time::Duration};

use ipnet::IpNet;

use crate::config::{
    load::join,
    node::{Key, Node, Scalar, Value},
    reading::{Reading, Spot},
    secret::Secret,
    section::{Section, nearest},
    units,
};

/// Longest value that an error quotes, in characters.
const QUOTE_CHARS: usize = 60;

/// A value and the way to it.
#[derive(Clone)]
pub(super) struct Field<'a> {
    pub reading: &'a Reading<'a>,
    pub node: &'a Node,
    pub spot: Spot,
    /// The key path with `*` for names the operator chose and `[]` for positions.
    pub pattern: String,
}

impl<'a> Field<'a> {
    /// Returns the file's root.
    pub fn root(reading: &'a Reading<'a>, node: &'a Node) -> Self {
        Self { reading, node, spot: Spot { at: node.at, key: String::new() }, pattern: String::new() }
    }

    /// Reports an error here.
    pub fn error(&self, message: impl Into<String>) {
        self.reading.error(&self.spot, message, None);
    }

    /// Reports an error here, and what to write instead.
    pub fn error_with_hint(&self, message: impl Into<String>, hint: impl Into<String>) {
        self.reading.error(&self.spot, message, Some(hint.into()));
    }

    /// Reports that the value is not what it must be, and quotes it when that is safe.
    pub fn reject(&self, must: &str) {
        match &self.node.value {
            Value::Broken => {}
            _ => self.error(format!("{must}, got {}", self.quoted())),
        }
    }

    /// Returns the value as an error may show it.
    fn quoted(&self) -> String {
        match &self.node.value {
            Value::Scalar(scalar) => quote(scalar),
            other => other.kind().into(),
        }
    }

    /// Reports that a word is not one of those there are, and the one it was most likely meant to be.
    pub fn reject_unknown<'k>(&self, must: &str, known: impl Iterator<Item = &'k str>) {
        let Value::Scalar(scalar) = &self.node.value else { return self.reject(must) };
        let near = nearest(&scalar.text, known).map(|near| format!("did you mean {near}?"));
        self.reading.error(&self.spot, format!("{must}, got {}", self.quoted()), near);
    }

    fn scalar(&self, must: &str) -> Option<&'a Scalar> {
        match &self.node.value {
            Value::Scalar(scalar) => Some(scalar),
            _ => {
                self.reject(must);
                None
            }
        }
    }

    /// Reads text that is not empty and has no control characters.
    pub fn text(&self) -> Option<&'a str> {
        let text = &self.scalar("must be a text")?.text;
        if text.is_empty() {
            self.error("must not be empty");
            return None;
        }
        if text.chars().any(char::is_control) {
            self.error("must not contain control characters");
            return None;
        }
        Some(text)
    }

    /// Reads text that is not empty and may have several lines, such as SQL.
    pub fn lines(&self) -> Option<&'a str> {
        let text = &self.scalar("must be a text")?.text;
        if text.trim().is_empty() {
            self.error("must not be empty");
            return None;
        }
        if text.chars().any(|c| c.is_control() && !c.is_ascii_whitespace()) {
            self.error("must not contain control characters");
            return None;
        }
        Some(text)
    }

    /// Reads a name that can stand in logs, metrics and commands: no spaces, at most 128 characters.
    pub fn name(&self) -> Option<&'a str> {
        let text = self.text()?;
        if text.chars().any(char::is_whitespace) || text.chars().count() > 128 {
            self.error("must be a name without spaces, of at most 128 characters");
            return None;
        }
        Some(text)
    }

    /// Reads a secret. Errors never quote it.
    pub fn secret(&self) -> Option<Secret> {
        match &self.node.value {
            Value::Scalar(scalar) => Some(Secret::new(scalar.text.as_str())),
            Value::Broken => None,
            other => {
                self.error(format!("must be a text, got {}", other.kind()));
                None
            }
        }
    }

    /// Reads a whole number within `range`.
    pub fn integer<T: TryFrom<u64>>(&self, range: RangeInclusive<u64>) -> Option<T> {
        let must = match (*range.start(), *range.end()) {
            (start, u64::MAX) => format!("must be a whole number from {start} up"),
            (start, end) => format!("must be {start}..={end}"),
        };
        self.number(range, &must)
    }

    /// Reads a whole number within `range`, where the caller has looked for `word` already.
    pub fn integer_or_word<T: TryFrom<u64>>(&self, range: RangeInclusive<u64>, word: &str) -> Option<T> {
        let must = format!("must be {}..={} or {word}", range.start(), range.end());
        self.number(range, &must)
    }

    fn number<T: TryFrom<u64>>(&self, range: RangeInclusive<u64>, must: &str) -> Option<T> {
        let number: Option<u64> = self.scalar(must)?.text.parse().ok();
        let checked = number.filter(|number| range.contains(number)).and_then(|number| T::try_from(number).ok());
        if checked.is_none() {
            self.reject(must);
        }
        checked
    }

    /// Returns whether this is exactly `word`.
    pub fn is(&self, word: &str) -> bool {
        matches!(&self.node.value, Value::Scalar(scalar) if scalar.text == word)
    }

    /// Reads `true` or `false`.
    pub fn flag(&self) -> Option<bool> {
        match self.scalar("must be true or false")?.text.as_str() {
            "true" => Some(true),
            "false" => Some(false),
            _ => {
                self.reject("must be true or false");
                None
            }
        }
    }

    /// Reads a duration, `0` included.
    pub fn duration(&self) -> Option<Duration> {
        let text = &self.scalar("must be a duration such as 30s")?.text;
        units::parse_duration(text).map_err(|must| self.reject(must)).ok()
    }

    /// Reads a duration that is not `0`.
    pub fn positive_duration(&self) -> Option<Duration> {
        let duration = self.duration()?;
        if duration.is_zero() {
            self.reject("must be longer than 0");
            return None;
        }
        Some(duration)
    }

    /// Reads a size in bytes.
    pub fn size(&self) -> Option<u64> {
        let text = &self.scalar("must be a size such as 20MiB")?.text;
        units::parse_size(text).map_err(|must| self.reject(must)).ok()
    }

    /// Reads a size within `range`.
    pub fn size_within(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let size = self.size()?;
        if !range.contains(&size) {
            let (start, end) = (units::format_size(*range.start()), units::format_size(*range.end()));
            self.reject(&format!("must be {start}..={end}"));
            return None;
        }
        Some(size)
    }

    /// Reads one of a few words.
    pub fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let must = format!("must be {}", words.join(" or "));
        let text = &self.scalar(&must)?.text;
        let chosen = choices.iter().find(|(word, _)| word == text).map(|(_, value)| *value);
        if chosen.is_none() {
            self.reject_unknown(&must, words.into_iter());
        }
        chosen
    }

    /// Reads a network such as `10.0.0.0/8`, or one address.
    pub fn network(&self) -> Option<IpNet> {
        const MUST: &str = "must be a network such as 10.0.0.0/8, or an address";
        let text = &self.scalar(MUST)?.text;
        let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        match network {
            Some(network) if network.trunc() == network => Some(network),
            // nginx warns "low address bits of … are meaningless"; here it is an error, since one half is a slip.
            Some(network) => {
                self.error_with_hint("has bits set behind its mask", format!("did you mean {}?", network.trunc()));
                None
            }
            None => {
                self.reject(MUST);
                None
            }
        }
    }

    /// Reads a list.
    pub fn items(&self) -> Vec<Field<'a>> {
        let Value::List(items) = &self.node.value else {
            self.reject("must be a list");
            return Vec::new();
        };
        let field = |(index, node): (usize, &'a Node)| Field {
            reading: self.reading,
            node,
            spot: Spot { at: node.at, key: format!("{}[{index}]", self.spot.key) },
            pattern: format!("{}[]", self.pattern),
        };
        items.iter().enumerate().map(field).collect()
    }

    /// Reads a list of at least one `what`.
    pub fn some_items(&self, what: &str) -> Vec<Field<'a>> {
        let items = self.items();
        if matches!(&self.node.value, Value::List(items) if items.is_empty()) {
            self.error(format!("must have at least one {what}"));
        }
        items
    }

    /// Reads a mapping whose keys the operator chose.
    pub fn entries(&self) -> Vec<(&'a str, Field<'a>)> {
        let Value::Map(entries) = &self.node.value else {
            self.reject("must be a mapping");
            return Vec::new();
        };
        let field = |(key, node): &'a (Key, Node)| {
            let spot = Spot { at: node.at, key: join(&self.spot.key, &key.name) };
            let pattern = format!("{}.*", self.pattern);
            (key.name.as_str(), Field { reading: self.reading, node, spot, pattern })
        };
        entries.iter().map(field).collect()
    }

    /// Returns whether any of it came from the environment, which is where secrets come from.
    pub fn is_from_environment(&self) -> bool {
        matches!(&self.node.value, Value::Scalar(scalar) if !scalar.quotable)
    }

    /// Returns whether it is a mapping.
    pub fn is_map(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }

    /// Reads a mapping with known keys. One that is something else is reported and reads as empty.
    pub fn section(&self) -> Section<'a> {
        Section::new(self.clone())
    }
}

/// Quotes a value for an error: shortened, and not at all when it came from the environment.
fn quote(scalar: &Scalar) -> String {
    if !scalar.quotable {
        return "what the environment gives".into();
    }
    if scalar.text.is_empty() {
        return "an empty text".into();
    }
    let shortened: String = scalar.text.chars().take(QUOTE_CHARS).collect();
    let dots = if shortened.len() < scalar.text.len() { "…" } else { "" };
    format!("{}{dots}", shortened.escape_debug())
}
