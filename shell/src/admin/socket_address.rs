//! The path of the operator's socket, also where it does not fit the address of a Unix socket (107 bytes on Linux).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};

const NAME: &str = "operator.sock";

/// The socket of the server that uses this data directory.
#[must_use]
pub fn path(data: &Path) -> PathBuf {
    data.join(NAME)
}

/// A path that leads to the socket and fits an address, as long as this lives.
#[derive(Debug)]
pub(super) struct SocketAddress {
    path: PathBuf,
    /// The path leads through this open directory, if the plain path is too long.
    _directory: Option<File>,
}

impl SocketAddress {
    /// The address of the socket in this data directory.
    ///
    /// # Errors
    /// The path is too long, and the directory cannot be opened; or this system shows no open files in `/proc`.
    pub(super) fn new(data: &Path) -> io::Result<Self> {
        let plain = path(data);
        if SocketAddr::from_pathname(&plain).is_ok() {
            return Ok(Self { path: plain, _directory: None });
        }
        let directory = File::open(data)?;
        let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string());
        if !short.is_dir() {
            let message =
                "its path is too long for a socket, and /proc is not there: use a data directory with a shorter path";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Ok(Self { path: short.join(NAME), _directory: Some(directory) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn socket_is_reached_however_long_its_path_is() {
        let directory = tempfile::tempdir().unwrap();
        let start = directory.path().as_os_str().len();
        // Around the 107 bytes of Linux and the 103 of macOS, and far beyond them.
        for length in (85..=98).chain([300, 1000]) {
            let mut data = directory.path().join(length.to_string());
            while data.as_os_str().len() + 1 < length.max(start + 8) {
                data = data.join("d".repeat((length.max(start + 8) - data.as_os_str().len() - 1).min(200)));
            }
            fs::create_dir_all(&data).unwrap();
            let address = SocketAddress::new(&data).unwrap();
            let listener = UnixListener::bind(address.path()).unwrap();
            drop(address);
            assert!(path(&data).exists(), "{length}");
            let address = SocketAddress::new(&data).unwrap();
            let _client = UnixStream::connect(address.path()).unwrap();
            drop(listener);
        }
        assert!(SocketAddress::new(&directory.path().join("d".repeat(200))).is_err(), "it is not there");
    }
}
