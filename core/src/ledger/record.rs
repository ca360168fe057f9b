//! A user's record: who holds the user's slots, and how that is written down, the bytes every store keeps.
//!
//! ```text
//! version 2:  02 | hold*      hold:  session (node, number: 8 bytes each) | since (8 bytes) | what follows (1 byte)
//!                                    [1: lingers until (8 bytes)]
//!                                    [2: resume key (32 bytes) | lingers for so long (4 bytes)]
//!                                    [4: device (1 byte of length, then it)] [8: label (the same)]
//! version 1:  01 | hold*      hold:  session | since
//! ```
//!
//! Integers are big-endian, times count milliseconds from the Unix epoch, `lingers for` counts milliseconds. The first byte
//! is the version; its meaning never changes once a release has written it.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use thiserror::Error;

use crate::id::{Name, SessionId};
use crate::resume_token::ResumeKey;
use crate::time::Time;

const VERSION: u8 = 2;
const ELDER: u8 = 1;

const LINGERS: u8 = 1;
const RESUMABLE: u8 = 2;
const DEVICE: u8 = 4;
const LABEL: u8 = 8;

/// What a store keeps of one user: the holds on the user's slots, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserRecord {
    holds: Vec<Hold>,
}

/// One session's hold on one of its user's slots. Where devices are counted, the sessions of one device hold one slot
/// together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Who holds it.
    pub session: SessionId,
    /// When it was taken, by the clock of the node that took it.
    pub since: Time,
    /// Whether its session lives.
    pub held: Held,
    /// What a client said of itself that did say something.
    pub guest: Option<Box<Guest>>,
}

/// How a slot is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// By a session that lives, as far as its node does.
    Live,
    /// By a session that was lost, for whoever takes it up again until then.
    Lingering {
        /// From here on it counts for nothing.
        until: Time,
    },
}

/// What is kept of a client that says more of itself than who it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Guest {
    /// Which device it runs on.
    pub device: Option<Name>,
    /// What it calls itself, for people.
    pub label: Option<Name>,
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

/// Why bytes are not a [`UserRecord`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecordError {
    /// No bytes at all.
    #[error("the record is empty")]
    Empty,
    /// Written by another version of this software.
    #[error("the record has version {0}, this server reads versions {ELDER} and {VERSION}")]
    Version(u8),
    /// Not a whole number of holds.
    #[error("the record is cut off")]
    CutOff,
    /// A hold has something that this version does not know, or a name that is none.
    #[error("the record has a hold that makes no sense")]
    BadHold,
    /// More holds than [`UserRecord::MAX_HOLDS`].
    #[error("the record has more slots than any limit allows")]
    TooManyHolds,
    /// Two holds of one session.
    #[error("the record has two slots of one session")]
    SessionTwice,
}

impl Hold {
    /// The hold of a session of which nothing else is known.
    #[must_use]
    pub const fn new(session: SessionId, since: Time) -> Self {
        Self { session, since, held: Held::Live, guest: None }
    }

    /// Which device its session runs on, if that is known.
    #[must_use]
    pub fn device(&self) -> Option<&Name> {
        self.guest.as_ref()?.device.as_ref()
    }

    /// What its session calls itself.
    #[must_use]
    pub fn label(&self) -> Option<&Name> {
        self.guest.as_ref()?.label.as_ref()
    }

    /// What to call it, for people: by its label, or else by its device.
    #[must_use]
    pub fn name(&self) -> Option<&Name> {
        self.label().or_else(|| self.device())
    }

    /// How it can be taken up by another session.
    #[must_use]
    pub fn resumable(&self) -> Option<Resumable> {
        self.guest.as_ref()?.resumable
    }

    /// How long it lingers once it is lost.
    pub(crate) fn linger(&self) -> Duration {
        self.resumable().map_or(Duration::ZERO, |resumable| resumable.linger)
    }
}

impl UserRecord {
    /// The hard ceiling of holds in one record, whatever is configured, so that a record stays small.
    pub const MAX_HOLDS: usize = 1024;

    /// The record that has these holds, as a store read them back.
    ///
    /// # Errors
    /// `TooManyHolds` above the ceiling, `SessionTwice` when two are of one session.
    pub fn from_holds(holds: Vec<Hold>) -> Result<Self, RecordError> {
        if holds.len() > Self::MAX_HOLDS {
            return Err(RecordError::TooManyHolds);
        }
        let mut sessions: Vec<_> = holds.iter().map(|hold| hold.session).collect();
        sessions.sort_unstable();
        if sessions.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(RecordError::SessionTwice);
        }
        Ok(Self { holds })
    }

    /// The holds, oldest first. Some may be void.
    #[must_use]
    pub fn holds(&self) -> &[Hold] {
        &self.holds
    }

    /// The same, to be changed: by the rule alone.
    pub(crate) const fn holds_mut(&mut self) -> &mut Vec<Hold> {
        &mut self.holds
    }

    /// Whether nothing is left to keep.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.holds.is_empty()
    }

    /// The session's hold, if it has one.
    #[must_use]
    pub fn hold_of(&self, session: SessionId) -> Option<&Hold> {
        self.holds.iter().find(|hold| hold.session == session)
    }

    /// Writes the record to `bytes`, which it clears first.
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.clear();
        bytes.push(VERSION);
        for hold in &self.holds {
            encode(hold, bytes);
        }
    }

    /// Reads what [`UserRecord::encode`] wrote, in this version or in the one before it.
    ///
    /// # Errors
    /// [`RecordError`] for anything else; such a record is never guessed at.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let (&version, rest) = bytes.split_first().ok_or(RecordError::Empty)?;
        let mut rest = Reader(rest);
        let mut holds = Vec::new();
        while !rest.0.is_empty() {
            holds.push(match version {
                ELDER => Hold::new(rest.session()?, rest.time()?),
                VERSION => decode(&mut rest)?,
                _ => return Err(RecordError::Version(version)),
            });
        }
        match version {
            ELDER | VERSION => Self::from_holds(holds),
            _ => Err(RecordError::Version(version)),
        }
    }
}

fn encode(Hold { session, since, held, guest }: &Hold, bytes: &mut Vec<u8>) {
    let none = Guest::default();
    let Guest { device, label, resumable } = guest.as_deref().unwrap_or(&none);
    let until = match held {
        Held::Live => None,
        Held::Lingering { until } => Some(until),
    };
    let flag = |is_there: bool, flag| if is_there { flag } else { 0 };
    bytes.extend_from_slice(&session.to_bytes());
    bytes.extend_from_slice(&since.millis().to_be_bytes());
    bytes.push(
        flag(until.is_some(), LINGERS)
            | flag(resumable.is_some(), RESUMABLE)
            | flag(device.is_some(), DEVICE)
            | flag(label.is_some(), LABEL),
    );
    if let Some(until) = until {
        bytes.extend_from_slice(&until.millis().to_be_bytes());
    }
    if let Some(Resumable { key, linger }) = resumable {
        bytes.extend_from_slice(&key.to_bytes());
        bytes.extend_from_slice(&u32::try_from(linger.as_millis()).unwrap_or(u32::MAX).to_be_bytes());
    }
    for name in [device, label].into_iter().flatten() {
        bytes.push(u8::try_from(name.as_str().len()).expect("a name has at most 64 bytes"));
        bytes.extend_from_slice(name.as_str().as_bytes());
    }
}

fn decode(bytes: &mut Reader<'_>) -> Result<Hold, RecordError> {
    let (session, since, [flags]) = (bytes.session()?, bytes.time()?, bytes.take()?);
    if flags & !(LINGERS | RESUMABLE | DEVICE | LABEL) != 0 {
        return Err(RecordError::BadHold);
    }
    let has = |flag| flags & flag != 0;
    let held = if has(LINGERS) { Held::Lingering { until: bytes.time()? } } else { Held::Live };
    let resumable = if has(RESUMABLE) {
        let key = ResumeKey::from_bytes(bytes.take()?);
        Some(Resumable { key, linger: Duration::from_millis(u32::from_be_bytes(bytes.take()?).into()) })
    } else {
        None
    };
    let device = if has(DEVICE) { Some(bytes.name()?) } else { None };
    let label = if has(LABEL) { Some(bytes.name()?) } else { None };
    let guest = Guest { device, label, resumable };
    Ok(Hold { session, since, held, guest: (guest != Guest::default()).then(|| Box::new(guest)) })
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (&first, rest) = self.0.split_first_chunk().ok_or(RecordError::CutOff)?;
        self.0 = rest;
        Ok(first)
    }

    fn session(&mut self) -> Result<SessionId, RecordError> {
        self.take().map(SessionId::from_bytes)
    }

    fn time(&mut self) -> Result<Time, RecordError> {
        let millis = u64::from_be_bytes(self.take()?);
        Ok(Time::from_epoch(Duration::from_millis(millis)))
    }

    fn name(&mut self) -> Result<Name, RecordError> {
        let [length] = self.take()?;
        let (name, rest) = self.0.split_at_checked(usize::from(length)).ok_or(RecordError::CutOff)?;
        self.0 = rest;
        core::str::from_utf8(name).ok().and_then(Name::parse).ok_or(RecordError::BadHold)
    }
}
