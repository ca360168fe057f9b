//! The real server while its configuration, its keys and its certificate change, and while it runs out of files.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test that cannot go on has failed")]
#![cfg(unix)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use shell::client::{Options, RootCertificates, Url, UserConnections};
use shell::net::tls::CertificateFiles;
use tests::raw_client::{RawClient, Received};
use tests::test_ca::TestCa;
use tests::test_process::{TestProcess, without_connection_limits};
use tests::waiting::{TIMEOUT, eventually};

const SERVER: &str = env!("CARGO_BIN_EXE_server-under-test");

/// A server, its configuration file, and what it logs.
struct Subject {
    process: TestProcess,
    file: PathBuf,
    log: Receiver<String>,
    directory: tempfile::TempDir,
}

impl Subject {
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

    /// Waits until it has logged a line with these words, and returns all since the last that was waited for.
    fn wait_for_log(&self, words: &str) -> Vec<String> {
        let start = Instant::now();
        let mut lines: Vec<String> = Vec::new();
        while !lines.last().is_some_and(|line| line.contains(words)) {
            let left = TIMEOUT.saturating_sub(start.elapsed());
            lines.push(self.log.recv_timeout(left).unwrap_or_else(|_| panic!("no {words:?} in {lines:#?}")));
        }
        lines
    }

    /// Changes its configuration and has it read that: what it logs.
    fn reload(&self, settings: &str) -> Vec<String> {
        fs::write(&self.file, settings).unwrap();
        self.hang_up();
        let lines = self.wait_for_log("the configuration ");
        lines
            .into_iter()
            .map(|line| line.split_once("  ").map_or(line.clone(), |(_, words)| words.trim().into()))
            .collect()
    }

    fn hang_up(&self) {
        let id = Pid::from_raw(i32::try_from(self.process.id()).unwrap()).unwrap();
        kill_process(id, Signal::HUP).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

#[test]
fn who_is_refused_before_there_is_a_session_is_logged_with_what_decides_it() {
    let subject = Subject::start_in(
        tempfile::tempdir().unwrap(),
        "max_connections_per_address = 1\nallowed_hosts = \"here\"\nallowed_origins = \"null\"\n",
        Command::new(SERVER),
    );
    let ask = |headers: &str| {
        let mut peer = RawClient::connect(subject.process.address);
        let version = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13";
        peer.write(format!("GET / HTTP/1.1\r\n{headers}\r\n{version}\r\n\r\n").as_bytes());
        peer.try_head()
    };
    let long = format!("https://{}", "x".repeat(200));
    for (headers, status, header, value) in [
        ("Host: there", "421", "Host", "there"),
        (&format!("Host: here\r\nOrigin: {long}"), "403", "Origin", &long[..100]),
    ] {
        let head = ask(headers);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        let lines = subject.wait_for_log("refused a request that this server is not for");
        let line = lines.last().unwrap();
        assert!(line.contains(&format!("header=\"{header}\" value=\"{value}\"")), "{line}");
        // One line a second.
        thread::sleep(Duration::from_millis(1100));
    }
    let _held = RawClient::connect(subject.process.address);
    eventually("the second one is refused", || {
        RawClient::connect(subject.process.address).try_head().starts_with("HTTP/1.1 503 ")
    });
    assert!(has(&subject.wait_for_log("refused a connection"), "bound=\"max_connections_per_address\""));
}

/// What the server answers to AUTHENTICATE with this payload.
fn authenticate(process: &TestProcess, payload: &str) -> (String, RawClient) {
    let mut peer = RawClient::open(process.address);
    peer.text(&format!(r#"{{"type":"AUTHENTICATE","payload":"{payload}"}}"#));
    match peer.read() {
        Received::Text(answer) => (answer, peer),
        other => panic!("{other:?}"),
    }
}

fn has(lines: &[String], words: &str) -> bool {
    lines.iter().any(|line| line.contains(words))
}

#[test]
fn sighup_puts_in_force_what_can_change_and_says_what_cannot() {
    let subject = Subject::start("limit = 1\nlog = \"info\"\n");
    let (granted, _held) = authenticate(&subject.process, "ada");
    assert!(granted.contains("AUTHENTICATE_SUCCESS"), "{granted}");
    assert!(authenticate(&subject.process, "ada").0.contains("connection limit"));

    let lines = subject.reload(
        "limit = 2\nthreads = 7\nmax_bad_messages = 1\nallowed_origins = \"https://x.example\"\nlog = \"info\"\n",
    );
    assert!(has(&lines, r#"limit was "1" and is "2" at once"#), "{lines:#?}");
    assert!(has(&lines, r#"max_bad_messages was "16" and is "1" at once"#), "{lines:#?}");
    assert!(has(&lines, r#"and is "7" after a restart"#), "{lines:#?}");
    assert!(has(&lines, r#"allowed_origins was "" and is "https://x.example" at once"#), "{lines:#?}");
    let (granted, mut second) = authenticate(&subject.process, "ada");
    assert!(granted.contains(r#""connections":2"#), "{granted}");
    for _ in 0..2 {
        second.text("?");
        assert!(matches!(second.read(), Received::Text(_)));
    }
    second.expect_goodbye(1008);

    // What needs a restart is told again, what is in force is not.
    let lines = subject.reload("limit = 2\nthreads = 7\n");
    assert!(has(&lines, "after a restart") && !has(&lines, "limit was"), "{lines:#?}");
    let lines = subject.reload("limit = 2\nlog = \"warn\"\nmax_connections = 2\n");
    assert!(!has(&lines, "after a restart"), "{lines:#?}");
    let _third = RawClient::open(subject.process.address);
    let mut one_too_many = RawClient::connect(subject.process.address);
    assert!(one_too_many.try_head().starts_with("HTTP/1.1 503 "));
    // Nothing is logged any more but warnings.
    fs::write(&subject.file, "limit = 3\nthreads = 7\nlog = \"info\"\n").unwrap();
    subject.hang_up();
    let lines = subject.wait_for_log("after a restart");
    assert!(!has(&lines, "at once"), "{lines:#?}");
}

#[test]
fn a_configuration_that_is_wrong_changes_nothing_and_every_error_is_told() {
    let subject = Subject::start("limit = 1\n");
    let lines = subject.reload("limit = 1025\nlimmit = 7\nmax_bad_messages = 1\n");
    assert!(has(&lines, "limit: invalid value '1025'") && has(&lines, "did you mean limit?"), "{lines:#?}");
    assert!(has(&lines, "the configuration was not read again, nothing has changed"), "{lines:#?}");
    let (_, mut held) = authenticate(&subject.process, "ada");
    assert!(authenticate(&subject.process, "ada").0.contains("connection limit"));
    held.text("?");
    held.text("?");
    assert!(matches!((held.read(), held.read()), (Received::Text(_), Received::Text(_))), "sixteen are borne");

    let missing = subject.path("missing.pem");
    let lines = subject.reload(&format!("limit = 2\ntls_cert = {missing:?}\ntls_key = {missing:?}\n"));
    assert!(has(&lines, "cannot read") && has(&lines, "nothing has changed"), "{lines:#?}");
    assert!(authenticate(&subject.process, "ada").0.contains("connection limit"));
    fs::remove_file(&subject.file).unwrap();
    subject.hang_up();
    assert!(has(&subject.wait_for_log("nothing has changed"), "it cannot be read"));
}

#[test]
fn the_keys_of_tokens_are_read_again_when_their_file_changes() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    let token = |key: &str, user: &str| make_token(&["--user", user], key);
    let (old, new) = ("an old secret of thirty-two bytes", "a new secret of thirty-two bytes!");
    fs::write(&secret, old).unwrap();
    let settings = format!("auth = \"jwt\"\njwt_secret_file = {secret:?}\n");
    let subject = Subject::start_in(directory, &settings, without_connection_limits(SERVER));
    assert!(authenticate(&subject.process, "ada").0.contains("Token is not a signed JSON Web Token"));
    let (granted, mut held) = authenticate(&subject.process, &token(old, "ada"));
    assert!(granted.contains("AUTHENTICATE_SUCCESS"), "{granted}");

    fs::write(&secret, "too short").unwrap();
    let lines = subject.wait_for_log("going on with the old ones");
    assert!(has(&lines, "it has 9 bytes, at least 32 are needed"), "{lines:#?}");
    assert!(authenticate(&subject.process, &token(old, "bob")).0.contains("AUTHENTICATE_SUCCESS"));

    // As those do it who want no moment with half a file: by another file of the same name.
    let next = subject.path("next");
    fs::write(&next, new).unwrap();
    fs::rename(next, &secret).unwrap();
    subject.wait_for_log("the keys of tokens have changed, read them again");
    assert!(authenticate(&subject.process, &token(old, "eve")).0.contains("signature is not valid"));
    assert!(authenticate(&subject.process, &token(new, "eve")).0.contains("AUTHENTICATE_SUCCESS"));
    held.text(r#"{"type":"CHECK_CONNECTIONS"}"#);
    assert!(matches!(held.read(), Received::Text(answer) if answer.contains(r#""connections":1"#)), "sessions stay");

    // A configuration that is no good keeps no new key out.
    let last = "the last secret of thirty-two bytes";
    fs::write(&secret, last).unwrap();
    fs::write(&subject.file, "limmit = 1\n").unwrap();
    subject.hang_up();
    subject.wait_for_log("the keys of tokens have changed, read them again");
    assert!(authenticate(&subject.process, &token(new, "kim")).0.contains("signature is not valid"));
    assert!(authenticate(&subject.process, &token(last, "kim")).0.contains("AUTHENTICATE_SUCCESS"));
    fs::write(&subject.file, &settings).unwrap();

    // The log has no secret and no token.
    subject.hang_up();
    let lines = subject.wait_for_log("read the configuration again");
    assert!(!lines.iter().any(|line| line.contains("thirty-two") || line.contains("eyJ")), "{lines:#?}");
}

fn make_token(arguments: &[&str], secret: &str) -> String {
    let output = Command::new(SERVER).arg("token").args(arguments).env("SESSIONS_JWT_SECRET", secret).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().into()
}

#[test]
fn a_configuration_that_could_not_be_started_with_is_told_before_the_restart() {
    let subject = Subject::start("limit = 1\n");
    let lines = subject.reload("limit = 2\nauth = \"jwt\"\njwt_secret_file = \"/missing\"\n");
    assert!(has(&lines, "cannot read /missing") && has(&lines, "nothing has changed"), "{lines:#?}");
    // A name is looked up when it is listened on, and not before.
    let lines = subject.reload("limit = 3\nlisten = \"nowhere.invalid:1\"\nallow_open_auth = true\n");
    assert!(has(&lines, r#"limit was "1" and is "3" at once"#), "{lines:#?}");
}

#[test]
fn a_token_is_made_and_explained_by_the_same_configuration() {
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
fn another_certificate_is_shown_after_sighup() {
    let directory = tempfile::tempdir().unwrap();
    let authority = TestCa::new(directory.path());
    let CertificateFiles { certificate, key } = authority.certify("server", &["elsewhere.example"]);
    let settings = format!("tls_cert = {certificate:?}\ntls_key = {key:?}\n");
    let root_certificates = RootCertificates::read(&authority.ca).unwrap();
    let subject = Subject::start_in(directory, &settings, without_connection_limits(SERVER));
    let url: Url = format!("wss://{}", subject.process.address).parse().unwrap();
    let connect = || {
        let mut ada = UserConnections::new(&url, "ada")
            .with_options(Options { root_certificates: root_certificates.clone(), ..Options::default() });
        smol::block_on(ada.connect()).map(|user| (user.connections, ada))
    };
    assert!(connect().is_err_and(|error| error.to_string().contains("certificate")));
    drop(authority.certify("server", &["127.0.0.1"]));
    assert!(connect().is_err(), "not by itself");
    subject.hang_up();
    assert!(has(&subject.wait_for_log("read the configuration again"), "also_read=\"the certificate\""));
    assert_eq!(connect().unwrap().0, 1);
    assert!(has(&subject.reload(""), "from now on no TLS is spoken"));
}

#[test]
fn a_server_that_is_open_to_the_network_warns_of_it() {
    let mut command = without_connection_limits(SERVER);
    command.env("SESSIONS_ALLOW_OPEN_AUTH", "true").args(["--listen", "0.0.0.0:0"]);
    let subject = Subject::start_in(tempfile::tempdir().unwrap(), "", command);
    subject.wait_for_log("open authentication beyond this machine");
    drop(subject);
    let quiet = Subject::start("");
    let lines = quiet.reload("");
    assert!(!has(&lines, "open authentication"), "{lines:#?}");
}

/// With no bound on connections, so that it is the system that has no more.
#[test]
fn running_out_of_files_pauses_accepting_is_told_once_and_passes() {
    const FILES: usize = 64;

    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {FILES}; exec \"$0\" \"$@\""), SERVER]);
    let settings = "max_connections = \"unlimited\"\nmax_connection_rate = \"unlimited\"\nmax_connections_per_address = \"unlimited\"\nmax_message_rate = \"unlimited\"\n";
    let subject = Subject::start_in(tempfile::tempdir().unwrap(), settings, command);
    let ready = subject.wait_for_log("descriptors=");
    assert!(has(&ready, &format!("descriptors={FILES}")), "{ready:#?}");
    let witness = RawClient::authenticated(subject.process.address, "witness", 1);
    let many: Vec<_> = (0..2 * FILES).map(|_| RawClient::connect(subject.process.address)).collect();
    subject.wait_for_log("cannot accept connections; new ones wait until resources are free");
    let mut witness = witness;
    // Several times as long as one pause.
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(350) {
        witness.text(r#"{"type":"CHECK_CONNECTIONS"}"#);
        assert!(matches!(witness.read(), Received::Text(answer) if answer.contains(r#""connections":1"#)));
    }
    drop(many);
    let lines = subject.wait_for_log("accepting connections again");
    assert!(!has(&lines, "cannot accept"), "it is told once: {lines:#?}");
    eventually("there is room", || authenticate(&subject.process, "ada").0.contains("AUTHENTICATE_SUCCESS"));
}

#[test]
fn with_no_file_to_spare_it_does_not_start() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 128; exec \"$0\" \"$@\"", SERVER, "--listen", "127.0.0.1:0", "--store", "memory"]);
    let output = command.current_dir(directory.path()).output().unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains("128 files may be open, and 128 are kept free"), "{words}");
}

/// The usual way: a bound below what the system has, so that those who are too many hear of it.
#[test]
fn with_few_files_there_may_be_few_connections() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 160; exec \"$0\" \"$@\"", SERVER]);
    let subject = Subject::start_in(tempfile::tempdir().unwrap(), "max_connection_rate = \"unlimited\"\n", command);
    let ready = subject.wait_for_log("descriptors=");
    assert!(has(&ready, "descriptors=160") && has(&ready, "max_connections=32"), "{ready:#?}");
    subject.wait_for_log("room for few connections");
    let _inside: Vec<_> = (0..32).map(|_| RawClient::open(subject.process.address)).collect();
    let mut late = RawClient::connect(subject.process.address);
    assert!(late.try_head().starts_with("HTTP/1.1 503 "));
}
