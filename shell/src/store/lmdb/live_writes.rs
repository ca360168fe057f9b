//! How `live/` is written: through its memory map where that is safe, else with a system call for each page.
//!
//! A write through the map that needs a new block, and finds the disk full, ends the process with SIGBUS. Where blocks that
//! are allocated once are overwritten in place, [`MappedFile`](super::mapped_file) prevents that. File systems that write
//! elsewhere, or may share blocks with a copy of the file, need room for every write. So only file systems that are known to
//! be safe are trusted.

use std::fmt;
use std::io;
use std::path::Path;

use clap::ValueEnum;

/// How `live/` is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LiveWrites {
    /// Through the memory map on file systems where this is safe: ext4 and tmpfs.
    #[default]
    Auto,
    /// Through the memory map on every file system that can allocate blocks.
    Map,
    /// With system calls.
    File,
}

/// Why `live/` is not written through its map, although nobody asked for that.
#[derive(Debug)]
pub(super) enum NotMapped {
    /// A file system of this name, for this reason.
    FileSystem(&'static str, &'static str),
    /// One with a number that is not in the table.
    UnknownFileSystem(u64),
    /// The file system cannot allocate the blocks, or has no room for them.
    NotAllocated(io::Error),
    /// It cannot be found out.
    Io(io::Error),
}

impl fmt::Display for NotMapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FileSystem(name, reason) => write!(f, "on {name} {reason}"),
            Self::UnknownFileSystem(number) => write!(f, "the file system 0x{number:x} is not known to be safe"),
            Self::NotAllocated(error) => write!(f, "its blocks cannot be allocated: {error}"),
            Self::Io(error) => write!(f, "the file system cannot be looked at: {error}"),
        }
    }
}

const ELSEWHERE: &str = "a write needs new blocks, also where blocks are allocated";
const SHARED: &str = "a copy of the file may share its blocks, and a write then needs new ones";
const BELOW: &str = "the file system below is not known";
const REMOTE: &str = "the file system is another machine's";

/// The `f_type` of statfs(2), the name, and why not to write through a map, if so.
const FILE_SYSTEMS: [(u64, &str, Option<&str>); 14] = [
    // Also ext2 and ext3. Where these cannot allocate blocks, they say so.
    (0xef53, "ext4", None),
    (0x0102_1994, "tmpfs", None),
    (0x5846_5342, "xfs", Some(SHARED)),
    (0x9123_683e, "btrfs", Some(ELSEWHERE)),
    (0x2fc1_2fc1, "zfs", Some(ELSEWHERE)),
    (0xca45_1a4e, "bcachefs", Some(ELSEWHERE)),
    (0xf2f5_2010, "f2fs", Some(ELSEWHERE)),
    (0x794c_7630, "overlayfs", Some(BELOW)),
    (0x6573_5546, "FUSE", Some(BELOW)),
    (0xf15f, "ecryptfs", Some(BELOW)),
    (0x0102_1997, "9p", Some(REMOTE)),
    (0x6969, "nfs", Some(REMOTE)),
    (0xff53_4d42, "cifs", Some(REMOTE)),
    (0xfe53_4d42, "smb", Some(REMOTE)),
];

/// Why the file system of this directory is not safe for writes through a map. `None` if it is.
pub(super) fn objection(directory: &Path) -> Option<NotMapped> {
    match file_system(directory) {
        Ok(number) => objection_to(number),
        Err(error) => Some(NotMapped::Io(error)),
    }
}

fn objection_to(number: u64) -> Option<NotMapped> {
    match FILE_SYSTEMS.iter().find(|(of, ..)| *of == number) {
        Some((_, _, None)) => None,
        Some(&(_, name, Some(reason))) => Some(NotMapped::FileSystem(name, reason)),
        None => Some(NotMapped::UnknownFileSystem(number)),
    }
}

#[cfg(target_os = "linux")]
fn file_system(directory: &Path) -> io::Result<u64> {
    // The type of the field differs between machines. The numbers have 32 bits.
    #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast, reason = "on some machines it is signed")]
    Ok(rustix::fs::statfs(directory)?.f_type as u64 & 0xffff_ffff)
}

#[cfg(not(target_os = "linux"))]
fn file_system(_: &Path) -> io::Result<u64> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ext4_and_tmpfs_are_safe() {
        let safe: Vec<_> = FILE_SYSTEMS
            .iter()
            .filter(|(number, ..)| objection_to(*number).is_none())
            .map(|(_, name, _)| *name)
            .collect();
        assert_eq!(safe, ["ext4", "tmpfs"]);
        for number in [0, 1, 0xef52, 0x8584_58f6, u64::MAX] {
            assert!(matches!(objection_to(number), Some(NotMapped::UnknownFileSystem(of)) if of == number));
        }
    }

    #[test]
    fn reason_names_the_file_system() {
        let reason = |number| objection_to(number).unwrap().to_string();
        assert_eq!(reason(0x9123_683e), format!("on btrfs {ELSEWHERE}"));
        assert_eq!(reason(0x794c_7630), "on overlayfs the file system below is not known");
        assert_eq!(reason(0xabc), "the file system 0xabc is not known to be safe");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn system_says_what_a_directory_is_on() {
        assert!(matches!(objection(Path::new("/proc")), Some(NotMapped::UnknownFileSystem(0x9fa0))));
        assert!(matches!(objection(Path::new("/no such directory")), Some(NotMapped::Io(_))));
    }
}
