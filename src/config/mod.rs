//! What the operator wrote, checked. Knows nobody else in the program.
//!
//! Flow: file text -> [`load`] (YAML, positions, `${VAR}`), or [`ini`] (PgBouncer's file) -> a tree of nodes -> a reader for each section, which takes
//! typed values from a [`section`] and collects every error with file, line, column and key path -> the checks between
//! sections and files -> the checked values in [`lb`] and [`pool`]. A configuration exists whole or not at all.

mod address;
mod cross;
mod env;
mod error;
mod field;
mod import;
mod in_effect;
mod ini;
pub mod lb;
mod load;
mod loader;
mod node;
mod open_files;
pub mod pool;
mod print;
mod reading;
pub mod secret;
mod section;
mod tls_files;
mod units;

#[cfg(test)]
mod tests;

use std::{path::Path, sync::Arc};

pub use self::{
    error::{ConfigError, Errors, Position},
    import::import,
    in_effect::{InEffect, in_effect, is_changeable},
    loader::{Loader, Override, SET},
    open_files::open_files_needed,
    print::print,
    reading::Surroundings,
};
use self::{lb::Sources, node::Node, reading::Reading};

/// File names looked for when no flag names one.
const LB_FILE: &str = "lb.yaml";
const POOL_FILE: &str = "pool.yaml";

/// Everything one run was told.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Present when the front runs.
    pub lb: Option<Arc<lb::Lb>>,
    /// Present when the pool runs.
    pub pool: Option<Arc<pool::Pool>>,
    /// `None` with `admin: false`.
    pub admin: Option<lb::Admin>,
    pub shutdown: lb::Shutdown,
    /// The files that were read: what a reload reads again.
    pub sources: Sources,
    /// What the operator should know, though nothing is wrong.
    pub notes: Vec<String>,
}

impl Config {
    /// Reads and checks the files that `flags` name. With no flag: `./lb.yaml` and `./pool.yaml`, those that exist. With
    /// one flag: that half alone.
    ///
    /// Blocks on files and name resolution (for 5 s at most).
    ///
    /// # Errors
    /// Everything that is wrong in both files, at once.
    pub fn load(flags: &Sources, surroundings: &Surroundings) -> Result<Self, Errors> {
        Self::load_from(flags, surroundings, &[], &load::read_file)
    }

    fn load_from(
        flags: &Sources,
        surroundings: &Surroundings,
        overrides: &[Override],
        text: Text<'_>,
    ) -> Result<Self, Errors> {
        let sources = if *flags == Sources::default() { found_in(Path::new(""))? } else { flags.clone() };
        Self::check(sources, surroundings, overrides, text)
    }

    /// Checks texts as if they stood in `lb.yaml` and `pool.yaml`, which need not exist.
    ///
    /// # Errors
    /// Everything that is wrong in both texts, at once.
    pub fn from_texts(lb: Option<&str>, pool: Option<&str>, surroundings: &Surroundings) -> Result<Self, Errors> {
        let sources = Sources { lb: lb.map(|_| LB_FILE.into()), pool: pool.map(|_| POOL_FILE.into()) };
        let text = |file: &Path| {
            let text = if file == Path::new(LB_FILE) { lb } else { pool };
            Ok(text.unwrap_or_default().to_owned())
        };
        Self::check(sources, surroundings, &[], &text)
    }

    fn check(
        sources: Sources,
        surroundings: &Surroundings,
        overrides: &[Override],
        text: Text<'_>,
    ) -> Result<Self, Errors> {
        let lb = sources.lb.as_deref().map(|file| File::read(file, surroundings, text, None, lb::read));
        let pool =
            sources.pool.as_deref().map(|file| File::read(file, surroundings, text, Some(overrides), pool::read));
        if let (Some(lb), Some(pool)) = (&lb, &pool) {
            cross::databases(lb, pool);
        }
        cross::listeners(lb.as_ref(), pool.as_ref());

        let notes = pool.as_ref().map(|file| notes(&file.reading)).unwrap_or_default();
        let (lb, lb_errors) = lb.map(File::finish).unwrap_or_default();
        let (pool, pool_errors) = pool.map(File::finish).unwrap_or_default();
        if let Some(errors) = Errors::collect(lb_errors.into_iter().chain(pool_errors)) {
            return Err(errors);
        }
        let processes = [lb.as_ref().map(|found| &found.process), pool.as_ref().map(|found| &found.process)];
        let (admin, shutdown) = lb::process::settle(processes.into_iter().flatten());
        Ok(Self {
            lb: lb.map(|found| Arc::new(lb::Lb { shutdown, ..found.lb })),
            pool: pool.map(|found| Arc::new(found.pool)),
            admin,
            shutdown,
            sources,
            notes,
        })
    }
}

type Text<'a> = &'a dyn Fn(&Path) -> Result<String, ConfigError>;

/// One file: its errors so far, and what its sections gave. `None` when it is no YAML at all.
struct File<'a, T> {
    reading: Reading<'a>,
    found: Option<T>,
}

impl<'a, T> File<'a, T> {
    fn read(
        path: &'a Path,
        surroundings: &'a Surroundings,
        text: Text<'_>,
        of_pool: Option<&[Override]>,
        sections: fn(&Reading<'_>, &Node) -> T,
    ) -> Self {
        let reading = Reading::new(path, surroundings);
        let mut errors = Vec::new();
        let tree = text(path).and_then(|main| {
            if of_pool.is_some() && ini::is_ini(path, &main) {
                return ini::parse(&reading, &main, text);
            }
            load::parse(path, &main, reading.env(), &mut errors)
        });
        let mut tree = tree.map_err(|error| errors.push(error)).ok();
        if let (Some(tree), Some(overrides)) = (&mut tree, of_pool) {
            loader::apply(&reading, overrides, tree);
        }
        let found = tree.map(|tree| sections(&reading, &tree));
        reading.extend(errors);
        Self { reading, found }
    }

    fn finish(self) -> (Option<T>, Vec<ConfigError>) {
        (self.found, self.reading.finish().0)
    }
}

/// Returns what is to be said of a file that has no errors.
fn notes(reading: &Reading<'_>) -> Vec<String> {
    let mut notes = reading.notes();
    let idle: Vec<_> = reading.without_effect().into_iter().map(|(key, _)| key).collect();
    if !idle.is_empty() {
        notes.push(format!("settings of PgBouncer that have no effect here: {}", idle.join(", ")));
    }
    notes
}

/// Returns the files that stand in `dir` under their usual names.
fn found_in(dir: &Path) -> Result<Sources, ConfigError> {
    let here = |name: &str| Some(dir.join(name)).filter(|path| path.exists());
    let sources = Sources { lb: here(LB_FILE), pool: here(POOL_FILE) };
    if sources == Sources::default() {
        let message = format!("there is neither {LB_FILE} nor {POOL_FILE} here; name one with --lb or --pool");
        return Err(ConfigError::of_file(Path::new(""), message));
    }
    Ok(sources)
}
