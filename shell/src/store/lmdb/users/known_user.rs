//! What is kept of a user until the user is forgotten, and its encoding.
//!
//! ```text
//! version 1:  01 | first seen (8 bytes) | last seen (8 bytes)
//! ```
//!
//! Milliseconds from the Unix epoch, big-endian. The first byte is the version; its meaning never changes once a
//! release has written it.

use std::time::Duration;

use session_core::Timestamp;
use thiserror::Error;

const VERSION: u8 = 1;
const BYTES: usize = 17;

/// A user that was granted a slot at least once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::lmdb) struct KnownUser {
    pub(in crate::store::lmdb) first_seen: Timestamp,
    /// When the user was last granted a slot, or found to hold one. Up to [`KnownUser::GRANULARITY`] behind.
    pub(in crate::store::lmdb) last_seen: Timestamp,
}

/// Why bytes are not a [`KnownUser`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(in crate::store::lmdb) enum KnownUserError {
    #[error("the entry of a known user has version {0}, this server reads version {VERSION}")]
    Version(u8),
    #[error("the user's record has {0} bytes instead of {BYTES}")]
    Length(usize),
}

impl KnownUser {
    /// How old `last_seen` must be before it is written again.
    pub(in crate::store::lmdb) const GRANULARITY: Duration = Duration::from_secs(3600);

    pub(in crate::store::lmdb) fn encode(self) -> [u8; BYTES] {
        let mut bytes = [VERSION; BYTES];
        bytes[1..9].copy_from_slice(&self.first_seen.millis().to_be_bytes());
        bytes[9..].copy_from_slice(&self.last_seen.millis().to_be_bytes());
        bytes
    }

    pub(in crate::store::lmdb) fn decode(bytes: &[u8]) -> Result<Self, KnownUserError> {
        match bytes.first() {
            Some(&VERSION) | None => {}
            Some(&version) => return Err(KnownUserError::Version(version)),
        }
        let bytes: &[u8; BYTES] = bytes.try_into().map_err(|_| KnownUserError::Length(bytes.len()))?;
        let time = |at: usize| {
            let mut millis = [0; 8];
            millis.copy_from_slice(&bytes[at..at + 8]);
            Timestamp::from_epoch(Duration::from_millis(u64::from_be_bytes(millis)))
        };
        Ok(Self { first_seen: time(1), last_seen: time(9) })
    }

    /// The record after the user was seen. `None` if the old one is recent enough. A time in the future was written by a wrong
    /// clock, and is replaced.
    pub(in crate::store::lmdb) fn touch(known: Option<Self>, at: Timestamp) -> Option<Self> {
        match known {
            None => Some(Self { first_seen: at, last_seen: at }),
            Some(user) if at.since(user.last_seen).max(user.last_seen.since(at)) > Self::GRANULARITY => {
                Some(Self { last_seen: at, ..user })
            }
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_epoch(Duration::from_secs(seconds))
    }

    #[test]
    fn encoding_is_stable_and_read_back() {
        let user = KnownUser { first_seen: at(1), last_seen: at(0x1_0000) };
        let bytes = [1, 0, 0, 0, 0, 0, 0, 0x03, 0xe8, 0, 0, 0, 0, 0x03, 0xe8, 0, 0];
        assert_eq!(user.encode(), bytes);
        assert_eq!(KnownUser::decode(&bytes), Ok(user));
    }

    #[test]
    fn other_bytes_are_rejected() {
        let mut bytes = KnownUser { first_seen: at(1), last_seen: at(1) }.encode();
        assert_eq!(KnownUser::decode(&bytes[..16]), Err(KnownUserError::Length(16)));
        assert_eq!(KnownUser::decode(&[]), Err(KnownUserError::Length(0)));
        bytes[0] = 2;
        assert_eq!(KnownUser::decode(&bytes), Err(KnownUserError::Version(2)));
    }

    #[test]
    fn last_seen_is_written_once_an_hour() {
        let user = KnownUser::touch(None, at(100)).unwrap();
        assert_eq!(user, KnownUser { first_seen: at(100), last_seen: at(100) });
        assert_eq!(KnownUser::touch(Some(user), at(3700)), None);
        assert_eq!(KnownUser::touch(Some(user), at(50)), None);
        let ahead = KnownUser { last_seen: at(3701), ..user };
        assert_eq!(KnownUser::touch(Some(ahead), at(101)), None);
        assert_eq!(KnownUser::touch(Some(ahead), at(100)), Some(user), "a clock was wrong");
        assert_eq!(KnownUser::touch(Some(user), at(3701)), Some(KnownUser { last_seen: at(3701), ..user }));
    }
}
