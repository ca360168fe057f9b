//! The password for a Redis: a text, or the file that holds it.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::small_file::read;

/// The password for a Redis. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub enum RedisPassword {
    /// The password itself, for example from the environment.
    Given(Vec<u8>),
    /// A file with it.
    File(PathBuf),
}

/// Why a password cannot be used.
#[derive(Debug, Error)]
pub enum RedisPasswordError {
    /// Its file cannot be read.
    #[error("cannot read {path}: {why}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error.
        why: io::Error,
    },
    /// It is empty.
    #[error("the password in {0} is empty")]
    Empty(String),
    /// It is not text.
    #[error("the password in {0} is not UTF-8")]
    NotText(String),
}

impl RedisPassword {
    /// The password, without one line break at its end: editors add one. Reads the file each time.
    ///
    /// # Errors
    /// [`RedisPasswordError`]: the file cannot be read; or the password is empty, or not UTF-8.
    pub fn text(&self) -> Result<String, RedisPasswordError> {
        let (bytes, place) = match self {
            Self::Given(bytes) => (bytes.clone(), "the environment".to_owned()),
            Self::File(path) => {
                let bytes = read(path).map_err(|why| RedisPasswordError::Unreadable { path: path.clone(), why })?;
                (bytes, path.display().to_string())
            }
        };
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        match std::str::from_utf8(bytes) {
            Ok("") => Err(RedisPasswordError::Empty(place)),
            Ok(text) => Ok(text.into()),
            Err(_) => Err(RedisPasswordError::NotText(place)),
        }
    }
}

impl fmt::Debug for RedisPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(_) => f.write_str("Given(***)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn one_line_break_at_the_end_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        for (bytes, expected) in [
            (&b"hunter2"[..], "hunter2"),
            (b"hunter2\n", "hunter2"),
            (b"hunter2\r\n", "hunter2"),
            (b" hunter2\n\n", " hunter2\n"),
        ] {
            fs::write(&path, bytes).unwrap();
            for password in [RedisPassword::Given(bytes.into()), RedisPassword::File(path.clone())] {
                assert_eq!(password.text().unwrap(), expected, "{bytes:?}");
                assert!(!format!("{password:?}").contains("hunter2"));
            }
        }
    }

    #[test]
    fn unusable_password_names_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        let message = |password: RedisPassword| password.text().unwrap_err().to_string();
        assert!(message(RedisPassword::File(path.clone())).starts_with(&format!("cannot read {}: ", path.display())));
        fs::write(&path, "\n").unwrap();
        assert_eq!(message(RedisPassword::File(path.clone())), format!("the password in {} is empty", path.display()));
        assert_eq!(message(RedisPassword::Given(vec![0xff])), "the password in the environment is not UTF-8");
    }
}
