//! A user's record: who holds the user's slots.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use thiserror::Error;

use crate::id::{DisplayName, SessionId};
use crate::resume_token::ResumeKey;
use crate::time::Timestamp;

mod encoding;

/// What a store keeps of one user: the holds on the user's slots, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserRecord {
    sessions: Vec<SessionRecord>,
}

/// One session's hold on one of its user's slots. Where devices are counted, the sessions of one device hold one slot
/// together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// Who holds it.
    pub session: SessionId,
    /// When it was taken, by the clock of the node that took it.
    pub since: Timestamp,
    /// Whether its session lives.
    pub status: SessionStatus,
    /// What a client said of itself that did say something.
    pub client: Option<Box<ClientInfo>>,
}

/// How a slot is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionStatus {
    /// By a session that lives, as far as its node does.
    Live,
    /// By a session that was lost, for whoever takes it up again until then.
    Lingering {
        /// From here on it counts for nothing.
        until: Timestamp,
    },
}

impl SessionStatus {
    /// When the slot becomes free by itself. `None` while the session lives.
    #[must_use]
    pub const fn lingers_until(self) -> Option<Timestamp> {
        match self {
            Self::Live => None,
            Self::Lingering { until } => Some(until),
        }
    }
}

/// What is kept of a client that says more of itself than who it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientInfo {
    /// Which device it runs on.
    pub device: Option<DisplayName>,
    /// What it calls itself, for people.
    pub label: Option<DisplayName>,
    /// How the hold can be taken up by another session, and for how long it lingers once it is lost.
    pub resumable: Option<Resumable>,
}

/// How a hold can be taken up by another session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resumable {
    /// Of the token that does it.
    pub key: ResumeKey,
    /// How long it lingers once its session is lost, in whole milliseconds, at most some 49 days.
    pub linger: Duration,
}

/// The version of the encoding that is written.
const VERSION: u8 = 2;
/// The one before it, which is still read.
const VERSION_1: u8 = 1;

/// Why bytes are not a [`UserRecord`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecordError {
    /// No bytes at all.
    #[error("the record is empty")]
    Empty,
    /// Written by another version of this software.
    #[error("the record has version {0}, this server reads versions {VERSION_1} and {VERSION}")]
    Version(u8),
    /// Not a whole number of holds.
    #[error("the record is cut off")]
    CutOff,
    /// A hold has something that this version does not know, or a name that is none.
    #[error("the record has a hold that makes no sense")]
    BadSession,
    /// More holds than [`UserRecord::MAX_HOLDS`].
    #[error("the record has more slots than any limit allows")]
    TooManySessions,
    /// Two holds of one session.
    #[error("the record has two slots of one session")]
    DuplicateSession,
}

impl SessionRecord {
    /// The hold of a session of which nothing else is known.
    #[must_use]
    pub const fn new(session: SessionId, since: Timestamp) -> Self {
        Self { session, since, status: SessionStatus::Live, client: None }
    }

    /// Which device its session runs on, if that is known.
    #[must_use]
    pub fn device(&self) -> Option<&DisplayName> {
        self.client.as_ref()?.device.as_ref()
    }

    /// What its session calls itself.
    #[must_use]
    pub fn label(&self) -> Option<&DisplayName> {
        self.client.as_ref()?.label.as_ref()
    }

    /// What to call it, for people: by its label, or else by its device.
    #[must_use]
    pub fn display_name(&self) -> Option<&DisplayName> {
        self.label().or_else(|| self.device())
    }

    /// How it can be taken up by another session.
    #[must_use]
    pub fn resumable(&self) -> Option<Resumable> {
        self.client.as_ref()?.resumable
    }

    /// How long it lingers once it is lost.
    pub(crate) fn linger(&self) -> Duration {
        self.resumable().map_or(Duration::ZERO, |resumable| resumable.linger)
    }
}

impl UserRecord {
    /// The hard ceiling of holds in one record, whatever is configured, so that a record stays small.
    pub const MAX_SESSIONS: usize = 1024;

    /// The record that has these holds, as a store read them back.
    ///
    /// # Errors
    /// `TooManyHolds` above the ceiling, `SessionTwice` when two are of one session.
    pub fn from_sessions(holds: Vec<SessionRecord>) -> Result<Self, RecordError> {
        if holds.len() > Self::MAX_SESSIONS {
            return Err(RecordError::TooManySessions);
        }
        let mut sessions: Vec<_> = holds.iter().map(|hold| hold.session).collect();
        sessions.sort_unstable();
        if sessions.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(RecordError::DuplicateSession);
        }
        Ok(Self { sessions: holds })
    }

    /// The holds, oldest first. Some may be void.
    #[must_use]
    pub fn sessions(&self) -> &[SessionRecord] {
        &self.sessions
    }

    /// The same, to be changed: by the rule alone.
    pub(crate) const fn sessions_mut(&mut self) -> &mut Vec<SessionRecord> {
        &mut self.sessions
    }

    /// Whether nothing is left to keep.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// The session's hold, if it has one.
    #[must_use]
    pub fn session(&self, session: SessionId) -> Option<&SessionRecord> {
        self.sessions.iter().find(|hold| hold.session == session)
    }
}
