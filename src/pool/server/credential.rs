//! As whom the pool logs in at the server, and with what.
//!
//! PgBouncer's order: the database's `user` replaces the client's own; the database's `password` replaces what is known of
//! that user. Of a client that is known by a SCRAM verifier alone no password exists here, but its login left the
//! ClientKey behind, which opens every server that holds the same verifier ("SCRAM pass-through").

use std::sync::Arc;

use crate::{
    config::{
        pool::{Database, UserSecret},
        secret::Secret,
    },
    pool::auth::{Authenticated, Captured, Gained, users::Users},
};

/// User and secret of a server login. Two that are equal may share a connection's pool.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerLogin {
    pub user: Arc<str>,
    pub secret: ServerSecret,
    /// The secret is not the configuration's: a client's login left it behind.
    pub gained: bool,
}

/// What the pool can answer to a server that asks for a proof.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerSecret {
    Plain(Secret),
    /// One of them is the right one: the user's password is being changed.
    Several(Arc<[Secret]>),
    /// As PostgreSQL stores it: `md5` and 32 hex digits.
    Md5(Secret),
    /// The keys of a client's own login.
    PassThrough(Arc<Captured>),
    /// Nothing: a server that trusts us lets us in, any other does not. Why, for the error.
    Nothing(&'static str),
}

const NO_USER: &str = "nothing of the user's password is known that the server takes, and the database has no password";
const NO_PASSWORD: &str =
    "the user has no password under users: or in auth_file, and auth_query returned none that a server takes";
const NO_CLIENT: &str = "only a SCRAM verifier is known, and no client has logged in with the password yet";

impl ServerLogin {
    /// Chooses the login for a client that has authenticated.
    pub fn of_client(database: &Database, client: &Authenticated, users: &Users) -> Self {
        let mut login = Self::of_user(database, &client.user, users);
        if *login.user != *client.user {
            return login;
        }
        let gained = match (&login.secret, &client.gained) {
            (ServerSecret::Nothing(_), Gained::Keys(captured)) => ServerSecret::PassThrough(Arc::clone(captured)),
            // A password serves where its hash does not.
            (ServerSecret::Nothing(_) | ServerSecret::Md5(_), Gained::Secret(UserSecret::Plain(password))) => {
                ServerSecret::Plain(password.clone())
            }
            (ServerSecret::Nothing(_), Gained::Secret(UserSecret::Md5(stored))) => ServerSecret::Md5(stored.clone()),
            _ => return login,
        };
        (login.secret, login.gained) = (gained, true);
        login
    }

    /// Returns the logins to try, one after the other, beginning with number `first`.
    pub fn candidates(&self, first: usize) -> impl Iterator<Item = (usize, Self)> {
        let passwords: &[Secret] = if let ServerSecret::Several(passwords) = &self.secret { passwords } else { &[] };
        let one = passwords.is_empty().then(|| (0, self.clone()));
        let order = (0..passwords.len()).map(move |at| (first + at) % passwords.len());
        let each = order.map(|at| (at, Self { secret: ServerSecret::Plain(passwords[at].clone()), ..self.clone() }));
        one.into_iter().chain(each)
    }

    /// Chooses the login for connections that are opened before any client asks (`min_pool_size`).
    pub fn of_user(database: &Database, user: &str, users: &Users) -> Self {
        let user = database.user.as_deref().unwrap_or(user);
        let secret = match (&database.password, users.get(user).map(|u| &u.secret)) {
            (Some(password), _) | (None, Some(UserSecret::Plain(password))) => ServerSecret::Plain(password.clone()),
            (None, Some(UserSecret::Several(passwords))) => ServerSecret::Several(passwords.as_slice().into()),
            (None, Some(UserSecret::Md5(stored))) => ServerSecret::Md5(stored.clone()),
            (None, Some(UserSecret::Scram(_))) => ServerSecret::Nothing(NO_CLIENT),
            (None, Some(UserSecret::Absent)) => ServerSecret::Nothing(NO_PASSWORD),
            (None, None) => ServerSecret::Nothing(NO_USER),
        };
        Self { user: user.into(), secret, gained: false }
    }
}
