//! Room for releases on a full disk.
//!
//! LMDB copies a page to change it, so even a release needs room. A file of 256 KiB lies beside `live/`'s data. When the disk
//! is full, it is removed, no session is admitted, and its room is used for releases. It is created again when the disk has
//! twice that much room, so that the room it left itself does not count.

use crate::runtime::events::log_event;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The file, and whether it exists.
#[derive(Debug)]
pub(super) struct BallastFile {
    file: PathBuf,
    /// When to try to create it again. `None` if it exists.
    missing: Option<Instant>,
}

impl BallastFile {
    /// The size of the file. A release changes about four pages, and frees as many with the next one.
    pub(super) const BYTES: usize = 64 * 4096;

    const RETRY: Duration = Duration::from_secs(1);

    /// Creates the file in this directory, if there is room.
    pub(super) fn create(directory: &Path) -> Self {
        let mut ballast_file = Self { file: directory.join("ballast"), missing: None };
        ballast_file.recreate(Self::BYTES);
        if ballast_file.missing.is_some() {
            log_event!(disk_nearly_full { path: display(ballast_file.file.display()) });
        }
        ballast_file
    }

    /// Whether the file exists. Tries to create it again from time to time.
    pub(super) fn exists(&mut self) -> bool {
        if self.missing.is_some_and(|retry| retry <= Instant::now()) {
            self.recreate(2 * Self::BYTES);
        }
        self.missing.is_none()
    }

    /// Removes the file to make room.
    pub(super) fn remove(&mut self) {
        self.delete();
        self.missing = Some(Instant::now() + Self::RETRY);
    }

    /// Creates the file if there are `room` bytes.
    fn recreate(&mut self, room: usize) {
        self.missing = match self.write(room) {
            Ok(()) => None,
            Err(_) => {
                self.delete();
                Some(Instant::now() + Self::RETRY)
            }
        };
    }

    /// Writes real bytes: a sparse file would take no room.
    fn write(&self, room: usize) -> io::Result<()> {
        if fs::metadata(&self.file).is_ok_and(|file| file.len() == Self::BYTES as u64) {
            return Ok(());
        }
        let mut file = File::create(&self.file)?;
        file.write_all(&vec![0xb4; room])?;
        file.set_len(Self::BYTES as u64)
    }

    fn delete(&self) {
        // The file may not exist. If it cannot be removed, there is no room to gain.
        drop(fs::remove_file(&self.file));
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;
    use std::thread;

    use super::*;

    #[test]
    fn file_exists_until_removed_and_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ballast");
        let mut ballast_file = BallastFile::create(directory.path());
        assert!(ballast_file.exists());
        assert_eq!(fs::metadata(&file).unwrap().len(), BallastFile::BYTES as u64);
        ballast_file.remove();
        assert!(!ballast_file.exists() && !file.exists());
        ballast_file.missing = Some(Instant::now());
        assert!(ballast_file.exists());
        assert_eq!(fs::metadata(&file).unwrap().len(), BallastFile::BYTES as u64);
    }

    #[test]
    fn file_is_missing_where_it_cannot_be_created() {
        let directory = tempfile::tempdir().unwrap();
        let start = Instant::now();
        let mut ballast_file = BallastFile::create(&directory.path().join("no such directory"));
        assert!(!ballast_file.exists());
        assert!(ballast_file.missing.unwrap() >= start + BallastFile::RETRY, "it is not tried every time");
    }

    #[test]
    fn whole_file_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ballast");
        fs::write(&file, [1; BallastFile::BYTES]).unwrap();
        BallastFile::create(directory.path());
        assert_eq!(fs::read(&file).unwrap(), [1; BallastFile::BYTES]);
        fs::write(&file, [1]).unwrap();
        BallastFile::create(directory.path());
        assert_eq!(fs::read(&file).unwrap(), [0xb4; BallastFile::BYTES]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn file_comes_back_with_twice_its_room() {
        let directory = tempfile::tempdir().unwrap();
        let mut ballast_file = BallastFile::create(directory.path());
        ballast_file.remove();
        // A pipe in its place counts what is written. It has no length to set, so the attempt fails in the end.
        let (mut reader, writer) = io::pipe().unwrap();
        let pipe = format!("/proc/self/fd/{}", writer.as_raw_fd());
        std::os::unix::fs::symlink(pipe, directory.path().join("ballast")).unwrap();
        let counting = thread::spawn(move || io::copy(&mut reader, &mut io::sink()).unwrap());
        ballast_file.missing = Some(Instant::now());
        assert!(!ballast_file.exists());
        drop(writer);
        assert_eq!(counting.join().unwrap(), 2 * BallastFile::BYTES as u64);
    }
}
