//! The file that keeps a resume token between runs.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::{fs, process};

use session_core::ResumeToken;

use crate::client::Error;

/// A file with a resume token. The token is a secret, so only the owner may read the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResumeFile(PathBuf);

impl ResumeFile {
    /// The file of one connection. Several connections use `FILE.1`, `FILE.2` and so on.
    #[must_use]
    pub(crate) fn for_connection(file: &Path, number: u16, connections: u16) -> Self {
        if connections == 1 {
            return Self(file.into());
        }
        let mut name = file.as_os_str().to_owned();
        name.push(format!(".{number}"));
        Self(name.into())
    }

    /// The token in the file. `None` if there is no file, or an empty one.
    ///
    /// # Errors
    /// [`Error::BadResumeFile`]: the file cannot be read, or holds something else. It is then never overwritten.
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

    /// Replaces the file atomically.
    ///
    /// # Errors
    /// [`Error::BadResumeFile`]: the file cannot be written.
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
    fn resume_file_is_private_and_overwrites_only_tokens() {
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
