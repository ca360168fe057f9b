//! One timed sign-in.

use std::time::{Duration, Instant};

use super::schedule::{Due, HEAD_START};
use crate::client::{Connection, Error, Options, Url};

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
