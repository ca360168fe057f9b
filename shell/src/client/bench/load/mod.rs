//! Load on a server: full cycles, and sessions that are only held.

mod profile;
mod schedule;
mod sign_in;
mod wire;
mod script;
mod dialogue;
mod socket;
mod readiness;
mod engine;
mod cycles;
mod at_once;
mod held;
mod stats;

pub use at_once::{AtOnce, AtOnceCounts};
pub use cycles::{CycleLoad, GRACE, MAX_CONCURRENT};
pub use held::HeldSessions;
pub use profile::{LoadProfile, Users};
pub use schedule::CONNECT_LEAD;
pub use stats::{Counts, LoadStats};
