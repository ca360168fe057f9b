//! The lock of a data directory: one server uses it at a time.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use thiserror::Error;

/// What a file or a directory is, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(super) fn of(metadata: &fs::Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// The right to use a data directory.
///
/// The lock is on the directory itself, and the kernel releases it when the process ends, however it ends. The file `lock` in
/// the directory has the process id as text, for the error of another server. Removing that file changes nothing.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    file: File,
    /// The lock belongs to this open file.
    directory: File,
    /// The lock of another directory that belongs to this one.
    other: Option<Box<Self>>,
}

/// The process that has a data directory locked, according to the lock file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockHolder {
    /// This process.
    ThisProcess,
    /// The process with this id.
    Process(u32),
    /// A process that has not written its id.
    Unknown,
}

/// Why a directory cannot be locked.
#[derive(Debug, Error)]
pub(super) enum LockError {
    /// A process has it.
    #[error("it is in use by {0}")]
    InUse(LockHolder),
    /// What the system says.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl DirectoryLock {
    pub(super) fn acquire(directory: &Path) -> Result<Self, LockError> {
        let path = directory.join("lock");
        let locked = File::open(directory)?;
        match locked.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::InUse(LockHolder::read(&path)));
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        // Not truncated here: `write_holder` does that.
        let file = File::options().create(true).truncate(false).write(true).open(&path)?;
        let lock = Self { file, directory: locked, other: None };
        lock.write_holder()?;
        Ok(lock)
    }

    /// Keeps another directory locked for as long.
    pub(super) fn with(mut self, other: Self) -> Self {
        self.other = Some(Box::new(other));
        self
    }

    /// What is locked.
    pub(super) fn id(&self) -> io::Result<FileId> {
        self.directory.metadata().map(|metadata| FileId::of(&metadata))
    }

    fn write_holder(&self) -> io::Result<()> {
        self.file.set_len(0)?;
        (&self.file).write_all(format!("{}\n", std::process::id()).as_bytes())
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // So that the next process is not taken for this one before it has written its id. If this fails, it may be.
        drop(self.file.set_len(0));
    }
}

impl LockHolder {
    fn read(path: &Path) -> Self {
        match fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()) {
            Some(id) if id == std::process::id() => Self::ThisProcess,
            Some(id) if is_process_alive(id) => Self::Process(id),
            // The id of a killed process, whose successor has not written its own yet.
            Some(_) | None => Self::Unknown,
        }
    }
}

/// Whether there is a process with this id.
fn is_process_alive(id: u32) -> bool {
    let id = i32::try_from(id).ok().and_then(Pid::from_raw);
    // EPERM also means that the process exists.
    id.is_some_and(|id| !matches!(test_kill_process(id), Err(Errno::SRCH)))
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ThisProcess => write!(f, "this process ({})", std::process::id()),
            Self::Process(id) => write!(f, "process {id}"),
            Self::Unknown => f.write_str("another process"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_lock_is_refused_and_names_the_holder() {
        let directory = tempfile::tempdir().unwrap();
        let lock = DirectoryLock::acquire(directory.path()).unwrap();
        let refused = || DirectoryLock::acquire(directory.path()).unwrap_err().to_string();
        let in_words = |holder: &str| format!("it is in use by {holder}");
        assert_eq!(refused(), in_words(&format!("this process ({})", std::process::id())));
        let other = std::os::unix::process::parent_id();
        fs::write(directory.path().join("lock"), format!("{other}\n")).unwrap();
        assert_eq!(refused(), in_words(&format!("process {other}")));
        // The id of a killed process. No system has process ids that high.
        fs::write(directory.path().join("lock"), "2000000000\n").unwrap();
        assert_eq!(refused(), in_words("another process"));
        fs::write(directory.path().join("lock"), "").unwrap();
        assert_eq!(refused(), in_words("another process"));
        drop(lock);
        drop(DirectoryLock::acquire(directory.path()).unwrap());
        assert_eq!(
            fs::read_to_string(directory.path().join("lock")).unwrap(),
            "",
            "the id of a process that is gone stays in no lock file"
        );
    }

    #[test]
    fn id_of_a_killed_server_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        fs::write(&path, "4000000000\n").unwrap();
        let _lock = DirectoryLock::acquire(directory.path()).unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), format!("{}\n", std::process::id()));
    }
}
