//! Room on the disk for giving slots back when there is none left.
//!
//! LMDB copies a page to change it, so even a release needs room. A file of a few hundred KiB lies beside `live/`'s data
//! for the day when the disk is full: then it is removed, nobody is admitted, and what it took is there for releases. It
//! is put back when the disk has twice that much room, so that what it left itself does not count as room again.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The file, and whether it is there.
#[derive(Debug)]
pub(super) struct BallastFile {
    file: PathBuf,
    /// When to try to put it back, if it is not there.
    missing: Option<Instant>,
}

impl BallastFile {
    /// What the file takes. A release changes about four pages, and gives as many back with the next one.
    pub(super) const BYTES: usize = 64 * 4096;

    const RETRY: Duration = Duration::from_secs(1);

    /// Puts the file into the directory, if it can.
    pub(super) fn create(directory: &Path) -> Self {
        let mut ballast_file = Self { file: directory.join("ballast"), missing: None };
        ballast_file.recreate(Self::BYTES);
        if ballast_file.missing.is_some() {
            tracing::warn!(file = %ballast_file.file.display(), "the disk is nearly full");
        }
        ballast_file
    }

    /// Whether the file is there, now and then after an attempt to put it back.
    pub(super) fn exists(&mut self) -> bool {
        if self.missing.is_some_and(|retry| retry <= Instant::now()) {
            self.recreate(2 * Self::BYTES);
        }
        self.missing.is_none()
    }

    /// Makes room.
    pub(super) fn remove(&mut self) {
        self.delete();
        self.missing = Some(Instant::now() + Self::RETRY);
    }

    /// Puts the file back if there is so much room.
    fn recreate(&mut self, room: usize) {
        self.missing = match self.write(room) {
            Ok(()) => None,
            Err(_) => {
                self.delete();
                Some(Instant::now() + Self::RETRY)
            }
        };
    }

    /// Real bytes: a hole would take no room.
    fn write(&self, room: usize) -> io::Result<()> {
        if fs::metadata(&self.file).is_ok_and(|file| file.len() == Self::BYTES as u64) {
            return Ok(());
        }
        let mut file = File::create(&self.file)?;
        file.write_all(&vec![0xb4; room])?;
        file.set_len(Self::BYTES as u64)
    }

    fn delete(&self) {
        // It may not be there. If it is and cannot be removed, there is no room to be had here.
        drop(fs::remove_file(&self.file));
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;
    use std::thread;

    use super::*;

    #[test]
    fn it_is_there_until_it_is_dropped_and_comes_back() {
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
    fn where_it_cannot_be_put_it_is_not_there() {
        let directory = tempfile::tempdir().unwrap();
        let start = Instant::now();
        let mut ballast_file = BallastFile::create(&directory.path().join("no such directory"));
        assert!(!ballast_file.exists());
        assert!(ballast_file.missing.unwrap() >= start + BallastFile::RETRY, "it is not tried all the time");
    }

    #[test]
    fn what_is_there_is_left_alone_if_it_is_whole() {
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
    fn it_is_put_back_where_there_is_twice_the_room() {
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
