//! Load on a server: full cycles, and sessions that are only held.

mod profile;
mod schedule;
mod sign_in;
mod cycles;
mod held;
mod stats;

pub use cycles::{Cycles, GRACE, MOST_AT_ONCE};
pub use held::Held;
pub use profile::{Pace, Users};
pub use schedule::HEAD_START;
pub use stats::{Counts, Tally};
