//! The operator's socket in the data directory: bound at the start, and again when its file is gone.
//!
//! Programs that tidy up delete sockets. So the server looks at its file from time to time, and binds it again if the path
//! does not lead to it. It does so only while the path of the data directory leads to the directory that it was given: in
//! another one it would take the socket of that directory's server away.

use crate::runtime::events::log_event;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use smol::Timer;
use smol::future::or;
use smol::net::unix::{UnixListener, UnixStream};

use super::socket_address::{SocketAddress, path};
use crate::runtime::access::{self, Right};

/// A device and an inode.
type FileId = (u64, u64);

fn file_id(path: &Path) -> Option<FileId> {
    fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// The socket of one data directory, as long as the server runs.
#[derive(Debug)]
pub struct BoundSocket {
    data: PathBuf,
    /// The directory when the server opened it.
    directory: Option<FileId>,
    bound: Option<(UnixListener, FileId)>,
    /// The last error was logged.
    has_failed: bool,
}

impl BoundSocket {
    /// How often the file is looked at.
    pub const CHECK_INTERVAL: Duration = Duration::from_secs(1);

    /// Binds the socket. Removes the socket of an earlier server first: the caller has the directory's lock, so that server
    /// is gone. If that fails, the failure is logged, and it is tried again while connections are [accepted](Self::accept).
    #[must_use]
    pub fn bind(data: &Path) -> Self {
        let mut socket = Self { data: data.into(), directory: directory_id(data), bound: None, has_failed: false };
        socket.check();
        socket
    }

    /// The next connection.
    ///
    /// # Errors
    /// What the system says of a connection that cannot be accepted, such as too many open files. It passes.
    pub async fn accept(&mut self) -> io::Result<UnixStream> {
        loop {
            let accepted = async {
                match &self.bound {
                    Some((listener, _)) => Some(listener.accept().await),
                    None => std::future::pending().await,
                }
            };
            let time_to_check = async {
                Timer::after(Self::CHECK_INTERVAL).await;
                None
            };
            match or(accepted, time_to_check).await {
                Some(accepted) => return accepted.map(|(stream, _)| stream),
                None => self.check(),
            }
        }
    }

    /// Binds the socket unless the path leads to the one that is bound.
    fn check(&mut self) {
        let path = path(&self.data);
        let is_there = self.bound.as_ref().is_some_and(|&(_, file)| file_id(&path) == Some(file));
        if is_there || self.directory.is_none() || directory_id(&self.data) != self.directory {
            return;
        }
        match listen(&self.data) {
            Ok(bound) => {
                if self.bound.is_some() || self.has_failed {
                    log_event!(operator_socket_bound_again { path: display(path.display()) });
                }
                (self.bound, self.has_failed) = (Some(bound), false);
            }
            Err(error) => {
                if !self.has_failed {
                    let error = access::explain(&error, &path, Right::Write);
                    log_event!(operator_socket_failed { path: display(path.display()), error: display(error) });
                }
                self.has_failed = true;
            }
        }
    }
}

/// The directory that the path leads to.
fn directory_id(data: &Path) -> Option<FileId> {
    fs::metadata(data).ok().map(|directory| (directory.dev(), directory.ino()))
}

fn listen(data: &Path) -> io::Result<(UnixListener, FileId)> {
    let address = SocketAddress::new(data)?;
    match fs::remove_file(path(data)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    // The mode must be right from the start: a chmod after the bind would leave a moment for others. A file that another
    // thread creates meanwhile is as closed to others as the socket.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(address.path());
    rustix::process::umask(before);
    let id = file_id(&path(data)).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    Ok((listener?, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn can_connect(socket: &mut BoundSocket, data: &Path) -> bool {
        smol::block_on(async {
            let Ok(_client) = UnixStream::connect(path(data)).await else { return false };
            socket.accept().await.is_ok()
        })
    }

    #[test]
    fn deleted_socket_is_bound_again() {
        let directory = tempfile::tempdir().unwrap();
        let mut socket = BoundSocket::bind(directory.path());
        assert!(can_connect(&mut socket, directory.path()));
        fs::remove_file(path(directory.path())).unwrap();
        assert!(!can_connect(&mut socket, directory.path()));
        socket.check();
        assert!(can_connect(&mut socket, directory.path()));
        // Another file in its place.
        fs::remove_file(path(directory.path())).unwrap();
        fs::write(path(directory.path()), "").unwrap();
        socket.check();
        assert!(can_connect(&mut socket, directory.path()));
        let before = file_id(&path(directory.path()));
        socket.check();
        assert_eq!(file_id(&path(directory.path())), before, "one that is there stays");
    }

    #[test]
    fn socket_of_another_directory_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let (data, aside) = (parent.path().join("data"), parent.path().join("aside"));
        fs::create_dir(&data).unwrap();
        let mut first = BoundSocket::bind(&data);
        fs::rename(&data, &aside).unwrap();
        first.check();
        assert!(!data.exists());
        fs::create_dir(&data).unwrap();
        let mut second = BoundSocket::bind(&data);
        first.check();
        assert!(can_connect(&mut second, &data) && can_connect(&mut first, &aside));
    }

    #[test]
    fn socket_that_cannot_be_bound_is_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(path(directory.path())).unwrap();
        let mut socket = BoundSocket::bind(directory.path());
        assert!(!can_connect(&mut socket, directory.path()), "a directory is in its place");
        fs::remove_dir(path(directory.path())).unwrap();
        socket.check();
        assert!(can_connect(&mut socket, directory.path()));
    }
}
