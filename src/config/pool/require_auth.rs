//! `server_require_auth`: how a server may let the pool in, libpq's `require_auth`.
//!
//! A server that somebody else answers for could ask for the password in clear text, or for nothing and then listen. Where it
//! is known what the right one asks for, anything else ends the login before anything is said.

use crate::config::{pool::user::names, section::Section};

/// What a server may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Nothing: it trusts us, or has seen our certificate.
    Nothing,
    Password,
    Md5,
    /// With or without channel binding.
    Scram,
}

impl Asked {
    const ALL: [(&str, Self); 4] =
        [("none", Self::Nothing), ("password", Self::Password), ("md5", Self::Md5), ("scram-sha-256", Self::Scram)];

    /// Returns libpq's word.
    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(_, asked)| *asked == self).map_or("", |(word, _)| word)
    }
}

/// The ways that are allowed. The default is all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequireAuth {
    allowed: [bool; Asked::ALL.len()],
}

impl Default for RequireAuth {
    fn default() -> Self {
        Self { allowed: [true; Asked::ALL.len()] }
    }
}

impl RequireAuth {
    /// Allows these alone.
    pub fn only(allowed: &[Asked]) -> Self {
        Self { allowed: Asked::ALL.map(|(_, asked)| allowed.contains(&asked)) }
    }

    /// Returns whether a server may ask for this.
    pub fn allows(self, asked: Asked) -> bool {
        self.words().any(|word| word == asked.word())
    }

    /// Returns the words of what is allowed.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        Asked::ALL.into_iter().zip(self.allowed).filter(|(_, allowed)| *allowed).map(|((word, _), _)| word)
    }
}

/// Reads a list of words.
pub(super) fn read(section: &mut Section<'_>) -> RequireAuth {
    let Some(field) = section.get("server_require_auth") else { return RequireAuth::default() };
    let mut allowed = Vec::new();
    for (name, place) in names(&field) {
        match Asked::ALL.iter().find(|(word, _)| *word == name) {
            Some((_, asked)) => allowed.push(*asked),
            None => place.error(format!("{name} is none of none, password, md5, scram-sha-256")),
        }
    }
    if allowed.is_empty() { RequireAuth::default() } else { RequireAuth::only(&allowed) }
}
