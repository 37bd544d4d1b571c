//! PgBouncer's `userlist.txt`.
//!
//! As its loader reads it (src/loader.c, load_auth_file): a line is `"name" "password"`, a quote inside is doubled, what
//! follows on the line is ignored, `;` starts a comment line; of a name that comes twice the last one counts. Stricter in
//! one thing: a broken line is an error with its number, where PgBouncer logs one and silently drops the rest of the file.
//! No error quotes anything of a line.

use std::{collections::HashMap, path::Path};

use crate::config::{
    error::{ConfigError, Position},
    load,
    pool::{UserSecret, password},
    secret::Secret,
};

/// Bytes of a name and of a password, as in PgBouncer (MAX_USERNAME, MAX_PASSWORD, one less for C's zero).
const MAX_NAME_BYTES: usize = 127;
const MAX_PASSWORD_BYTES: usize = 2_047;

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub name: String,
    pub secret: UserSecret,
    pub at: Position,
}

/// Reads the file.
///
/// # Errors
/// Every line that is broken; or the file as a whole cannot be read.
pub(super) fn read(path: &Path) -> Result<Vec<Entry>, Vec<ConfigError>> {
    let text = load::read_file(path).map_err(|error| vec![error])?;
    parse(path, &text)
}

/// Reads the text of one; `path` is named in errors.
///
/// # Errors
/// Every line that is broken.
pub fn parse(path: &Path, text: &str) -> Result<Vec<Entry>, Vec<ConfigError>> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut errors = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let rest = line.trim_start();
        if rest.is_empty() || rest.starts_with(';') {
            continue;
        }
        let at = Position { line: index + 1, column: line.chars().count() - rest.chars().count() + 1 };
        match entry(rest, at) {
            Ok(entry) => match places.get(&entry.name) {
                Some(place) => entries[*place] = entry,
                None => {
                    places.insert(entry.name.clone(), entries.len());
                    entries.push(entry);
                }
            },
            Err(message) => {
                errors.push(ConfigError { position: Some(at), ..ConfigError::of_file(path, message) });
            }
        }
    }
    if errors.is_empty() { Ok(entries) } else { Err(errors) }
}

fn entry(line: &str, at: Position) -> Result<Entry, &'static str> {
    const FORM: &str = "must be \"name\" \"password\", both in double quotes";
    let (name, rest) = quoted(line).ok_or(FORM)?;
    if !rest.starts_with(char::is_whitespace) {
        return Err(FORM);
    }
    let (secret, _) = quoted(rest.trim_start()).ok_or(FORM)?;
    if name.is_empty() {
        return Err("has an empty name");
    }
    if name.len() > MAX_NAME_BYTES {
        return Err("has a name of more than 127 bytes");
    }
    if secret.len() > MAX_PASSWORD_BYTES {
        return Err("has a password of more than 2047 bytes");
    }
    Ok(Entry { name, secret: password::classify(Secret::new(secret))?, at })
}

/// Takes a quoted text off the front.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('"')?;
    let mut out = String::new();
    loop {
        let (part, after) = rest.split_once('"')?;
        out.push_str(part);
        match after.strip_prefix('"') {
            Some(after) => {
                out.push('"');
                rest = after;
            }
            None => return Some((out, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Result<Vec<Entry>, Vec<ConfigError>> {
        parse(Path::new("userlist.txt"), text)
    }

    fn plain(text: &str) -> UserSecret {
        UserSecret::Plain(Secret::new(text))
    }

    #[test]
    fn reads_names_and_passwords() {
        let text =
            "; comment \"x\" \"y\"\n\n  \"app\" \"pw\"  anything\r\n\"a \"\"b\"\"\" \"p\"\"w\"\n\"trusted\"\t\"\"\n";
        let entries = parsed(text).unwrap();
        let read: Vec<_> = entries.into_iter().map(|entry| (entry.name, entry.secret, entry.at.line)).collect();
        let expected =
            [("app", "pw", 3), ("a \"b\"", "p\"w", 4), ("trusted", "", 5)].map(|(n, p, l)| (n.into(), plain(p), l));
        assert_eq!(read, expected);
    }

    #[test]
    fn the_last_of_two_entries_counts() {
        let entries = parsed("\"app\" \"old\"\n\"other\" \"x\"\n\"app\" \"new\"\n").unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].secret, plain("new"));
    }

    #[test]
    fn names_every_broken_line_and_quotes_none() {
        let long = "n".repeat(128);
        let text = format!(
            "app hunter2\n\"app\" hunter2\n\"ok\" \"fine\"\n\"app\" \"hunter2\n\"app\"\"hunter2\"\n  \"\" \"hunter2\"\n\
             \"{long}\" \"x\"\n\"u\" \"SCRAM-SHA-256$hunter2\"\n"
        );
        let errors = parsed(&text).unwrap_err();
        let shown: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let form = "must be \"name\" \"password\", both in double quotes";
        let expected = [
            format!("userlist.txt:1:1: {form}"),
            format!("userlist.txt:2:1: {form}"),
            format!("userlist.txt:4:1: {form}"),
            format!("userlist.txt:5:1: {form}"),
            "userlist.txt:6:3: has an empty name".into(),
            "userlist.txt:7:1: has a name of more than 127 bytes".into(),
            "userlist.txt:8:1: is a broken SCRAM verifier; it must be as pg_authid.rolpassword has it".into(),
        ];
        assert_eq!(shown, expected);
    }

    proptest! {
        #[test]
        fn a_quoted_line_reads_back(name in "[^\\p{Cc}]{1,20}", password in "[^\\p{Cc}]{0,20}") {
            let line = format!("\"{}\" \"{}\"", name.replace('"', "\"\""), password.replace('"', "\"\""));
            let entry = entry(&line, Position { line: 1, column: 1 }).unwrap();
            prop_assert_eq!(entry.name, name);
            prop_assert_eq!(entry.secret, plain(&password));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*|[\"; a\n]{0,40}") {
            let _ = parsed(&text);
        }
    }
}
