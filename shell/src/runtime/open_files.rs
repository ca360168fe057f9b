//! The limit on open files. Each session needs one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of this process, and of the processes it starts, to the system's maximum. Returns the new limit.
pub fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // If this fails, the old limit stays and is returned.
    let _unchanged = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
