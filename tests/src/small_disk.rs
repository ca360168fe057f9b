//! A disk that is small enough to fill.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// A small file system, unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk(TempDir);

impl SmallDisk {
    /// Mounts a file system of this many KiB. `None` if mounting is not allowed.
    #[must_use]
    pub fn mount(kib: u32) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let size = format!("size={kib}k");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(directory.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(directory))
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Fills the disk.
    pub fn fill(&self) {
        self.fill_but(0);
    }

    /// Fills the disk except this many KiB.
    pub fn fill_but(&self, kib: usize) {
        let room = self.path().join("room");
        fs::write(&room, vec![0; kib * 1024]).expect("there is that much room");
        let mut file = File::create(self.path().join("filler")).expect("a file takes no room");
        while file.write_all(&[0; 4096]).is_ok() {}
        fs::remove_file(room).expect("it is there");
    }

    /// Frees the space again.
    pub fn free(&self) {
        fs::remove_file(self.path().join("filler")).expect("it was filled");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: files that are still open keep the file system until they are closed.
        drop(Command::new("umount").arg("-l").arg(self.path()).status());
    }
}
