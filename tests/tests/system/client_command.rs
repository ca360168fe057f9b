//! The client binary: certificates, credentials, sessions, prompts and resumes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use shell::net::tls::CertificateFiles;
use tests::raw_client::{RawClient, Received};
use tests::test_ca::TestCa;
use tests::test_process::{TestProcess, send_signal, wait_for_exit, without_connection_limits};
use tests::waiting::{TIMEOUT, eventually};

const SERVER: &str = env!("CARGO_BIN_EXE_server-under-test");
const CLIENT: &str = env!("CARGO_BIN_EXE_client-under-test");
const TOKEN: &str = "head.hushhush.seal";

/// A client without the variables of this test.
pub(super) fn client(arguments: &[&str]) -> Command {
    let mut command = Command::new(CLIENT);
    for variable in ["URL", "USER", "CA", "TOKEN"] {
        command.env_remove(format!("SESSIONS_{variable}"));
    }
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a client until it has a session, then interrupts it. Returns the exit code and the output.
pub(super) fn run(mut command: Command, input: &str) -> (i32, String) {
    let mut child = command.spawn().unwrap();
    // The client reads it only if the token comes from there.
    let _written = child.stdin.take().unwrap().write_all(input.as_bytes());
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut output = String::new();
    while !output.contains("AUTHENTICATE_SUCCESS") && lines.read_line(&mut output).unwrap() > 0 {}
    send_signal(child.id(), Signal::INT);
    lines.read_to_string(&mut output).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut output).unwrap();
    (wait_for_exit(&mut child).code().unwrap(), output)
}

/// A server with TLS and a certificate of its own authority.
struct TlsServer {
    authority: TestCa,
    _directory: tempfile::TempDir,
    url: String,
    _server: TestProcess,
}

impl TlsServer {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = TestCa::new(directory.path());
        let CertificateFiles { certificate, key } = authority.certify("server", &["127.0.0.1"]);
        let arguments = ["--tls-cert", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
        let server = TestProcess::start(SERVER, &directory.path().join("data"), &arguments);
        let url = format!("wss://{}/", server.address);
        assert!(server.announcement.starts_with(&format!("listening on wss://{}", server.address)));
        Self { authority, _directory: directory, url, _server: server }
    }

    fn ca(&self) -> PathBuf {
        self.authority.ca.clone()
    }
}

#[test]
fn server_is_trusted_by_file_variable_or_system() {
    let server = TlsServer::start();
    let ca = server.ca().display().to_string();
    let mut by_variable = client(&["--url", &server.url]);
    by_variable.env("SESSIONS_CA", &ca);
    let mut by_system = client(&["--url", &server.url]);
    by_system.env("SSL_CERT_FILE", &ca);
    for command in [client(&["--url", &server.url, "--ca", &ca]), by_variable, by_system] {
        let (code, output) = run(command, "");
        assert_eq!(code, 0, "{output}");
        assert!(output.starts_with(&format!("connected to {}\n", server.url)), "{output}");
        assert!(output.contains("AUTHENTICATE_SUCCESS testuser holds 1 connection\n"), "{output}");
    }
    let (code, output) = run(client(&["--url", &server.url]), "");
    assert_eq!(code, 4, "{output}");
    assert!(output.contains("its certificate is not trusted") && output.contains("with --ca\n"), "{output}");
}

#[test]
fn certificate_file_without_certificates_is_wrong_usage() {
    let (code, output) = run(client(&["--ca", "/dev/null"]), "");
    assert_eq!(code, 2, "{output}");
    assert!(output.contains("no certificates from /dev/null: it has no certificate; "), "{output}");
}

#[test]
fn bench_runs_over_tls() {
    let server = TlsServer::start();
    let ca = server.ca().display().to_string();
    let bench = |arguments: &[&str]| {
        let fixed = ["bench", "--url", &server.url, "--duration", "200ms", "--json"];
        let output = client(&[&fixed[..], arguments].concat()).output().unwrap();
        let report = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), report + &String::from_utf8(output.stderr).unwrap())
    };
    let (code, report) = bench(&["--concurrency", "2", "--ca", &ca]);
    assert!(code == Some(0) && report.contains(r#""failed":0"#) && !report.contains(r#""cycles":0"#), "{report}");
    let (code, report) = bench(&["--hold", "6", "--ca", &ca]);
    assert!(code == Some(0) && report.contains(r#""granted":6"#), "{report}");
    let (code, report) = bench(&["--concurrency", "2"]);
    assert!(code == Some(4) && report.contains("its certificate is not trusted"), "{report}");
}

/// A token for ada, signed with this secret.
fn token(secret: &str) -> String {
    let made =
        Command::new(SERVER).args(["token", "--user", "ada"]).env("SESSIONS_JWT_SECRET", secret).output().unwrap();
    String::from_utf8(made.stdout).unwrap().trim().into()
}

#[test]
fn token_comes_from_file_stdin_or_variable() {
    const SECRET: &str = "thirty-two bytes of nothing much";
    let directory = tempfile::tempdir().unwrap();
    let mut server = without_connection_limits(SERVER);
    server.env("SESSIONS_JWT_SECRET", SECRET);
    let server = TestProcess::run(server, &directory.path().join("data"), &["--auth", "jwt"]);
    let token = token(SECRET);
    let file = directory.path().join("token").display().to_string();
    std::fs::write(&file, format!("{token}\n")).unwrap();
    let url = server.url();
    let by_file = client(&["--url", &url, "--token-file", &file]);
    let by_input = client(&["--url", &url, "--token-file", "-"]);
    let mut by_variable = client(&["--url", &url]);
    by_variable.env("SESSIONS_TOKEN", &token);
    let mut by_both = client(&["--url", &url, "--token-file", &file]);
    by_both.env("SESSIONS_TOKEN", "an.other.one");
    for command in [by_file, by_input, by_variable, by_both] {
        let (code, output) = run(command, &format!("{token}\n"));
        assert_eq!(code, 0, "{output}");
        assert!(
            output.contains("AUTHENTICATE_SUCCESS ada holds 1 connection\n") && !output.contains(&token),
            "{output}"
        );
    }
    let (code, output) = run(client(&["--url", &url, "--user", "ada"]), "");
    assert_eq!(code, 4, "{output}");
    assert!(
        output.contains("this server asks for a token, in a file (--token-file) or in SESSIONS_TOKEN\n"),
        "{output}"
    );
}

/// As a user id the token would be logged, stored and printed.
#[test]
fn open_server_refuses_tokens_and_never_shows_them() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut server = without_connection_limits(SERVER);
    server.args(["--log", "trace"]).stderr(Stdio::piped());
    let mut server = TestProcess::run_as(server, &data);
    let token = token("thirty-two bytes of nothing much");
    let mut command = client(&["--url", &server.url()]);
    command.env("SESSIONS_TOKEN", &token);
    let (code, output) = run(command, "");
    assert_eq!(code, 4, "{output}");
    assert!(
        output.contains("This server takes user ids, not tokens: its authentication is open; give a user"),
        "{output}"
    );
    send_signal(server.id(), Signal::TERM);
    let mut log = String::new();
    server.stderr().unwrap().read_to_string(&mut log).unwrap();
    assert!(log.contains("authentication failed: invalid credential"), "{log}");
    let seal = token.rsplit('.').next().unwrap();
    let kept = ["live", "users"].map(|folder| std::fs::read(data.join(folder).join("data.mdb")).unwrap()).concat();
    let is_kept = kept.windows(seal.len()).any(|bytes| bytes == seal.as_bytes());
    assert!(!output.contains(seal) && !log.contains(seal) && !is_kept, "{output}{log}");
}

#[test]
fn user_and_token_exclude_each_other() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), TOKEN).unwrap();
    let file = file.path().display().to_string();
    let with = |variable: &str, value: &str, arguments: &[&str]| {
        let mut command = client(arguments);
        command.env(variable, value);
        let (code, output) = run(command, "");
        assert!(!output.contains("hushhush"), "{output}");
        (code, output)
    };
    let both_given = "(--user or SESSIONS_USER) or a token, not both; --token-file has a token";
    for (variable, value, arguments, message) in [
        ("SESSIONS_URL", "ws://localhost", &["--user", "ada", "--token-file", &*file][..], both_given),
        ("SESSIONS_USER", "ada", &["--token-file", &file], both_given),
        ("SESSIONS_TOKEN", TOKEN, &["--user", "ada"], "not both; SESSIONS_TOKEN has a token"),
    ] {
        let (code, output) = with(variable, value, arguments);
        assert_eq!(code, 2, "{output}");
        assert!(output.contains(message), "{output}");
    }
    for value in ["", "Basic head.hushhush.seal"] {
        let (code, output) = with("SESSIONS_TOKEN", value, &[]);
        assert_eq!(code, 2, "{output}");
        assert!(output.contains("no token in SESSIONS_TOKEN: "), "{output}");
    }
    let (code, output) = with("SESSIONS_TOKEN", TOKEN, &["--help"]);
    assert!(code == 0 && output.contains("--token-file") && output.contains("SESSIONS_TOKEN"), "{output}");
    let (code, output) = with("SESSIONS_TOKEN", TOKEN, &["--token-file", "/nowhere"]);
    assert!(code == 2 && output.contains("no token in /nowhere: No such file"), "{output}");
}

/// A server with these arguments: its directory, process and URL.
pub(super) fn start_server(arguments: &[&str]) -> (tempfile::TempDir, TestProcess, String) {
    let directory = tempfile::tempdir().unwrap();
    let process = TestProcess::start(SERVER, &directory.path().join("data"), arguments);
    let url = process.url();
    (directory, process, url)
}

#[test]
fn client_lists_and_ends_sessions_at_the_limit() {
    let (_directory, process, url) = start_server(&["--limit", "2", "--client-choice"]);
    let mut first = RawClient::open(process.address);
    first.text(r#"{"type":"AUTHENTICATE","payload":{"user":"ada","label":"Firefox"}}"#);
    let Received::Text(granted) = first.read() else { panic!("no answer") };
    let session = granted.split("\"session\":\"").nth(1).unwrap()[..32].to_owned();
    let run_as_ada = |arguments: &[&str]| run(client(&[arguments, &["--url", &url, "--user", "ada"]].concat()), "");
    let (code, output) = run_as_ada(&["sessions"]);
    assert!(code == 0 && output.starts_with("1 slot of 2 taken\n"), "{output}");
    assert!(output.contains(&format!("{session}, label \"Firefox\", since 20")), "{output}");
    let mut second = RawClient::authenticated(process.address, "ada", 2);
    let (code, output) = run_as_ada(&["sessions", "--json"]);
    assert!(code == 0 && output.starts_with(r#"{"limit":2,"connections":2,"sessions":[{"id":""#), "{output}");
    assert_eq!(output.matches("\"state\":\"live\"").count(), 2, "{output}");

    assert_eq!(run_as_ada(&["end", &session]), (0, "ended\n".into()));
    first.expect_text(
        r#"{"type":"EVICTED","payload":"Another session of this user has taken the place of this one","code":"taken"}"#,
    );
    let (code, output) = run_as_ada(&["end", &session]);
    assert!(code == 4 && output.contains("This user has no such session"), "{output}");
    let (code, output) = run_as_ada(&["end", "7"]);
    assert!(code == 2 && output.contains("32 hexadecimal digits"), "{output}");
    second.send_bye();
}

#[test]
fn client_ends_a_session_beside_a_lingering_slot() {
    let (_directory, process, url) = start_server(&["--limit", "2", "--client-choice", "--linger", "1m"]);
    let [lost, mut remaining] = two_sessions(&process);
    drop(lost);
    let run_as_ada = |arguments: &[&str]| run(client(&[arguments, &["--url", &url, "--user", "ada"]].concat()), "");
    let mut output = String::new();
    eventually("one is lost", || {
        output = run_as_ada(&["sessions"]).1;
        output.contains(", lost, kept until")
    });
    let there_is = output.lines().find(|line| line.contains("telly")).unwrap()[..32].to_owned();
    let (code, refused) = run_as_ada(&["end", "00000000000000000000000000000001"]);
    assert!(code == 4 && refused.contains("This user has no such session"), "{refused}");
    assert_eq!(run_as_ada(&["sessions"]).1, output, "no session was ended");
    assert_eq!(run_as_ada(&["end", &there_is]), (0, "ended\n".into()));
    let Received::Text(message) = remaining.read() else { panic!("it is still there") };
    assert!(message.starts_with(r#"{"type":"EVICTED","#), "{message}");
}

#[test]
fn client_with_evict_nobody_ends_no_session() {
    let (_directory, process, url) = start_server(&["--limit", "1", "--when-full", "evict-oldest"]);
    let mut only = RawClient::authenticated(process.address, "ada", 1);
    let at = ["--url", &*url, "--user", "ada"];
    let (code, output) = run(client(&[&["sessions"][..], &at].concat()), "");
    assert!(code == 0 && output.starts_with("1 slot of 1 taken\n"), "{output}");
    let (code, output) = run(client(&[&at[..], &["--evict", "nobody"]].concat()), "");
    assert_eq!(code, 3, "{output}");
    let (code, output) = run(client(&[&["end", "00000000000000000000000000000001"][..], &at].concat()), "");
    assert_eq!(code, 3, "{output}");
    only.send_bye();
}

#[test]
fn evicted_client_exits_with_code_5() {
    let (_directory, process, url) = start_server(&["--limit", "1", "--client-choice"]);
    let mut held = client(&["--url", &url, "--label", "first"]).spawn().unwrap();
    let mut lines = BufReader::new(held.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("AUTHENTICATE_SUCCESS")));
    let (code, output) = run(client(&["--url", &url, "--label", "second", "--evict", "oldest"]), "");
    assert!(code == 0 && output.contains("AUTHENTICATE_SUCCESS testuser holds 1 connection\n"), "{output}");
    assert_eq!(lines.next().unwrap(), "EVICTED second has taken the place of this session");
    assert_eq!(wait_for_exit(&mut held).code(), Some(5));
    let (code, output) = run(client(&["--url", &url, "--evict", "everybody"]), "");
    assert!(code == 2 && output.contains("write oldest, nobody, or 1 to 100 ids"), "{output}");
    drop(process);
}

/// A client at a terminal.
struct Terminal {
    client: Child,
    terminal_end: File,
    /// Its output.
    screen: Receiver<String>,
    shown: String,
}

impl Terminal {
    fn start(mut command: Command) -> Self {
        let terminal_end = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal_end).unwrap();
        unlockpt(&terminal_end).unwrap();
        let name = ptsname(&terminal_end, vec![]).unwrap().into_string().unwrap();
        let open = || File::options().read(true).write(true).open(&name).unwrap();
        let client = command.stdin(open()).stdout(open()).stderr(open()).spawn().unwrap();
        let terminal_end = File::from(terminal_end);
        let (sender, screen) = mpsc::channel();
        let mut reader = terminal_end.try_clone().unwrap();
        thread::spawn(move || {
            let mut bytes = [0; 1024];
            // An error: the other end is closed.
            while let Ok(length @ 1..) = reader.read(&mut bytes) {
                let text = std::str::from_utf8(&bytes[..length]).unwrap().replace('\r', "");
                // An error: the test has failed already.
                drop(sender.send(text));
            }
        });
        Self { client, terminal_end, screen, shown: String::new() }
    }

    fn wait_for(&mut self, message: &str) {
        while !self.shown.contains(message) {
            let more = self.screen.recv_timeout(TIMEOUT);
            self.shown += &more.unwrap_or_else(|_| panic!("no {message:?} after {:?}", self.shown));
        }
    }

    fn answer(&mut self, line: &str) {
        self.shown.clear();
        writeln!(self.terminal_end, "{line}").unwrap();
    }

    fn interrupt(&self) {
        send_signal(self.client.id(), Signal::INT);
    }

    /// Waits until the client ends: its exit code, and its output since the last answer.
    fn end(mut self) -> (i32, String) {
        let code = wait_for_exit(&mut self.client).code().unwrap();
        self.shown.extend(self.screen);
        (code, self.shown)
    }
}

/// Two sessions of ada with labels.
fn two_sessions(process: &TestProcess) -> [RawClient; 2] {
    ["Firefox", "the telly"].map(|label| {
        let mut raw = RawClient::open(process.address);
        raw.text(&format!(r#"{{"type":"AUTHENTICATE","payload":{{"user":"ada","label":"{label}"}}}}"#));
        let Received::Text(granted) = raw.read() else { panic!("no answer") };
        assert!(granted.starts_with(r#"{"type":"AUTHENTICATE_SUCCESS""#), "{granted}");
        raw
    })
}

#[test]
fn denied_client_at_a_terminal_sees_the_sessions() {
    let (_directory, process, url) = start_server(&["--limit", "2"]);
    let _held = two_sessions(&process);
    let (code, shown) = Terminal::start(client(&["--url", &url, "--user", "ada"])).end();
    let refused = "\nAUTHENTICATE_FAILURE User has reached connection limit, no more connections allowed\n\
                   the slots are held by\n  ";
    assert!(code == 3 && shown.contains(refused) && !shown.contains('?'), "{shown}");
    let lines: Vec<_> = shown.lines().skip_while(|line| !line.starts_with("  ")).collect();
    assert!(lines[0].contains(", label \"Firefox\", since 20") && lines[1].contains("label \"the telly\""), "{shown}");
    assert!(lines[2].starts_with("error: user \"ada\" has reached") && lines[3] == "BYE_SUCCESS goodbye", "{shown}");
    // Without a terminal the list is not shown.
    let (code, output) = run(client(&["--url", &url, "--user", "ada"]), "");
    assert!(code == 3 && !output.contains("Firefox"), "{output}");
}

#[test]
fn denied_client_at_a_terminal_picks_a_session() {
    let (_directory, process, url) = start_server(&["--limit", "2", "--client-choice"]);
    let [_first, mut second] = two_sessions(&process);
    let start = || Terminal::start(client(&["--url", &url, "--user", "ada", "--label", "desk"]));
    let question = "end which of them? 1 to 2, several with spaces between, or Enter for none\n";
    let mut declining = start();
    declining.wait_for(question);
    declining.answer("");
    let (code, shown) = declining.end();
    assert!(code == 3 && shown.contains("error: user \"ada\" has reached"), "{shown}");
    assert!(!shown.contains("AUTHENTICATE_FAILURE"), "the failure is shown before the question: {shown}");

    let mut undecided = start();
    undecided.wait_for(question);
    undecided.interrupt();
    let (code, shown) = undecided.end();
    assert!(code == 3 && shown.ends_with("\nBYE_SUCCESS goodbye\n"), "{shown}");
    let mut picking = start();
    // Input before the question is no answer.
    picking.answer("1");
    picking.wait_for(question);
    assert!(picking.shown.contains("\n1: ") && picking.shown.contains("\n2: "), "{}", picking.shown);
    picking.answer("the telly");
    picking.wait_for(question);
    picking.answer("2");
    picking.wait_for("AUTHENTICATE_SUCCESS ada holds 2 connections\n");
    second.expect_text(
        r#"{"type":"EVICTED","payload":"desk has taken the place of this session","code":"taken","label":"desk"}"#,
    );
    // The client does not wait for an answer after its connection is lost.
    let mut abandoned = start();
    abandoned.wait_for(question);
    drop(process);
    for lost in [picking, abandoned] {
        let (code, shown) = lost.end();
        assert!(code == 4 && shown.contains("error: the connection is lost: "), "{shown}");
    }
}

#[test]
fn client_resumes_from_a_file_without_printing_tokens() {
    let (directory, process, url) = start_server(&["--limit", "1", "--linger", "1m", "--lingering-first=false"]);
    let file = directory.path().join("resume");
    let name = file.display().to_string();
    let mut lost = client(&["--url", &url, "--resume", &name, "--json"]).spawn().unwrap();
    let mut lines = BufReader::new(lost.stdout.take().unwrap()).lines();
    let output: String = lines.by_ref().take(3).map(Result::unwrap).collect();
    assert!(output.contains("AUTHENTICATE_SUCCESS"), "{output}");
    lost.kill().unwrap();
    lost.wait().unwrap();
    let token = std::fs::read_to_string(&file).unwrap();
    assert!(token.trim().len() == 64 && !output.contains(token.trim()), "{output}");
    eventually("it is lost", || run(client(&["sessions", "--url", &url]), "").1.contains(", lost, kept until 20"));
    let (code, output) = run(client(&["--url", &url]), "");
    assert_eq!(code, 3, "{output}");
    let (code, output) = run(client(&["--url", &url, "--resume", &name]), "");
    assert!(code == 0 && output.contains("AUTHENTICATE_SUCCESS testuser holds 1 connection\n"), "{output}");
    assert!(!output.contains(token.trim()), "{output}");
    std::fs::write(&file, "my diary\n").unwrap();
    let (code, output) = run(client(&["--url", &url, "--resume", &name]), "");
    assert!(code == 4 && output.contains("it does not hold one"), "{output}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "my diary\n");
    drop(process);
}

#[test]
fn reconnecting_client_resumes_after_a_server_restart() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut process = TestProcess::start(SERVER, &data, &["--limit", "1", "--linger", "1m"]);
    let url = process.url();
    let port = process.address.port().to_string();
    let mut held = client(&["--url", &url, "--reconnect"]).spawn().unwrap();
    let mut lines = BufReader::new(held.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("AUTHENTICATE_SUCCESS")));
    process.kill();
    let listen = format!("127.0.0.1:{port}");
    let mut again = without_connection_limits(SERVER);
    again.args(["--listen", &listen, "--limit", "1", "--linger", "1m", "--log", "off"]);
    let _again = TestProcess::run_as(again, &data);
    assert!(lines.any(|line| line == "AUTHENTICATE_SUCCESS testuser holds 1 connection"));
    send_signal(held.id(), Signal::INT);
    assert_eq!(wait_for_exit(&mut held).code(), Some(0));
}
