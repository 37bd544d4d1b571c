//! Where the log's lines go: standard error unless that is to be quiet, and a file if one is named.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwapOption;
use tracing_subscriber::fmt::MakeWriter;

/// The lines' way out. Clones write to the same places.
#[derive(Debug, Clone, Default)]
pub struct Output {
    file: Arc<ArcSwapOption<File>>,
    quiet: Arc<AtomicBool>,
}

impl Output {
    /// Writes nothing more to standard error, or does again.
    pub fn set_quiet(&self, quiet: bool) {
        self.quiet.store(quiet, Ordering::Relaxed);
    }

    /// Writes to the end of `path` as well, or to no file any more. A file that has been moved away meanwhile is let go.
    ///
    /// # Errors
    /// It cannot be opened; the file before it stays.
    pub fn set_file(&self, path: Option<&Path>) -> io::Result<()> {
        let open = |path| OpenOptions::new().create(true).append(true).open(path);
        self.file.store(path.map(open).transpose()?.map(Arc::new));
        Ok(())
    }
}

/// One line on its way.
pub struct Line {
    file: Option<Arc<File>>,
    quiet: bool,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // One that cannot be written to must not keep the other from its line.
        let file = self.file.as_ref().map_or(Ok(()), |file| (&**file).write_all(bytes));
        let stderr = if self.quiet { Ok(()) } else { io::stderr().write_all(bytes) };
        file.and(stderr).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Output {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { file: self.file.load_full(), quiet: self.quiet.load(Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_that_was_moved_away_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (path, rotated) = (dir.path().join("log"), dir.path().join("log.1"));
        let output = Output::default();
        output.set_quiet(true);
        output.set_file(Some(&path)).unwrap();
        output.make_writer().write_all(b"one\n").unwrap();
        fs::rename(&path, &rotated).unwrap();
        output.make_writer().write_all(b"two\n").unwrap();
        output.set_file(Some(&path)).unwrap();
        output.make_writer().write_all(b"three\n").unwrap();
        assert_eq!(fs::read_to_string(&rotated).unwrap(), "one\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
        assert!(output.set_file(Some(Path::new("/nowhere/log"))).is_err());
        output.make_writer().write_all(b"four\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\nfour\n", "a bad file changes nothing");
    }
}
