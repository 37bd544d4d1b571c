//! Reading the configuration again and again, with settings on top that were given at run time.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use parking_lot::Mutex;

use crate::config::{
    Config, Errors, Surroundings,
    error::Position,
    ini,
    lb::Sources,
    load,
    node::{Key, Node, Value},
    reading::Reading,
};

/// What stands in the place of a file in errors about [`Override`]s.
pub const SET: &str = "SET";

/// A setting of `pool:` given at run time, as PgBouncer writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    pub key: String,
    pub value: String,
}

/// The files of a process.
pub struct Loader {
    sources: OnceLock<Sources>,
    named: Sources,
    surroundings: Surroundings,
    /// What the files held when they were last found to be right.
    texts: Mutex<HashMap<PathBuf, String>>,
}

impl Loader {
    /// Returns one for the files that `sources` name.
    pub fn new(sources: Sources, surroundings: Surroundings) -> Self {
        Self { sources: OnceLock::new(), named: sources, surroundings, texts: Mutex::default() }
    }

    /// Reads and checks the files. What is found at the first time (see [`Config::load`]) is what is read from then on: a file
    /// that turns up later is not a half that starts.
    ///
    /// Blocks on files and name resolution.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn load(&self) -> Result<Config, Errors> {
        let read = Mutex::new(HashMap::new());
        let config = Config::load_from(self.sources(), &self.surroundings, &[], &|file: &Path| {
            let text = load::read_file(file)?;
            read.lock().insert(file.to_owned(), text.clone());
            Ok(text)
        })?;
        *self.texts.lock() = read.into_inner();
        let _ = self.sources.set(config.sources.clone());
        Ok(config)
    }

    fn sources(&self) -> &Sources {
        self.sources.get().unwrap_or(&self.named)
    }

    /// Checks the files as they were last found to be right, with `overrides` on top: what has been written into them since
    /// waits for a reload. Files that they name (users, certificates) are read as they are.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn load_with(&self, overrides: &[Override]) -> Result<Config, Errors> {
        let texts = self.texts.lock().clone();
        Config::load_from(self.sources(), &self.surroundings, overrides, &|file: &Path| {
            texts.get(file).cloned().map_or_else(|| load::read_file(file), Ok)
        })
    }
}

/// Puts `overrides` into the tree of the pool's file.
pub(super) fn apply(reading: &Reading<'_>, overrides: &[Override], root: &mut Node) {
    if overrides.is_empty() {
        return;
    }
    let at = reading.position(reading.includes(Path::new(SET)), Position { line: 1, column: 1 });
    let Value::Map(sections) = &mut root.value else { return };
    let index = sections.iter().position(|(key, _)| key.name == "pool").unwrap_or_else(|| {
        sections.push((Key { at, name: "pool".into() }, Node { at, value: Value::Null }));
        sections.len() - 1
    });
    let pool = &mut sections[index].1.value;
    if *pool == Value::Null {
        *pool = Value::Map(Vec::new());
    }
    if let Value::Map(settings) = pool {
        for Override { key, value } in overrides {
            settings.retain(|(own, _)| own.name != *key);
            settings.push((Key { at, name: key.clone() }, ini::setting_node(key, value, at)));
        }
    }
}
