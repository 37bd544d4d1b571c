//! The session that a probe asks over: how it logs in, and bb8's part in keeping it.

use std::time::Duration;

use tokio_postgres::{Client, Config};

use super::way::{Failed, Way};
use crate::config::pool::{self as config, Pool, UserSecret};

/// Returns how to log in: as the database's own user, or the first user whose password is known as text.
pub(super) fn login(pool: &Pool, database: &config::Database) -> Config {
    let mut login = Config::new();
    login.dbname(database.dbname.as_deref().unwrap_or(&database.name)).application_name("bookend probe");
    let plain = |user: &config::User| match &user.secret {
        UserSecret::Plain(password) => Some((user.name.clone(), password.clone())),
        // A wrong one tells as much: the server serves.
        UserSecret::Several(passwords) => passwords.first().map(|password| (user.name.clone(), password.clone())),
        UserSecret::Md5(_) | UserSecret::Scram(_) | UserSecret::Absent => None,
    };
    let known = |name: &str| pool.users.iter().filter(|user| user.name == name).find_map(plain);
    match (&database.user, &database.password) {
        (Some(user), Some(password)) => login.user(user).password(password.expose()),
        (Some(user), None) => match known(user) {
            Some((user, password)) => login.user(user).password(password.expose()),
            None => login.user(user),
        },
        (None, _) => match pool.users.iter().find_map(plain) {
            Some((user, password)) => login.user(user).password(password.expose()),
            None => login.user(pool.users.first().map_or("postgres", |user| user.name.as_str())),
        },
    };
    login
}

/// Opens probe sessions for bb8.
pub(super) struct Sessions {
    login: Config,
    way: Way,
    limit: Duration,
}

impl bb8::ManageConnection for Sessions {
    type Connection = Client;
    type Error = Failed;

    async fn connect(&self) -> Result<Client, Failed> {
        self.way.log_in(&self.login, self.limit).await
    }

    async fn is_valid(&self, _: &mut Client) -> Result<(), Failed> {
        Ok(())
    }

    fn has_broken(&self, session: &mut Client) -> bool {
        session.is_closed()
    }
}

/// Returns room for one session, which is opened, within `limit`, when it is asked for.
pub(super) fn sessions(login: Config, way: Way, limit: Duration) -> bb8::Pool<Sessions> {
    bb8::Pool::builder()
        .max_size(1)
        .test_on_check_out(false)
        .max_lifetime(None)
        .idle_timeout(None)
        .build_unchecked(Sessions { login, way, limit })
}
