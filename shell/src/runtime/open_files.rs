//! The limit of open files: each session takes one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of this process, and of those that it starts, as far as the system lets it. So many files may be
/// open then.
pub fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // If not, there is room for fewer.
    let _as_it_was = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
