//! A mapping with known keys: hands out values with their defaults, and knows at its end which keys nobody asked for.

use std::{ops::RangeInclusive, time::Duration};

use crate::config::{
    field::Field,
    load::join,
    node::{Key, Node, Value},
    reading::{Reading, Spot},
};

/// A mapping being read. Ends with [`Section::finish`].
#[must_use = "unknown keys are found by finish()"]
pub(super) struct Section<'a> {
    field: Field<'a>,
    /// `None` when the value was not a mapping, which is reported; nothing is missing then.
    entries: Option<&'a [(Key, Node)]>,
    asked: Vec<&'static str>,
}

impl<'a> Section<'a> {
    pub(super) fn new(field: Field<'a>) -> Self {
        let entries = match &field.node.value {
            Value::Map(entries) => Some(entries.as_slice()),
            Value::Null => Some(Default::default()),
            _ => {
                field.reject("must be a mapping");
                None
            }
        };
        Self { field, entries, asked: Vec::new() }
    }

    /// Returns the section's own place.
    pub fn spot(&self) -> &Spot {
        &self.field.spot
    }

    /// Reports an error about the section as a whole.
    pub fn error(&self, message: impl Into<String>) {
        if self.entries.is_some() {
            self.field.error(message);
        }
    }

    /// Returns the value of `key`; `null` counts as not given.
    pub fn get(&mut self, key: &'static str) -> Option<Field<'a>> {
        self.asked.push(key);
        let pattern = join(&self.field.pattern, key);
        self.field.reading.knows(pattern.clone());
        let (_, node) = self.entries?.iter().find(|(name, _)| name.name == key)?;
        if node.value == Value::Null {
            return None;
        }
        let spot = Spot { at: node.at, key: join(&self.field.spot.key, key) };
        Some(Field { reading: self.field.reading, node, spot, pattern })
    }

    /// Returns the value of `key`, and reports when there is none.
    pub fn require(&mut self, key: &'static str, example: &str) -> Option<Field<'a>> {
        let field = self.get(key);
        if field.is_none() && self.entries.is_some() {
            let spot = Spot { key: join(&self.field.spot.key, key), ..self.field.spot.clone() };
            self.field.reading.error(&spot, "is missing", Some(format!("e.g. {key}: {example}")));
        }
        field
    }

    /// Reads a section that may be left out: then it is all defaults.
    pub fn section(&mut self, key: &'static str) -> Section<'a> {
        match self.get(key) {
            Some(field) => field.section(),
            None => {
                let mut field = self.field.clone();
                field.pattern = join(&field.pattern, key);
                field.spot.key = join(&field.spot.key, key);
                Section { field, entries: Some(&[]), asked: Vec::new() }
            }
        }
    }

    /// Reads a list that may be left out.
    pub fn list(&mut self, key: &'static str) -> Vec<Field<'a>> {
        self.get(key).map(|field| field.items()).unwrap_or_default()
    }

    pub fn flag(&mut self, key: &'static str, default: bool) -> bool {
        self.get(key).and_then(|field| field.flag()).unwrap_or(default)
    }

    pub fn integer<T: TryFrom<u64>>(&mut self, key: &'static str, default: T, range: RangeInclusive<u64>) -> T {
        self.get(key).and_then(|field| field.integer(range)).unwrap_or(default)
    }

    /// Reads a number of which `0` means "no limit".
    pub fn limit(&mut self, key: &'static str, end: u32) -> Option<u32> {
        self.get(key).and_then(|field| field.integer(0..=end.into())).filter(|limit| *limit != 0)
    }

    /// Reads a duration that must not be `0`.
    pub fn duration(&mut self, key: &'static str, default: Duration) -> Duration {
        self.get(key).and_then(|field| field.positive_duration()).unwrap_or(default)
    }

    /// Reads a duration of which `0` means "never".
    pub fn timeout(&mut self, key: &'static str, default: Option<Duration>) -> Option<Duration> {
        match self.get(key).and_then(|field| field.duration()) {
            Some(duration) => (!duration.is_zero()).then_some(duration),
            None => default,
        }
    }

    /// Reads a duration of which `0` means "never"; `None` when the key is not given.
    pub fn own_timeout(&mut self, key: &'static str) -> Option<Option<Duration>> {
        let duration = self.get(key).and_then(|field| field.duration())?;
        Some((!duration.is_zero()).then_some(duration))
    }

    pub fn size(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        self.get(key).and_then(|field| field.size_within(range)).unwrap_or(default)
    }

    /// Reads a size of which `0` means "no limit"; `None` when the key is not given.
    pub fn size_limit(&mut self, key: &'static str) -> Option<Option<u64>> {
        self.get(key).and_then(|field| field.size()).map(|size| (size != 0).then_some(size))
    }

    pub fn choice<T: Copy>(&mut self, key: &'static str, default: T, choices: &[(&str, T)]) -> T {
        self.get(key).and_then(|field| field.choice(choices)).unwrap_or(default)
    }

    /// Reports every key that was not asked for, with the nearest one that was.
    pub fn finish(self) {
        self.finish_with(|_| None);
    }

    /// Returns the keys that were asked for so far.
    pub fn asked(&self) -> Vec<&'static str> {
        self.asked.clone()
    }

    /// Returns the file that is read.
    pub fn reading(&self) -> &'a Reading<'a> {
        self.field.reading
    }

    /// Returns the keys that were not asked for so far.
    pub fn unasked(&self) -> Vec<&'a (Key, Node)> {
        let entries = self.entries.unwrap_or_default().iter();
        entries.filter(|(key, _)| !self.asked.contains(&key.name.as_str())).collect()
    }

    /// Counts `key` as asked for: somebody else has dealt with it.
    pub fn settles(&mut self, key: &'static str) {
        self.asked.push(key);
    }

    /// As [`Section::finish`]; `explain` may say more about a key than that it is unknown.
    pub fn finish_with(self, explain: impl Fn(&str) -> Option<String>) {
        for (key, _) in self.entries.unwrap_or_default() {
            if self.asked.contains(&key.name.as_str()) {
                continue;
            }
            let spot = Spot { at: key.at, key: join(&self.field.spot.key, &key.name) };
            match explain(&key.name) {
                Some(message) => self.field.reading.error(&spot, message, None),
                None => {
                    let hint = nearest(&key.name, self.asked.iter().copied());
                    self.field.reading.error(&spot, "unknown key", hint.map(|near| format!("did you mean {near}?")));
                }
            }
        }
    }
}

/// Returns the known word an unknown one was most likely meant to be.
pub(super) fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    // 0.8 of Jaro-Winkler is "two letters swapped" and "one part of two left out", not "some word of that length".
    known
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
