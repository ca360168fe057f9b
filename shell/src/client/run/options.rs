//! What `client` is told to do.

use std::path::PathBuf;

use session_core::Ask;

use crate::client::{Login, Options, Url};

/// Which sessions to hold.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server.
    pub url: Url,
    /// Whose sessions.
    pub login: Login,
    /// What else is asked for. None, and nothing of the next four: the plain protocol.
    pub ask: Option<Ask>,
    /// Where the token is kept with which a session is taken up again.
    pub resume: Option<PathBuf>,
    /// Whether to come back by itself.
    pub reconnect: bool,
    /// Where a fresh token of the user's may be, once the first has run out.
    pub token_file: Option<String>,
    /// Whether somebody is there at standard input: to be shown who holds the slots, and to choose whom to end.
    pub picks: bool,
    /// How many.
    pub connections: u16,
    /// How long to wait for the server, and whom to trust.
    pub options: Options,
}

impl Plan {
    /// One session of this user by the plain protocol, which is not tried again.
    #[must_use]
    pub fn new(url: Url, login: Login) -> Self {
        Self {
            url,
            login,
            ask: None,
            resume: None,
            reconnect: false,
            token_file: None,
            picks: false,
            connections: 1,
            options: Options::default(),
        }
    }

    pub(crate) fn asks_at_length(&self) -> bool {
        self.ask.is_some() || self.resume.is_some() || self.reconnect || self.picks
    }
}
