//! What is wrong with a configuration: every error at once, each with file, line, column and key.
//!
//! One line per error, in the form compilers use, so that editors jump to it:
//! `lb.yaml:12:5: upstreams.django.servers[1].weight: must be 1..=65535, got 0`. Values of secrets never get here: the
//! readers of such keys have no way to quote them.

use std::{
    fmt,
    path::{Path, PathBuf},
};

/// A place in a file, counted from 1; the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file as the operator named it; empty when no file is at fault.
    pub file: PathBuf,
    pub position: Option<Position>,
    /// Path of the key, e.g. `upstreams.django.servers[1].weight`; empty for the file as a whole.
    pub key: String,
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl ConfigError {
    /// Returns an error about a file as a whole.
    pub fn of_file(file: &Path, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), position: None, key: String::new(), message: message.into(), hint: None }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.as_os_str().is_empty() {
            write!(f, "{}:", self.file.display())?;
            if let Some(Position { line, column }) = self.position {
                write!(f, "{line}:{column}:")?;
            }
            f.write_str(" ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

/// Everything that is wrong, one line each: file by file, from top to bottom. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errors(Vec<ConfigError>);

impl Errors {
    /// Returns the errors of one or more files, or `None` when there are none. Files keep the order they come in.
    pub(super) fn collect(errors: impl IntoIterator<Item = ConfigError>) -> Option<Self> {
        let mut files: Vec<PathBuf> = Vec::new();
        let mut ranked: Vec<(usize, ConfigError)> = Vec::new();
        for error in errors {
            let rank = files.iter().position(|file| *file == error.file).unwrap_or_else(|| {
                files.push(error.file.clone());
                files.len() - 1
            });
            ranked.push((rank, error));
        }
        ranked.sort_by_key(|(rank, error)| (*rank, error.position));
        let errors: Vec<ConfigError> = ranked.into_iter().map(|(_, error)| error).collect();
        (!errors.is_empty()).then_some(Self(errors))
    }

    /// Returns the errors in order.
    pub fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
        self.0.iter()
    }
}

impl From<ConfigError> for Errors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(file: &str, line: usize) -> ConfigError {
        let position = Some(Position { line, column: 5 });
        ConfigError {
            position,
            key: "a.b[1]".into(),
            hint: Some("write 1".into()),
            ..ConfigError::of_file(Path::new(file), "is 0")
        }
    }

    #[test]
    fn shows_file_line_column_key_and_hint_on_one_line() {
        assert_eq!(error("lb.yaml", 12).to_string(), "lb.yaml:12:5: a.b[1]: is 0 (write 1)");
        assert_eq!(ConfigError::of_file(Path::new("x"), "is not there").to_string(), "x: is not there");
        assert_eq!(ConfigError::of_file(Path::new(""), "no file").to_string(), "no file");
    }

    #[test]
    fn errors_come_file_by_file_from_top_to_bottom() {
        let errors = [error("z.yaml", 9), error("a.yaml", 2), error("z.yaml", 3)];
        let errors = Errors::collect(errors).unwrap();
        let order: Vec<_> = errors.iter().map(|e| (e.file.to_str().unwrap(), e.position.unwrap().line)).collect();
        assert_eq!(order, [("z.yaml", 3), ("z.yaml", 9), ("a.yaml", 2)]);
        assert_eq!(errors.to_string().lines().count(), 3);
        assert_eq!(Errors::collect([]), None);
    }
}
