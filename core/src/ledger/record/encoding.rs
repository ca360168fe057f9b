//! A user's record as bytes, the same for every store.
//!
//! ```text
//! version 2:  02 | session*   session:  id (node, number: 8 bytes each) | since (8 bytes) | flags (1 byte)
//!                                       [1: lingers until (8 bytes)]
//!                                       [2: resume key (32 bytes) | grace period (4 bytes)]
//!                                       [4: device (1 byte of length, then the text)] [8: label (the same)]
//! version 1:  01 | session*   session:  id | since
//! ```
//!
//! Integers are big-endian. Times count milliseconds from the Unix epoch, the grace period counts milliseconds. A flag says
//! which fields follow. The first byte is the version. Its meaning never changes once a release has written it. 0 is never a
//! version: a store may mark a value of its own with it.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use super::{ClientInfo, RecordError, Resumable, SessionRecord, SessionStatus, UserRecord, VERSION, VERSION_1};
use crate::id::{DisplayName, SessionId};
use crate::resume_token::ResumeKey;
use crate::time::Timestamp;

const LINGERS: u8 = 1;
const RESUMABLE: u8 = 2;
const DEVICE: u8 = 4;
const LABEL: u8 = 8;

impl UserRecord {
    /// Clears `bytes`, then writes the record to it.
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.clear();
        bytes.push(VERSION);
        for entry in &self.sessions {
            encode(entry, bytes);
        }
    }

    /// Reads what [`UserRecord::encode`] wrote, in this version or the one before it.
    ///
    /// # Errors
    /// [`RecordError`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let (&version, rest) = bytes.split_first().ok_or(RecordError::Empty)?;
        let mut rest = Reader(rest);
        let mut entries = Vec::new();
        while !rest.0.is_empty() {
            entries.push(match version {
                VERSION_1 => SessionRecord::new(rest.session()?, rest.time()?),
                VERSION => decode(&mut rest)?,
                _ => return Err(RecordError::Version(version)),
            });
        }
        match version {
            VERSION_1 | VERSION => Self::from_sessions(entries),
            _ => Err(RecordError::Version(version)),
        }
    }
}

fn encode(SessionRecord { session, since, status, client: client_info }: &SessionRecord, bytes: &mut Vec<u8>) {
    let none = ClientInfo::default();
    let ClientInfo { device, label, resumable } = client_info.as_deref().unwrap_or(&none);
    let until = match status {
        SessionStatus::Live => None,
        SessionStatus::Lingering { until } => Some(until),
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

fn decode(bytes: &mut Reader<'_>) -> Result<SessionRecord, RecordError> {
    let (session, since, [flags]) = (bytes.session()?, bytes.time()?, bytes.take()?);
    if flags & !(LINGERS | RESUMABLE | DEVICE | LABEL) != 0 {
        return Err(RecordError::BadSession);
    }
    let has = |flag| flags & flag != 0;
    let status = if has(LINGERS) { SessionStatus::Lingering { until: bytes.time()? } } else { SessionStatus::Live };
    let resumable = if has(RESUMABLE) {
        let key = ResumeKey::from_bytes(bytes.take()?);
        Some(Resumable { key, linger: Duration::from_millis(u32::from_be_bytes(bytes.take()?).into()) })
    } else {
        None
    };
    let device = if has(DEVICE) { Some(bytes.name()?) } else { None };
    let label = if has(LABEL) { Some(bytes.name()?) } else { None };
    let client_info = ClientInfo { device, label, resumable };
    Ok(SessionRecord {
        session,
        since,
        status,
        client: (client_info != ClientInfo::default()).then(|| Box::new(client_info)),
    })
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

    fn time(&mut self) -> Result<Timestamp, RecordError> {
        let millis = u64::from_be_bytes(self.take()?);
        Ok(Timestamp::from_epoch(Duration::from_millis(millis)))
    }

    fn name(&mut self) -> Result<DisplayName, RecordError> {
        let [length] = self.take()?;
        let (name, rest) = self.0.split_at_checked(usize::from(length)).ok_or(RecordError::CutOff)?;
        self.0 = rest;
        core::str::from_utf8(name).ok().and_then(DisplayName::parse).ok_or(RecordError::BadSession)
    }
}
