//! The blocks of a data file that is written through its memory map.
//!
//! LMDB extends such a file to the size of the map, without blocks. A write to a page without blocks makes the kernel look
//! for some, and if the disk is full, the kernel ends the process with SIGBUS. So the map is never larger than what
//! fallocate(2) has given the file before: "subsequent writes to bytes in the specified range are guaranteed not to fail
//! because of lack of disk space". The map begins small and doubles, up to a step of 64 MiB. If the disk has no room for
//! that, it grows by less.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use rustix::fs::FallocateFlags;

use super::ballast_file::BallastFile;

/// The data file, and how much of it has blocks.
#[derive(Debug)]
pub(super) struct MappedFile {
    /// LMDB's own: its path may lead to another file by now.
    file: File,
    /// The size of the file, of its blocks, and of the map.
    bytes: usize,
    /// The largest size.
    limit: usize,
    /// When to try to grow again after the disk had no room. `None` if it had.
    retry_at: Option<Instant>,
}

impl MappedFile {
    /// Every size is a multiple of this, and so of every page size. It is also the size of a new file.
    const STEP: usize = 1 << 20;

    /// How much it grows by at most. Commands wait meanwhile: on tmpfs this takes 50 ms, on ext4 less than one.
    const MAX_STEP: usize = 64 << 20;

    /// The time between two attempts to grow on a disk without room.
    pub(super) const RETRY: Duration = Duration::from_secs(1);

    /// What growing leaves free on the disk: twice the ballast file, so that this file can be created again.
    const KEEP_FREE: u64 = 2 * BallastFile::BYTES as u64;

    /// The first size of the map for a file of this length.
    pub(super) fn first_map(file_bytes: u64, limit: usize) -> usize {
        let bytes = usize::try_from(file_bytes).unwrap_or(usize::MAX).max(Self::STEP);
        bytes.checked_next_multiple_of(Self::STEP).unwrap_or(usize::MAX).min(limit)
    }

    /// Allocates what the file has not allocated yet of its first bytes.
    pub(super) fn allocate(file: File, bytes: usize, limit: usize) -> io::Result<Self> {
        let mapped = Self { file, bytes, limit: limit.max(bytes), retry_at: None };
        mapped.reserve_blocks(0, bytes).map(|()| mapped)
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it can still grow, as far as is known.
    pub(super) const fn can_grow(&self) -> bool {
        self.bytes < self.limit && self.retry_at.is_none()
    }

    /// Whether it could not grow, and it is time to try again.
    pub(super) fn is_retry_due(&self) -> bool {
        self.retry_at.is_some_and(|at| at <= Instant::now())
    }

    /// Allocates as much again, or less if the disk has no room for that, and returns the new size. The map must follow.
    pub(super) fn grow(&mut self) -> io::Result<usize> {
        let mut more = Self::next_step(self.bytes, self.limit);
        loop {
            match self.extend_by(more) {
                Ok(()) => {
                    self.bytes += more;
                    self.retry_at = None;
                    return Ok(self.bytes);
                }
                Err(error) if more <= Self::STEP => {
                    self.retry_at = Some(Instant::now() + Self::RETRY);
                    return Err(error);
                }
                Err(_) => more = (more / 2).next_multiple_of(Self::STEP),
            }
        }
    }

    fn next_step(bytes: usize, limit: usize) -> usize {
        bytes.min(Self::MAX_STEP).min(limit - bytes)
    }

    /// Allocates these bytes behind the others, or nothing.
    fn extend_by(&self, more: usize) -> io::Result<()> {
        let disk = rustix::fs::fstatvfs(&self.file)?;
        let room = disk.f_bavail.saturating_mul(disk.f_frsize);
        // A file system in memory without a bound has no blocks.
        if disk.f_blocks > 0 && room < more as u64 + Self::KEEP_FREE {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.reserve_blocks(self.bytes, more).inspect_err(|_| {
            // An attempt that fails may have allocated a part, which others may need. If it cannot be given back, the next
            // attempt finds it there.
            drop(self.file.set_len(self.bytes as u64));
        })
    }

    fn reserve_blocks(&self, from: usize, bytes: usize) -> io::Result<()> {
        #[cfg(test)]
        if faults::take() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(rustix::fs::fallocate(&self.file, FallocateFlags::empty(), from as u64, bytes as u64)?)
    }
}

#[cfg(test)]
pub(super) mod faults {
    use super::{Instant, MappedFile};
    use std::cell::Cell;

    impl MappedFile {
        /// Makes the next attempt to grow due now.
        pub(in super::super) fn hurry(&mut self) {
            self.retry_at = self.retry_at.map(|_| Instant::now());
        }
    }

    thread_local! {
        static FAILURES: Cell<usize> = const { Cell::new(0) };
    }

    /// Has this many of the next allocations on this thread fail, as on a full disk.
    pub(in super::super) fn fail_allocations(count: usize) {
        FAILURES.set(count);
    }

    /// Whether the next one fails.
    pub(super) fn take() -> bool {
        FAILURES.replace(FAILURES.get().saturating_sub(1)) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_double_the_map_up_to_a_bound() {
        let mib = |mib: usize| mib << 20;
        for (bytes, limit, step) in [(1, 100, 1), (32, 1000, 32), (64, 1000, 64), (128, 1000, 64), (96, 100, 4)] {
            assert_eq!(MappedFile::next_step(mib(bytes), mib(limit)), mib(step), "from {bytes} to {limit}");
        }
    }

    #[test]
    fn map_begins_with_the_whole_file_within_its_limit() {
        let mib = |mib: usize| mib << 20;
        for (file, limit, first) in
            [(0, mib(64), mib(1)), (5000, mib(64), mib(1)), (mib(3) as u64 + 1, mib(64), mib(4))]
        {
            assert_eq!(MappedFile::first_map(file, limit), first);
        }
        assert_eq!(MappedFile::first_map(mib(8) as u64, mib(4)), mib(4));
    }
}
