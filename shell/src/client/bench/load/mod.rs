//! Load on a server: full cycles, and sessions that are only held.

mod schedule;
mod cycles;
mod held;
mod stats;

pub use cycles::{Cycles, MOST_AT_ONCE};
pub use held::Held;
pub use schedule::{GRACE, HEAD_START, Pace, Users};
pub use stats::{Counts, Tally};
