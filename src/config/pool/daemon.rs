//! `logfile`, `pidfile`, `user` and `verbose`: the process as PgBouncer's unit files and scripts know it.

use std::path::PathBuf;

use crate::config::{reading::Reading, section::Section};

/// What the pool's file says about the process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Daemon {
    /// Where the log goes beside standard error. Opened again at each reload, for those who rotate it.
    pub logfile: Option<PathBuf>,
    /// Holds the process's number while it runs.
    pub pidfile: Option<PathBuf>,
    /// The user to become before anything is opened, when started as root.
    pub user: Option<String>,
    /// 1: what happens to each connection is logged too; 2: everything is. Default 0.
    pub verbose: u8,
}

pub(super) fn read(reading: &Reading<'_>, section: &mut Section<'_>) -> Daemon {
    let mut path = |key| section.get(key).and_then(|field| Some(reading.beside(field.text()?)));
    Daemon {
        logfile: path("logfile"),
        pidfile: path("pidfile"),
        user: section.get("user").and_then(|field| field.text().map(str::to_owned)),
        verbose: section.integer("verbose", 0, 0..=9),
    }
}
