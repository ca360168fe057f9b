//! `client sessions` and `client end`: who holds a user's slots, and to end one of them.

use std::io::{self, Write};

use session_core::{Ask, Complaint, Evict, SessionId, SessionInfo, Sessions};

use crate::client::output::{format_session, write_line};
use crate::client::{Connection, Credentials, Error, ExitReason, Options, Url};

/// Who holds the user's slots, but for the session that asks. To ask it signs in, and takes a slot for a moment if one is
/// free; where all are taken the refusal says who is there. Nobody is ended for it.
///
/// # Errors
/// As [`Connection::open_with`] and [`Connection::authenticate_with_options`], but for a refusal that lists the sessions.
pub async fn sessions(url: &Url, credentials: &Credentials, options: &Options) -> Result<Sessions, Error> {
    let mut connection = Connection::open_with(url, options).await?;
    let own = match connection.authenticate_with_options(credentials, list_only()).await {
        Ok(grant) => grant.details().map(|details| details.session),
        Err(error) => {
            let format_sessions = error.failure_details().and_then(|details| {
                let (limit, sessions) = (details.limit?.slots(), details.sessions.clone()?);
                Some(Sessions { limit, connections: details.connections?, sessions })
            });
            let Some(sessions) = format_sessions else { return Err(error) };
            connection.bye().await?;
            return Ok(sessions);
        }
    };
    let Sessions { limit, connections, sessions } = connection.list_sessions().await?;
    connection.bye().await?;
    let sessions = sessions.into_iter().filter(|session| Some(session.id) != own).collect();
    Ok(Sessions { limit, connections: connections.saturating_sub(1), sessions })
}

/// Ends a session of the user. Where all slots are taken it takes that one's place for a moment, if the server lets clients
/// choose whom to end: the slots that only linger are given up first then, and where devices are counted, the others of its
/// device are ended with it.
///
/// # Errors
/// As [`Connection::open_with`] and [`Connection::authenticate_with_options`]; and [`Error::Complaint`] if there is no such
/// session.
pub async fn end(url: &Url, credentials: &Credentials, options: &Options, session: SessionId) -> Result<(), Error> {
    let mut connection = Connection::open_with(url, options).await?;
    let signed_in = connection.authenticate_with_options(credentials, list_only()).await;
    let ended = match signed_in {
        Ok(_) => connection.end_session(session).await.map(drop),
        Err(error) => match error.failure_details().filter(|details| details.may_choose) {
            Some(details) if is_known_absent(details.sessions.as_deref(), session) => {
                Err(Error::RequestFailed(Complaint::NoSuchSession))
            }
            Some(_) => take_over_and_end(&mut connection, credentials, session).await,
            None => Err(error),
        },
    };
    // Whatever came of it, the slot goes back.
    let parted = connection.bye().await;
    ended.and(parted)
}

/// Takes the place of a session that was there a moment ago, or of one that only lingered, and ends it then.
async fn take_over_and_end(
    connection: &mut Connection,
    credentials: &Credentials,
    session: SessionId,
) -> Result<(), Error> {
    let evict = Some(Evict::These([session].into()));
    connection.authenticate_with_options(credentials, Ask { evict, ..Ask::default() }).await?;
    match connection.end_session(session).await {
        // It was its place.
        Err(Error::RequestFailed(Complaint::NoSuchSession)) => Ok(()),
        ended => ended.map(drop),
    }
}

/// Whether a session is not among those that are shown, which are all.
fn is_known_absent(escape: Option<&[SessionInfo]>, session: SessionId) -> bool {
    escape.is_some_and(|escape| escape.len() < Sessions::MOST && escape.iter().all(|info| info.id != session))
}

/// Whoever only asks ends nobody by it.
fn list_only() -> Ask {
    Ask { evict: Some(Evict::Nobody), ..Ask::default() }
}

/// Prints what came of either, for people or as JSON.
///
/// # Errors
/// When the output cannot be written.
pub fn print(
    result: Result<Option<Sessions>, Error>,
    json: bool,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<ExitReason> {
    match result {
        Ok(sessions) => {
            match sessions {
                Some(sessions) if json => writeln!(out, "{}", serde_json::to_string(&sessions)?)?,
                Some(Sessions { limit, connections, sessions }) => {
                    let plural = if connections == 1 { "" } else { "s" };
                    writeln!(out, "{connections} slot{plural} of {limit} taken")?;
                    for session in &sessions {
                        write_line(out, &format_session(session))?;
                    }
                }
                None if json => writeln!(out, "{{\"ended\":true}}")?,
                None => writeln!(out, "ended")?,
            }
            Ok(ExitReason::Goodbye)
        }
        Err(error) => {
            write_line(err, &format!("error: {error}"))?;
            Ok(if let Error::LimitReached { .. } = error { ExitReason::LimitReached } else { ExitReason::Lost })
        }
    }
}
