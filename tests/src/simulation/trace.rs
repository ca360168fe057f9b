//! The trace of a simulation.

use std::collections::BTreeMap;
use std::time::Duration;

/// The events of a simulation, and their counts.
#[derive(Debug, Default)]
pub struct Trace {
    /// The lines, if they are kept.
    pub lines: Option<String>,
    /// How often each kind of operation, message and close occurred.
    pub counts: BTreeMap<&'static str, u64>,
    /// The longest time until a slot became free after the faults ended, by cause.
    pub reclaimed: BTreeMap<&'static str, Duration>,
}
