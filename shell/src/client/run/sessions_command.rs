//! `client sessions` and `client end`: list a user's sessions, and end one.

use std::io::{self, Write};

use session_core::SessionId;
use session_core::ledger::Evict;
use session_core::protocol::{AuthenticateOptions, RequestError, SessionList, SessionSummary};

use crate::client::output::{format_session, format_usage, write_line};
use crate::client::{Connection, Credentials, Error, ExitReason, Options, Url};

/// Lists the sessions of the user, without the one that asks. The client signs in for a moment, which takes a slot if
/// one is free. If none is free, the denial lists the sessions. Signing in ends no session.
///
/// # Errors
/// As [`Connection::open_with`] and [`Connection::authenticate_with_options`], but for a denial, which lists the sessions.
pub async fn sessions(url: &Url, credentials: &Credentials, options: &Options) -> Result<SessionList, Error> {
    let mut connection = Connection::open_with(url, options).await?;
    if let Err(error) = connection.authenticate_with_options(credentials, list_only()).await {
        return {
            let format_sessions = error.failure_details().and_then(|details| {
                let (limit, sessions) = (details.limit?.slots(), details.sessions.clone()?);
                Some(SessionList { limit, connections: details.connections?, waiting: details.waiting, sessions })
            });
            let Some(sessions) = format_sessions else { return Err(error) };
            connection.bye().await?;
            Ok(sessions)
        };
    }
    let SessionList { limit, connections, waiting, sessions } = connection.list_sessions().await?;
    connection.bye().await?;
    let sessions = sessions.into_iter().filter(|session| !session.is_own).collect();
    Ok(SessionList { limit, connections: connections.saturating_sub(1), waiting, sessions })
}

/// Ends a session of the user. If no slot is free and the server allows `client_choice`, it takes the place of that
/// session for a moment. The server then frees lingering slots first; with `count = devices` it ends all sessions of
/// that device.
///
/// # Errors
/// As [`Connection::open_with`] and [`Connection::authenticate_with_options`]; and [`Error::RequestFailed`] if there is no such
/// session.
pub async fn end(url: &Url, credentials: &Credentials, options: &Options, session: SessionId) -> Result<(), Error> {
    let mut connection = Connection::open_with(url, options).await?;
    let signed_in = connection.authenticate_with_options(credentials, list_only()).await;
    let ended = match signed_in {
        Ok(_) => connection.end_session(session).await.map(drop),
        Err(error) => match error.failure_details().filter(|details| details.client_choice) {
            Some(details) if is_known_absent(details.sessions.as_deref(), session) => {
                Err(Error::RequestFailed(RequestError::NoSuchSession))
            }
            Some(_) => take_over_and_end(&mut connection, credentials, session).await,
            None => Err(error),
        },
    };
    // Gives the slot back in any case.
    let parted = connection.bye().await;
    ended.and(parted)
}

/// Signs in by evicting the session. If the server evicted a lingering one instead, ends the session then.
async fn take_over_and_end(
    connection: &mut Connection,
    credentials: &Credentials,
    session: SessionId,
) -> Result<(), Error> {
    let evict = Some(Evict::Sessions([session].into()));
    connection
        .authenticate_with_options(credentials, AuthenticateOptions { evict, ..AuthenticateOptions::default() })
        .await?;
    match connection.end_session(session).await {
        // Its slot is the one this session has now.
        Err(Error::RequestFailed(RequestError::NoSuchSession)) => Ok(()),
        ended => ended.map(drop),
    }
}

/// Whether the list is complete and does not have the session.
fn is_known_absent(escape: Option<&[SessionSummary]>, session: SessionId) -> bool {
    escape.is_some_and(|escape| {
        escape.len() < SessionList::MAX_SHOWN && escape.iter().all(|info| !info.is_named(session))
    })
}

/// Signing in to ask must end no session.
fn list_only() -> AuthenticateOptions {
    AuthenticateOptions { evict: Some(Evict::Nobody), ..AuthenticateOptions::default() }
}

/// Prints the result of either command as text or JSON.
///
/// # Errors
/// When the output cannot be written.
pub fn print(
    result: Result<Option<SessionList>, Error>,
    json: bool,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<ExitReason> {
    match result {
        Ok(sessions) => {
            match sessions {
                Some(sessions) if json => writeln!(out, "{}", serde_json::to_string(&sessions)?)?,
                Some(sessions) => {
                    write_line(out, &format_usage(&sessions))?;
                    for session in &sessions.sessions {
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
            Ok(if let Error::Denied { .. } = error { ExitReason::Denied } else { ExitReason::Lost })
        }
    }
}
