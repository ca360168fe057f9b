//! A bound on how often something is logged.

use std::time::{Duration, Instant};

/// Lets one line pass a second and counts what it holds back, so that an error met by every command cannot flood the
/// log.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    passed: Option<Instant>,
    held_back: u64,
}

impl Seldom {
    const PAUSE: Duration = Duration::from_secs(1);

    /// Whether to log now; if so, how many lines were held back since the last one.
    pub(super) fn pass(&mut self) -> Option<u64> {
        if self.passed.is_some_and(|at| at.elapsed() < Self::PAUSE) {
            self.held_back += 1;
            return None;
        }
        self.passed = Some(Instant::now());
        Some(std::mem::take(&mut self.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_back_is_counted() {
        let mut log = Seldom::default();
        assert_eq!(log.pass(), Some(0));
        assert_eq!((log.pass(), log.pass()), (None, None));
        log.passed = None;
        assert_eq!(log.pass(), Some(2));
        log.passed = None;
        assert_eq!(log.pass(), Some(0));
    }
}
