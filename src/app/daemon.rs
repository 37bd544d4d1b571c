//! What unit files and scripts of PgBouncer expect of the process: another user, a file with its number, word to systemd.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use nix::unistd::{Gid, Uid, User, getuid, initgroups, setgid, setuid};
use sd_notify::NotifyState;
use tracing::warn;

/// Becomes the user `name` for good. Nothing to do where the process is that user's already.
///
/// # Errors
/// Text for the operator: there is no such user, or the process may not become another.
pub fn become_user(name: &str) -> Result<(), String> {
    let failed = |error: nix::Error| format!("cannot become user {name}: {error}");
    let user = User::from_name(name).map_err(failed)?.ok_or(format!("there is no user {name}"))?;
    if getuid() == user.uid {
        return Ok(());
    }
    if !getuid().is_root() {
        return Err(format!("only root can become user {name}: leave user out, or start as root"));
    }
    let c_name = std::ffi::CString::new(name).map_err(|error| error.to_string())?;
    let become_it = |uid: Uid, gid: Gid| {
        initgroups(&c_name, gid)?;
        setgid(gid)?;
        setuid(uid)
    };
    become_it(user.uid, user.gid).map_err(failed)
}

/// A file that holds the process's number; removed when dropped.
#[derive(Debug)]
pub struct PidFile(PathBuf);

impl PidFile {
    /// Writes the file, unless it holds the number of another process that runs.
    ///
    /// # Errors
    /// Text for the operator.
    pub fn claim(path: &Path) -> Result<Self, String> {
        let own = std::process::id();
        let failed = |error: io::Error| format!("pidfile {}: {error}", path.display());
        let other = fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u32>().ok());
        if let Some(pid) = other.filter(|pid| *pid != own && Path::new(&format!("/proc/{pid}")).exists()) {
            return Err(format!("pidfile {}: process {pid} runs already", path.display()));
        }
        fs::write(path, format!("{own}\n")).map_err(failed)?;
        // The working directory is another one later, or not there.
        Ok(Self(env::current_dir().map_or_else(|_| path.to_owned(), |here| here.join(path))))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            warn!(path = %self.0.display(), %error, "the pidfile stays");
        }
    }
}

/// Tells systemd that the process serves (`Type=notify`), where systemd listens.
pub fn tell_ready() {
    tell(&[NotifyState::Ready]);
}

/// Tells systemd that the process leaves.
pub fn tell_stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tells systemd that files are read again (`Type=notify-reload`) until the answer is dropped.
pub fn tell_reloading() -> Reloading {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
    Reloading
}

/// While files are read again.
pub struct Reloading;

impl Drop for Reloading {
    fn drop(&mut self) {
        tell_ready();
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "systemd could not be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pidfile_is_there_while_it_is_held_and_a_stale_one_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bookend.pid");
        // Beyond the largest number Linux gives.
        fs::write(&path, "4194305\n").unwrap();
        let held = PidFile::claim(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(held);
        assert!(!path.exists());
    }

    #[test]
    fn a_pidfile_of_a_process_that_runs_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bookend.pid");
        fs::write(&path, "1\n").unwrap();
        let error = PidFile::claim(&path).unwrap_err();
        assert!(error.ends_with("process 1 runs already"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
    }

    #[test]
    fn a_user_that_is_not_there_is_named() {
        assert_eq!(become_user("no_such_user_here").unwrap_err(), "there is no user no_such_user_here");
        let own = User::from_uid(getuid()).unwrap().unwrap();
        become_user(&own.name).unwrap();
    }
}
