//! What `client` is told to do.

use std::path::PathBuf;

use session_core::Ask;

use crate::client::{Credentials, Options, Url};

/// Which sessions to hold.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The server.
    pub url: Url,
    /// Whose sessions.
    pub credentials: Credentials,
    /// What else is asked for. None, and nothing of the next four: the plain protocol.
    pub ask: Option<Ask>,
    /// Where the token is kept with which a session is taken up again.
    pub resume: Option<PathBuf>,
    /// Whether to come back by itself.
    pub reconnect: bool,
    /// Where a fresh token of the user's may be, once the first has run out.
    pub token_file: Option<String>,
    /// Whether somebody is there at standard input: to be shown who holds the slots, and to choose whom to end.
    pub is_interactive: bool,
    /// How many.
    pub connections: u16,
    /// How long to wait for the server, and whom to trust.
    pub options: Options,
}

impl RunOptions {
    /// One session of this user by the plain protocol, which is not tried again.
    #[must_use]
    pub fn new(url: Url, credentials: Credentials) -> Self {
        Self {
            url,
            credentials,
            ask: None,
            resume: None,
            reconnect: false,
            token_file: None,
            is_interactive: false,
            connections: 1,
            options: Options::default(),
        }
    }

    pub(crate) fn is_detailed(&self) -> bool {
        self.ask.is_some() || self.resume.is_some() || self.reconnect || self.is_interactive
    }
}
