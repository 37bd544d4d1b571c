//! Any text as PgBouncer's userlist.txt: users, or mistakes with their places, and no word of a secret in them.

use std::path::Path;

use bookend::config::pool::userlist;

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match userlist::parse(Path::new("userlist.txt"), text) {
        Ok(entries) => {
            let mut names: Vec<_> = entries.iter().map(|entry| &entry.name).collect();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), entries.len(), "of a name that comes twice the last one counts");
        }
        Err(errors) => {
            assert!(!errors.is_empty());
            for error in errors {
                assert!(error.position.is_some_and(|at| at.line >= 1 && at.line <= text.lines().count()));
            }
        }
    }
}
