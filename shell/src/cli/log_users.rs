//! Puts `log_users` in force, with the key of the hash.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::OnceLock;

use thiserror::Error;

use crate::config::StoreKind;
use crate::runtime::events::{LogUserKey, LogUsers, set_log_users};

/// The key has no use.
#[derive(Debug, Error)]
#[error(
    "the key for log_users = \"hash\", {path}, cannot be used; it must be a file with 32 hexadecimal digits, or absent"
)]
pub(crate) struct KeyError {
    path: String,
    source: io::Error,
}

/// Has the log of this process name users as the configuration says. A server with a data directory keeps the key there, so
/// that a user has the same hash after a restart. It creates the key if there is none. `store` and `data` are those that the
/// process uses, also after a reload: otherwise a reload would change every hash.
///
/// # Errors
/// When the key can neither be read nor created.
pub(crate) fn apply(log_users: LogUsers, store: StoreKind, data: &Path) -> Result<(), KeyError> {
    set_log_users(log_users, key_for(log_users, store, data)?);
    Ok(())
}

fn key_for(log_users: LogUsers, store: StoreKind, data: &Path) -> Result<Option<LogUserKey>, KeyError> {
    /// Of the process, if it has no data directory.
    static IN_MEMORY: OnceLock<[u8; 16]> = OnceLock::new();

    let key = match (log_users, store) {
        (LogUsers::Plain | LogUsers::Off, _) => return Ok(None),
        (LogUsers::Hash, StoreKind::Memory) => match IN_MEMORY.get() {
            Some(&key) => key,
            None => {
                let key = new_key().map_err(|source| error(Path::new("in memory"), source))?;
                *IN_MEMORY.get_or_init(|| key)
            }
        },
        (LogUsers::Hash, StoreKind::Lmdb | StoreKind::Redis) => {
            let path = data.join("log-key");
            read_or_create(&path).map_err(|source| error(&path, source))?
        }
    };
    Ok(Some(LogUserKey::new(key)))
}

fn error(path: &Path, source: io::Error) -> KeyError {
    KeyError { path: path.display().to_string(), source }
}

fn new_key() -> io::Result<[u8; 16]> {
    let mut key = [0; 16];
    getrandom::fill(&mut key).map_err(io::Error::from)?;
    Ok(key)
}

fn read_or_create(path: &Path) -> io::Result<[u8; 16]> {
    match fs::read_to_string(path) {
        Ok(text) => parse(text.trim()).ok_or_else(|| io::ErrorKind::InvalidData.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = new_key()?;
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            writeln!(file, "{:032x}", u128::from_be_bytes(key))?;
            Ok(key)
        }
        Err(error) => Err(error),
    }
}

fn parse(text: &str) -> Option<[u8; 16]> {
    let is_key = text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_key.then(|| u128::from_str_radix(text, 16).ok())?.map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_the_same_after_a_reload() {
        let directory = tempfile::tempdir().unwrap();
        for store in [StoreKind::Memory, StoreKind::Lmdb, StoreKind::Redis] {
            let hash = || key_for(LogUsers::Hash, store, directory.path()).unwrap().unwrap().hash("ada");
            assert_eq!(hash(), hash(), "{store:?}");
        }
    }

    #[test]
    fn key_is_created_once_and_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log-key");
        let key = read_or_create(&path).unwrap();
        assert_eq!(read_or_create(&path).unwrap(), key);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        for invalid in ["", "12", "+1234567890123456789012345678901", "0123456789abcdef0123456789abcdeg"] {
            fs::write(&path, invalid).unwrap();
            assert_eq!(read_or_create(&path).unwrap_err().kind(), io::ErrorKind::InvalidData, "{invalid:?}");
        }
    }
}
