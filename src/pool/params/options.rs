//! Settings that a client has and no server reports: what it asked for when it connected, and what it has set since.

use std::sync::Arc;

use super::Value;
use crate::pool::error::PoolError;

/// Who a session acts as, in the order in which it is set. A role is one of the session's user, so that comes first.
const IDENTITY: [&str; 2] = ["session_authorization", "role"];

/// Settings by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Options {
    settings: Vec<(Box<str>, Value)>,
}

impl Options {
    /// Adds a setting; the last one of a name counts, as in PostgreSQL.
    ///
    /// # Errors
    /// When `name` could not be the name of a setting.
    pub fn add(&mut self, name: &str, value: &[u8]) -> Result<(), PoolError> {
        if !is_setting_name(name) {
            return Err(PoolError::StartupParameter { name: name.chars().take(63).collect() });
        }
        match self.position(name) {
            Ok(at) if *self.settings[at].1 == *value => {}
            Ok(at) => self.settings[at].1 = value.into(),
            Err(at) => self.settings.insert(at, (name.into(), value.into())), // bound: `weight`, and the startup packet's
        }
        Ok(())
    }

    /// Takes a setting out.
    pub fn remove(&mut self, name: &str) {
        if let Ok(at) = self.position(name) {
            self.settings.remove(at);
        }
    }

    /// Returns a value by its name.
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.position(name).ok().map(|at| &self.settings[at].1)
    }

    /// Iterates over the names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.settings.iter().map(|(name, _)| &**name)
    }

    /// Returns whether there is nothing to apply.
    pub fn is_empty(&self) -> bool {
        self.settings.is_empty()
    }

    /// Returns the bytes of all names and values.
    pub fn weight(&self) -> usize {
        self.settings.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// Keeps only who the session acts as.
    pub fn retain_identity(&mut self) {
        self.settings.retain(|(name, _)| is_identity(name));
    }

    /// Returns whether the session acts as another than it logged in as.
    pub fn acts_as_another(&self) -> bool {
        self.settings.iter().any(|(name, _)| is_identity(name))
    }

    /// Iterates over all but who the session acts as.
    pub(super) fn plain(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.settings.iter().map(|(name, value)| (&**name, value)).filter(|(name, _)| !is_identity(name))
    }

    /// Iterates over who the session acts as, in the order in which it is to be set.
    pub fn identity(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        IDENTITY.into_iter().filter_map(|name| Some((name, self.value(name)?)))
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        self.settings.binary_search_by(|(known, _)| order(known, name))
    }
}

/// Returns whether a setting says who the session acts as: RESET ALL leaves those.
pub fn is_identity(name: &str) -> bool {
    IDENTITY.iter().any(|identity| identity.eq_ignore_ascii_case(name))
}

fn order(a: &str, b: &str) -> std::cmp::Ordering {
    a.bytes().map(|b| b.to_ascii_lowercase()).cmp(b.bytes().map(|b| b.to_ascii_lowercase()))
}

/// As PostgreSQL's `valid_custom_variable_name`: identifiers joined by dots. Anything else has no business in SQL.
pub fn is_setting_name(name: &str) -> bool {
    let part = |part: &str| {
        let mut bytes = part.bytes();
        bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
            && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'$')
    };
    name.len() <= 255 && name.split('.').all(part)
}

/// What a server has been given beyond its reported parameters.
#[derive(Debug, Clone, Default)]
pub struct Applied {
    options: Option<Arc<Options>>,
    /// SQL may have set anything since.
    doubtful: bool,
}

impl Applied {
    /// Notes that SQL may have changed what was applied, or set something nobody reports.
    pub fn doubt(&mut self) {
        self.doubtful = true;
    }

    /// Returns whether anything may be set.
    pub fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// Takes a doubt back.
    pub fn trust(&mut self) {
        self.doubtful = false;
    }

    /// Notes that `options` are now in force, and nothing else.
    pub fn set(&mut self, options: Option<&Arc<Options>>) {
        self.options = options.cloned();
        self.doubtful = false;
    }

    /// Notes that `RESET ALL` has run: it leaves who the session acts as.
    pub fn reset_all(&mut self) {
        let identity = self.options.take().map(|options| {
            let mut options = Options::clone(&options);
            options.retain_identity();
            options
        });
        self.options = identity.filter(|options| !options.is_empty()).map(Arc::new);
    }

    /// Returns what was applied; it may have changed when that is doubtful.
    pub fn known(&self) -> Option<&Arc<Options>> {
        self.options.as_ref()
    }

    /// Returns whether `wanted` is in force already.
    pub fn is(&self, wanted: Option<&Arc<Options>>) -> bool {
        match (&self.options, wanted) {
            _ if self.doubtful => false,
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
            _ => false,
        }
    }
}
