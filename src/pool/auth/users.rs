//! Who may log in, ready to be looked up.

use std::collections::HashMap;

use tracing::warn;

use super::{Gained, scram::Verifier};
use crate::config::pool::{User, UserSecret};

/// The users of one configuration. Immutable; a reload makes a new one.
#[derive(Debug, Default)]
pub struct Users {
    by_name: HashMap<Box<str>, Known, ahash::RandomState>,
    has_verifiers: bool,
}

/// A user with its secret taken apart.
#[derive(Debug)]
pub struct Known {
    pub user: User,
    /// Of a [`UserSecret::Scram`]; `None` when its text cannot be read, and then nobody logs in with it.
    pub verifier: Option<Verifier>,
}

impl Users {
    /// Takes the users of the configuration; of two with one name the first counts.
    pub fn new(users: &[User]) -> Self {
        let mut by_name: HashMap<_, _, _> = HashMap::default();
        for user in users {
            by_name.entry(user.name.as_str().into()).or_insert_with(|| Known::new(user.clone()));
        }
        let kind = |kind: fn(&UserSecret) -> bool| by_name.values().any(|known: &Known| kind(&known.user.secret));
        let has_verifiers = kind(|secret| matches!(secret, UserSecret::Scram(_)))
            && !kind(|secret| matches!(secret, UserSecret::Plain(_) | UserSecret::Md5(_) | UserSecret::Several(_)));
        Self { by_name, has_verifiers }
    }

    /// Returns whether all that is known of users' passwords are SCRAM verifiers.
    pub fn has_verifiers(&self) -> bool {
        self.has_verifiers
    }

    /// Returns the user as configured.
    pub fn get(&self, name: &str) -> Option<&User> {
        self.known(name).map(|known| &known.user)
    }

    /// Returns all users, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &User> {
        self.by_name.values().map(|known| &known.user)
    }

    /// Returns the user with its secret taken apart.
    pub fn known(&self, name: &str) -> Option<&Known> {
        self.by_name.get(name)
    }
}

impl Known {
    /// Takes the secret apart.
    pub fn new(user: User) -> Self {
        let verifier = match &user.secret {
            UserSecret::Scram(text) => Verifier::parse(text.expose()),
            UserSecret::Plain(_) | UserSecret::Md5(_) | UserSecret::Several(_) | UserSecret::Absent => None,
        };
        if verifier.is_none() && matches!(user.secret, UserSecret::Scram(_)) {
            warn!(user = user.name, "the user's SCRAM secret cannot be read, nobody can log in with it");
        }
        Self { user, verifier }
    }

    /// Returns whether only a SCRAM verifier is known.
    pub fn is_scram(&self) -> bool {
        matches!(self.user.secret, UserSecret::Scram(_))
    }

    /// Returns what of the secret logs in to servers.
    pub fn usable_elsewhere(&self) -> Gained {
        match &self.user.secret {
            UserSecret::Plain(password) if password.expose().is_empty() => Gained::Nothing,
            secret @ (UserSecret::Plain(_) | UserSecret::Md5(_)) => Gained::Secret(secret.clone()),
            UserSecret::Scram(_) | UserSecret::Several(_) | UserSecret::Absent => Gained::Nothing,
        }
    }
}
