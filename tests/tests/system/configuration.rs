//! The server binary and its configuration: the file, the environment and the command line of a real process.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tests::raw_client::RawClient;
use tests::test_process::TestProcess;

const SERVER: &str = env!("CARGO_BIN_EXE_server-under-test");

/// Runs a command that ends by itself, in this directory, with these variables and no other `SESSIONS_` ones.
fn run(directory: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let inherited =
        std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with("SESSIONS_"));
    let mut command = Command::new(SERVER);
    for name in inherited {
        command.env_remove(name);
    }
    let command = command.current_dir(directory).args(arguments).envs(variables.iter().copied());
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn file(directory: &Path, text: &str) -> PathBuf {
    let path = directory.join("sessions.toml");
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn strongest_configuration_source_wins() {
    let directory = tempfile::tempdir().unwrap();
    file(directory.path(), "limit = 4\nthreads = 7\nauth_timeout = \"7s\"\n");
    let variables = [
        ("SESSIONS_CONFIG", "sessions.toml"),
        ("SESSIONS_LIMIT", "5"),
        ("SESSIONS_THREADS", "8"),
        ("SESSIONS_LOG", ""),
    ];
    let (code, out, err) = run(directory.path(), &["config", "--limit", "6"], &variables);
    assert_eq!((code, &*err), (Some(0), ""));
    for line in [
        "limit = 6  # --limit",
        "threads = 8  # SESSIONS_THREADS",
        "auth_timeout = \"7s\"  # sessions.toml:3",
        "log = \"info\"  # default",
    ] {
        assert!(out.lines().any(|other| other == line), "{line}\n{out}");
    }
}

#[test]
fn empty_variables_count_as_unset() {
    let directory = tempfile::tempdir().unwrap();
    let variables = ["SESSIONS_CONFIG", "SESSIONS_LIMIT", "SESSIONS_DATA", "SESSIONS_LISTEN", "SESSIONS_STORE"]
        .map(|name| (name, ""));
    let (code, out, err) = run(directory.path(), &["config"], &variables);
    assert_eq!((code, &*err), (Some(0), ""));
    assert_eq!(out, run(directory.path(), &["config"], &[]).1);
}

#[test]
fn all_configuration_errors_are_reported_together() {
    let directory = tempfile::tempdir().unwrap();
    file(directory.path(), "limmit = 4\nthreads = 0\n");
    let variables = [("SESSIONS_PING_INTERVAL", "1ms"), ("SESSIONS_STORE", "sqlite")];
    for command in [&["--config", "sessions.toml"][..], &["config", "--config", "sessions.toml"]] {
        let (code, out, err) = run(directory.path(), command, &variables);
        assert_eq!((code, &*out), (Some(2), ""), "{err}");
        for message in [
            "\nsessions.toml:1:1: limmit: unknown key; did you mean limit?\n",
            "\nsessions.toml:2:1: threads: invalid value '0': 0 is not from 1 to 256\n",
            "\nSESSIONS_PING_INTERVAL: invalid value '1ms': it must be 100ms to 1h\n",
            "\nSESSIONS_STORE: invalid value 'sqlite': it must be one of lmdb, memory, redis\n",
        ] {
            assert!(err.contains(message), "{message}\n{err}");
        }
    }
    let (code, _, err) = run(directory.path(), &["check-config", "sessions.toml"], &variables);
    assert_eq!((code, err.lines().count()), (Some(1), 2), "{err}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no data was made");
}

#[test]
fn printed_configuration_passes_its_own_check() {
    let directory = tempfile::tempdir().unwrap();
    for command in [&["config"][..], &["config", "--default"]] {
        let (code, out, _) = run(directory.path(), command, &[]);
        assert_eq!(code, Some(0));
        file(directory.path(), &out);
        let (code, out, err) = run(directory.path(), &["check-config", "sessions.toml"], &[]);
        assert!(code == Some(0) && out.starts_with("sessions.toml is valid"), "{out}{err}");
    }
}

#[test]
fn server_runs_with_its_configuration_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = file(directory.path(), "limit = 1\nstore = \"memory\"\n");
    let process = TestProcess::start(SERVER, directory.path(), &["--config", file.to_str().unwrap()]);
    assert!(process.announcement.contains("in memory"), "{}", process.announcement);
    let _held = RawClient::authenticated(process.address, "ada", 1);
    let mut refused = RawClient::open(process.address);
    refused.authenticate("ada");
    let answer = format!("{:?}", refused.read());
    assert!(answer.contains("connection limit"), "{answer}");
}

#[test]
fn unknown_variable_is_logged_as_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    // No address of this machine, so that the server ends.
    let arguments = ["--listen", "192.0.2.1:80", "--store", "memory", "--allow-open-auth"];
    let (code, _, err) = run(directory.path(), &arguments, &[("SESSIONS_LIMITS", "5")]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("SESSIONS_LIMITS: unknown variable") && err.contains("SESSIONS_LIMIT?"), "{err}");
}

#[test]
fn conflicts_and_bad_files_are_reported_with_lines() {
    let directory = tempfile::tempdir().unwrap();
    let check = |text: &str| {
        file(directory.path(), text);
        run(directory.path(), &["check-config", "sessions.toml"], &[])
    };
    let (code, _, err) = check(
        "limit = 1025\ntls_cert = \"x\"\nlisten = \"0.0.0.0:1,0.0.0.0:1\"\nproxy_protocol = true\nforwarded_header = \"forwarded\"\njwt_secret_file = \"a\"\njwt_key_set_file = \"b\"\nauth = \"open\"",
    );
    assert_eq!((code, err.lines().count()), (Some(1), 8), "{err}");
    for message in [
        "listen: 0.0.0.0:1 is given twice",
        "proxy_protocol, trusted_proxies: proxy_protocol has no effect",
        "forwarded_header, trusted_proxies: forwarded_header has no effect",
        "sessions.toml:1:1: limit: invalid value '1025'",
        "sessions.toml:2:1: tls_cert, tls_key: a certificate needs its key",
        "sessions.toml:2:1: tls_cert: cannot read x: No such file",
        "listen, auth, allow_open_auth: open authentication lets any client sign in",
        "jwt_secret_file, jwt_public_key_file, jwt_key_set_file, jwt_key_set_url, jwt_discovery: set only one of them",
    ] {
        assert!(err.contains(message), "{message}\n{err}");
    }
    // One of them is invalid by itself, so the combination is not checked.
    let (_, _, err) = check("auth = \"jot\"\nlisten = \"0.0.0.0:1\"\n");
    assert_eq!(err.lines().count(), 1, "{err}");

    let (code, _, err) = check(
        "tls_cert = \"x.pem\"\ntls_key = \"x.key\"\n\nauth = \"jwt\"\njwt_algorithm = \"ES256\"\njwt_key_set_file = \"k\"\n",
    );
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("sessions.toml:1:1: tls_cert: cannot read x.pem: No such file"), "{err}");
    assert!(err.contains("sessions.toml:2:1: tls_key: cannot read x.key: No such file"), "{err}");
    assert!(err.contains("sessions.toml:6:1: jwt_key_set_file: cannot read k: No such file"), "{err}");
    // The server itself says the same before it starts.
    let (code, out, started) = run(directory.path(), &["--config", "sessions.toml"], &[]);
    assert_eq!((code, &*out), (Some(2), ""), "{started}");
    assert_eq!(started, format!("error: the configuration is invalid\n{err}"));
    let (code, _, err) = check("auth = \"jwt\"\njwt_algorithm = [\"RS256\", \"HS256\"]\n");
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("sessions.toml:2:1: jwt_algorithm: HS256, HS384 and HS512 need a secret"), "{err}");
    let (code, out, err) = check("auth = \"jwt\"\n");
    assert!(code == Some(0), "its secret may be in the server's environment: {out}{err}");
}
