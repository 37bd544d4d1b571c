//! The `options` of a startup packet: a command line for a server process that does not exist here.
//!
//! It is split and read as PostgreSQL reads it (`pg_split_opts` in postinit.c, the `c` and `-` cases of
//! `process_postgres_switches` and `ParseLongOption`), so that `options=-c statement_timeout=5s` means what it means
//! without a pooler. Other switches would change a process that this client does not own and are refused.

use crate::pool::{client::startup::packet::NAME_LEN_MAX, error::PoolError};

const BAD_SWITCH: PoolError =
    PoolError::StartupPacket { why: "only -c name=value and --name=value are understood in options" };
const NO_VALUE: PoolError = PoolError::StartupPacket { why: "a setting in options has no value" };

/// Reads the settings out of `options`, in order.
pub fn parse(options: &str) -> Result<Vec<(String, String)>, PoolError> {
    let mut settings = Vec::new(); // bound: the packet's, 10,000 bytes
    let mut words = split(options).into_iter();
    while let Some(word) = words.next() {
        let assignment = if let Some(long) = word.strip_prefix("--") {
            long.to_owned()
        } else if word == "-c" {
            words.next().ok_or(NO_VALUE)?
        } else if let Some(glued) = word.strip_prefix("-c") {
            glued.to_owned()
        } else {
            return Err(BAD_SWITCH);
        };
        settings.push(assign(&assignment)?);
    }
    Ok(settings)
}

fn assign(assignment: &str) -> Result<(String, String), PoolError> {
    let (name, value) = assignment.split_once('=').ok_or(NO_VALUE)?;
    let name = name.replace('-', "_");
    if is_setting_name(&name) && !is_of_packet(&name) { Ok((name, value.to_owned())) } else { Err(bad_name(&name)) }
}

/// Splits at white space; a backslash takes the next character as it is.
fn split(options: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut escaped = false;
    for c in options.chars() {
        // isspace() in the C locale.
        let space = matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r');
        if escaped {
            word.get_or_insert_default().push(c);
            escaped = false;
        } else if space {
            words.extend(word.take());
        } else if c == '\\' {
            word.get_or_insert_default();
            escaped = true;
        } else {
            word.get_or_insert_default().push(c);
        }
    }
    words.extend(word);
    words
}

/// Returns whether `name` can name a setting: identifiers joined by dots (`valid_custom_variable_name` in guc.c), ASCII.
/// Such a name can be put into SQL text without quoting.
pub fn is_setting_name(name: &str) -> bool {
    let identifier = |part: &str| {
        let mut bytes = part.bytes();
        bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
            && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'$')
    };
    name.len() <= NAME_LEN_MAX && name.split('.').all(identifier)
}

/// Returns whether a name means something else in a startup packet than a setting: who asks, for what. What is read here is
/// sent on in one for a replication connection, where the last of a name counts (`ProcessStartupPacket`).
fn is_of_packet(name: &str) -> bool {
    let names = ["user", "database", "replication", "options"];
    names.iter().any(|known| name.eq_ignore_ascii_case(known)) || name.starts_with("_pq_")
}

/// The refusal of a name that cannot name a setting; what is repeated of it is short and printable.
pub fn bad_name(name: &str) -> PoolError {
    let name = name.chars().take(NAME_LEN_MAX).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect();
    PoolError::StartupParameter { name }
}
