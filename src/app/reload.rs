//! Reading the configuration again while everything runs.
//!
//! Both files are read and checked whole before anything is touched; with an error in either, nothing changes. Then each
//! half takes the new values in one step and keeps what is unchanged: health, counters, connections. Listening addresses
//! and threads belong to the running process: they are named in a warning, at each reload until the restart, and keep
//! their values. One reload at a time; a second one waits.

use std::{sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tracing::{error, info, warn};

use crate::{
    app::{daemon, limits},
    config::{Config, Override, SET, is_changeable, lb::Shutdown, open_files_needed},
    health::control::{Control, DrainError, ReloadSummary},
    telemetry::{
        log::Log,
        metrics::{ProgramMetrics, ReloadResult},
    },
};

/// Reads the files again, or, with settings on top, checks them as they were last found to be right. Errors are lines for the
/// operator, each with its place.
pub type Load = Box<dyn Fn(&[Override]) -> Result<Config, Vec<String>> + Send + Sync>;

/// A half of the program as a reload sees it.
pub trait Part: Send + Sync {
    /// Takes over the new configuration; it has been checked and cannot be refused.
    fn reload(&self, config: &Config) -> ReloadSummary;
}

/// The front's servers as an operator steers them.
pub trait Servers: Send + Sync {
    /// Stops sending new requests to a server; returns how many it still has.
    ///
    /// # Errors
    /// When no server has the name, or more than one.
    fn drain(&self, name: &str) -> Result<usize, DrainError>;

    /// Sends requests to it again.
    ///
    /// # Errors
    /// When no server has the name, or more than one.
    fn undrain(&self, name: &str) -> Result<(), DrainError>;
}

/// The pool's databases as an operator holds them.
pub trait Databases: Send + Sync {
    /// Stops lending their servers, or lends them again.
    fn pause(&self, paused: bool);
}

/// Everything a reload touches.
pub struct Reloader {
    pub load: Load,
    /// What the process was started with: the sockets and threads that it has.
    pub started: Config,
    /// Replaced when a reload is over; never locked, since pages and signals look at it while one goes on.
    pub running: Arc<ArcSwap<Config>>,
    /// Held through a whole reload. What SET in the console has put on top of the files since the last one.
    pub turn: Mutex<Vec<Override>>,
    pub parts: Vec<Arc<dyn Part>>,
    pub servers: Option<Arc<dyn Servers>>,
    pub databases: Option<Arc<dyn Databases>>,
    pub metrics: ProgramMetrics,
    pub open_files_limit: u64,
    pub log: Log,
}

impl Reloader {
    /// Returns the shutdown settings that hold now.
    pub fn shutdown(&self) -> Shutdown {
        self.running.load().shutdown
    }

    /// Gives a setting of the pool another value, until the next reload. The configuration is checked as a whole with it.
    ///
    /// # Errors
    /// A text for the operator; nothing has changed then.
    pub fn set(&self, key: &str, value: &str) -> Result<(), String> {
        if !is_changeable(key) {
            return Err(format!("{key} cannot be changed while the process runs"));
        }
        let mut overrides = self.turn.lock();
        let mut wanted: Vec<Override> = overrides.iter().filter(|own| own.key != key).cloned().collect();
        wanted.push(Override { key: key.to_owned(), value: value.to_owned() });
        let new = (self.load)(&wanted).map_err(|errors| {
            let plain = |error: &String| error.strip_prefix(&format!("{SET}:1:1: ")).unwrap_or(error).to_owned();
            errors.iter().map(plain).collect::<Vec<_>>().join("; ")
        })?;
        self.apply(new);
        *overrides = wanted;
        info!(key, value, "setting changed until the next reload");
        Ok(())
    }

    fn apply(&self, new: Config) -> ReloadSummary {
        let running = &**self.running.load();
        let mut summary = ReloadSummary { changed: changed_here(running, &new), needs_restart: Vec::new() };
        for part in &self.parts {
            summary.merge(part.reload(&new));
        }
        summary.needs_restart.extend(needs_restart(&self.started, &new));
        // Said once for each number, not at each reload.
        let (before, needed) = (open_files_needed(running), open_files_needed(&new));
        if let Some(shortage) = limits::shortage(needed, self.open_files_limit).filter(|_| needed != before) {
            warn!("{shortage}");
        }
        if let Err(error) = apply_log(&self.log, &new) {
            warn!("{error}; the log goes where it went");
        }
        self.running.store(Arc::new(new));
        summary
    }
}

impl Control for Reloader {
    fn reload(&self) -> Result<ReloadSummary, Vec<String>> {
        // Held while the files are read: the reload that began last is the one that counts.
        let mut overrides = self.turn.lock();
        let _told = daemon::tell_reloading();
        let loaded = (self.load)(&[]);
        let now = SystemTime::now();
        match loaded {
            Ok(new) => {
                let summary = self.apply(new);
                overrides.clear();
                self.metrics.reloaded(ReloadResult::Applied, now);
                info!(changed = summary.changed.join("; "), "configuration reloaded");
                if !summary.needs_restart.is_empty() {
                    warn!(
                        keys = summary.needs_restart.join(", "),
                        "some keys have new values that take a restart; the running values stay"
                    );
                }
                Ok(summary)
            }
            Err(errors) => {
                self.metrics.reloaded(ReloadResult::Rejected, now);
                for error in &errors {
                    error!(error, "configuration rejected; the running one stays");
                }
                Err(errors)
            }
        }
    }

    fn drain(&self, name: &str) -> Result<usize, DrainError> {
        let in_flight = self.servers.as_ref().ok_or(DrainError::NoFront)?.drain(name)?;
        info!(server = name, in_flight, "server gets no new requests until it is taken back");
        Ok(in_flight)
    }

    fn undrain(&self, name: &str) -> Result<(), DrainError> {
        self.servers.as_ref().ok_or(DrainError::NoFront)?.undrain(name)?;
        info!(server = name, "server gets requests again");
        Ok(())
    }

    fn pause(&self, paused: bool) -> bool {
        let Some(databases) = &self.databases else { return false };
        databases.pause(paused);
        info!(paused, "every database is {}", if paused { "paused: clients wait" } else { "served again" });
        true
    }
}

/// Lets the log go where the pool's file says. A file that has been rotated is opened anew.
///
/// # Errors
/// Text for the operator.
pub fn apply_log(log: &Log, config: &Config) -> Result<(), String> {
    let daemon = config.pool.as_ref().map(|pool| pool.daemon.clone()).unwrap_or_default();
    let file = daemon.logfile.as_deref();
    let failed = |error| format!("logfile {}: {error}", file.unwrap_or("".as_ref()).display());
    log.apply(file, daemon.verbose).map_err(failed)
}

/// What changed that belongs to neither half.
fn changed_here(old: &Config, new: &Config) -> Vec<String> {
    let mut changed = Vec::new();
    if old.shutdown != new.shutdown {
        changed.push(format!(
            "shutdown: pre_stop_delay {:?}, grace_period {:?}",
            new.shutdown.pre_stop_delay, new.shutdown.grace_period
        ));
    }
    changed
}

/// Returns the keys whose new values the running process cannot take over.
fn needs_restart(started: &Config, new: &Config) -> Vec<String> {
    let mut keys = Vec::new();
    let mut differs = |differs: bool, key: &str| {
        if differs {
            keys.push(key.to_owned());
        }
    };
    if let (Some(old), Some(new)) = (&started.lb, &new.lb) {
        let addresses =
            |lb: &crate::config::lb::Lb| lb.listeners.iter().map(|listener| listener.address).collect::<Vec<_>>();
        differs(addresses(old) != addresses(new), "lb.yaml listeners");
        differs(old.threads != new.threads, "lb.yaml threads");
        differs(old.access_log != new.access_log, "lb.yaml access_log");
    }
    if let (Some(old), Some(new)) = (&started.pool, &new.pool) {
        for key in old.listen.differences(&new.listen) {
            differs(true, &format!("pool.yaml pool.{key}"));
        }
        differs(old.threads != new.threads, "pool.yaml pool.threads");
        differs(old.daemon.pidfile != new.daemon.pidfile, "pool.yaml pool.pidfile");
        differs(old.daemon.user != new.daemon.user, "pool.yaml pool.user");
    }
    differs(started.admin != new.admin, "admin.address");
    keys
}

#[cfg(test)]
mod tests;
