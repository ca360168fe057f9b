//! The real server while its configuration, keys and certificate change, and at the limit of open files.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test that cannot go on has failed")]
#![cfg(unix)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use shell::client::{Options, RootCertificates, Url, UserConnections};
use shell::net::tls::CertificateFiles;
use tests::raw_client::{RawClient, Received, upgrade_request};
use tests::test_ca::TestCa;
use tests::test_process::{TestProcess, send_signal, without_connection_limits};
use tests::waiting::{TIMEOUT, eventually};

const SERVER: &str = env!("CARGO_BIN_EXE_server-under-test");

/// A server with its configuration file and its log.
struct ConfiguredServer {
    process: TestProcess,
    file: PathBuf,
    log: Receiver<String>,
    directory: tempfile::TempDir,
}

impl ConfiguredServer {
    fn start(settings: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), settings, without_connection_limits(SERVER))
    }

    fn start_in(directory: tempfile::TempDir, settings: &str, mut command: Command) -> Self {
        let file = directory.path().join("sessions.toml");
        fs::write(&file, settings).unwrap();
        command.stderr(Stdio::piped()).args(["--config", file.to_str().unwrap()]);
        let mut process = TestProcess::run_as(command, &directory.path().join("data"));
        let (sender, log) = channel();
        let lines = BufReader::new(process.stderr().unwrap()).lines();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { process, file, log, directory }
    }

    /// Waits for a log line with this text. Returns all lines since the previous wait.
    fn wait_for_log(&self, message: &str) -> Vec<String> {
        let start = Instant::now();
        let mut lines: Vec<String> = Vec::new();
        while !lines.last().is_some_and(|line| line.contains(message)) {
            let left = TIMEOUT.saturating_sub(start.elapsed());
            lines.push(self.log.recv_timeout(left).unwrap_or_else(|_| panic!("no {message:?} in {lines:#?}")));
        }
        lines
    }

    /// Changes the configuration, sends SIGHUP and returns the log lines.
    fn reload(&self, settings: &str) -> Vec<String> {
        fs::write(&self.file, settings).unwrap();
        self.send_sighup();
        let lines = self.wait_for_log("the configuration is ");
        lines
            .into_iter()
            .map(|line| line.split_once("  ").map_or(line.clone(), |(_, message)| message.trim().into()))
            .collect()
    }

    fn send_sighup(&self) {
        send_signal(self.process.id(), Signal::HUP);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

#[test]
fn refused_connections_are_logged_with_the_reason() {
    let server = ConfiguredServer::start_in(
        tempfile::tempdir().unwrap(),
        "max_connections_per_address = 1\nallowed_hosts = \"here\"\nallowed_origins = \"null\"\n",
        Command::new(SERVER),
    );
    let send_request = |headers: &str| {
        let mut peer = RawClient::connect(server.process.address);
        let version = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13";
        peer.write(format!("GET / HTTP/1.1\r\n{headers}\r\n{version}\r\n\r\n").as_bytes());
        peer.try_head()
    };
    let long = format!("https://{}", "x".repeat(200));
    for (headers, status, header, value) in [
        ("Host: there", "421", "Host", "there"),
        (&format!("Host: here\r\nOrigin: {long}"), "403", "Origin", &long[..100]),
    ] {
        let head = send_request(headers);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        let lines = server.wait_for_log("refused a request that this server is not for");
        let line = lines.last().unwrap();
        assert!(line.contains(&format!("header=\"{header}\" value=\"{value}\"")), "{line}");
        // The log allows one such line per second.
        thread::sleep(Duration::from_millis(1100));
    }
    let _held = RawClient::connect(server.process.address);
    eventually("the second one is refused", || {
        RawClient::connect(server.process.address).try_head().starts_with("HTTP/1.1 503 ")
    });
    assert!(contains(&server.wait_for_log("refused a connection"), "bound=\"max_connections_per_address\""));
}

/// Sends AUTHENTICATE with this payload. Returns the answer and the connection.
fn authenticate(process: &TestProcess, payload: &str) -> (String, RawClient) {
    let mut peer = RawClient::open(process.address);
    peer.text(&format!(r#"{{"type":"AUTHENTICATE","payload":"{payload}"}}"#));
    match peer.read() {
        Received::Text(answer) => (answer, peer),
        other => panic!("{other:?}"),
    }
}

fn contains(lines: &[String], message: &str) -> bool {
    lines.iter().any(|line| line.contains(message))
}

#[test]
fn sighup_applies_changes_and_names_the_others() {
    let server = ConfiguredServer::start("limit = 1\nlog = \"info\"\n");
    let (granted, _held) = authenticate(&server.process, "ada");
    assert!(granted.contains("AUTHENTICATE_SUCCESS"), "{granted}");
    assert!(authenticate(&server.process, "ada").0.contains("connection limit"));

    let lines = server.reload(
        "limit = 2\nthreads = 7\nmax_bad_messages = 1\nallowed_origins = \"https://x.example\"\nlog = \"info\"\n",
    );
    assert!(contains(&lines, r#"limit was "1" and is "2" at once"#), "{lines:#?}");
    assert!(contains(&lines, r#"max_bad_messages was "16" and is "1" at once"#), "{lines:#?}");
    assert!(contains(&lines, r#"and is "7" after a restart"#), "{lines:#?}");
    assert!(contains(&lines, r#"allowed_origins was "" and is "https://x.example" at once"#), "{lines:#?}");
    let (granted, mut second) = authenticate(&server.process, "ada");
    assert!(granted.contains(r#""connections":2"#), "{granted}");
    for _ in 0..2 {
        second.text("?");
        assert!(matches!(second.read(), Received::Text(_)));
    }
    second.expect_goodbye(1008);

    // A change that needs a restart is reported again, one in force is not.
    let lines = server.reload("limit = 2\nthreads = 7\n");
    assert!(contains(&lines, "after a restart") && !contains(&lines, "limit was"), "{lines:#?}");
    let lines = server.reload("limit = 2\nlog = \"warn\"\nmax_connections = 2\n");
    assert!(!contains(&lines, "after a restart"), "{lines:#?}");
    let _third = RawClient::open(server.process.address);
    let mut one_too_many = RawClient::connect(server.process.address);
    assert!(one_too_many.try_head().starts_with("HTTP/1.1 503 "));
    // Only warnings are logged now.
    fs::write(&server.file, "limit = 3\nthreads = 7\nlog = \"info\"\n").unwrap();
    server.send_sighup();
    let lines = server.wait_for_log("after a restart");
    assert!(!contains(&lines, "at once"), "{lines:#?}");
}

#[test]
fn invalid_reload_changes_nothing_and_reports_every_error() {
    let server = ConfiguredServer::start("limit = 1\n");
    let lines = server.reload("limit = 1025\nlimmit = 7\nmax_bad_messages = 1\n");
    assert!(contains(&lines, "limit: invalid value '1025'") && contains(&lines, "did you mean limit?"), "{lines:#?}");
    assert!(contains(&lines, "the configuration is not reloaded, nothing has changed"), "{lines:#?}");
    let (_, mut held) = authenticate(&server.process, "ada");
    assert!(authenticate(&server.process, "ada").0.contains("connection limit"));
    held.text("?");
    held.text("?");
    assert!(
        matches!((held.read(), held.read()), (Received::Text(_), Received::Text(_))),
        "sixteen bad messages are tolerated"
    );

    let missing = server.path("missing.pem");
    let lines = server.reload(&format!("limit = 2\ntls_cert = {missing:?}\ntls_key = {missing:?}\n"));
    assert!(contains(&lines, "cannot read") && contains(&lines, "nothing has changed"), "{lines:#?}");
    assert!(authenticate(&server.process, "ada").0.contains("connection limit"));
    fs::remove_file(&server.file).unwrap();
    server.send_sighup();
    assert!(contains(&server.wait_for_log("nothing has changed"), "it cannot be read"));
}

#[test]
fn changed_key_file_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    let token = |key: &str, user: &str| make_token(&["--user", user], key);
    let (old, new) = ("an old secret of thirty-two bytes", "a new secret of thirty-two bytes!");
    fs::write(&secret, old).unwrap();
    let settings = format!("auth = \"jwt\"\njwt_secret_file = {secret:?}\n");
    let server = ConfiguredServer::start_in(directory, &settings, without_connection_limits(SERVER));
    assert!(authenticate(&server.process, "ada").0.contains("Token is not a signed JSON Web Token"));
    let (granted, mut held) = authenticate(&server.process, &token(old, "ada"));
    assert!(granted.contains("AUTHENTICATE_SUCCESS"), "{granted}");

    fs::write(&secret, "too short").unwrap();
    let lines = server.wait_for_log("the old ones stay in force");
    assert!(contains(&lines, "it has 9 bytes, at least 32 are needed"), "{lines:#?}");
    assert!(authenticate(&server.process, &token(old, "bob")).0.contains("AUTHENTICATE_SUCCESS"));

    // An atomic replacement: another file gets the name.
    let next = server.path("next");
    fs::write(&next, new).unwrap();
    fs::rename(next, &secret).unwrap();
    server.wait_for_log("the keys of tokens have changed and are reloaded");
    assert!(authenticate(&server.process, &token(old, "eve")).0.contains("signature is not valid"));
    assert!(authenticate(&server.process, &token(new, "eve")).0.contains("AUTHENTICATE_SUCCESS"));
    held.text(r#"{"type":"CHECK_CONNECTIONS"}"#);
    assert!(matches!(held.read(), Received::Text(answer) if answer.contains(r#""connections":1"#)), "sessions stay");

    // An invalid configuration does not prevent the new key.
    let last = "the last secret of thirty-two bytes";
    fs::write(&secret, last).unwrap();
    fs::write(&server.file, "limmit = 1\n").unwrap();
    server.send_sighup();
    server.wait_for_log("the keys of tokens have changed and are reloaded");
    assert!(authenticate(&server.process, &token(new, "kim")).0.contains("signature is not valid"));
    assert!(authenticate(&server.process, &token(last, "kim")).0.contains("AUTHENTICATE_SUCCESS"));
    fs::write(&server.file, &settings).unwrap();

    // The log contains no secret and no token.
    server.send_sighup();
    let lines = server.wait_for_log("the configuration is reloaded");
    assert!(!lines.iter().any(|line| line.contains("thirty-two") || line.contains("eyJ")), "{lines:#?}");
}

fn make_token(arguments: &[&str], secret: &str) -> String {
    let output = Command::new(SERVER).arg("token").args(arguments).env("SESSIONS_JWT_SECRET", secret).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().into()
}

/// Otherwise a fresh token could name another user than its session's.
#[test]
fn user_id_form_of_tokens_changes_only_after_a_restart() {
    let (directory, key) = (tempfile::tempdir().unwrap(), "a secret of thirty-two bytes, all");
    let secret = directory.path().join("secret");
    fs::write(&secret, key).unwrap();
    let settings = |form: &str| format!("auth = \"jwt\"\njwt_secret_file = {secret:?}\nuser_id_form = {form:?}\n");
    let server = ConfiguredServer::start_in(directory, &settings("exact"), Command::new(SERVER));
    let sign_in = |user: &str| authenticate(&server.process, &make_token(&["--user", user], key));
    let (answer, _held) = sign_in("Zoe");
    assert!(answer.contains("Zoe"), "{answer}");
    let lines = server.reload(&settings("precis"));
    assert!(contains(&lines, "user_id_form was \"exact\" and is \"precis\" after a restart"), "{lines:#?}");
    let (answer, _held) = sign_in("Zoe");
    assert!(answer.contains("Zoe"), "{answer}");
    let next = server.path("next");
    fs::write(&next, format!("{key}!")).unwrap();
    fs::rename(next, &secret).unwrap();
    server.wait_for_log("the keys of tokens have changed and are reloaded");
    let (answer, _held) = authenticate(&server.process, &make_token(&["--user", "Zoe"], &format!("{key}!")));
    assert!(answer.contains("Zoe"), "{answer}");
}

#[test]
fn full_address_logs_its_users_and_a_reload_counts_by_user() {
    let (directory, key) = (tempfile::tempdir().unwrap(), "a secret of thirty-two bytes, all");
    let secret = directory.path().join("secret");
    fs::write(&secret, key).unwrap();
    let settings =
        |more: &str| format!("auth = \"jwt\"\njwt_secret_file = {secret:?}\nmax_connections_per_address = 3\n{more}");
    let server = ConfiguredServer::start_in(directory, &settings(""), Command::new(SERVER));
    let sign_in = |user: &str| authenticate(&server.process, &make_token(&["--user", user], key));
    let mut held: Vec<_> = ["ada", "ada", "bob"].map(sign_in).map(|(_, peer)| peer).into();
    eventually("the address is full", || {
        let mut peer = RawClient::connect(server.process.address);
        peer.write(upgrade_request("").as_bytes());
        peer.try_head().starts_with("HTTP/1.1 503 ")
    });
    let lines = server.wait_for_log("refused a connection");
    let line = lines.last().unwrap();
    for part in ["connections=3 authenticated=3 users=2", "127.0.0.1", "set max_connections_per_user"] {
        assert!(line.contains(part), "{line}");
    }

    let lines = server.reload(&settings("max_connections_per_user = 3\n"));
    assert!(contains(&lines, "max_connections_per_user must be greater than limit"), "{lines:#?}");
    let lines = server.reload(&settings("max_connections_per_user = 4\n"));
    assert!(contains(&lines, "max_connections_per_user was \"unlimited\" and is \"4\" at once"), "{lines:#?}");
    for _ in 0..4 {
        held.push(sign_in("bob").1);
    }
    let lines = server.wait_for_log("refused a connection");
    assert!(contains(&lines, "user=\"bob\" client=127.0.0.1 connections=4"), "{lines:#?}");
}

#[test]
fn reload_reports_errors_that_would_prevent_a_start() {
    let server = ConfiguredServer::start("limit = 1\n");
    let lines = server.reload("limit = 2\nauth = \"jwt\"\njwt_secret_file = \"/missing\"\n");
    assert!(contains(&lines, "cannot read /missing") && contains(&lines, "nothing has changed"), "{lines:#?}");
    // A host name is resolved only when the server listens on it.
    let lines = server.reload("max_connections_per_user = 9\n");
    assert!(contains(&lines, "open authentication lets any client name any user"), "{lines:#?}");
    let lines = server.reload("limit = 3\nlisten = \"nowhere.invalid:1\"\nallow_open_auth = true\n");
    assert!(contains(&lines, r#"limit was "1" and is "3" at once"#), "{lines:#?}");
}

#[test]
fn token_and_check_token_share_the_configuration() {
    let secret = "a secret of thirty-two bytes, all";
    let token = make_token(&["--user", "ada", "--ttl", "90s", "--sessions", "2", "--jwt-audience", "chess"], secret);
    let explain = |secret: &str, arguments: &[&str]| {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        fs::write(&file, format!("{token}\n")).unwrap();
        let mut command = Command::new(SERVER);
        command.arg("check-token").arg(file).args(arguments).env("SESSIONS_JWT_SECRET", secret);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = explain(secret, &["--jwt-audience", "chess"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("accepted: user \"ada\", with a limit of 2, for another 1m"), "{text}");
    let (code, text) = explain(secret, &["--jwt-audience", "poker"]);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.ends_with("refused: Token is meant for another audience (jwt_audience is poker)\n"), "{text}");
    assert_eq!(explain("another secret of thirty-two bytes", &[]).0, Some(3));
    assert_eq!(explain("short", &[]).0, Some(1));
}

#[test]
fn sighup_loads_the_new_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let authority = TestCa::new(directory.path());
    let CertificateFiles { certificate, key } = authority.certify("server", &["elsewhere.example"]);
    let settings = format!("tls_cert = {certificate:?}\ntls_key = {key:?}\n");
    let root_certificates = RootCertificates::read(&authority.ca).unwrap();
    let server = ConfiguredServer::start_in(directory, &settings, without_connection_limits(SERVER));
    let url: Url = format!("wss://{}", server.process.address).parse().unwrap();
    let connect = || {
        let mut ada = UserConnections::new(&url, "ada")
            .with_options(Options { root_certificates: root_certificates.clone(), ..Options::default() });
        smol::block_on(ada.connect()).map(|user| (user.connections, ada))
    };
    assert!(connect().is_err_and(|error| error.to_string().contains("certificate")));
    drop(authority.certify("server", &["127.0.0.1"]));
    assert!(connect().is_err(), "the server does not read it by itself");
    server.send_sighup();
    assert!(contains(&server.wait_for_log("the configuration is reloaded"), "also_read=\"the certificate\""));
    assert_eq!(connect().unwrap().0, 1);
    assert!(contains(&server.reload(""), "TLS is off from now on"));
}

#[test]
fn open_authentication_on_a_network_is_warned_about() {
    let mut command = without_connection_limits(SERVER);
    command.env("SESSIONS_ALLOW_OPEN_AUTH", "true").args(["--listen", "0.0.0.0:0"]);
    let server = ConfiguredServer::start_in(tempfile::tempdir().unwrap(), "", command);
    server.wait_for_log("open authentication beyond this machine");
    drop(server);
    let quiet = ConfiguredServer::start("");
    let lines = quiet.reload("");
    assert!(!contains(&lines, "open authentication"), "{lines:#?}");
}

/// Without connection limits, so that the limit of open files is reached.
#[test]
fn exhausted_file_limit_pauses_accepting() {
    const FILES: usize = 64;

    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {FILES}; exec \"$0\" \"$@\""), SERVER]);
    let settings = "max_connections = \"unlimited\"\nmax_connection_rate = \"unlimited\"\nmax_connections_per_address = \"unlimited\"\nmax_message_rate = \"unlimited\"\n";
    let server = ConfiguredServer::start_in(tempfile::tempdir().unwrap(), settings, command);
    let ready = server.wait_for_log("descriptors=");
    assert!(contains(&ready, &format!("descriptors={FILES}")), "{ready:#?}");
    let witness = RawClient::authenticated(server.process.address, "witness", 1);
    let many: Vec<_> = (0..2 * FILES).map(|_| RawClient::connect(server.process.address)).collect();
    server.wait_for_log("cannot accept connections; new ones wait until resources are free");
    let mut witness = witness;
    // Several times the pause between two accepts.
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(350) {
        witness.text(r#"{"type":"CHECK_CONNECTIONS"}"#);
        assert!(matches!(witness.read(), Received::Text(answer) if answer.contains(r#""connections":1"#)));
    }
    drop(many);
    let lines = server.wait_for_log("accepting connections again");
    assert!(!contains(&lines, "cannot accept"), "it is logged once: {lines:#?}");
    eventually("there is room", || authenticate(&server.process, "ada").0.contains("AUTHENTICATE_SUCCESS"));
}

#[test]
fn server_without_spare_files_does_not_start() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 128; exec \"$0\" \"$@\"", SERVER, "--listen", "127.0.0.1:0", "--store", "memory"]);
    let output = command.current_dir(directory.path()).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("the process may open 128 files, and the server keeps 128 of them free"), "{message}");
}

/// The server lowers its connection limit below the file limit, so that refused connections get a response.
#[test]
fn low_file_limit_lowers_the_connection_limit() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 160; exec \"$0\" \"$@\"", SERVER]);
    let server =
        ConfiguredServer::start_in(tempfile::tempdir().unwrap(), "max_connection_rate = \"unlimited\"\n", command);
    let ready = server.wait_for_log("descriptors=");
    assert!(contains(&ready, "descriptors=160") && contains(&ready, "max_connections=32"), "{ready:#?}");
    server.wait_for_log("room for few connections");
    let _inside: Vec<_> = (0..32).map(|_| RawClient::open(server.process.address)).collect();
    let mut late = RawClient::connect(server.process.address);
    assert!(late.try_head().starts_with("HTTP/1.1 503 "));
}
