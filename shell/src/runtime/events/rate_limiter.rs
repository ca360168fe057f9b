//! Bounds how often events are logged.

use std::collections::BTreeMap;
use std::mem;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::event::Event;

/// Lets one line a second pass for each event, and counts the others. So an event of every command or client cannot flood the
/// log, and a frequent event does not hide another.
#[derive(Debug, Default)]
pub(crate) struct LogRateLimiter(Mutex<BTreeMap<&'static str, SuppressedLines>>);

#[derive(Debug, Default)]
struct SuppressedLines {
    last_logged: Option<Instant>,
    lines: u64,
}

impl LogRateLimiter {
    const INTERVAL: Duration = Duration::from_secs(1);

    /// A limiter that lets the first line of each event pass.
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// `None`: do not log now. Otherwise the number of lines suppressed since the last one, `None` if there are none.
    pub(crate) fn check(&self, event: &Event) -> Option<Option<u64>> {
        let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let suppressed = events.entry(event.name).or_default();
        if suppressed.last_logged.is_some_and(|at| at.elapsed() < Self::INTERVAL) {
            suppressed.lines += 1;
            return None;
        }
        suppressed.last_logged = Some(Instant::now());
        Some(Some(mem::take(&mut suppressed.lines)).filter(|&lines| lines > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::{credential_refused, session_denied};
    use super::*;

    #[test]
    fn suppressed_lines_are_counted_for_each_event() {
        let rate_limiter = LogRateLimiter::new();
        let later = || rate_limiter.0.lock().unwrap().values_mut().for_each(|event| event.last_logged = None);
        let check = || rate_limiter.check(&session_denied);
        assert_eq!(check(), Some(None));
        assert_eq!((check(), check()), (None, None));
        assert_eq!(rate_limiter.check(&credential_refused), Some(None), "another event is not suppressed");
        later();
        assert_eq!(check(), Some(Some(2)));
        later();
        assert_eq!(check(), Some(None));
    }
}
