//! Puts `log_users` in force, with the key of the hash.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use thiserror::Error;

use crate::config::{Config, StoreKind};
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
/// that a user has the same hash after a restart. It creates the key if there is none.
///
/// # Errors
/// When the key can neither be read nor created.
pub(crate) fn apply(config: &Config) -> Result<(), KeyError> {
    let key = match (config.log_users, config.store) {
        (LogUsers::Plain | LogUsers::Off, _) => None,
        (LogUsers::Hash, StoreKind::Memory) => Some(new_key().map_err(|source| error(Path::new("in memory"), source))?),
        (LogUsers::Hash, StoreKind::Lmdb) => {
            let path = config.data.join("log-key");
            Some(read_or_create(&path).map_err(|source| error(&path, source))?)
        }
    };
    set_log_users(config.log_users, key.map(LogUserKey::new));
    Ok(())
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
