//! Session settings that belong to a client but live in a server: what each side has, and the SQL that brings them together.
//!
//! PostgreSQL reports the settings that matter to drivers by ParameterStatus, rollbacks included, so they are tracked by
//! what the server reports and never by reading SQL. Both sides' values are the server's own spelling: after a replay the
//! client takes over what the server reported, so that a client that asked for `utc` does not differ from a server that
//! says `UTC` for ever. A setting that is not reported is an [`Options`] entry: set before its client's first message, reset
//! before another client's. It gets there as a startup parameter (`options=-c statement_timeout=30000`), or because a `SET`
//! of it was seen and the server asked for its value ([`super::relay`]).
//!
//! The replay is SQL made of a client's words, so it is ASCII whatever they are: see [`put_literal`].

mod encoding;
mod options;

use std::{hash::Hash, sync::Arc};

pub use self::options::{Applied, Options, is_identity, is_setting_name};

/// A value as the server spells it. Shared: most clients of a database have the same few.
pub type Value = Arc<[u8]>;

/// Reported settings that are kept per client without being asked to. `search_path` is reported since PostgreSQL 18.
/// `default_transaction_read_only` and `scram_iterations`, reported too, are [`Options`] once they are set: every client pays
/// for what stands here.
const STANDARD: [&str; 7] = [
    "client_encoding",
    "DateStyle",
    "TimeZone",
    "standard_conforming_strings",
    "application_name",
    "IntervalStyle",
    "search_path",
];

/// Reported, and kept for no client: not to be set by anybody, or not by `set_config` in any order. `session_authorization`
/// is an [`Options`] entry once it is set.
const FIXED: [&str; 6] = [
    "server_version",
    "server_encoding",
    "integer_datetimes",
    "is_superuser",
    "in_hot_standby",
    "session_authorization",
];

/// The values one side has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params {
    /// By index in [`STANDARD`]: comparing two sides on every link must be cheap.
    standard: [Option<Value>; STANDARD.len()],
    /// All else a server reports; of a client, what `track_extra_parameters` names.
    extra: Vec<(Arc<str>, Value)>,
}

impl Params {
    /// Collects what a server reported while it logged a session in.
    pub fn reported<'a>(reports: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut params = Self::default();
        for (name, value) in reports {
            params.set(name, value);
        }
        params
    }

    /// Returns what a new client starts from: of the reported values, the standard ones and `track_extra`.
    pub fn for_client(&self, track_extra: &[String]) -> Self {
        let fixed = |name: &str| FIXED.iter().any(|fixed| fixed.eq_ignore_ascii_case(name));
        let tracked = |name: &str| !fixed(name) && track_extra.iter().any(|extra| extra.eq_ignore_ascii_case(name));
        let extra = self.extra.iter().filter(|(name, _)| tracked(name)).cloned().collect();
        Self { standard: self.standard.clone(), extra }
    }

    /// Returns a value by its name, which is case-insensitive as in PostgreSQL.
    pub fn value(&self, name: &str) -> Option<&Value> {
        match standard_index(name) {
            Some(index) => self.standard[index].as_ref(),
            None => self.extra.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value),
        }
    }

    /// Sets a value, adding the name when it is new.
    pub fn set(&mut self, name: &str, value: &[u8]) {
        if !self.update(name, value) {
            match standard_index(name) {
                Some(index) => self.standard[index] = Some(value.into()),
                // Bound: a server reports about twenty names.
                None => self.extra.push((name.into(), value.into())),
            }
        }
    }

    /// Sets the value of a name that is there already; returns false when it is not.
    pub fn update(&mut self, name: &str, value: &[u8]) -> bool {
        let slot = match standard_index(name) {
            Some(index) => self.standard[index].as_mut(),
            None => self.extra.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value),
        };
        let Some(slot) = slot else { return false };
        if **slot != *value {
            *slot = value.into();
        }
        true
    }

    /// The same with a value in a client's words, as far as its spelling by a server is known beforehand.
    pub fn ask(&mut self, name: &str, value: &[u8]) -> bool {
        let encoding = name.eq_ignore_ascii_case(STANDARD[0]).then(|| encoding::canonical(value)).flatten();
        self.update(name, encoding.map_or(value, str::as_bytes))
    }

    /// Iterates over names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        let standard = STANDARD.into_iter().zip(&self.standard);
        let standard = standard.filter_map(|(name, value)| Some((name, value.as_ref()?)));
        standard.chain(self.extra.iter().map(|(name, value)| (&**name, value)))
    }

    /// Returns the values that a statement's text may be read by. `application_name` is not among them.
    pub fn reading(&self) -> impl Hash + '_ {
        let [encoding, dates, zone, strings, _, intervals, path] = &self.standard;
        ([encoding, dates, zone, strings, intervals, path], &self.extra)
    }

    /// Iterates over what differs: name, our value, the server's. A name the server does not report is left out.
    pub fn differing<'a>(&'a self, server: &'a Self) -> impl Iterator<Item = (&'a str, &'a Value, &'a Value)> {
        let pairs = self.standard.iter().zip(&server.standard).zip(STANDARD);
        let standard = pairs.filter_map(|((ours, theirs), name)| match (ours, theirs) {
            (Some(ours), Some(theirs)) if !same(ours, theirs) => Some((name, ours, theirs)),
            _ => None,
        });
        let extra = self.extra.iter().filter_map(|(name, ours)| {
            let theirs = server.value(name)?;
            (!same(ours, theirs)).then_some((&**name, ours, theirs))
        });
        standard.chain(extra)
    }

    /// Returns whether nothing [`Self::differing`] from `server`: looked at for every lease.
    pub fn agrees(&self, server: &Self) -> bool {
        let same = |(ours, theirs): (&Option<Value>, &Option<Value>)| match (ours, theirs) {
            (Some(ours), Some(theirs)) => same(ours, theirs),
            _ => true,
        };
        self.standard.iter().zip(&server.standard).all(same)
            && self.extra.iter().all(|(name, ours)| server.value(name).is_none_or(|theirs| self::same(ours, theirs)))
    }

    /// Takes equal values from `other`, so that they are found equal without a look at their bytes.
    pub fn share(&mut self, other: &Self) {
        for (ours, theirs) in self.standard.iter_mut().zip(&other.standard) {
            if ours == theirs {
                ours.clone_from(theirs);
            }
        }
    }

    /// Takes over the server's spelling of everything that differs, telling `each` name and new value.
    pub fn adopt(&mut self, server: &Self, mut each: impl FnMut(&str, &[u8])) {
        for ((ours, theirs), name) in self.standard.iter_mut().zip(&server.standard).zip(STANDARD) {
            if let (Some(ours), Some(theirs)) = (ours, theirs) {
                adopt(name, ours, theirs, &mut each);
            }
        }
        for (name, ours) in &mut self.extra {
            if let Some(theirs) = server.value(name) {
                adopt(name, ours, theirs, &mut each);
            }
        }
    }
}

fn adopt(name: &str, ours: &mut Value, theirs: &Value, each: &mut impl FnMut(&str, &[u8])) {
    if Arc::ptr_eq(ours, theirs) {
        return;
    }
    if **ours != **theirs {
        each(name, theirs);
    }
    *ours = theirs.clone();
}

fn same(a: &Value, b: &Value) -> bool {
    Arc::ptr_eq(a, b) || **a == **b
}

fn standard_index(name: &str) -> Option<usize> {
    STANDARD.iter().position(|known| known.eq_ignore_ascii_case(name))
}

/// What makes a session act again as the user it logged in as; part of `DISCARD ALL`.
const RESET_IDENTITY: &[u8] = b"RESET SESSION AUTHORIZATION;RESET ROLE;";

/// Appends the SQL that gives a server this client's settings; false (and nothing) when it has them already.
///
/// `set_config` takes a value as a startup packet does: a list such as `search_path` stays a list (`SET search_path = 'a, b'`
/// would be one schema of that name). Who the server acts as is put back first and set last: what else may be set depends
/// on it.
pub fn put_replay(
    out: &mut Vec<u8>,
    client: &Params,
    server: &Params,
    options: Option<&Arc<Options>>,
    applied: &Applied,
) -> bool {
    let from = out.len();
    let change_options = !applied.is(options);
    let old = if applied.is_doubtful() { None } else { applied.known() };
    let acts = change_options && [old, options].into_iter().flatten().any(|options| options.acts_as_another());
    if applied.is_doubtful() {
        out.extend_from_slice(RESET_IDENTITY);
        out.extend_from_slice(b"RESET ALL;");
    } else if change_options {
        if acts {
            out.extend_from_slice(RESET_IDENTITY);
        }
        for (name, _) in old.into_iter().flat_map(|old| old.plain()) {
            if options.is_none_or(|options| options.value(name).is_none()) {
                put_reset(out, name);
            }
        }
    }
    let mut separator: &[u8] = b"SELECT ";
    let mut set = |out: &mut Vec<u8>, name: &str, value: &[u8]| {
        out.extend_from_slice(separator);
        out.extend_from_slice(b"pg_catalog.set_config(");
        put_literal(out, name.as_bytes());
        out.push(b',');
        put_literal(out, value);
        out.extend_from_slice(b",false)");
        separator = b",";
    };
    if applied.is_doubtful() {
        for (name, ours) in client.iter().filter(|(name, _)| server.value(name).is_some()) {
            set(out, name, ours);
        }
    } else {
        for (name, ours, _) in client.differing(server) {
            set(out, name, ours);
        }
    }
    if change_options && let Some(options) = options {
        let has = |name: &str, value: &Value| old.and_then(|old| old.value(name)).is_some_and(|old| same(old, value));
        for (name, value) in options.plain().filter(|(name, value)| !has(name, value)) {
            set(out, name, value);
        }
        for (name, value) in options.identity() {
            set(out, name, value);
        }
    }
    out.len() > from
}

/// Appends `RESET` of a checked name, quoted part by part.
fn put_reset(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b"RESET ");
    for (index, part) in name.split('.').enumerate() {
        if index > 0 {
            out.push(b'.');
        }
        out.push(b'"');
        // A quoted identifier keeps its case; the names of settings have none.
        out.extend(part.bytes().map(|b| b.to_ascii_lowercase()));
        out.push(b'"');
    }
    out.push(b';');
}

/// Appends a string literal in ASCII.
///
/// A plain literal means something else when `standard_conforming_strings` is off, and in encodings such as Shift-JIS a
/// quote or backslash can be half of a character. `E'…'` means the same always, and octal escapes leave no byte over 0x7f
/// for an encoding to interpret.
fn put_literal(out: &mut Vec<u8>, text: &[u8]) {
    let plain = text.iter().all(|&b| b.is_ascii() && b != b'\\' && b != 0);
    out.extend_from_slice(if plain { b"'" } else { b"E'" });
    for &byte in text {
        match byte {
            b'\'' => out.extend_from_slice(b"''"),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0 => break, // cannot stand in a value of the protocol
            1..=0x7f => out.push(byte),
            _ => out.extend_from_slice(&[b'\\', b'0' + (byte >> 6), b'0' + ((byte >> 3) & 7), b'0' + (byte & 7)]),
        }
    }
    out.push(b'\'');
}

#[cfg(test)]
mod tests;
