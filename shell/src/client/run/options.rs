//! The options of a run.

use std::path::PathBuf;

use session_core::protocol::AuthenticateOptions;

use crate::client::{Credentials, Options, Url};

/// Which sessions to hold, and how.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The server.
    pub url: Url,
    /// Whose sessions.
    pub credentials: Credentials,
    /// Further options of AUTHENTICATE. With `None`, and none of the next four set, the client speaks the plain
    /// protocol.
    pub authenticate_options: Option<AuthenticateOptions>,
    /// The file that keeps the resume token.
    pub resume: Option<PathBuf>,
    /// Whether to reconnect after a failure.
    pub reconnect: bool,
    /// The file to read a new token from when the first has expired.
    pub token_file: Option<String>,
    /// Whether to show who holds the slots at the limit, and to ask at standard input which sessions to end.
    pub is_interactive: bool,
    /// Whether to print the user's sessions once a session has its slot, and after each change.
    pub watch: bool,
    /// How many sessions to hold.
    pub connections: u16,
    /// Timeouts and trusted certificate authorities.
    pub options: Options,
}

impl RunOptions {
    /// One session over the plain protocol, without reconnecting.
    #[must_use]
    pub fn new(url: Url, credentials: Credentials) -> Self {
        Self {
            url,
            credentials,
            authenticate_options: None,
            resume: None,
            reconnect: false,
            token_file: None,
            is_interactive: false,
            watch: false,
            connections: 1,
            options: Options::default(),
        }
    }

    pub(crate) fn is_detailed(&self) -> bool {
        self.authenticate_options.is_some() || self.resume.is_some() || self.reconnect || self.is_interactive
    }
}
