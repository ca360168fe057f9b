//! The errors of a client.

use std::io;
use std::time::Duration;

use session_core::protocol::{
    AuthenticateFailure, AuthenticateFailureDetails, CloseReason, CredentialError, RequestError,
};
use thiserror::Error;

use super::{ConnectError, Url, UrlError};

/// Why a request of a client failed.
#[derive(Debug, Error)]
pub enum Error {
    /// Not the URL of a server.
    #[error(transparent)]
    BadUrl(#[from] UrlError),
    /// The TCP connection failed.
    #[error("cannot reach {url}: {reason}; {}", unreachable_advice(.reason))]
    Unreachable {
        /// The server.
        url: Box<Url>,
        /// What the operating system says.
        reason: io::Error,
    },
    /// The server can be reached, but opened no WebSocket or is not trusted.
    #[error("no WebSocket at {url}: {reason}")]
    Handshake {
        /// The server.
        url: Box<Url>,
        /// What happened instead.
        reason: Box<ConnectError>,
    },
    /// The file of trusted certificates is bad.
    #[error("no certificates from {from}: {reason}; name a file in PEM, which begins with -----BEGIN CERTIFICATE-----")]
    BadCa {
        /// The file.
        from: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The token is bad.
    #[error("no token in {from}: {reason}; give a JSON Web Token and nothing else")]
    BadToken {
        /// Where it should be.
        from: String,
        /// The rule it breaks. It never quotes the text.
        reason: String,
    },
    /// The server denied a slot, because the user or the device has reached the limit.
    #[error("{} {}", user_text(.user.as_deref()), denial_text(*.is_device_full, .details.as_deref()))]
    Denied {
        /// The user. `None` with a token: the server names the user only when it grants a slot.
        user: Option<String>,
        /// Whether it is the device that has as many sessions as it may.
        is_device_full: bool,
        /// The details of the failure, if the client authenticated with an object.
        details: Option<Box<AuthenticateFailureDetails>>,
    },
    /// The server refused `AUTHENTICATE` for another reason than a limit.
    #[error("{} was refused: {reason}{}", user_text(.user.as_deref()), credential_advice(.user.as_deref(), .reason))]
    Refused {
        /// The user. `None` with a token.
        user: Option<String>,
        /// The reason.
        reason: AuthenticateFailure,
        /// The details of the failure, if the client authenticated with an object.
        details: Option<Box<AuthenticateFailureDetails>>,
    },
    /// The session was evicted while the client waited for an answer. A close with 4409 follows.
    #[error("the session was ended: {0}")]
    Evicted(Box<str>),
    /// The file of the resume token has something else in it, or cannot be read or written.
    #[error(
        "no good file for a resume token, {file}: {reason}; name one that is not there yet, or that this client wrote"
    )]
    BadResumeFile {
        /// The file.
        file: String,
        /// What is wrong with it. It never quotes the file.
        reason: String,
    },
    /// The server used the token as the user's name. So it does not check tokens, and shows them to everyone who can
    /// list its users.
    #[error("the server took the token for the name of a user: it does not check tokens, so show it none")]
    TokenTakenForName,
    /// The server answered with an `ERROR`.
    #[error("the server would not do that: {0}")]
    RequestFailed(RequestError),
    /// The server sent a message that does not answer the request.
    #[error("waiting for {awaited}, the server said {received}; client and server do not speak the same protocol")]
    Unexpected {
        /// What the client waited for.
        awaited: &'static str,
        /// What the server sent.
        received: String,
    },
    /// The server closed the connection.
    #[error("the server closed the connection: {code} {reason}{}", close_advice(*.code, .reason))]
    Closed {
        /// The close code (RFC 6455 §7.4), 1005 if the close frame had none.
        code: u16,
        /// The reason in the close frame.
        reason: String,
    },
    /// The connection broke without a close frame, or was used after it.
    #[error("the connection is lost: {0}; connect again")]
    Lost(String),
    /// The server did not answer in time. The connection cannot be used any more.
    #[error("no {awaited} within {after:?}; the server may be overloaded, try again later")]
    TimedOut {
        /// What the client waited for.
        awaited: &'static str,
        /// The timeout.
        after: Duration,
    },
    /// The user has no connection to disconnect.
    #[error("{} holds no connection; connect first", user_text(.user.as_deref()))]
    NotConnected {
        /// The user. `None` with a token.
        user: Option<String>,
    },
}

impl Error {
    /// The details of a failed `AUTHENTICATE`: the limit, the sessions that hold the slots, when to retry.
    /// [`AuthenticateFailure::code`] names the reason for programs.
    #[must_use]
    pub fn failure_details(&self) -> Option<&AuthenticateFailureDetails> {
        match self {
            Self::Denied { details, .. } | Self::Refused { details, .. } => details.as_deref(),
            Self::BadUrl(_)
            | Self::Unreachable { .. }
            | Self::Handshake { .. }
            | Self::BadCa { .. }
            | Self::BadToken { .. }
            | Self::TokenTakenForName
            | Self::Evicted(_)
            | Self::BadResumeFile { .. }
            | Self::RequestFailed(_)
            | Self::Unexpected { .. }
            | Self::Closed { .. }
            | Self::Lost(_)
            | Self::TimedOut { .. }
            | Self::NotConnected { .. } => None,
        }
    }

    pub(super) fn handshake(url: &Url, reason: ConnectError) -> Self {
        Self::Handshake { url: Box::new(url.clone()), reason: Box::new(reason) }
    }
}

fn user_text(user: Option<&str>) -> String {
    user.map_or_else(|| "the holder of the token".into(), |user| format!("user {user:?}"))
}

fn denial_text(is_device_full: bool, details: Option<&AuthenticateFailureDetails>) -> &'static str {
    if is_device_full {
        "has as many sessions on this device as one may have; end another session of this device first"
    } else if details.is_some_and(|details| details.is_line_full) {
        "has reached the connection limit, and no more sessions may wait in line; try again later"
    } else if details.and_then(|details| details.limit).is_some_and(|limit| limit.slots() == 0) {
        "may hold no connection: the limit is 0; ask the operator of the server"
    } else {
        "has reached the connection limit; end another session of this user first"
    }
}

fn credential_advice(user: Option<&str>, reason: &AuthenticateFailure) -> &'static str {
    match (user, reason) {
        (Some(_), AuthenticateFailure::Credential(CredentialError::Token(_))) => {
            "; this server asks for a token, in a file (--token-file) or in SESSIONS_TOKEN"
        }
        (None, AuthenticateFailure::Credential(CredentialError::UnwantedToken)) => "; give a user, and no token",
        (Some(_) | None, _) => "",
    }
}

fn unreachable_advice(reason: &io::Error) -> &'static str {
    /// Linux, the BSDs and macOS agree on these.
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    match (reason.raw_os_error(), reason.kind()) {
        (Some(ENFILE | EMFILE), _) => "raise the limit of open files (ulimit -n)",
        // Also if this machine has no such network at all.
        (_, io::ErrorKind::AddrNotAvailable) => {
            "check the URL; with many connections, this machine may be out of ports"
        }
        (_, _) => "check the URL and that the server is running",
    }
}

fn close_advice(code: u16, message: &str) -> String {
    // Two reasons may share a code. The message tells them apart.
    let same_message = CloseReason::with_code(code).find(|reason| reason.message() == message);
    match same_message.or_else(|| CloseReason::with_code(code).next()).map_or("", CloseReason::advice) {
        "" => String::new(),
        advice => format!("; {advice}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use session_core::protocol::TokenError;

    #[test]
    fn errors_say_what_failed_and_what_to_do() {
        let url: Box<Url> = Box::new("ws://localhost:1".parse().expect("a good URL"));
        let refused = Error::Unreachable { url: url.clone(), reason: io::ErrorKind::ConnectionRefused.into() };
        assert_eq!(
            refused.to_string(),
            "cannot reach ws://localhost:1/: connection refused; check the URL and that the server is running"
        );
        let full = Error::Unreachable { url: url.clone(), reason: io::Error::from_raw_os_error(24) };
        assert!(full.to_string().ends_with("raise the limit of open files (ulimit -n)"), "{full}");
        let no_port = Error::Unreachable { url: url.clone(), reason: io::ErrorKind::AddrNotAvailable.into() };
        assert!(no_port.to_string().ends_with("this machine may be out of ports"), "{no_port}");
        let closed = Error::Closed { code: 1001, reason: "Server is shutting down".into() };
        assert_eq!(
            closed.to_string(),
            "the server closed the connection: 1001 Server is shutting down; try again in a while"
        );
        let expired = Error::Closed { code: 4402, reason: "Token has expired".into() };
        assert_eq!(
            expired.to_string(),
            "the server closed the connection: 4402 Token has expired; authenticate again with a fresh token"
        );
        let full = Error::Denied { user: Some("ada".into()), is_device_full: false, details: None };
        assert!(full.to_string().starts_with("user \"ada\" has reached the connection limit; "), "{full}");
        let full = Error::Denied { user: None, is_device_full: false, details: None };
        assert!(full.to_string().starts_with("the holder of the token has reached the connection limit; "), "{full}");
        let full = Error::Denied { user: Some("ada".into()), is_device_full: true, details: None };
        assert!(full.to_string().ends_with("; end another session of this device first"), "{full}");
        for (user, error, credential_advice) in [
            (
                Some("ada".into()),
                CredentialError::Token(TokenError::Malformed),
                "asks for a token, in a file (--token-file) or",
            ),
            (None, CredentialError::UnwantedToken, "; give a user, and no token"),
        ] {
            let refused = Error::Refused { user, reason: AuthenticateFailure::Credential(error), details: None };
            assert!(refused.to_string().contains(credential_advice), "{refused}");
        }
        let late = Error::TimedOut { awaited: "HELLO", after: Duration::from_secs(10) };
        assert_eq!(late.to_string(), "no HELLO within 10s; the server may be overloaded, try again later");
    }

    #[test]
    fn advice_after_a_close_agrees_with_the_table() {
        for reason in CloseReason::ALL {
            let error = Error::Closed { code: reason.code(), reason: reason.message().into() };
            let advice = if reason.advice().is_empty() { String::new() } else { format!("; {}", reason.advice()) };
            assert_eq!(error.to_string(), format!("the server closed the connection: {reason}{advice}"));
        }
        let unknown = Error::Closed { code: 4999, reason: "Such is life".into() };
        assert_eq!(unknown.to_string(), "the server closed the connection: 4999 Such is life");
        let other_words = Error::Closed { code: 4402, reason: "Too old".into() };
        assert!(
            other_words.to_string().ends_with("4402 Too old; authenticate again with a fresh token"),
            "{other_words}"
        );
    }
}
