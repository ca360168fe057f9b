//! A user's record: the sessions that hold the user's slots.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use thiserror::Error;

use super::end_reason::{EndReason, SessionNames};
use super::limit::SlotLimit;
use crate::id::{DisplayName, NodeId, ResumeKey, SessionId, SlotId};
use crate::time::Timestamp;

mod encoding;

/// What a store keeps for one user: the sessions that hold the user's slots, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserRecord {
    sessions: Vec<SessionRecord>,
    /// First come, first served. At most [`UserRecord::MAX_WAITING`].
    waiting: Vec<WaitingSession>,
    /// Oldest first. At most [`UserRecord::MAX_FORMER`].
    former: Vec<FormerSlot>,
    /// Oldest first. At most [`UserRecord::MAX_LEAVING`]. Only where several nodes share the record.
    leaving: Vec<LeavingSession>,
}

/// One session that holds a slot of its user. If devices are counted, the sessions of one device share a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// The session.
    pub session: SessionId,
    /// The name of its slot, which a session that resumes it takes over.
    pub slot: SlotId,
    /// When the slot was taken, by the clock of its node.
    pub since: Timestamp,
    /// The limit that the session's token claims, if it claims one.
    pub claim: Option<SlotLimit>,
    /// Whether the session is live or lingers.
    pub status: SessionStatus,
    /// Whether the session wants to be told when the user's sessions change.
    pub watches: bool,
    /// What the client said about itself, if it did.
    pub client: Option<Box<ClientInfo>>,
}

/// A session that waits in line for a slot of its user. It holds none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingSession {
    /// The session.
    pub session: SessionId,
    /// Since when it waits, by the clock of its node.
    pub since: Timestamp,
    /// The limit that its token claims, if it claims one.
    pub claim: Option<SlotLimit>,
    /// The device that its client runs on, if it named one.
    pub device: Option<DisplayName>,
    /// Whether no lingering slot is freed for it ([`Evict::Nobody`](super::Evict::Nobody)).
    pub spares_lingering: bool,
}

/// A session that has lost its slot, and whose connection may still be open: its node has not reported it closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeavingSession {
    /// The session.
    pub session: SessionId,
    /// What its client is told.
    pub reason: EndReason,
}

/// Whether a session is live or lingers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionStatus {
    /// The session is live, if its node is.
    Live,
    /// The session was lost. Its client can resume it until this time.
    Lingering {
        /// From this time on the session does not count.
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

/// What a client said about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientInfo {
    /// The device that the client runs on.
    pub device: Option<DisplayName>,
    /// What the client calls itself, for people.
    pub label: Option<DisplayName>,
    /// How the session can be resumed on another connection.
    pub resumable: Option<Resumable>,
}

/// How a session can be resumed on another connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resumable {
    /// The key of the resume token.
    pub key: ResumeKey,
    /// The grace period after the session is lost, in whole milliseconds, at most about 49 days.
    pub linger: Duration,
    /// When the slot last moved from a live session to another connection that showed the token.
    pub moved_at: Option<Timestamp>,
}

/// A slot that its user does not have any more, although its client may still show the resume token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FormerSlot {
    /// The first bytes of its [`ResumeKey`]. Who guesses them only learns how the slot ended.
    pub key_prefix: [u8; 8],
    /// How it ended.
    pub end: FormerEnd,
}

/// How a slot ended that could have been resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FormerEnd {
    /// Its grace period ended.
    Expired,
    /// Another session took it, or another session or the operator ended it.
    Taken,
}

/// The version of the encoding that is written if sessions are leaving.
const VERSION: u8 = 5;
/// The version that is written otherwise. Servers before version 5 read it, too.
const VERSION_4: u8 = 4;
/// The versions before it, which are still read.
const VERSION_1: u8 = 1;
const VERSION_2: u8 = 2;
const VERSION_3: u8 = 3;

/// Why bytes are not a [`UserRecord`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecordError {
    /// No bytes at all.
    #[error("the record is empty")]
    Empty,
    /// Written by another version of this software.
    #[error("the record has version {0}, this server reads versions {VERSION_1} to {VERSION}")]
    Version(u8),
    /// Not a whole number of sessions.
    #[error("the record is cut off")]
    CutOff,
    /// A session has a flag that this version does not know, or an invalid name.
    #[error("the record has a session that makes no sense")]
    BadSession,
    /// More sessions than [`UserRecord::MAX_RESTORED`], more that wait than [`UserRecord::MAX_WAITING`], or more that are leaving
    /// than [`UserRecord::MAX_LEAVING`].
    #[error("the record has more sessions than any limit allows")]
    TooManySessions,
    /// One session twice: with a slot, waiting or leaving.
    #[error("the record has one session twice")]
    DuplicateSession,
}

impl SessionRecord {
    /// A live session without client information.
    #[must_use]
    pub const fn new(session: SessionId, since: Timestamp) -> Self {
        let (slot, status) = (SlotId::new(session), SessionStatus::Live);
        Self { session, slot, since, claim: None, status, watches: false, client: None }
    }

    /// Sets the device, as if the client had named it.
    pub(crate) fn set_device(&mut self, device: Option<DisplayName>) {
        if device.is_some() {
            self.client.get_or_insert_default().device = device;
        }
    }

    /// Whether a client means this session by the id: that of the session, or the name of its slot.
    #[must_use]
    pub fn is_named(&self, id: SessionId) -> bool {
        self.session == id || self.slot.first_session() == id
    }

    /// The device, if the client named one.
    #[must_use]
    pub fn device(&self) -> Option<&DisplayName> {
        self.client.as_ref()?.device.as_ref()
    }

    /// The label, if the client gave one.
    #[must_use]
    pub fn label(&self) -> Option<&DisplayName> {
        self.client.as_ref()?.label.as_ref()
    }

    /// What to call the session, for people: its label, or else its device.
    #[must_use]
    pub fn display_name(&self) -> Option<&DisplayName> {
        self.label().or_else(|| self.device())
    }

    /// What the session calls itself, if it does.
    #[must_use]
    pub fn names(&self) -> Option<Box<SessionNames>> {
        SessionNames::new(self.device(), self.label())
    }

    /// How the session can be resumed, if it can.
    #[must_use]
    pub fn resumable(&self) -> Option<Resumable> {
        self.client.as_ref()?.resumable
    }

    /// The grace period after the session is lost. Zero if it cannot be resumed.
    pub(crate) fn linger(&self) -> Duration {
        self.resumable().map_or(Duration::ZERO, |resumable| resumable.linger)
    }
}

impl UserRecord {
    /// The most sessions in one record, whatever is configured. It keeps records small.
    pub const MAX_SESSIONS: usize = 1024;

    /// The most sessions in one record that was put together again: after a store has forgotten something, sessions that
    /// were told stand beside those whose releases are forgotten, until their nodes remove these.
    pub const MAX_RESTORED: usize = 4 * Self::MAX_SESSIONS;

    /// The most sessions that wait in line for a slot of one user, whatever is configured.
    pub const MAX_WAITING: usize = 64;

    /// The most slots that the record remembers although the user does not have them any more.
    pub const MAX_FORMER: usize = 8;

    /// The most sessions that are leaving. A node that shares the record takes no slot from a session while half as many are.
    pub const MAX_LEAVING: usize = 2 * Self::MAX_SESSIONS;

    /// A record of these sessions, oldest first.
    ///
    /// # Errors
    /// [`RecordError::TooManySessions`] above [`UserRecord::MAX_RESTORED`], [`RecordError::DuplicateSession`] if a session
    /// is there twice.
    pub fn from_sessions(entries: Vec<SessionRecord>) -> Result<Self, RecordError> {
        Self { sessions: entries, ..Self::default() }.checked()
    }

    /// The same record, with these sessions in line, first come, first served.
    ///
    /// # Errors
    /// [`RecordError::TooManySessions`] above [`UserRecord::MAX_WAITING`], [`RecordError::DuplicateSession`] if a session
    /// waits twice, or has a slot and waits.
    pub fn with_waiting(self, waiting: Vec<WaitingSession>) -> Result<Self, RecordError> {
        Self { waiting, ..self }.checked()
    }

    fn checked(self) -> Result<Self, RecordError> {
        let is_too_long = self.sessions.len() > Self::MAX_RESTORED
            || self.waiting.len() > Self::MAX_WAITING
            || self.leaving.len() > Self::MAX_LEAVING;
        if is_too_long {
            return Err(RecordError::TooManySessions);
        }
        // Most records have one session. They are read for each command.
        if self.sessions.len() + self.waiting.len() + self.leaving.len() <= 1 {
            return Ok(self);
        }
        let held = self.sessions.iter().map(|entry| entry.session);
        let waiting = self.waiting.iter().map(|waiter| waiter.session);
        let leaving = self.leaving.iter().map(|leaving| leaving.session);
        let mut sessions: Vec<_> = held.chain(waiting).chain(leaving).collect();
        sessions.sort_unstable();
        if sessions.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(RecordError::DuplicateSession);
        }
        Ok(self)
    }

    /// The sessions, oldest first. Some may have lapsed, see [`remove_lapsed`](super::remove_lapsed).
    #[must_use]
    pub fn sessions(&self) -> &[SessionRecord] {
        &self.sessions
    }

    /// The sessions, oldest first, without the record.
    #[must_use]
    pub fn into_sessions(self) -> Vec<SessionRecord> {
        self.sessions
    }

    /// The sessions that wait in line, first come, first served. Some may be of dead nodes, see
    /// [`remove_lapsed`](super::remove_lapsed).
    #[must_use]
    pub fn waiting(&self) -> &[WaitingSession] {
        &self.waiting
    }

    /// How many wait before this session, if it is in line.
    pub(crate) fn place_in_line(&self, session: SessionId) -> Option<usize> {
        self.waiting.iter().position(|waiter| waiter.session == session)
    }

    /// The line, for the rule to change.
    pub(crate) const fn waiting_mut(&mut self) -> &mut Vec<WaitingSession> {
        &mut self.waiting
    }

    /// The sessions, for the rule to change.
    pub(crate) const fn sessions_mut(&mut self) -> &mut Vec<SessionRecord> {
        &mut self.sessions
    }

    /// The last resumable slots of the user that expired or were taken, at most [`UserRecord::MAX_FORMER`]. A record without
    /// sessions is deleted, and forgets them.
    #[must_use]
    pub fn former(&self) -> &[FormerSlot] {
        &self.former
    }

    /// The same record, with these former slots. If there are more than [`UserRecord::MAX_FORMER`], the last ones.
    #[must_use]
    pub fn with_former(mut self, former: &[FormerSlot]) -> Self {
        self.former = former[former.len().saturating_sub(Self::MAX_FORMER)..].to_vec();
        self
    }

    /// Remembers how the slot of a session ended that is removed, if its client could have resumed it.
    pub(crate) fn remember(&mut self, removed: &SessionRecord, end: FormerEnd) {
        let Some(Resumable { key, .. }) = removed.resumable() else { return };
        if self.former.len() == Self::MAX_FORMER {
            self.former.remove(0);
        }
        self.former.push(FormerSlot { key_prefix: key.prefix(), end });
    }

    /// Forgets the former slots if no session is left, as a store does that deletes the record.
    pub(crate) fn forget_if_empty(&mut self) {
        if self.is_empty() {
            self.former.clear();
        }
    }

    /// How the slot with this key ended, if the record remembers it.
    pub(crate) fn former_end(&self, key: &ResumeKey) -> Option<FormerEnd> {
        self.former.iter().rev().find(|former| former.key_prefix == key.prefix()).map(|former| former.end)
    }

    /// The sessions that have lost their slots and whose connections may still be open, oldest first. Empty where one node has
    /// the record for itself: the [`LeavingTracker`](crate::leaving_tracker::LeavingTracker) knows them.
    #[must_use]
    pub fn leaving(&self) -> &[LeavingSession] {
        &self.leaving
    }

    /// Whether this session is leaving.
    #[must_use]
    pub fn is_leaving(&self, session: SessionId) -> bool {
        self.leaving.iter().any(|leaving| leaving.session == session)
    }

    /// The same record, with these sessions leaving.
    ///
    /// # Errors
    /// [`RecordError::TooManySessions`] above [`UserRecord::MAX_LEAVING`], [`RecordError::DuplicateSession`] if a session is leaving
    /// twice, or also has a slot or waits.
    pub fn with_leaving(self, leaving: Vec<LeavingSession>) -> Result<Self, RecordError> {
        Self { leaving, ..self }.checked()
    }

    /// Those who are leaving, for the cluster to change.
    pub(crate) const fn leaving_mut(&mut self) -> &mut Vec<LeavingSession> {
        &mut self.leaving
    }

    /// Adds the entry of a session that was told that it has a slot, whatever the limit: its store has forgotten it. Not if it
    /// is there, or is leaving. Another entry of its slot goes: that is of a session whose client had resumed the slot before.
    /// Returns `false` if there is no room ([`UserRecord::MAX_RESTORED`]).
    #[must_use = "if it is false, the session has no entry"]
    pub fn restore(&mut self, entry: SessionRecord) -> bool {
        if self.session(entry.session).is_some() || self.is_leaving(entry.session) {
            return true;
        }
        self.sessions.retain(|other| other.slot != entry.slot);
        if self.sessions.len() >= Self::MAX_RESTORED {
            return false;
        }
        // The store may have gone back to a time when the session waited.
        self.waiting.retain(|waiter| waiter.session != entry.session);
        self.sessions.push(entry);
        true
    }

    /// Whether a slot in it lingers.
    #[must_use]
    pub fn has_lingering(&self) -> bool {
        self.sessions.iter().any(|entry| entry.status != SessionStatus::Live)
    }

    /// The sessions whose clients may be connected: those that live, wait in line or are leaving.
    pub fn connected_sessions(&self) -> impl Iterator<Item = SessionId> {
        let live = self.sessions.iter().filter(|entry| entry.status == SessionStatus::Live).map(|entry| entry.session);
        let waiting = self.waiting.iter().map(|waiter| waiter.session);
        live.chain(waiting).chain(self.leaving.iter().map(|leaving| leaving.session))
    }

    /// The nodes of the [`connected_sessions`](Self::connected_sessions), some of them more than once.
    pub fn connected_nodes(&self) -> impl Iterator<Item = NodeId> {
        self.connected_sessions().map(SessionId::node)
    }

    /// Whether no session is left: none with a slot, in line or leaving. Then the store can delete the record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.waiting.is_empty() && self.leaving.is_empty()
    }

    /// This session, if it is in the record.
    #[must_use]
    pub fn session(&self, session: SessionId) -> Option<&SessionRecord> {
        self.sessions.iter().find(|entry| entry.session == session)
    }
}
