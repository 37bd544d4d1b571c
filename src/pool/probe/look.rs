//! One look at a database: the question, and what an answer, a refusal or silence says of it.
//!
//! A refusal by PostgreSQL itself can still prove that it serves: a password it does not accept (the probe may not know
//! one) or a full house (`53300`) comes from a living server. Starting up or shutting down (`57P03`) does not.

use std::{sync::Arc, time::Duration};

use tokio_postgres::{Client, SimpleQueryMessage, error::SqlState};

use super::{session::Sessions, way::Failed};
use crate::{
    health::{board::Role, probe::Probe},
    pool::server::error::ServerError,
};

/// One round trip: role, client sessions on the server, its limit.
const QUESTION: &str = "SELECT pg_catalog.pg_is_in_recovery(), \
     (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend'), \
     pg_catalog.current_setting('max_connections')";

/// What a successful look brings home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    Answer {
        role: Role,
        connections: u32,
        max_connections: u32,
    },
    /// Not answered in time, but clients were.
    Busy,
    /// PostgreSQL serves, but not us; why, in its words.
    Refused(String),
}

/// Why a look failed, in words for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble(pub(super) String);

pub(super) struct DatabaseProbe {
    pub(super) sessions: bb8::Pool<Sessions>,
    /// `probe.timeout`
    pub(super) patience: Duration,
    /// Queries of clients answered until the last look.
    pub(super) seen: u64,
    pub(super) answered: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Probe for DatabaseProbe {
    type Seen = Seen;
    type Error = Trouble;

    async fn look(&mut self) -> Result<Seen, Trouble> {
        let before = std::mem::replace(&mut self.seen, (self.answered)());
        let asked = tokio::time::timeout(self.patience, self.ask()).await;
        match asked.unwrap_or(Err(Failed::Server(ServerError::Timeout))) {
            Ok(seen) => Ok(seen),
            Err(Failed::Server(ServerError::Timeout)) if (self.answered)() > before => Ok(Seen::Busy),
            Err(Failed::Server(ServerError::Timeout)) => {
                Err(Trouble(format!("no answer within {:?} (probe.timeout)", self.patience)))
            }
            Err(Failed::Postgres(error)) => judge(error.as_db_error().map(|db| (db.code(), db.message())), &error),
            Err(Failed::Server(error)) => judge(None, &error),
        }
    }
}

impl DatabaseProbe {
    async fn ask(&self) -> Result<Seen, Failed> {
        // Only an idle session is taken from bb8, never a fresh one: it would keep a failed login to itself until its own
        // timeout. One that broke since the last look is let go here (`has_broken`), and another is opened.
        if self.sessions.state().idle_connections > 0
            && let Ok(session) = self.sessions.get().await
            && !session.is_closed()
        {
            return Ok(answer(&session).await?);
        }
        let session = self.sessions.dedicated_connection().await?;
        let seen = answer(&session).await?;
        let _ = self.sessions.add(session);
        Ok(seen)
    }
}

async fn answer(session: &Client) -> Result<Seen, tokio_postgres::Error> {
    let messages = session.simple_query(QUESTION).await?;
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let number = |index: usize| row.and_then(|row| row.get(index)).and_then(|text| text.parse().ok()).unwrap_or(0);
    let role = match row.and_then(|row| row.get(0)) {
        Some("t") => Role::Replica,
        Some("f") => Role::Primary,
        _ => Role::Unknown,
    };
    Ok(Seen::Answer { role, connections: number(1), max_connections: number(2) })
}

/// Decides what a failed look says. Pure.
pub(super) fn judge(refusal: Option<(&SqlState, &str)>, error: &dyn std::error::Error) -> Result<Seen, Trouble> {
    let Some((code, message)) = refusal else { return Err(Trouble(chain(error))) };
    let why = format!("{message} (SQLSTATE {})", code.code());
    // Class 28: invalid authorization. The server and its catalogs work, only we may not look.
    if code.code().starts_with("28") || *code == SqlState::TOO_MANY_CONNECTIONS {
        Ok(Seen::Refused(why))
    } else {
        Err(Trouble(why))
    }
}

/// Returns an error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
