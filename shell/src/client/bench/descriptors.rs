//! The limit of open files: each session takes one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What this process has open besides sessions: outputs, the reactor's, signals, and connections that are being closed.
const OTHERS: u64 = 64;

/// Raises the limit as far as the system lets it. So many sessions have room then.
pub(super) fn raise() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // If not, there is room for fewer.
    let _as_it_was = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX).saturating_sub(OTHERS)
}
