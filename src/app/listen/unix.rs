//! A Unix socket: its file, who may use it, and what a process that died has left behind.
//!
//! A socket's file outlives its process. So one that is there is asked first: where somebody answers (or is too busy to),
//! the name is taken; where nobody does, the file is a left-over and is replaced, as PgBouncer does. What is no socket is
//! never touched. Owner and permissions are set between bind(2) and listen(2): until then nobody can connect.

use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown},
    },
    path::{Path, PathBuf},
};

use socket2::{Domain, SockAddr, Socket, Type};

use super::Bound;
use crate::config::pool::UnixSocket;

/// The file of a socket that listens; removed when this is dropped, unless it has become somebody else's.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the Unix socket's file stays behind");
        }
    }
}

/// Listens on a socket of that name.
pub(super) fn listen(name: &str, unix: &UnixSocket, backlog: i32) -> io::Result<Bound> {
    let socket = new()?;
    if let Some(name) = name.strip_prefix('@') {
        // Without a file; whoever is on this machine may connect, and the name is free when its socket is gone.
        socket.bind(&SockAddr::unix(format!("\0{name}"))?)?;
        socket.listen(backlog)?;
        return Ok(Bound { socket: socket.into(), file: None });
    }
    let path = Path::new(name);
    clear(path)?;
    socket.bind(&SockAddr::unix(path)?).map_err(|error| in_words(error, path))?;
    let file = SocketFile { path: path.to_owned(), identity: identity(path)? };
    if let Some(group) = &unix.group {
        let explained = |error: io::Error| {
            io::Error::new(error.kind(), format!("cannot give it to group {} (unix_socket_group): {error}", group.name))
        };
        chown(path, None, Some(group.gid)).map_err(explained)?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(unix.mode))?;
    socket.listen(backlog)?;
    Ok(Bound { socket: OwnedFd::from(socket), file: Some(file) })
}

fn new() -> io::Result<Socket> {
    Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)
}

/// Makes room for a socket of this name.
fn clear(path: &Path) -> io::Result<()> {
    let other = |why: &str| Err(io::Error::new(io::ErrorKind::AddrInUse, why.to_owned()));
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(in_words(error, path)),
        Ok(there) if !there.file_type().is_socket() => return other("there is a file of that name that is no socket"),
        Ok(_) => {}
    }
    match new()?.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(path = %path.display(), "replacing the Unix socket of a process that has gone");
            fs::remove_file(path)
        }
        // Gone while we looked.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // A full queue is somebody who listens.
        Ok(()) => other("somebody listens there"),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => other("somebody listens there"),
        Err(error) => Err(in_words(error, path)),
    }
}

/// Says of a folder what the kind of an error alone does not.
fn in_words(error: io::Error, path: &Path) -> io::Error {
    let dir = path.parent().unwrap_or(path).display();
    match error.kind() {
        io::ErrorKind::NotFound => io::Error::new(error.kind(), format!("there is no folder {dir}")),
        io::ErrorKind::PermissionDenied => {
            io::Error::new(error.kind(), format!("permission denied (the process must be able to write to {dir})"))
        }
        _ => error,
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|there| (there.dev(), there.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    const SOCKET: UnixSocket = UnixSocket { dir: String::new(), mode: 0o700, group: None };

    fn place() -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        let name = dir.path().join(".s.PGSQL.6432").to_str().unwrap().to_owned();
        (dir, name)
    }

    #[test]
    fn a_socket_has_the_permissions_that_were_asked_for_and_its_file_goes_with_it() {
        let (_dir, name) = place();
        let bound = listen(&name, &SOCKET, 8).unwrap();
        assert_eq!(fs::metadata(&name).unwrap().permissions().mode() & 0o777, 0o700);
        UnixStream::connect(&name).unwrap();
        drop(bound);
        assert!(!Path::new(&name).exists());
    }

    #[test]
    fn what_a_dead_process_left_behind_is_replaced_and_a_living_one_is_left_alone() {
        let (_dir, name) = place();
        drop(UnixListener::bind(&name).unwrap());
        assert!(Path::new(&name).exists());
        let living = listen(&name, &SOCKET, 8).unwrap();
        let error = listen(&name, &SOCKET, 8).unwrap_err();
        assert_eq!(error.to_string(), "somebody listens there");
        UnixStream::connect(&name).unwrap();
        drop(living);
    }

    #[test]
    fn a_file_that_is_no_socket_is_never_replaced() {
        let (_dir, name) = place();
        fs::write(&name, "precious").unwrap();
        assert!(listen(&name, &SOCKET, 8).unwrap_err().to_string().contains("no socket"));
        assert_eq!(fs::read_to_string(&name).unwrap(), "precious");
    }

    #[test]
    fn the_file_of_another_that_has_taken_the_name_stays() {
        let (_dir, name) = place();
        let first = listen(&name, &SOCKET, 8).unwrap();
        fs::remove_file(&name).unwrap();
        let _second = UnixListener::bind(&name).unwrap();
        drop(first);
        UnixStream::connect(&name).unwrap();
    }

    #[test]
    fn a_folder_that_is_not_there_is_said_to_be_that() {
        let error = listen("/nowhere/.s.PGSQL.1", &SOCKET, 8).unwrap_err();
        assert_eq!(error.to_string(), "there is no folder /nowhere");
    }

    #[test]
    fn an_abstract_name_needs_no_file_and_belongs_to_one() {
        let name = format!("@bookend-test-{}/.s.PGSQL.6432", std::process::id());
        let _first = listen(&name, &SOCKET, 8).unwrap();
        assert_eq!(listen(&name, &SOCKET, 8).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
