//! The file descriptors of this process.

use std::fs;

use rustix::process::{Resource, getrlimit};

/// The most descriptors that this process may have. `None` if they are not limited.
pub fn max() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// How many descriptors this process has. `None` if the system does not say it.
///
/// Blocks. Linux says it at once since 6.2. Elsewhere this lists the descriptors.
pub fn used() -> Option<u64> {
    const DIRECTORY: &str = if cfg!(target_os = "linux") { "/proc/self/fd" } else { "/dev/fd" };

    let length = fs::metadata(DIRECTORY).ok()?.len();
    if cfg!(target_os = "linux") && length > 0 {
        return Some(length);
    }
    // One of them lists the others.
    let listed = fs::read_dir(DIRECTORY).ok()?.count();
    u64::try_from(listed).ok().map(|listed| listed.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_descriptors_are_counted_and_bounded() {
        // Other tests open files meanwhile, so only their own number is known.
        let files: Vec<_> = (0..100).map(|_| tempfile::tempfile().unwrap()).collect();
        let used = used().unwrap();
        assert!(used > 100 && max().is_none_or(|max| used <= max), "{used}");
        drop(files);
    }
}
