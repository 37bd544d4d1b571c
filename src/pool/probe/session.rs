//! The session that a probe asks over: how it logs in, and bb8's part in keeping it.

use std::sync::Arc;

use tokio_postgres::{
    Client, Config, NoTls,
    config::{SslMode, SslNegotiation},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    config::pool::{self as config, Pool, ServerTls, UserSecret},
    pool::socket::is_unix,
};

/// Returns how to log in: as the database's own user, or the first user whose password is known as text.
pub(super) fn login(pool: &Pool, database: &config::Database) -> Config {
    let mut login = Config::new();
    match database.host.strip_prefix('@') {
        Some(name) => login.host_path(format!("\0{name}")),
        // Of several the first one that is there answers for all.
        None => database.host.split(',').fold(&mut login, |login, host| login.host(host)),
    };
    login
        .port(database.port)
        .dbname(database.dbname.as_deref().unwrap_or(&database.name))
        .application_name("bookend probe")
        .ssl_mode(match &pool.server_tls {
            _ if is_unix(&database.host) => SslMode::Disable,
            Some(tls) if tls.mode.is_required() => SslMode::Require,
            Some(tls) if tls.mode == config::SslMode::Prefer => SslMode::Prefer,
            _ => SslMode::Disable,
        })
        .ssl_negotiation(match &pool.server_tls {
            Some(tls) if tls.direct => SslNegotiation::Direct,
            _ => SslNegotiation::Postgres,
        });
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
#[derive(Debug)]
pub(super) struct Sessions {
    login: Config,
    tls: Option<Arc<ServerTls>>,
}

impl bb8::ManageConnection for Sessions {
    type Connection = Client;
    type Error = tokio_postgres::Error;

    async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        // The connection ends when the client is dropped or the socket breaks; the client then says `is_closed`.
        match &self.tls {
            None => {
                let (client, connection) = self.login.connect(NoTls).await?;
                tokio::spawn(connection);
                Ok(client)
            }
            Some(tls) => {
                let connect = MakeRustlsConnect::new(tls.connect.config());
                let (client, connection) = self.login.connect(connect).await?;
                tokio::spawn(connection);
                Ok(client)
            }
        }
    }

    async fn is_valid(&self, _: &mut Client) -> Result<(), tokio_postgres::Error> {
        Ok(())
    }

    fn has_broken(&self, session: &mut Client) -> bool {
        session.is_closed()
    }
}

/// Returns room for one session, which is opened when it is asked for.
pub(super) fn sessions(login: Config, tls: Option<Arc<ServerTls>>) -> bb8::Pool<Sessions> {
    bb8::Pool::builder()
        .max_size(1)
        .test_on_check_out(false)
        .max_lifetime(None)
        .idle_timeout(None)
        .build_unchecked(Sessions { login, tls })
}
