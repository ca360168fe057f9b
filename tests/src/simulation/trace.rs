//! What happened in a simulation.

use std::collections::BTreeMap;
use std::time::Duration;

/// What happened, a line each, and how often what.
#[derive(Debug, Default)]
pub struct Trace {
    /// The lines, if they are kept.
    pub lines: Option<String>,
    /// How often each kind of operation came, and how often each reply and close was output.
    pub counts: BTreeMap<&'static str, u64>,
    /// The longest that a slot took to come back in the end, by what it was waiting for.
    pub reclaimed: BTreeMap<&'static str, Duration>,
}
