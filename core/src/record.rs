//! How a user's record is written down: the bytes every store keeps.
//!
//! ```text
//! version 1:  01 | slot*          slot: session (node, number: 8 bytes each) | since (8 bytes)
//! ```
//!
//! Integers are big-endian, `since` counts milliseconds from the Unix epoch. The first byte is the version; its
//! meaning never changes once a release has written it.

use alloc::vec::Vec;
use core::time::Duration;

use thiserror::Error;

use crate::id::SessionId;
use crate::ledger::{Slot, UserRecord};
use crate::time::Time;

const VERSION: u8 = 1;
const SLOT_BYTES: usize = 24;

/// Why bytes are not a [`UserRecord`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecordError {
    /// No bytes at all.
    #[error("the record is empty")]
    Empty,
    /// Written by another version of this software.
    #[error("the record has version {0}, this server reads version {VERSION}")]
    Version(u8),
    /// Not a whole number of slots.
    #[error("the record is cut off")]
    CutOff,
    /// More slots than [`Limit::MAX`](crate::Limit::MAX).
    #[error("the record has more slots than any limit allows")]
    TooManySlots,
    /// Two slots of one session.
    #[error("the record has two slots of one session")]
    SlotTwice,
}

impl UserRecord {
    /// Writes the record to `bytes`, which it clears first.
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.clear();
        bytes.reserve(1 + self.slots().len() * SLOT_BYTES);
        bytes.push(VERSION);
        for Slot { session, since } in self.slots() {
            bytes.extend_from_slice(&session.to_bytes());
            bytes.extend_from_slice(&since.millis().to_be_bytes());
        }
    }

    /// Reads what [`UserRecord::encode`] wrote.
    ///
    /// # Errors
    /// [`RecordError`] for anything else; such a record is never guessed at.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let (&version, slots) = bytes.split_first().ok_or(RecordError::Empty)?;
        if version != VERSION {
            return Err(RecordError::Version(version));
        }
        let (slots, rest) = slots.as_chunks::<SLOT_BYTES>();
        if !rest.is_empty() {
            return Err(RecordError::CutOff);
        }
        Self::from_slots(slots.iter().map(decode_slot).collect())
    }
}

fn decode_slot(bytes: &[u8; SLOT_BYTES]) -> Slot {
    let (mut session, mut since) = ([0; 16], [0; 8]);
    session.copy_from_slice(&bytes[..16]);
    since.copy_from_slice(&bytes[16..]);
    Slot {
        session: SessionId::from_bytes(session),
        since: Time::from_epoch(Duration::from_millis(u64::from_be_bytes(since))),
    }
}
