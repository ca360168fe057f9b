//! A timeout that spans several waits for the server.

use std::time::{Duration, Instant};

use smol::Timer;
use smol::future::or;

use super::Error;

/// A deadline that starts when it is created.
pub(super) struct ReplyTimeout {
    after: Duration,
    /// None: for ever.
    until: Option<Instant>,
}

impl ReplyTimeout {
    pub(super) fn new(after: Duration) -> Self {
        Self { after, until: Instant::now().checked_add(after) }
    }

    pub(super) async fn wait_for<T>(
        &self,
        awaited: &'static str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let late = async {
            self.until.map_or_else(Timer::never, Timer::at).await;
            Err(Error::TimedOut { awaited, after: self.after })
        };
        or(work, late).await
    }
}
