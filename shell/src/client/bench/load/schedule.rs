//! Load on a server: full cycles, from the connection to the close that follows a BYE, counted and timed; and sessions
//! that are only held.

use std::time::{Duration, Instant};

use crate::client::{Connection, Error, Options, Url};

/// Whom the load signs in: so many users, named `user-00000000` and on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Users(pub u32);

/// When the next one begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// Open loop: so many a second, whether or not those before have ended. A session authenticates at its time, and
    /// its latency counts from there: a server that stalls is seen to have kept everybody waiting who came meanwhile.
    Rate(f64),
    /// Closed loop: so many at once, each beginning when the one before it has ended.
    Concurrency(u16),
}

/// How long answers may take once no more cycles are begun, and a held session to begin or to end.
pub const GRACE: Duration = Duration::from_secs(10);

/// How long before its time to authenticate a session of an open loop connects.
pub const HEAD_START: Duration = Duration::from_millis(50);

/// The times of an open loop.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    begin: Instant,
    rate: f64,
}

/// When one of an open loop is due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Due {
    /// Its AUTHENTICATE.
    pub(crate) at: Instant,
    /// How long after its time it was begun.
    pub(crate) begun_late: Duration,
}

/// How a session came in, or was refused at the limit.
pub(crate) struct Entry {
    pub(crate) refused: bool,
    /// When it was begun, or should have been.
    pub(crate) began: Instant,
    /// How long it had nothing to do but to wait for its time to authenticate.
    pub(crate) idle: Duration,
    /// From AUTHENTICATE, or from when it was due, to its answer.
    pub(crate) took: Duration,
    /// How late AUTHENTICATE was without any fault of the server's. None in a closed loop.
    pub(crate) late: Option<Duration>,
}

impl Users {
    /// The name of one of them.
    #[must_use]
    pub fn name(number: u32) -> String {
        format!("user-{number:08}")
    }

    /// One at random.
    pub(crate) fn any(self) -> String {
        Self::name(fastrand::u32(0..self.0.max(1)))
    }

    /// Whose this one of so many sessions is, if they are dealt evenly and the first users come first.
    pub(crate) fn dealt(self, number: u32, sessions: u32) -> String {
        let user = u64::from(number) * u64::from(self.0.clamp(1, sessions.max(1))) / u64::from(sessions.max(1));
        Self::name(u32::try_from(user).unwrap_or(u32::MAX))
    }
}

impl Schedule {
    pub(crate) fn new(begin: Instant, rate: f64) -> Self {
        Self { begin, rate: rate.max(0.001) }
    }

    /// When this one begins.
    pub(crate) fn time(&self, number: u64) -> Instant {
        self.begin + Duration::from_secs_f64(number as f64 / self.rate)
    }

    /// Waits for that time.
    pub(crate) async fn wait_for(&self, number: u64) -> Due {
        let time = self.time(number);
        if time > Instant::now() {
            smol::Timer::at(time).await;
        }
        Due { at: time + HEAD_START, begun_late: time.elapsed() }
    }
}

pub(crate) async fn sign_in(
    url: &Url,
    user: &str,
    due: Option<Due>,
    options: &Options,
) -> Result<(Connection, Entry), Error> {
    let began = due.map_or_else(Instant::now, |due| due.at - HEAD_START);
    let mut connection = Connection::open_with(url, options).await?;
    let (mut idle, mut late) = (Duration::ZERO, None);
    if let Some(Due { at, begun_late }) = due {
        idle = at.saturating_duration_since(Instant::now());
        late = Some(if idle.is_zero() {
            // The server took too long to let it in. The rest of the delay may be the server's, this part is not.
            at.elapsed().min(begun_late)
        } else {
            smol::Timer::at(at).await;
            at.elapsed()
        });
    }
    let asked = due.map_or_else(Instant::now, |due| due.at);
    let refused = match connection.authenticate(user).await {
        Ok(_) => false,
        Err(Error::LimitReached { .. }) => true,
        Err(error) => return Err(error),
    };
    Ok((connection, Entry { refused, began, idle, took: asked.elapsed(), late }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_dealt_evenly_and_first_users_come_first() {
        let dealt = |users, sessions| -> Vec<String> {
            (0..sessions).map(|number| Users(users).dealt(number, sessions).split_off(12)).collect()
        };
        assert_eq!(dealt(2, 6), ["0", "0", "0", "1", "1", "1"]);
        assert_eq!(dealt(4, 10), ["0", "0", "0", "1", "1", "2", "2", "2", "3", "3"]);
        assert_eq!(dealt(1, 3), ["0", "0", "0"]);
        assert_eq!(dealt(9, 3), ["0", "1", "2"]);
        assert_eq!(dealt(0, 1), ["0"]);
    }

    #[test]
    fn a_schedule_is_even_and_does_not_drift() {
        let schedule = Schedule::new(Instant::now(), 1000.0);
        assert_eq!(schedule.time(0), schedule.begin);
        assert_eq!(schedule.time(86_400_000), schedule.begin + Duration::from_secs(86_400));
    }
}
