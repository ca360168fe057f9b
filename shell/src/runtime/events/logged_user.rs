//! How the log names users.

use std::fmt::Write as _;
use std::sync::{PoisonError, RwLock};

use clap::ValueEnum;
use session_core::UserId;
use sha2::{Digest as _, Sha256};

/// How the log names users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogUsers {
    /// By their ids.
    #[default]
    Plain,
    /// By a keyed hash of their ids. The same user has the same hash as long as the key is the same.
    Hash,
    /// Not at all.
    Off,
}

/// The key of the hash. With it, a reader of the log can find out whose a hash is, by trying ids.
#[derive(Clone)]
pub struct LogUserKey([u8; 16]);

impl LogUserKey {
    /// A key of these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The hash that stands for this user: 16 hexadecimal digits.
    #[must_use]
    pub fn hash(&self, user: &str) -> String {
        let digest = Sha256::new().chain_update(self.0).chain_update(user).finalize();
        digest[..8].iter().fold(String::with_capacity(16), |mut text, byte| {
            let _infallible = write!(text, "{byte:02x}");
            text
        })
    }
}

impl std::fmt::Debug for LogUserKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogUserKey(…)")
    }
}

#[derive(Debug)]
enum Naming {
    Plain,
    Hash(LogUserKey),
    Off,
}

/// Of the process, as its log is.
static NAMING: RwLock<Naming> = RwLock::new(Naming::Plain);

/// Sets how the log of the process names users. A hash without a key names none.
pub fn set_log_users(log_users: LogUsers, key: Option<LogUserKey>) {
    let naming = match (log_users, key) {
        (LogUsers::Plain, _) => Naming::Plain,
        (LogUsers::Hash, Some(key)) => Naming::Hash(key),
        (LogUsers::Hash, None) | (LogUsers::Off, _) => Naming::Off,
    };
    *NAMING.write().unwrap_or_else(PoisonError::into_inner) = naming;
}

/// What stands for this user in the log of this process. `None` unless the log names users by a hash.
#[must_use]
pub fn hash_of(user: &UserId) -> Option<String> {
    match &*NAMING.read().unwrap_or_else(PoisonError::into_inner) {
        Naming::Hash(key) => Some(key.hash(user.as_str())),
        Naming::Plain | Naming::Off => None,
    }
}

/// Whether the log names users by their ids.
pub(crate) fn names_users() -> bool {
    matches!(*NAMING.read().unwrap_or_else(PoisonError::into_inner), Naming::Plain)
}

/// A user of an event, if it has one.
pub(crate) trait EventUser {
    fn id(&self) -> Option<&str>;
}

impl EventUser for &UserId {
    fn id(&self) -> Option<&str> {
        Some(self.as_str())
    }
}

impl EventUser for Option<&UserId> {
    fn id(&self) -> Option<&str> {
        self.map(UserId::as_str)
    }
}

/// A key that cannot be parsed as a user's id.
impl EventUser for &str {
    fn id(&self) -> Option<&str> {
        Some(self)
    }
}

/// What an event's field `user` says.
#[expect(clippy::needless_pass_by_value, reason = "it is a reference, or an option of one")]
pub(crate) fn logged_user(user: impl EventUser) -> Option<String> {
    let user = user.id()?;
    match &*NAMING.read().unwrap_or_else(PoisonError::into_inner) {
        Naming::Plain => Some(user.to_owned()),
        Naming::Hash(key) => Some(key.hash(user)),
        Naming::Off => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_depends_on_user_and_key() {
        let [one, other] = [1, 2].map(|byte| LogUserKey::new([byte; 16]));
        let hash = one.hash("ada");
        assert!(hash.len() == 16 && hash.bytes().all(|digit| digit.is_ascii_hexdigit()));
        assert_eq!(hash, one.hash("ada"));
        assert!(hash != one.hash("adb") && hash != other.hash("ada"));
        assert_eq!(format!("{one:?}"), "LogUserKey(…)");
    }
}
