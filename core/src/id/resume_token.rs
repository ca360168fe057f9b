//! The secret with which a client resumes a lost session.

use alloc::string::String;
use core::fmt;

use sha2::{Digest as _, Sha256};

/// A secret that the server tells a client with its slot, and that the client shows to resume the slot. 32 random bytes; as
/// text, 64 lower-case hexadecimal digits.
///
/// The token stays the same when the slot is resumed. It is worthless once the slot is released. It is never printed. A
/// store keeps only its [`ResumeKey`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ResumeToken([u8; 32]);

/// The SHA-256 of a [`ResumeToken`], for a store to keep. The token cannot be derived from it. It needs no salt, because each
/// token is 256 random bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResumeKey([u8; 32]);

impl ResumeToken {
    /// A token of these bytes, which must come from a cryptographically secure random source.
    #[must_use]
    pub const fn new(random: [u8; 32]) -> Self {
        Self(random)
    }

    /// Parses what [`ResumeToken::text`] wrote. `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
        let mut bytes = [0; 32];
        for (byte, &[high, low]) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
            *byte = digit(high)? << 4 | digit(low)?;
        }
        Some(Self(bytes))
    }

    /// The token as text, for the wire.
    #[must_use]
    pub fn text(&self) -> String {
        self.0
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 15])
            .map(|digit| char::from(DIGITS[usize::from(digit)]))
            .collect()
    }

    /// The key for a store to keep.
    #[must_use]
    pub fn key(&self) -> ResumeKey {
        ResumeKey(Sha256::digest(self.0).into())
    }
}

const DIGITS: [u8; 16] = *b"0123456789abcdef";

fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

impl fmt::Debug for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResumeToken(…)")
    }
}

impl ResumeKey {
    /// A key from the bytes that a store kept.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The first bytes.
    pub(crate) fn prefix(self) -> [u8; 8] {
        *self.0.first_chunk().expect("a key has 32 bytes")
    }

    /// The bytes for a store to keep.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 32] {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn tokens_are_64_digits_and_never_printed() {
        let token = ResumeToken::new(core::array::from_fn(|at| u8::try_from(at * 8).unwrap()));
        let text = "0008101820283038404850586068707880889098a0a8b0b8c0c8d0d8e0e8f0f8";
        assert_eq!((&*token.text(), ResumeToken::parse(text)), (text, Some(token)));
        assert_eq!(format!("{token:?}"), "ResumeToken(…)");
        for wrong in ["", &text[1..], &format!("{text}0"), &text.to_uppercase(), &text.replace('f', "g")] {
            assert_eq!(ResumeToken::parse(wrong), None, "{wrong}");
        }
    }

    /// FIPS 180-4 has no vector for 32 bytes; this one is `sha256sum` of 32 zeros.
    #[test]
    fn keys_are_hashes_of_their_tokens() {
        let hash = "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925";
        assert_eq!(ResumeToken::new([0; 32]).key().to_bytes(), ResumeToken::parse(hash).unwrap().0);
    }
}
