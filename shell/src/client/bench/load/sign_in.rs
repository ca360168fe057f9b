//! One timed sign-in.

use std::time::{Duration, Instant};

use super::schedule::{Arrival, CONNECT_LEAD};
use crate::client::{Connection, Error, Options, Url};

/// How a session came in, or was refused at the limit.
pub(crate) struct SignInTiming {
    pub(crate) is_refused: bool,
    /// When it was begun, or should have been.
    pub(crate) started_at: Instant,
    /// How long it had nothing to do but to wait for its time to authenticate.
    pub(crate) idle: Duration,
    /// From AUTHENTICATE, or from when it was due, to its answer.
    pub(crate) latency: Duration,
    /// How late AUTHENTICATE was without any fault of the server's. None in a closed loop.
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
            // The server took too long to let it in. The rest of the delay may be the server's, this part is not.
            at.elapsed().min(begun_late)
        } else {
            smol::Timer::at(at).await;
            at.elapsed()
        });
    }
    let asked = arrival.map_or_else(Instant::now, |arrival| arrival.at);
    let is_refused = match connection.authenticate(user).await {
        Ok(_) => false,
        Err(Error::LimitReached { .. }) => true,
        Err(error) => return Err(error),
    };
    Ok((connection, SignInTiming { is_refused, started_at, idle, latency: asked.elapsed(), late }))
}
