//! What goes wrong for a client.

use std::io;
use std::time::Duration;

use session_core::{Complaint, Denial, Refusal, Rejection};
use thiserror::Error;

use super::{ConnectError, Url, UrlError};

/// Why a client did not get what it asked for.
#[derive(Debug, Error)]
pub enum Error {
    /// Not the URL of a server.
    #[error(transparent)]
    BadUrl(#[from] UrlError),
    /// There is no TCP connection to be had.
    #[error("cannot reach {url}: {reason}; {}", unreachable_advice(.reason))]
    Unreachable {
        /// The server.
        url: Box<Url>,
        /// What the operating system says.
        reason: io::Error,
    },
    /// Something listens there, but it did not open a WebSocket, or is not to be trusted.
    #[error("no WebSocket at {url}: {reason}")]
    Handshake {
        /// The server.
        url: Box<Url>,
        /// What it did instead.
        reason: Box<ConnectError>,
    },
    /// Nothing that certificates could be checked with.
    #[error("no certificates from {from}: {reason}; name a file in PEM, which begins with -----BEGIN CERTIFICATE-----")]
    BadCa {
        /// The file.
        from: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No token to authenticate with.
    #[error("no token in {from}: {reason}; give a JSON Web Token and nothing else")]
    BadToken {
        /// Where it should be.
        from: String,
        /// The rule it breaks. It says nothing of what is there.
        reason: String,
    },
    /// The user holds as many sessions as the limit allows.
    #[error("{} {}", user_text(.user.as_deref()), limit_text(.details.as_deref()))]
    LimitReached {
        /// Who was refused. None for the holder of a token: who that is the server says to those it lets in.
        user: Option<String>,
        /// What the server says beside, if it was asked at length.
        details: Option<Box<Denial>>,
    },
    /// `AUTHENTICATE` was refused for any other reason.
    #[error("{} was refused: {refusal}{}", user_text(.user.as_deref()), credential_advice(.user.as_deref(), .refusal))]
    Refused {
        /// Who was refused. None for the holder of a token.
        user: Option<String>,
        /// Why.
        refusal: Refusal,
        /// What the server says beside, if it was asked at length.
        details: Option<Box<Denial>>,
    },
    /// The slot of the session was taken away while something was asked. A close with 4409 follows.
    #[error("the session was ended: {0}")]
    Evicted(Box<str>),
    /// The file that keeps a resume token has none, or cannot be read or written.
    #[error(
        "no good file for a resume token, {file}: {reason}; name one that is not there yet, or that this client wrote"
    )]
    BadResumeFile {
        /// The file.
        file: String,
        /// What is wrong with it. It says nothing of what is there.
        reason: String,
    },
    /// The server said that the user is called as the token reads, so it takes tokens for names: it does not check them,
    /// and shows them to whoever sees its users.
    #[error("the server took the token for the name of a user: it does not check tokens, so show it none")]
    TokenTakenForName,
    /// The server answered with an `ERROR`.
    #[error("the server would not do that: {0}")]
    RequestFailed(Complaint),
    /// The server answered something that is no answer to what was asked.
    #[error("waiting for {awaited}, the server said {received}; client and server do not speak the same protocol")]
    Unexpected {
        /// What was waited for.
        awaited: &'static str,
        /// What came.
        received: String,
    },
    /// The server closed the connection.
    #[error("the server closed the connection: {code} {reason}{}", close_advice(*.code))]
    Closed {
        /// The close code (RFC 6455 §7.4), 1005 if the close frame had none.
        code: u16,
        /// The close frame's words.
        reason: String,
    },
    /// The connection broke without a close, or was used after its close.
    #[error("the connection is lost: {0}; connect again")]
    Lost(String),
    /// The server did not do its part in time. The connection is out of step and good for nothing else.
    #[error("no {awaited} within {after:?}; the server may be overloaded, try again later")]
    TimedOut {
        /// What was waited for.
        awaited: &'static str,
        /// How long.
        after: Duration,
    },
    /// A user without connections was to be disconnected.
    #[error("{} holds no connection; connect first", user_text(.user.as_deref()))]
    NotConnected {
        /// Whose connection was asked for. None for the holder of a token.
        user: Option<String>,
    },
}

impl Error {
    /// What the server said of a refusal at length: its limit, who holds the slots, when to come back. Its code for programs
    /// is [`Refusal::code`].
    #[must_use]
    pub fn failure_details(&self) -> Option<&Denial> {
        match self {
            Self::LimitReached { details, .. } | Self::Refused { details, .. } => details.as_deref(),
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

fn limit_text(details: Option<&Denial>) -> &'static str {
    if details.and_then(|details| details.limit).is_some_and(|limit| limit.slots() == 0) {
        "may hold no connection: the limit is 0; ask whoever runs the server"
    } else {
        "has reached the connection limit; end another session of this user first"
    }
}

fn credential_advice(user: Option<&str>, refusal: &Refusal) -> &'static str {
    match (user, refusal) {
        (Some(_), Refusal::Credential(Rejection::Token(_))) => {
            "; this server asks for a token, in a file (--token-file) or in SESSIONS_TOKEN"
        }
        (None, Refusal::Credential(Rejection::UnwantedToken)) => "; give a user, and no token",
        (Some(_) | None, _) => "",
    }
}

fn unreachable_advice(reason: &io::Error) -> &'static str {
    /// Linux, the BSDs and macOS agree on these.
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    match (reason.raw_os_error(), reason.kind()) {
        (Some(ENFILE | EMFILE), _) => "raise the limit of open files (ulimit -n)",
        // Also where this machine has no such network at all.
        (_, io::ErrorKind::AddrNotAvailable) => {
            "check the URL; with many connections, this machine may be out of ports"
        }
        (_, _) => "check the URL and that the server is running",
    }
}

/// The codes after which a client may come back.
fn close_advice(code: u16) -> &'static str {
    match code {
        1001 | 1011 | 1013 => "; try again in a while",
        4402 => "; authenticate again with a fresh token",
        4408 => "; connect again",
        4409 => "; connect again if that was not meant",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use session_core::TokenError;

    #[test]
    fn each_says_what_failed_and_what_to_do() {
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
        let full = Error::LimitReached { user: Some("ada".into()), details: None };
        assert!(full.to_string().starts_with("user \"ada\" has reached the connection limit; "), "{full}");
        let full = Error::LimitReached { user: None, details: None };
        assert!(full.to_string().starts_with("the holder of the token has reached the connection limit; "), "{full}");
        for (user, refusal, credential_advice) in [
            (
                Some("ada".into()),
                Rejection::Token(TokenError::Malformed),
                "asks for a token, in a file (--token-file) or",
            ),
            (None, Rejection::UnwantedToken, "; give a user, and no token"),
        ] {
            let refused = Error::Refused { user, refusal: Refusal::Credential(refusal), details: None };
            assert!(refused.to_string().contains(credential_advice), "{refused}");
        }
        let late = Error::TimedOut { awaited: "HELLO", after: Duration::from_secs(10) };
        assert_eq!(late.to_string(), "no HELLO within 10s; the server may be overloaded, try again later");
    }
}
