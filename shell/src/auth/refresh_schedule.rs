//! When keys are fetched from their provider. Pure: the caller passes the time, fetches, and reports how that ended.

use std::time::Duration;

use session_core::Timestamp;

/// Decides when the next fetch begins. At most one is under way.
///
/// A fetch is due before the set in force expires; some time after one that failed, each time later; and when a token names an
/// unknown key. Tokens cost a client nothing, so they bring a fetch forward only
/// [`UNKNOWN_KEY_BURST`](Self::UNKNOWN_KEY_BURST) times in a row, and then once per
/// [`UNKNOWN_KEY_INTERVAL`](Self::UNKNOWN_KEY_INTERVAL).
#[derive(Debug, Clone, PartialEq)]
pub struct RefreshSchedule {
    state: State,
    last_begun: Option<Timestamp>,
    /// When the fetches that tokens asked for so far would have begun, with one per interval.
    asked_until: Timestamp,
    failing: Option<Failing>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Waiting { until: Timestamp },
    Fetching { again: bool },
}

/// The provider has given no usable keys for some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failing {
    /// When the first of the failed fetches ended.
    pub since: Timestamp,
    /// The number of failed fetches.
    pub fetches: u32,
    reported: Timestamp,
}

impl RefreshSchedule {
    /// The shortest time for which a set counts as fresh, whatever its provider says.
    pub const MIN_LIFETIME: Duration = Duration::from_secs(60);
    /// The longest.
    pub const MAX_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
    /// For how long a set counts as fresh if its provider does not say.
    pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(5 * 60);
    /// The wait after the first failed fetch. It doubles with each.
    pub const FIRST_RETRY: Duration = Duration::from_secs(1);
    /// The longest wait after a failed fetch.
    pub const MAX_RETRY: Duration = Duration::from_secs(60);
    /// The shortest time from the begin of a fetch to the next one that a token or an operator asks for.
    pub const MIN_GAP: Duration = Duration::from_secs(1);
    /// How many fetches unknown keys may cause in a row.
    pub const UNKNOWN_KEY_BURST: u32 = 3;
    /// After these, one per this time.
    pub const UNKNOWN_KEY_INTERVAL: Duration = Duration::from_secs(10);
    /// How often failures are reported while they go on.
    pub const REPORT_INTERVAL: Duration = Duration::from_secs(60);

    /// Due at once: there is no set yet, or an old one.
    #[must_use]
    pub const fn due(now: Timestamp) -> Self {
        let state = State::Waiting { until: now };
        Self { state, last_begun: None, asked_until: Timestamp::from_epoch(Duration::ZERO), failing: None }
    }

    /// The set in force has just been fetched, and its provider lets it be kept for this long.
    #[must_use]
    pub fn fetched(now: Timestamp, lifetime: Option<Duration>, random: f64) -> Self {
        let mut schedule = Self { last_begun: Some(now), ..Self::due(now) };
        schedule.wait(now + fresh_for(lifetime, random));
        schedule
    }

    /// When the next fetch is due. `None` while one is under way. Any call can change it.
    #[must_use]
    pub const fn next(&self) -> Option<Timestamp> {
        match self.state {
            State::Waiting { until } => Some(until),
            State::Fetching { .. } => None,
        }
    }

    /// Begins a fetch if one is due. The caller then fetches, and calls [`succeeded`](Self::succeeded) or
    /// [`failed`](Self::failed).
    pub fn begin(&mut self, now: Timestamp) -> bool {
        let is_due = self.next().is_some_and(|until| until <= now);
        if is_due {
            self.state = State::Fetching { again: false };
            self.last_begun = Some(now);
        }
        is_due
    }

    /// The fetch has brought keys. Returns the failures that this ends. `random` is from 0 to 1: several servers should not ask
    /// at the same time.
    pub fn succeeded(&mut self, now: Timestamp, lifetime: Option<Duration>, random: f64) -> Option<Failing> {
        self.wait(now + fresh_for(lifetime, random));
        self.failing.take()
    }

    /// The fetch has brought no keys. Returns the failures so far if it is time to report them.
    pub fn failed(&mut self, now: Timestamp, random: f64) -> Option<Failing> {
        let failing = match self.failing {
            None => Failing { since: now, fetches: 1, reported: now },
            Some(before) => Failing { fetches: before.fetches.saturating_add(1), ..before },
        };
        let doublings = (failing.fetches - 1).min(16);
        let wait = Self::FIRST_RETRY.saturating_mul(1 << doublings).min(Self::MAX_RETRY);
        self.wait(now + wait.mul_f64(0.75 + random.clamp(0.0, 1.0) / 4.0));
        let is_reported = failing.fetches == 1 || now.since(failing.reported) >= Self::REPORT_INTERVAL;
        let failing = Failing { reported: if is_reported { now } else { failing.reported }, ..failing };
        self.failing = Some(failing);
        is_reported.then_some(failing)
    }

    /// A token names an unknown key. Returns when a fetch begins that may bring it, or `now` if one is under way.
    pub fn unknown_key(&mut self, now: Timestamp) -> Timestamp {
        let State::Waiting { until } = self.state else { return now };
        let burst = Self::UNKNOWN_KEY_INTERVAL * (Self::UNKNOWN_KEY_BURST - 1);
        let allowed = Timestamp::from_epoch(self.asked_until.since_epoch().saturating_sub(burst));
        // A fetch that was put off until then may have been replaced by an operator's, and counts all the same.
        let begins = allowed.max(self.earliest(now)).min(now + Self::UNKNOWN_KEY_INTERVAL);
        if until <= begins {
            return until.max(now);
        }
        self.asked_until = self.asked_until.max(begins) + Self::UNKNOWN_KEY_INTERVAL;
        self.state = State::Waiting { until: begins };
        begins
    }

    /// The operator asks for a fetch. One that is under way may have read the old set, so another one follows it.
    pub fn refresh(&mut self, now: Timestamp) {
        self.state = match self.state {
            State::Waiting { until } => State::Waiting { until: until.min(self.earliest(now)) },
            State::Fetching { .. } => State::Fetching { again: true },
        };
    }

    fn earliest(&self, now: Timestamp) -> Timestamp {
        self.last_begun.map_or(now, |begun| now.max(begun + Self::MIN_GAP))
    }

    /// Ends a fetch.
    fn wait(&mut self, until: Timestamp) {
        let is_asked_again = self.state == State::Fetching { again: true };
        let soon = self.earliest(Timestamp::default());
        self.state = State::Waiting { until: if is_asked_again { until.min(soon) } else { until } };
    }
}

/// How long after a set came the next fetch begins: when 80 to 90 percent of its lifetime have passed.
fn fresh_for(lifetime: Option<Duration>, random: f64) -> Duration {
    let lifetime = lifetime.unwrap_or(RefreshSchedule::DEFAULT_LIFETIME);
    let lifetime = lifetime.clamp(RefreshSchedule::MIN_LIFETIME, RefreshSchedule::MAX_LIFETIME);
    lifetime.mul_f64(0.8 + random.clamp(0.0, 1.0) / 10.0)
}
