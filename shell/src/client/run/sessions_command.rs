//! `client sessions` and `client end`: who holds a user's slots, and to end one of them.

use std::io::{self, Write};

use session_core::{Ask, Complaint, Evict, SessionId, SessionInfo, Sessions};

use crate::client::output::{describe, write_line};
use crate::client::{Connection, Error, Login, Options, Url, Verdict};

/// Who holds the user's slots, but for the session that asks. To ask it signs in, and takes a slot for a moment if one is
/// free; where all are taken the refusal says who is there. Nobody is ended for it.
///
/// # Errors
/// As [`Connection::open_with`] and [`Connection::authenticate_with_ask`], but for a refusal that lists the sessions.
pub async fn sessions(url: &Url, login: &Login, options: &Options) -> Result<Sessions, Error> {
    let mut connection = Connection::open_with(url, options).await?;
    let own = match connection.authenticate_with_ask(login, asking()).await {
        Ok(grant) => grant.admission().map(|admission| admission.session),
        Err(error) => {
            let listed = error.denial().and_then(|denial| {
                let (limit, sessions) = (denial.limit?.slots(), denial.sessions.clone()?);
                Some(Sessions { limit, connections: denial.connections?, sessions })
            });
            let Some(sessions) = listed else { return Err(error) };
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
/// As [`Connection::open_with`] and [`Connection::authenticate_with_ask`]; and [`Error::Complaint`] if there is no such
/// session.
pub async fn end(url: &Url, login: &Login, options: &Options, session: SessionId) -> Result<(), Error> {
    let mut connection = Connection::open_with(url, options).await?;
    let signed_in = connection.authenticate_with_ask(login, asking()).await;
    let ended = match signed_in {
        Ok(_) => connection.end_session(session).await.map(drop),
        Err(error) => match error.denial().filter(|denial| denial.may_choose) {
            Some(denial) if is_certainly_not(denial.sessions.as_deref(), session) => {
                Err(Error::Complaint(Complaint::NoSuchSession))
            }
            Some(_) => end_at_the_limit(&mut connection, login, session).await,
            None => Err(error),
        },
    };
    // Whatever came of it, the slot goes back.
    let parted = connection.bye().await;
    ended.and(parted)
}

/// Takes the place of a session that was there a moment ago, or of one that only lingered, and ends it then.
async fn end_at_the_limit(connection: &mut Connection, login: &Login, session: SessionId) -> Result<(), Error> {
    let evict = Some(Evict::These([session].into()));
    connection.authenticate_with_ask(login, Ask { evict, ..Ask::default() }).await?;
    match connection.end_session(session).await {
        // It was its place.
        Err(Error::Complaint(Complaint::NoSuchSession)) => Ok(()),
        ended => ended.map(drop),
    }
}

/// Whether a session is not among those that are shown, which are all.
fn is_certainly_not(shown: Option<&[SessionInfo]>, session: SessionId) -> bool {
    shown.is_some_and(|shown| shown.len() < Sessions::MOST && shown.iter().all(|info| info.id != session))
}

/// Whoever only asks ends nobody by it.
fn asking() -> Ask {
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
) -> io::Result<Verdict> {
    match result {
        Ok(sessions) => {
            match sessions {
                Some(sessions) if json => writeln!(out, "{}", serde_json::to_string(&sessions)?)?,
                Some(Sessions { limit, connections, sessions }) => {
                    let plural = if connections == 1 { "" } else { "s" };
                    writeln!(out, "{connections} slot{plural} of {limit} taken")?;
                    for session in &sessions {
                        write_line(out, &describe(session))?;
                    }
                }
                None if json => writeln!(out, "{{\"ended\":true}}")?,
                None => writeln!(out, "ended")?,
            }
            Ok(Verdict::Goodbye)
        }
        Err(error) => {
            write_line(err, &format!("error: {error}"))?;
            Ok(if let Error::LimitReached { .. } = error { Verdict::LimitReached } else { Verdict::Lost })
        }
    }
}
