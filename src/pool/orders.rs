//! What an operator may ask of the pool: PgBouncer's commands, for the console and whoever else steers it.
//!
//! What is asked of a database holds until it is undone or the process ends: a reload does not undo it, and a database of
//! the fallback `*` is not forgotten meanwhile.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::pool::{
    database::Database,
    pooler::Pooler,
    registry::{Group, Leave},
};

/// How often somebody who waits for outdated connections looks again; PgBouncer looks three times a second.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl Pooler {
    /// Stops lending servers of `database` (or of all), lets go of the probe's session, and returns when none is left. Cancel safe; stays paused then.
    ///
    /// # Errors
    /// When there is no such database.
    pub async fn pause(&self, database: Option<&str>) -> Result<(), String> {
        for database in self.hold(database)? {
            database.emptied().await;
        }
        Ok(())
    }

    /// Holds all databases, or lets them go, as PAUSE and RESUME do; waits for nothing.
    pub fn set_paused(&self, paused: bool) {
        // Neither fails without a name.
        let _ = if paused { self.hold(None).map(drop) } else { self.resume(None) };
    }

    /// Stops lending servers of `database` (or of all), without waiting for those that are lent. Returns the databases.
    fn hold(&self, database: Option<&str>) -> Result<Vec<Arc<Database>>, String> {
        let databases = self.chosen(database)?;
        self.all_paused.fetch_or(database.is_none(), Ordering::AcqRel);
        databases.iter().for_each(|database| database.pause());
        self.hold_probes();
        Ok(databases)
    }

    /// Undoes [`Self::pause`] and [`Self::kill`].
    ///
    /// # Errors
    /// When there is no such database.
    pub fn resume(&self, database: Option<&str>) -> Result<(), String> {
        let databases = self.chosen(database)?;
        if database.is_none() {
            self.all_paused.store(false, Ordering::Release);
        }
        databases.iter().for_each(|database| database.resume());
        self.hold_probes();
        Ok(())
    }

    /// Closes every server connection at its next boundary.
    ///
    /// # Errors
    /// When there is no such database.
    pub fn reconnect(&self, database: Option<&str>) -> Result<(), String> {
        self.chosen(database)?.iter().for_each(|database| database.reconnect());
        Ok(())
    }

    /// Drops clients and servers at once and pauses the database.
    ///
    /// # Errors
    /// When there is no such database.
    pub fn kill(&self, database: Option<&str>) -> Result<(), String> {
        let databases = self.chosen(database)?;
        self.all_paused.fetch_or(database.is_none(), Ordering::AcqRel);
        for database in &databases {
            database.pause();
            database.reconnect();
            self.ask_clients(Some(&database.name), Leave::Killed);
        }
        self.hold_probes();
        Ok(())
    }

    /// Drops one client at once, and the server it holds.
    ///
    /// # Errors
    /// When no client has the id.
    pub fn kill_client(&self, id: u64) -> Result<(), String> {
        let client = self.registry().client_by_id(id).ok_or("client not found")?;
        client.ask_to_leave(Leave::Killed);
        Ok(())
    }

    /// Refuses new clients of `database` from now on; those that are here stay.
    ///
    /// # Errors
    /// When there is no such database.
    pub fn disable(&self, database: &str) -> Result<(), String> {
        self.chosen(Some(database))?.iter().for_each(|database| database.set_disabled(true));
        Ok(())
    }

    /// Undoes [`Self::disable`].
    ///
    /// # Errors
    /// When there is no such database.
    pub fn enable(&self, database: &str) -> Result<(), String> {
        self.chosen(Some(database))?.iter().for_each(|database| database.set_disabled(false));
        Ok(())
    }

    /// Returns when no server connection of `database` (or of any) is left that a reconnect or a reload has made outdated.
    /// Cancel safe.
    ///
    /// # Errors
    /// When there is no such database.
    pub async fn wait_close(&self, database: Option<&str>) -> Result<(), String> {
        self.chosen(database)?;
        let outdated = || {
            let here = |group: &Group| database.is_none_or(|name| *group.database == *name);
            self.registry().servers().iter().any(|server| server.close_needed() && here(server.group()))
        };
        while outdated() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }
}
