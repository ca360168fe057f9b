//! Notices that a path does not lead to what this server opened there, and stops the admission of sessions.
//!
//! A directory can be deleted, moved or mounted over under a running server. LMDB goes on writing to files that no path
//! leads to. Another server can then create new files at the path, and admit the same users again; what an operator sets is
//! gone with the next start. So a thread compares, once a second, device and inode of what is open with what the path leads
//! to. While they differ, acquires and updates are rejected. Releases are applied: the sessions of this server still count.
//!
//! Only the same files at the path end this state. Their records are those that this server has written all along: the
//! directory that holds the lock is the same.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};
use std::{fmt, fs, io};

use crate::runtime::events::log_event;
use crate::runtime::supervisor::PartGuard;
use crate::store::directory_lock::FileId;

/// How long it may take to notice.
const INTERVAL: Duration = Duration::from_secs(1);

/// A path, and what was opened there. It stays open, so no other file can get its inode.
#[derive(Debug, Clone)]
pub(super) struct OpenFile {
    pub(super) path: PathBuf,
    pub(super) id: FileId,
}

/// Why a path is not what was opened there.
#[derive(Debug)]
pub(super) enum Mismatch {
    Gone,
    Replaced,
    Unknown(io::Error),
}

impl OpenFile {
    /// What is at the path now. The caller has opened it.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.into(), id: FileId::of(&fs::metadata(path)?) })
    }

    /// Whether the path still leads to it. If that cannot be found out, it does not: in doubt no session is admitted.
    pub(super) fn check(&self) -> Result<(), Mismatch> {
        match fs::metadata(&self.path) {
            Ok(metadata) if FileId::of(&metadata) == self.id => Ok(()),
            Ok(_) => Err(Mismatch::Replaced),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Err(Mismatch::Gone)
            }
            Err(error) => Err(Mismatch::Unknown(error)),
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("it is gone: deleted, moved away, or its volume is not mounted"),
            Self::Replaced => f.write_str("it is another one than this server has opened"),
            Self::Unknown(error) => write!(f, "it cannot be looked at: {error}"),
        }
    }
}

/// Whether the paths lead to what is open. The threads that write ask before they change anything.
#[derive(Debug, Clone, Default)]
pub(super) struct DirectoryState(Arc<AtomicBool>);

impl DirectoryState {
    pub(super) fn is_lost(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn set_lost(&self, is_lost: bool) {
        self.0.store(is_lost, Ordering::Release);
    }
}

/// What to say after a look.
#[derive(Debug, PartialEq, Eq)]
enum Report {
    Lost,
    Back,
}

/// Decides when to say it: at each change, and again from time to time as long as the directory is lost.
#[derive(Debug, Default)]
struct Reports {
    /// When it was last said that the directory is lost.
    lost: Option<Instant>,
}

impl Reports {
    const AGAIN: Duration = Duration::from_secs(60);

    fn next(&mut self, is_lost: bool, now: Instant) -> Option<Report> {
        match (is_lost, self.lost) {
            (false, None) => None,
            (false, Some(_)) => {
                self.lost = None;
                Some(Report::Back)
            }
            (true, Some(said)) if now.saturating_duration_since(said) < Self::AGAIN => None,
            (true, _) => {
                self.lost = Some(now);
                Some(Report::Lost)
            }
        }
    }
}

/// The thread that looks.
#[derive(Debug)]
pub(super) struct DirectoryWatch {
    files: Vec<OpenFile>,
    state: DirectoryState,
    reports: Reports,
    stopped: Receiver<()>,
}

/// Ends the watch when dropped.
#[derive(Debug)]
pub(super) struct StopWatch {
    _stop: Sender<()>,
}

impl DirectoryWatch {
    pub(super) fn new(files: Vec<OpenFile>) -> (Self, DirectoryState, StopWatch) {
        let (state, (stop, stopped)) = (DirectoryState::default(), channel());
        let watch = Self { files, state: state.clone(), reports: Reports::default(), stopped };
        (watch, state, StopWatch { _stop: stop })
    }

    /// Looks once a second, until the [`StopWatch`] is dropped.
    pub(super) fn run(mut self, guard: &PartGuard) {
        loop {
            self.look(Instant::now());
            guard.round();
            match self.stopped.recv_timeout(INTERVAL) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn look(&mut self, now: Instant) {
        let lost = self.files.iter().find_map(|file| file.check().err().map(|mismatch| (file, mismatch)));
        self.state.set_lost(lost.is_some());
        match (self.reports.next(lost.is_some(), now), lost) {
            (Some(Report::Lost), Some((file, mismatch))) => {
                log_event!(data_directory_lost { path: display(file.path.display()), reason: display(mismatch) });
            }
            (Some(Report::Back), _) => {
                log_event!(data_directory_back {});
            }
            (Some(Report::Lost) | None, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::logged;
    use super::*;

    #[test]
    fn loss_is_reported_at_once_and_each_minute() {
        let (mut reports, start) = (Reports::default(), Instant::now());
        let mut next = |is_lost, second| reports.next(is_lost, start + Duration::from_secs(second));
        assert_eq!([next(false, 0), next(true, 1), next(true, 2)], [None, Some(Report::Lost), None]);
        assert_eq!([next(true, 60), next(true, 61), next(true, 62)], [None, Some(Report::Lost), None]);
        assert_eq!([next(false, 63), next(false, 64)], [Some(Report::Back), None]);
        assert_eq!(next(true, 65), Some(Report::Lost));
    }

    #[test]
    fn only_the_same_file_at_its_path_counts() {
        let directory = tempfile::tempdir().unwrap();
        let (path, aside) = (directory.path().join("a"), directory.path().join("aside"));
        fs::create_dir(&path).unwrap();
        fs::write(path.join("data"), "").unwrap();
        let files = [&path, &path.join("data")].map(|path| OpenFile::at(path).unwrap());
        let (mut watch, state, _stop) = DirectoryWatch::new(files.into());
        let mut is_lost = || {
            watch.look(Instant::now());
            state.is_lost()
        };
        assert!(!is_lost());
        fs::rename(&path, &aside).unwrap();
        assert!(is_lost(), "it is moved away");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("data"), "").unwrap();
        assert!(is_lost(), "another one is there");
        fs::remove_dir_all(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert!(is_lost(), "a file is there");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&aside, &path).unwrap();
        assert!(!is_lost(), "the same one is back, by another name");
        fs::rename(aside.join("data"), aside.join("moved")).unwrap();
        assert!(is_lost(), "a file in it is gone");
        fs::copy(aside.join("moved"), aside.join("data")).unwrap();
        assert!(is_lost(), "a copy may lack what was written since");
        fs::rename(aside.join("moved"), aside.join("data")).unwrap();
        assert!(!is_lost());
    }

    #[test]
    fn log_says_what_is_wrong_and_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data");
        fs::write(&path, "").unwrap();
        let (mut watch, _state, _stop) = DirectoryWatch::new(vec![OpenFile::at(&path).unwrap()]);
        let lines = logged(|| {
            fs::remove_file(&path).unwrap();
            for _ in 0..10 {
                watch.look(Instant::now());
            }
        });
        assert_eq!(lines.lines().count(), 1, "{lines}");
        for part in ["ERROR", path.to_str().unwrap(), "it is gone", "no session is admitted", "restart the server"] {
            assert!(lines.contains(part), "{part:?} in {lines}");
        }
    }
}
