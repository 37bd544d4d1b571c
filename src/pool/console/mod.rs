//! The admin console: the virtual database `pgbouncer`.
//!
//! A client that asks for it (and whose user is in `admin_users` or `stats_users`) speaks the simple query protocol with
//! the pool itself. Commands, columns and answers are PgBouncer's, found by name, because monitoring tools and habits
//! depend on them. Flow: query text -> [`command::parse`] -> rights -> [`Source`] (what the pool knows and can do) ->
//! [`table::Table`] -> messages. The extended protocol is refused in band, as PgBouncer does.

pub mod averages;
pub mod command;
pub mod rows;
mod session;
mod show;
pub mod table;

pub use rows::Source;
pub use session::serve;

/// The name of the virtual database.
pub const DATABASE: &str = "pgbouncer";

/// What a console user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// In `admin_users`: everything.
    Admin,
    /// In `stats_users`: SHOW.
    Stats,
}

impl Rights {
    /// Returns a user's rights; `None`: the console is closed to them.
    pub fn of(user: &str, admin_users: &[String], stats_users: &[String]) -> Option<Self> {
        if admin_users.iter().any(|admin| admin == user) {
            Some(Self::Admin)
        } else if stats_users.iter().any(|stats| stats == user) {
            Some(Self::Stats)
        } else {
            None
        }
    }
}

#[cfg(test)]
pub mod tests;
