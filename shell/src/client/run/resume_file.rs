//! The file in which a client keeps what it takes its session up with again.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::{fs, process};

use session_core::ResumeToken;

use crate::client::Error;

/// A file with a resume token. It is a secret, so the file is its owner's alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResumeFile(PathBuf);

impl ResumeFile {
    /// The file of the connection with this number, of so many: with several each has its own, `FILE.1` and on.
    #[must_use]
    pub(crate) fn for_connection(file: &Path, number: u16, connections: u16) -> Self {
        if connections == 1 {
            return Self(file.into());
        }
        let mut name = file.as_os_str().to_owned();
        name.push(format!(".{number}"));
        Self(name.into())
    }

    /// The token in it, if it is there.
    ///
    /// # Errors
    /// [`Error::BadResumeFile`]: it cannot be read, or holds something else, which is then not written over.
    pub(crate) fn read(&self) -> Result<Option<ResumeToken>, Error> {
        match fs::read_to_string(&self.0) {
            Ok(text) if text.trim().is_empty() => Ok(None),
            Ok(text) => match ResumeToken::parse(text.trim()) {
                Some(token) => Ok(Some(token)),
                None => Err(self.bad("it does not hold one")),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.bad(&error.to_string())),
        }
    }

    /// Puts a token there, in the place of what was: whole, or not at all.
    ///
    /// # Errors
    /// [`Error::BadResumeFile`]: it cannot be written.
    pub(crate) fn write(&self, token: &ResumeToken) -> Result<(), Error> {
        let mut draft = self.0.as_os_str().to_owned();
        draft.push(format!(".new-{}", process::id()));
        let draft = PathBuf::from(draft);
        let written = || {
            let _left_over = fs::remove_file(&draft);
            let mut options = fs::OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut file = options.open(&draft)?;
            writeln!(file, "{}", token.text())?;
            file.sync_all()?;
            fs::rename(&draft, &self.0)
        };
        written().map_err(|error: io::Error| self.bad(&error.to_string()))
    }

    fn bad(&self, reason: &str) -> Error {
        Error::BadResumeFile { file: self.0.display().to_string(), reason: reason.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_kept_for_its_owner_alone_and_nothing_else_is_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resume");
        let file = ResumeFile::for_connection(&path, 1, 1);
        assert_eq!(file.read().unwrap(), None);
        for byte in [7, 8] {
            let token = ResumeToken::new([byte; 32]);
            file.write(&token).unwrap();
            assert_eq!(file.read().unwrap(), Some(token));
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no draft is left");
        fs::write(&path, "my diary").unwrap();
        let error = file.read().unwrap_err().to_string();
        assert!(error.contains("it does not hold one") && !error.contains("diary"), "{error}");
        assert_eq!(ResumeFile::for_connection(&path, 2, 3).0, directory.path().join("resume.2"));
        assert!(
            ResumeFile::for_connection(&directory.path().join("no/where"), 1, 1)
                .write(&ResumeToken::new([7; 32]))
                .is_err()
        );
    }
}
