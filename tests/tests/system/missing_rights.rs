//! What the server and its commands say if a right is missing: which one, for whom, on which path.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![cfg(unix)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tests::test_process::TestProcess;

const SERVER: &str = env!("CARGO_BIN_EXE_server-under-test");
/// `nobody` on most systems. Root has every right, so as root the tests run the server as this user.
const NOBODY: u32 = 65534;

/// A directory with the server's binary, both open to every user.
struct Place {
    directory: tempfile::TempDir,
    /// Whose rights the server has.
    uid: u32,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // By a program of its own: a child that another test starts meanwhile would inherit the file, open for writing, and
        // the kernel runs no file that anybody may write to.
        let copy = directory.path().join("server");
        assert!(Command::new("cp").args([Path::new(SERVER), &copy]).status().unwrap().success());
        let own = directory.path().metadata().unwrap().uid();
        let place = Self { directory, uid: if own == 0 { NOBODY } else { own } };
        place.set_mode("", 0o755);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn set_mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        self.set_mode(name, 0o000);
    }

    /// What a command prints that fails with this exit code.
    fn error(&self, code: i32, arguments: &[&str]) -> String {
        let mut command = Command::new(self.path("server"));
        if self.uid == NOBODY {
            command.uid(NOBODY).gid(NOBODY);
        }
        let Output { status, stderr, .. } =
            command.current_dir(self.directory.path()).args(arguments).output().unwrap();
        let error = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}: {error}");
        error
    }

    fn assert_names(&self, error: &str, action: &str, path: &Path, mode: &str) {
        let path = path.display();
        for part in [
            format!("uid {}", self.uid),
            format!("may not {action} {path}, which belongs to "),
            format!("has mode {mode}. "),
            "with chown or chmod".into(),
        ] {
            assert!(error.contains(&part), "{part:?} in {error}");
        }
    }
}

#[test]
fn unusable_data_directory_names_the_missing_right() {
    let place = Place::new();
    fs::create_dir_all(place.path("closed/data")).unwrap();
    fs::create_dir(place.path("readable")).unwrap();
    place.set_mode("readable", 0o555);
    place.set_mode("closed", 0o000);
    let start = |data: &str| place.error(1, &["--listen", "127.0.0.1:0", "--data", data]);
    let create = "create files in the directory";
    place.assert_names(&start("readable"), create, &place.path("readable"), "0555");
    place.assert_names(&start("readable/data"), create, &place.path("readable"), "0555");
    place.assert_names(&start("closed/data"), "enter the directory", &place.path("closed"), "0000");
    place.set_mode("closed", 0o755);
    place.write("file", "");
    let error = start("file");
    assert!(error.contains("a file is in its place"), "{error}");
}

#[test]
fn unreadable_files_name_the_missing_right() {
    let place = Place::new();
    for name in ["conf.toml", "cert.pem", "key.pem", "secret"] {
        place.write(name, "x");
    }
    let error = place.error(2, &["--config", "conf.toml"]);
    place.assert_names(&error, "read", &place.path("conf.toml"), "0000");
    let arguments = ["--tls-cert", "cert.pem", "--tls-key", "key.pem", "--auth", "jwt", "--jwt-secret-file", "secret"];
    let error = place.error(2, &arguments);
    for (flag, file) in [("--tls-cert", "cert.pem"), ("--tls-key", "key.pem"), ("--jwt-secret-file", "secret")] {
        let line = error.lines().find(|line| line.starts_with(&format!("{flag}: "))).unwrap_or_default();
        place.assert_names(line, "read", &place.path(file), "0000");
    }
}

#[test]
fn closed_operator_socket_names_its_owner() {
    let place = Place::new();
    let data = place.path("data");
    let _process = TestProcess::start(SERVER, &data, &[]);
    place.set_mode("data", 0o755);
    place.set_mode("data/operator.sock", 0o000);
    let error = place.error(1, &["explain", "ada", "--data", data.to_str().unwrap()]);
    place.assert_names(&error, "write to", &data.join("operator.sock"), "0000");
}

#[test]
fn low_port_names_the_missing_capability() {
    let first_free = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let first_free: u16 = first_free.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024);
    if first_free <= 1 {
        return;
    }
    let place = Place::new();
    let error = place.error(1, &["--listen", "127.0.0.1:1", "--store", "memory"]);
    for part in [format!("uid {}", place.uid), format!("ports below {first_free}"), "CAP_NET_BIND_SERVICE".into()] {
        assert!(error.contains(&part), "{part:?} in {error}");
    }
}
