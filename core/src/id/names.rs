//! The ids of users, nodes and sessions.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::borrow::Borrow;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// A user, named by 1 to [`UserId::MAX_BYTES`] bytes of UTF-8 without control characters.
///
/// Ids are compared byte for byte, without case folding or Unicode normalisation: `zoe` and `zoe ` are two users. A server
/// may map spellings to one id before it parses that. A `UserId` is always valid, so no code
/// behind [`UserId::parse`] checks it again. It borrows as `str`, so a map with `UserId` keys takes a `&str`. Clones share the
/// text: a session keeps several, and each command has one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(Arc<str>);

impl UserId {
    /// The longest id, in bytes of UTF-8. It leaves room for a prefix in an LMDB key, which is at most 511 bytes.
    pub const MAX_BYTES: usize = 256;

    /// Checks an id that comes from outside.
    ///
    /// # Errors
    /// [`UserIdError`] says which of the first three rules it breaks.
    pub fn parse(id: &str) -> Result<Self, UserIdError> {
        if id.is_empty() {
            return Err(UserIdError::Empty);
        }
        if id.len() > Self::MAX_BYTES {
            return Err(UserIdError::TooLong);
        }
        if id.chars().any(char::is_control) {
            return Err(UserIdError::ControlCharacter);
        }
        Ok(Self(id.into()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is not a [`UserId`]. The messages are part of the wire protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
#[error("{}", self.message())]
pub enum UserIdError {
    /// No bytes at all.
    Empty,
    /// More than [`UserId::MAX_BYTES`] bytes.
    TooLong,
    /// A character of Unicode's category Cc, such as a newline or NUL.
    ControlCharacter,
    /// The server takes only usernames as RFC 8265 defines them.
    NotUsername,
}

impl UserIdError {
    /// What a client is told.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::Empty => "User id is empty, it must be 1 to 256 bytes",
            Self::TooLong => "User id is too long, it must be 1 to 256 bytes",
            Self::ControlCharacter => "User id contains a control character",
            Self::NotUsername => {
                "User id is not a username (RFC 8265): it has a space or another character that is not allowed, or mixes writing directions"
            }
        }
    }
}

impl Borrow<str> for UserId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for UserId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for UserId {
    type Err = UserIdError;

    fn from_str(id: &str) -> Result<Self, UserIdError> {
        Self::parse(id)
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl Serialize for UserId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for UserId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let id = String::deserialize(deserializer)?;
        Self::parse(&id).map_err(serde::de::Error::custom)
    }
}

/// The name of a device, or the label of a client: 1 to [`DisplayName::MAX_CHARS`] characters without control characters.
/// Compared byte for byte.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct DisplayName(Box<str>);

impl DisplayName {
    /// The longest name, in characters. A character has at most 4 bytes of UTF-8.
    pub const MAX_CHARS: usize = 64;

    /// Checks a name that comes from outside. `None` if it breaks a rule.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let is_good =
            !name.is_empty() && name.chars().nth(Self::MAX_CHARS).is_none() && !name.chars().any(char::is_control);
        is_good.then(|| Self(name.into()))
    }

    /// As [`DisplayName::parse`], but a name that is too long is cut to [`DisplayName::MAX_CHARS`]. Returns whether it was.
    #[must_use]
    pub fn parse_cut(name: &str) -> Option<(Self, bool)> {
        let end = name.char_indices().nth(Self::MAX_CHARS).map_or(name.len(), |(at, _)| at);
        Self::parse(&name[..end]).map(|cut| (cut, end < name.len()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DisplayName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DisplayName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl<'de> Deserialize<'de> for DisplayName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::parse(&name).ok_or_else(|| serde::de::Error::custom("not a name of 1 to 64 characters"))
    }
}

/// One start of one server process.
///
/// The server draws it at random at every start. So a store can tell the slots of this process from those that an earlier
/// one left behind. It has 64 random bits: with a million starts, the probability that two share an id is below 10⁻⁷. Then
/// the slots left by the earlier one would count as held, never the other way round.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u64);

impl NodeId {
    /// A node named by 64 random bits.
    #[must_use]
    pub const fn new(bits: u64) -> Self {
        Self(bits)
    }

    /// The random bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The id of this node's session with the given number.
    #[must_use]
    pub const fn session(self, number: u64) -> SessionId {
        SessionId { node: self, number }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A session: the node that serves it, and a number that the node uses once.
///
/// It is not a secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId {
    node: NodeId,
    number: u64,
}

impl SessionId {
    /// The node that serves the session.
    #[must_use]
    pub const fn node(self) -> NodeId {
        self.node
    }

    /// The session's number on its node.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.number
    }

    /// The session as 16 bytes for a store: node, then number, both big-endian.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        ((u128::from(self.node.0) << 64) | u128::from(self.number)).to_be_bytes()
    }

    /// Parses the 32 lower-case hexadecimal digits of a displayed session. `None` for anything else.
    #[must_use]
    pub fn parse(digits: &str) -> Option<Self> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if digits.len() != 32 || !digits.bytes().all(is_digit) {
            return None;
        }
        u128::from_str_radix(digits, 16).ok().map(|bits| Self::from_bytes(bits.to_be_bytes()))
    }

    /// Reads what [`SessionId::to_bytes`] wrote. Any 16 bytes are valid.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let [node, number] = [0, 8].map(|at| {
            let mut half = [0; 8];
            half.copy_from_slice(&bytes[at..at + 8]);
            u64::from_be_bytes(half)
        });
        NodeId(node).session(number)
    }
}

/// A slot, as people and programs name it: the id of the session that took it first.
///
/// A session that is resumed has another id on its new connection. Its slot keeps its name, also over a restart of the
/// server. It is not a secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId(SessionId);

impl SlotId {
    /// The slot that this session takes anew.
    #[must_use]
    pub const fn new(first: SessionId) -> Self {
        Self(first)
    }

    /// The session that took the slot first.
    #[must_use]
    pub const fn first_session(self) -> SessionId {
        self.0
    }
}

/// 32 hexadecimal digits.
impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// 32 hexadecimal digits.
impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:016x}", self.node, self.number)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::ToString;

    #[test]
    fn user_ids_are_bounded_without_control_characters() {
        assert_eq!(UserId::parse(""), Err(UserIdError::Empty));
        assert!(UserId::parse("a").is_ok());
        assert!(UserId::parse(&"é".repeat(128)).is_ok());
        assert_eq!(UserId::parse(&"é".repeat(129)), Err(UserIdError::TooLong));
        for control in ["a\nb", "\0", "\u{7f}", "\u{85}"] {
            assert_eq!(UserId::parse(control), Err(UserIdError::ControlCharacter));
        }
        assert!(UserId::parse(" \u{a0}🦀").is_ok());
    }

    #[test]
    fn session_ids_survive_bytes() {
        let id = NodeId::new(0x0123_4567_89ab_cdef).session(7);
        assert_eq!(SessionId::from_bytes(id.to_bytes()), id);
        assert_eq!(id.to_string(), "0123456789abcdef0000000000000007");
        assert_eq!((id.node(), id.number()), (NodeId::new(0x0123_4567_89ab_cdef), 7));
        assert_eq!(SessionId::parse("0123456789abcdef0000000000000007"), Some(id));
        for wrong in ["", "7", "0123456789ABCDEF0000000000000007", "+123456789abcdef0000000000000007"] {
            assert_eq!(SessionId::parse(wrong), None, "{wrong}");
        }
        assert_eq!(SessionId::parse(&"0".repeat(33)), None);
    }

    #[test]
    fn display_names_are_bounded_without_control_characters() {
        assert_eq!(DisplayName::parse("Firefox on the laptop").unwrap().to_string(), "Firefox on the laptop");
        assert!(DisplayName::parse(&"🦀".repeat(64)).is_some());
        for wrong in ["", "a\nb", "\u{85}", &"é".repeat(65)] {
            assert_eq!(DisplayName::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn long_display_names_are_cut_between_characters() {
        let cut = |name: &str| DisplayName::parse_cut(name).map(|(name, is_cut)| (name.to_string(), is_cut));
        assert_eq!(cut(&"é".repeat(64)), Some(("é".repeat(64), false)));
        assert_eq!(cut(&"🦀".repeat(1000)), Some(("🦀".repeat(64), true)));
        assert_eq!((cut(""), cut("a\nb")), (None, None));
    }

    #[test]
    fn maps_of_user_ids_take_str_keys() {
        let limits = alloc::collections::BTreeMap::from([("ada".parse::<UserId>().unwrap(), 3)]);
        assert_eq!((limits.get("ada"), limits.get("bob")), (Some(&3), None));
    }

    #[test]
    fn ids_print_whole() {
        let (user, id) = (UserId::parse("ada \"the\" countess").unwrap(), NodeId::new(0xada).session(7));
        assert_eq!(user.to_string(), "ada \"the\" countess");
        assert_eq!(format!("{user:?}"), r#""ada \"the\" countess""#);
        assert_eq!(format!("{:?}", id.node()), "0000000000000ada");
        assert_eq!(format!("{id:?}"), "0000000000000ada0000000000000007");
    }
}
