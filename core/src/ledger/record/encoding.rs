//! A user's record as bytes, the same for every store.
//!
//! ```text
//! version 5:  05 | as version 4, but before the sessions: number of leaving (2 bytes) | leaving session*
//!             leaving session:  id (16 bytes) | reason (1 byte) [64: device] [128: label]
//!             written only if sessions are leaving, otherwise version 4
//! version 4:  04 | number of former slots (1 byte) | former slot* | number that wait (1 byte) | waiting session* | session*
//!             waiting session:  id (16 bytes) | since (8 bytes) | flags (1 byte: 1: no lingering slot is freed for it)
//!                           [4: device (2 bytes of length, then the text)] [32: claimed limit (2 bytes)]
//!             and a session has the flag 128: it watches
//! version 3:  03 | number of former slots (1 byte) | former slot* | session*
//!             former slot:  first bytes of its resume key (8 bytes) | how it ended (1 byte: 0 expired, 1 taken)
//!             session:      id (node, number: 8 bytes each) | since (8 bytes) | flags (1 byte)
//!                           [1: lingers until (8 bytes)]
//!                           [2: resume key (32 bytes) | grace period (4 bytes)] [64: moved at (8 bytes)]
//!                           [4: device (2 bytes of length, then the text)] [8: label (the same)]
//!                           [16: slot (16 bytes); without it the slot is named by the session]
//!                           [32: claimed limit (2 bytes)]
//! version 2:  02 | session*   as above, with the flags 1 to 8, and 1 byte for the length of a text
//! version 1:  01 | session*   session:  id | since
//! ```
//!
//! Integers are big-endian. Times count milliseconds from the Unix epoch, the grace period counts milliseconds. A flag says
//! which fields follow. The first byte is the version. Its meaning never changes once a release has written it. 0 is never a
//! version: a store may mark a value of its own with it.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem::discriminant;
use core::time::Duration;

use super::{
    ClientInfo, FormerEnd, FormerSlot, LeavingSession, RecordError, Resumable, SessionRecord, SessionStatus,
    UserRecord, VERSION, VERSION_1, VERSION_2, VERSION_3, VERSION_4, WaitingSession,
};
use crate::id::{DisplayName, ResumeKey, SessionId, SlotId};
use crate::ledger::end_reason::{EndReason, SessionNames};
use crate::ledger::limit::SlotLimit;
use crate::time::Timestamp;

const LINGERS: u8 = 1;
const RESUMABLE: u8 = 2;
const DEVICE: u8 = 4;
const LABEL: u8 = 8;
const SLOT: u8 = 16;
const CLAIM: u8 = 32;
const MOVED: u8 = 64;
const WATCHES: u8 = 128;
/// Of a session that waits.
const SPARES_LINGERING: u8 = 1;

/// Of a session that is leaving: it lost its slot to a session with this name.
const BY_DEVICE: u8 = 64;
const BY_LABEL: u8 = 128;
/// The reasons in the order of their codes, which never change.
const REASONS: [EndReason; 8] = [
    EndReason::TakenOver(None),
    EndReason::DeviceFull(None),
    EndReason::ByUser(None),
    EndReason::ByOperator,
    EndReason::LimitLowered,
    EndReason::Banned,
    EndReason::Resumed,
    EndReason::Contested,
];

const FLAGS_2: u8 = LINGERS | RESUMABLE | DEVICE | LABEL;
const FLAGS_3: u8 = FLAGS_2 | SLOT | CLAIM | MOVED;
const FLAGS: u8 = FLAGS_3 | WATCHES;
const FLAGS_WAITING: u8 = SPARES_LINGERING | DEVICE | CLAIM;

impl UserRecord {
    /// Clears `bytes`, then writes the record to it.
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.clear();
        bytes.push(if self.leaving.is_empty() { VERSION_4 } else { VERSION });
        encode_former(&self.former, bytes);
        encode_waiting(&self.waiting, bytes);
        if !self.leaving.is_empty() {
            encode_leaving(&self.leaving, bytes);
        }
        for entry in &self.sessions {
            encode(entry, bytes);
        }
    }

    /// Reads what [`UserRecord::encode`] wrote, in this version or one before it.
    ///
    /// # Errors
    /// [`RecordError`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let (&version, rest) = bytes.split_first().ok_or(RecordError::Empty)?;
        let mut rest = Reader(rest);
        let former = match version {
            VERSION_1 | VERSION_2 => Vec::new(),
            VERSION_3 | VERSION_4 | VERSION => rest.former()?,
            _ => return Err(RecordError::Version(version)),
        };
        let waiting = if version >= VERSION_4 { rest.waiting()? } else { Vec::new() };
        let leaving = if version == VERSION { rest.leaving()? } else { Vec::new() };
        let mut entries = Vec::new();
        while !rest.0.is_empty() {
            entries.push(match version {
                VERSION_1 => SessionRecord::new(rest.session()?, rest.time()?),
                _ => decode(&mut rest, version)?,
            });
        }
        Self { former, waiting, leaving, sessions: entries }.checked()
    }
}

/// Writes former slots as a record has them, their number first.
fn encode_former(former: &[FormerSlot], bytes: &mut Vec<u8>) {
    bytes.push(u8::try_from(former.len()).expect("a record remembers at most 8"));
    for FormerSlot { key_prefix, end } in former {
        bytes.extend_from_slice(key_prefix);
        bytes.push(match end {
            FormerEnd::Expired => 0,
            FormerEnd::Taken => 1,
        });
    }
}

/// Writes the line as a record has it, the number of those who wait first.
fn encode_waiting(waiting: &[WaitingSession], bytes: &mut Vec<u8>) {
    bytes.push(u8::try_from(waiting.len()).expect("at most 64 wait"));
    for WaitingSession { session, since, claim, device, spares_lingering } in waiting {
        bytes.extend_from_slice(&session.to_bytes());
        bytes.extend_from_slice(&since.millis().to_be_bytes());
        bytes.push(
            flag(*spares_lingering, SPARES_LINGERING) | flag(device.is_some(), DEVICE) | flag(claim.is_some(), CLAIM),
        );
        if let Some(device) = device {
            encode_name(device, bytes);
        }
        if let Some(claim) = claim {
            encode_limit(*claim, bytes);
        }
    }
}

/// Writes the sessions that are leaving as a record has them, their number first.
fn encode_leaving(leaving: &[LeavingSession], bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&u16::try_from(leaving.len()).expect("at most 2048 are leaving").to_be_bytes());
    for LeavingSession { session, reason } in leaving {
        bytes.extend_from_slice(&session.to_bytes());
        let names = reason.names();
        let device = names.and_then(|names| names.device.as_ref());
        let label = names.and_then(|names| names.label.as_ref());
        let code = REASONS.iter().position(|of| discriminant(of) == discriminant(reason)).expect("it has every reason");
        let code = u8::try_from(code).expect("there are fewer than 64");
        bytes.push(code | flag(device.is_some(), BY_DEVICE) | flag(label.is_some(), BY_LABEL));
        for name in [device, label].into_iter().flatten() {
            encode_name(name, bytes);
        }
    }
}

fn encode_name(name: &DisplayName, bytes: &mut Vec<u8>) {
    let length = u16::try_from(name.as_str().len()).expect("a name has at most 256 bytes");
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(name.as_str().as_bytes());
}

fn encode_limit(limit: SlotLimit, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&u16::try_from(limit.slots()).expect("a limit is at most 1024").to_be_bytes());
}

const fn flag(is_there: bool, flag: u8) -> u8 {
    if is_there { flag } else { 0 }
}

fn encode(
    SessionRecord { session, slot, since, claim, status, watches, client: client_info }: &SessionRecord,
    bytes: &mut Vec<u8>,
) {
    let none = ClientInfo::default();
    let ClientInfo { device, label, resumable } = client_info.as_deref().unwrap_or(&none);
    let until = status.lingers_until();
    let moved_at = resumable.and_then(|resumable| resumable.moved_at);
    bytes.extend_from_slice(&session.to_bytes());
    bytes.extend_from_slice(&since.millis().to_be_bytes());
    bytes.push(
        flag(until.is_some(), LINGERS)
            | flag(resumable.is_some(), RESUMABLE)
            | flag(moved_at.is_some(), MOVED)
            | flag(device.is_some(), DEVICE)
            | flag(label.is_some(), LABEL)
            | flag(slot.first_session() != *session, SLOT)
            | flag(claim.is_some(), CLAIM)
            | flag(*watches, WATCHES),
    );
    if let Some(until) = until {
        bytes.extend_from_slice(&until.millis().to_be_bytes());
    }
    if let Some(Resumable { key, linger, .. }) = resumable {
        bytes.extend_from_slice(&key.to_bytes());
        bytes.extend_from_slice(&u32::try_from(linger.as_millis()).unwrap_or(u32::MAX).to_be_bytes());
    }
    if let Some(moved_at) = moved_at {
        bytes.extend_from_slice(&moved_at.millis().to_be_bytes());
    }
    for name in [device, label].into_iter().flatten() {
        encode_name(name, bytes);
    }
    if slot.first_session() != *session {
        bytes.extend_from_slice(&slot.first_session().to_bytes());
    }
    if let Some(claim) = claim {
        encode_limit(*claim, bytes);
    }
}

fn decode(bytes: &mut Reader<'_>, version: u8) -> Result<SessionRecord, RecordError> {
    let (session, since, [flags]) = (bytes.session()?, bytes.time()?, bytes.take()?);
    let known = match version {
        VERSION_2 => FLAGS_2,
        VERSION_3 => FLAGS_3,
        _ => FLAGS,
    };
    if flags & !known != 0 {
        return Err(RecordError::BadSession);
    }
    let has = |flag| flags & flag != 0;
    let status = if has(LINGERS) { SessionStatus::Lingering { until: bytes.time()? } } else { SessionStatus::Live };
    let mut resumable = if has(RESUMABLE) {
        let key = ResumeKey::from_bytes(bytes.take()?);
        let linger = Duration::from_millis(u32::from_be_bytes(bytes.take()?).into());
        Some(Resumable { key, linger, moved_at: None })
    } else {
        None
    };
    if has(MOVED) {
        resumable.as_mut().ok_or(RecordError::BadSession)?.moved_at = Some(bytes.time()?);
    }
    let device = if has(DEVICE) { Some(bytes.name(version)?) } else { None };
    let label = if has(LABEL) { Some(bytes.name(version)?) } else { None };
    let slot = if has(SLOT) { SlotId::new(bytes.session()?) } else { SlotId::new(session) };
    let claim = if has(CLAIM) { Some(bytes.limit()?) } else { None };
    let client_info = ClientInfo { device, label, resumable };
    Ok(SessionRecord {
        session,
        slot,
        since,
        claim,
        status,
        watches: has(WATCHES),
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

    fn former(&mut self) -> Result<Vec<FormerSlot>, RecordError> {
        let [number] = self.take()?;
        if usize::from(number) > UserRecord::MAX_FORMER {
            return Err(RecordError::BadSession);
        }
        let one = |reader: &mut Self| {
            let key_prefix = reader.take()?;
            let end = match reader.take()? {
                [0] => FormerEnd::Expired,
                [1] => FormerEnd::Taken,
                _ => return Err(RecordError::BadSession),
            };
            Ok(FormerSlot { key_prefix, end })
        };
        (0..number).map(|_| one(self)).collect()
    }

    fn waiting(&mut self) -> Result<Vec<WaitingSession>, RecordError> {
        let [number] = self.take()?;
        if usize::from(number) > UserRecord::MAX_WAITING {
            return Err(RecordError::TooManySessions);
        }
        let one = |reader: &mut Self| {
            let (session, since, [flags]) = (reader.session()?, reader.time()?, reader.take()?);
            if flags & !FLAGS_WAITING != 0 {
                return Err(RecordError::BadSession);
            }
            let has = |flag| flags & flag != 0;
            let device = if has(DEVICE) { Some(reader.name(VERSION)?) } else { None };
            let claim = if has(CLAIM) { Some(reader.limit()?) } else { None };
            Ok(WaitingSession { session, since, claim, device, spares_lingering: has(SPARES_LINGERING) })
        };
        (0..number).map(|_| one(self)).collect()
    }

    fn leaving(&mut self) -> Result<Vec<LeavingSession>, RecordError> {
        let number = u16::from_be_bytes(self.take()?);
        if number == 0 {
            // Version 4 says so.
            return Err(RecordError::BadSession);
        }
        let one = |reader: &mut Self| {
            let (session, [byte]) = (reader.session()?, reader.take()?);
            let device = if byte & BY_DEVICE != 0 { Some(reader.name(VERSION)?) } else { None };
            let label = if byte & BY_LABEL != 0 { Some(reader.name(VERSION)?) } else { None };
            let code = usize::from(byte & !(BY_DEVICE | BY_LABEL));
            let mut reason = REASONS.get(code).cloned().ok_or(RecordError::BadSession)?;
            match (SessionNames::new(device.as_ref(), label.as_ref()), &mut reason) {
                (None, _) => {}
                (by, EndReason::TakenOver(names) | EndReason::DeviceFull(names) | EndReason::ByUser(names)) => {
                    *names = by
                }
                (Some(_), _) => return Err(RecordError::BadSession),
            }
            Ok(LeavingSession { session, reason })
        };
        (0..number).map(|_| one(self)).collect()
    }

    fn limit(&mut self) -> Result<SlotLimit, RecordError> {
        SlotLimit::new(u16::from_be_bytes(self.take()?).into()).map_err(|_| RecordError::BadSession)
    }

    fn name(&mut self, version: u8) -> Result<DisplayName, RecordError> {
        let length = if version == VERSION_2 { self.take::<1>()?[0].into() } else { u16::from_be_bytes(self.take()?) };
        let (name, rest) = self.0.split_at_checked(usize::from(length)).ok_or(RecordError::CutOff)?;
        self.0 = rest;
        core::str::from_utf8(name).ok().and_then(DisplayName::parse).ok_or(RecordError::BadSession)
    }
}
