//! The times of an open loop.

use std::time::{Duration, Instant};

/// How long before its time to authenticate an open-loop session connects.
pub const CONNECT_LEAD: Duration = Duration::from_millis(50);

/// The times of an open loop.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ArrivalSchedule {
    begin: Instant,
    rate: f64,
}

/// The scheduled time of one sign-in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    /// When to send AUTHENTICATE.
    pub(crate) at: Instant,
    /// How long after its time it started.
    pub(crate) begun_late: Duration,
}

impl ArrivalSchedule {
    pub(crate) fn new(begin: Instant, rate: f64) -> Self {
        Self { begin, rate: rate.max(0.001) }
    }

    /// When a sign-in starts.
    pub(crate) fn time(&self, number: u64) -> Instant {
        self.begin + Duration::from_secs_f64(number as f64 / self.rate)
    }

    pub(crate) async fn wait_for(&self, number: u64) -> Arrival {
        let time = self.time(number);
        if time > Instant::now() {
            smol::Timer::at(time).await;
        }
        self.arrival(number)
    }

    /// A sign-in that starts now.
    pub(crate) fn arrival(&self, number: u64) -> Arrival {
        let time = self.time(number);
        Arrival { at: time + CONNECT_LEAD, begun_late: time.elapsed() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedule_is_even_and_does_not_drift() {
        let schedule = ArrivalSchedule::new(Instant::now(), 1000.0);
        assert_eq!(schedule.time(0), schedule.begin);
        assert_eq!(schedule.time(86_400_000), schedule.begin + Duration::from_secs(86_400));
    }
}
