//! The processor time of processes and threads, as the kernel counts it (proc(5)).

use std::fs;
use std::time::Duration;

/// The tick of proc(5): Linux has 100 per second on every platform.
const TICK: Duration = Duration::from_millis(10);

/// The processor time of a process so far, in user and kernel mode. `None` if there is no such process, or no proc(5).
#[must_use]
pub fn of_process(id: u32) -> Option<Duration> {
    Some(parse_stat(&fs::read_to_string(format!("/proc/{id}/stat")).ok()?)?.0)
}

/// The processor time of this thread so far. `None` if there is no proc(5).
#[must_use]
pub fn of_this_thread() -> Option<Duration> {
    Some(parse_stat(&fs::read_to_string("/proc/thread-self/stat").ok()?)?.0)
}

/// Processor time and parent in a `stat` file.
#[must_use]
pub fn parse_stat(stat: &str) -> Option<(Duration, u32)> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let number = |index: usize| fields.get(index)?.parse::<u32>().ok();
    Some((TICK * (number(11)? + number(12)?), number(1)?))
}
