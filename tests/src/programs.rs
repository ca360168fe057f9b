//! Programs of others that some tests run, if they are installed.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// As [`is_installed`], for a program that `.ci/run` does not install.
#[must_use]
#[allow(clippy::print_stderr, reason = "it tells who runs the tests what they left out")]
pub fn is_present(what: &str, command: &mut Command) -> bool {
    let is_present = succeeds(command);
    if !is_present {
        eprintln!("SKIPPED: {what} is not installed");
    }
    is_present
}

pub(crate) fn succeeds(command: &mut Command) -> bool {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Whether this program, or library of one, is installed: whether the command succeeds. If not, the test that asks has to be
/// skipped, which is printed.
///
/// # Panics
/// If the program is missing and the environment variable `REQUIRE_PROGRAMS` is set, as in `.ci/run`.
#[must_use]
#[allow(clippy::print_stderr, reason = "it tells who runs the tests what they left out")]
pub fn is_installed(what: &str, command: &mut Command) -> bool {
    let is_installed = succeeds(command);
    if !is_installed {
        assert!(env::var_os("REQUIRE_PROGRAMS").is_none(), "{what} is not installed, and REQUIRE_PROGRAMS is set");
        eprintln!("SKIPPED: {what} is not installed. `.ci/run` installs it");
    }
    is_installed
}

/// The name of Chromium, or of Chrome, if it is installed. Otherwise as [`is_installed`].
#[must_use]
pub fn chromium() -> Option<&'static str> {
    let version = |name: &'static str| {
        let mut command = Command::new(name);
        command.arg("--version");
        command
    };
    if succeeds(&mut version("google-chrome")) {
        return Some("google-chrome");
    }
    is_installed("chromium", &mut version("chromium")).then_some("chromium")
}

/// A path in this repository.
#[must_use]
pub fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Where `.ci/run` puts the libraries for other languages.
#[must_use]
pub fn libraries() -> PathBuf {
    in_repository("target/programs")
}
