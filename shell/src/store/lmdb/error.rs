//! Why the store does not open, and what an LMDB error means to a client.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use session_core::ledger::StoreError;
use thiserror::Error;

use super::ballast_file::BallastFile;
use super::environment::EnvironmentError;
use crate::runtime::access::{self, Right};
use crate::store::directory_lock::{LockError, LockHolder};

/// Why an [`LmdbStore`](super::LmdbStore) does not open.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The map cannot have this size.
    #[error("a map of {bytes} bytes cannot be made; the least is 1 MiB, the most what the machine can address")]
    MapSize {
        /// What was configured.
        bytes: usize,
    },
    /// The queue has no capacity.
    #[error("a queue for no commands would reject every one, the least is 1")]
    QueueCapacity,
    /// The directory cannot be created, read or written.
    #[error(
        "the data directory {directory} cannot be used{}", directory_advice(.source)
    )]
    Directory {
        /// Which directory, or which directory in it.
        directory: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A server already uses the directory.
    #[error("the data directory {directory} is in use by {holder}; stop that server or use another directory")]
    InUse {
        /// Which directory.
        directory: PathBuf,
        /// Who uses it.
        holder: LockHolder,
    },
    /// The users' records are damaged.
    #[error(
        "the known users in {directory} cannot be read; restore it from a backup, or move it away to start without any"
    )]
    UsersDamaged {
        /// Which directory.
        directory: PathBuf,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The users' records do not open, without a sign of damage.
    #[error(
        "the known users in {directory} do not open; check its permissions and the limits on memory and open files"
    )]
    Users {
        /// Which directory.
        directory: PathBuf,
        /// What LMDB says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The slots' records do not open, not even an empty set.
    #[error("the slots in {directory} do not open; check its permissions and the limits on memory and open files")]
    Live {
        /// Which directory.
        directory: PathBuf,
        /// What LMDB says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The system starts no thread.
    #[error("the store's threads cannot be started; check the limit on processes")]
    Thread {
        /// What the system says.
        source: io::Error,
    },
}

impl OpenError {
    /// What it means that this directory could not be locked.
    pub(super) fn from_lock(directory: &Path, error: LockError) -> Self {
        let directory = directory.into();
        match error {
            LockError::InUse(holder) => Self::InUse { directory, holder },
            LockError::Io(source) => Self::directory(directory, source),
        }
    }

    /// The directory cannot be used. If a permission is missing, the error says which.
    pub(super) fn directory(directory: PathBuf, source: io::Error) -> Self {
        let source = access::explained(source, &directory, Right::Tree);
        Self::Directory { directory, source }
    }
}

/// What LMDB says of this directory. If a permission is missing, also which.
pub(super) fn explained(directory: &Path, error: EnvironmentError) -> Box<dyn std::error::Error + Send + Sync> {
    match error {
        EnvironmentError::Io(error) | EnvironmentError::Lmdb(heed::Error::Io(error)) => {
            access::explained(error, directory, Right::Tree).into()
        }
        EnvironmentError::Damaged(_)
        | EnvironmentError::NotThere(_)
        | EnvironmentError::NotAllocated(_)
        | EnvironmentError::Lmdb(_) => error.into(),
    }
}

fn directory_advice(error: &io::Error) -> &'static str {
    let kind = error.kind();
    if kind == ErrorKind::PermissionDenied {
        // The error itself says what to do.
        ""
    } else if matches!(kind, ErrorKind::AlreadyExists | ErrorKind::NotADirectory) {
        "; a file is in its place, or above it"
    } else {
        "; it must be a directory that this user can write to, on a disk with room"
    }
}

/// The number of this error on every Unix.
const EIO: i32 = 5;

/// What the error of an environment in this directory means to a client.
pub(super) fn store_error(error: &heed::Error, directory: &Path) -> StoreError {
    match error {
        heed::Error::Mdb(heed::MdbError::MapFull) => StoreError::Full,
        heed::Error::Io(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
            StoreError::Full
        }
        // LMDB returns EIO ("short write, filesystem full?") if only part of a write fits. So does a disk that fails.
        heed::Error::Io(error) if error.raw_os_error() == Some(EIO) && is_full(directory) => StoreError::Full,
        heed::Error::Mdb(_)
        | heed::Error::Io(_)
        | heed::Error::Encoding(_)
        | heed::Error::Decoding(_)
        | heed::Error::EnvAlreadyOpened => StoreError::Failed,
    }
}

/// Whether the file system of this directory has less room than the store may need at once.
fn is_full(directory: &Path) -> bool {
    let room = rustix::fs::statvfs(directory).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    room.is_ok_and(|room| room < 2 * BallastFile::BYTES as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_disk_is_told_from_a_failure() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let io = |error: io::Error| store_error(&heed::Error::Io(error), directory);
        assert_eq!(io(ErrorKind::StorageFull.into()), StoreError::Full);
        assert_eq!(io(ErrorKind::QuotaExceeded.into()), StoreError::Full);
        assert_eq!(io(io::Error::from_raw_os_error(EIO)), StoreError::Failed, "the disk has room, so it fails");
        assert_eq!(io(ErrorKind::PermissionDenied.into()), StoreError::Failed);
        assert_eq!(store_error(&heed::MdbError::MapFull.into(), directory), StoreError::Full);
        assert_eq!(store_error(&heed::MdbError::Corrupted.into(), directory), StoreError::Failed);
    }
}
