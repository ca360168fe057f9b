//! The encoding of a user's overrides, in every store that outlives the process.
//!
//! ```text
//! version 1:  01 | flags (1 byte)             1: a limit (4 bytes)   2: the action when it is reached (1 byte)
//! ```
//!
//! Integers are big-endian. The first byte is the version; its meaning never changes once a release has written it.

use session_core::ledger::{SlotLimit, UserOverrides, WhenFull};
use thiserror::Error;

const VERSION: u8 = 1;
const LIMIT: u8 = 1;
const WHEN_FULL: u8 = 2;

/// Why bytes are not a user's overrides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum OverridesError {
    #[error("a user's overrides have version {0}, this server reads version {VERSION}")]
    Version(u8),
    #[error("a user's overrides make no sense")]
    Malformed,
}

/// The bytes of these overrides.
pub(super) fn encode(overrides: UserOverrides) -> Vec<u8> {
    let UserOverrides { limit, when_full } = overrides;
    let mut bytes = vec![VERSION, 0];
    if let Some(limit) = limit {
        bytes[1] |= LIMIT;
        bytes.extend_from_slice(&limit.slots().to_be_bytes());
    }
    if let Some(when_full) = when_full {
        bytes[1] |= WHEN_FULL;
        bytes.push(match when_full {
            WhenFull::Deny => 0,
            WhenFull::EvictOldest => 1,
        });
    }
    bytes
}

/// The overrides of these bytes.
pub(super) fn decode(bytes: &[u8]) -> Result<UserOverrides, OverridesError> {
    let (what, mut rest) = match *bytes {
        [VERSION, what, ref rest @ ..] if what & !(LIMIT | WHEN_FULL) == 0 => (what, rest),
        [version, ..] if version != VERSION => return Err(OverridesError::Version(version)),
        _ => return Err(OverridesError::Malformed),
    };
    let mut overrides = UserOverrides::default();
    if what & LIMIT != 0 {
        let (slots, left) = rest.split_first_chunk().ok_or(OverridesError::Malformed)?;
        overrides.limit = Some(SlotLimit::new(u32::from_be_bytes(*slots)).map_err(|_| OverridesError::Malformed)?);
        rest = left;
    }
    if what & WHEN_FULL != 0 {
        overrides.when_full = match rest {
            [0, ..] => Some(WhenFull::Deny),
            [1, ..] => Some(WhenFull::EvictOldest),
            _ => return Err(OverridesError::Malformed),
        };
        rest = &rest[1..];
    }
    if rest.is_empty() { Ok(overrides) } else { Err(OverridesError::Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides(limit: Option<u32>, when_full: Option<WhenFull>) -> UserOverrides {
        UserOverrides { limit: limit.map(|slots| SlotLimit::new(slots).unwrap()), when_full }
    }

    #[test]
    fn encoding_is_stable_and_read_back() {
        for (overrides, bytes) in [
            (overrides(Some(0), None), &[1, 1, 0, 0, 0, 0][..]),
            (overrides(Some(1024), Some(WhenFull::Deny)), &[1, 3, 0, 0, 4, 0, 0]),
            (overrides(None, Some(WhenFull::EvictOldest)), &[1, 2, 1]),
            (UserOverrides::default(), &[1, 0]),
        ] {
            assert_eq!(encode(overrides), bytes);
            assert_eq!(decode(bytes), Ok(overrides));
        }
    }

    #[test]
    fn other_bytes_are_rejected() {
        assert_eq!(decode(&[2, 0]), Err(OverridesError::Version(2)));
        for bytes in
            [&[][..], &[1], &[1, 4], &[1, 1], &[1, 1, 0, 0, 0], &[1, 1, 0, 0, 4, 1], &[1, 2], &[1, 2, 2], &[1, 0, 0]]
        {
            assert_eq!(decode(bytes), Err(OverridesError::Malformed), "{bytes:?}");
        }
    }
}
