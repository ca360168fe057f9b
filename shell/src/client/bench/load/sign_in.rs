//! One timed sign-in.

use std::time::{Duration, Instant};

use super::schedule::{Arrival, CONNECT_LEAD};
use crate::client::{Connection, Error, Options, Url};

/// The times of one sign-in, granted or refused at the limit.
pub(crate) struct SignInTiming {
    pub(crate) is_refused: bool,
    /// When it started, or was scheduled to start.
    pub(crate) started_at: Instant,
    /// How long it waited for its time to authenticate.
    pub(crate) idle: Duration,
    /// From AUTHENTICATE, or its scheduled time, to the answer.
    pub(crate) latency: Duration,
    /// How late AUTHENTICATE was sent because of the client. `None` in a closed loop.
    pub(crate) late: Option<Duration>,
}

pub(crate) async fn sign_in(
    url: &Url,
    user: &str,
    arrival: Option<Arrival>,
    options: &Options,
) -> Result<(Connection, SignInTiming), Error> {
    let started_at = arrival.map_or_else(Instant::now, |arrival| arrival.at - CONNECT_LEAD);
    let mut connection = Connection::open_with(url, options).await?;
    let (mut idle, mut late) = (Duration::ZERO, None);
    if let Some(Arrival { at, begun_late }) = arrival {
        idle = at.saturating_duration_since(Instant::now());
        late = Some(if idle.is_zero() {
            // Connecting took too long. Only the late start is the client's fault.
            at.elapsed().min(begun_late)
        } else {
            smol::Timer::at(at).await;
            at.elapsed()
        });
    }
    let asked = arrival.map_or_else(Instant::now, |arrival| arrival.at);
    let is_refused = match connection.authenticate(user).await {
        Ok(_) => false,
        Err(Error::Denied { .. }) => true,
        Err(error) => return Err(error),
    };
    Ok((connection, SignInTiming { is_refused, started_at, idle, latency: asked.elapsed(), late }))
}
