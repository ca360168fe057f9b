//! The client's binary: how it is told whom to trust and who it is.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use shell::net::tls::CertificateFiles;
use tests::raw_client::{RawClient, Received};
use tests::test_ca::TestCa;
use tests::test_process::{TestProcess, wait_for_exit, without_connection_limits};
use tests::waiting::{TIMEOUT, eventually};

const SERVER: &str = env!("CARGO_BIN_EXE_server-under-test");
const CLIENT: &str = env!("CARGO_BIN_EXE_client-under-test");
const TOKEN: &str = "head.hushhush.seal";

/// A client that takes nothing from the environment of this test.
fn client(arguments: &[&str]) -> Command {
    let mut command = Command::new(CLIENT);
    for variable in ["URL", "USER", "CA", "TOKEN"] {
        command.env_remove(format!("SESSIONS_{variable}"));
    }
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Lets it hold a session, and interrupts it then: its exit code and what it said.
fn run(mut command: Command, input: &str) -> (i32, String) {
    let mut child = command.spawn().unwrap();
    // Nobody reads it, unless the token is to come from there.
    let _written = child.stdin.take().unwrap().write_all(input.as_bytes());
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut said = String::new();
    while !said.contains("AUTHENTICATE_SUCCESS") && lines.read_line(&mut said).unwrap() > 0 {}
    // It may have ended: then it is waited for no less.
    let _sent = kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), Signal::INT);
    lines.read_to_string(&mut said).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (wait_for_exit(&mut child).code().unwrap(), said)
}

/// A server that speaks TLS, with a certificate of an authority of its own.
struct Front {
    authority: TestCa,
    _directory: tempfile::TempDir,
    url: String,
    _server: TestProcess,
}

impl Front {
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
fn a_server_is_trusted_by_file_by_variable_or_by_the_system() {
    let front = Front::start();
    let ca = front.ca().display().to_string();
    let mut by_variable = client(&["--url", &front.url]);
    by_variable.env("SESSIONS_CA", &ca);
    let mut by_system = client(&["--url", &front.url]);
    by_system.env("SSL_CERT_FILE", &ca);
    for command in [client(&["--url", &front.url, "--ca", &ca]), by_variable, by_system] {
        let (code, said) = run(command, "");
        assert_eq!(code, 0, "{said}");
        assert!(said.starts_with(&format!("connected to {}\n", front.url)), "{said}");
        assert!(said.contains("AUTHENTICATE_SUCCESS testuser holds 1 connection\n"), "{said}");
    }
    let (code, said) = run(client(&["--url", &front.url]), "");
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("its certificate is not trusted") && said.contains("with --ca\n"), "{said}");
}

#[test]
fn a_file_that_vouches_for_nobody_is_wrong_usage() {
    let (code, said) = run(client(&["--ca", "/dev/null"]), "");
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("no certificates from /dev/null: it has no certificate; "), "{said}");
}

#[test]
fn a_server_that_speaks_tls_is_measured() {
    let front = Front::start();
    let ca = front.ca().display().to_string();
    let bench = |arguments: &[&str]| {
        let fixed = ["bench", "--url", &front.url, "--duration", "200ms", "--json"];
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

/// A token for ada that whoever has `secret` takes.
fn token(secret: &str) -> String {
    let made =
        Command::new(SERVER).args(["token", "--user", "ada"]).env("SESSIONS_JWT_SECRET", secret).output().unwrap();
    String::from_utf8(made.stdout).unwrap().trim().into()
}

#[test]
fn a_token_comes_from_a_file_from_standard_input_or_from_a_variable() {
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
        let (code, said) = run(command, &format!("{token}\n"));
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("AUTHENTICATE_SUCCESS ada holds 1 connection\n") && !said.contains(&token), "{said}");
    }
    let (code, said) = run(client(&["--url", &url, "--user", "ada"]), "");
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("this server asks for a token, in a file (--token-file) or in SESSIONS_TOKEN\n"), "{said}");
}

/// It would be logged, stored and printed as the name of a user.
#[test]
fn a_server_that_takes_everybodys_word_takes_no_token_and_neither_of_the_two_shows_it() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut server = without_connection_limits(SERVER);
    server.args(["--log", "trace"]).stderr(Stdio::piped());
    let mut server = TestProcess::run_as(server, &data);
    let token = token("thirty-two bytes of nothing much");
    let mut command = client(&["--url", &server.url()]);
    command.env("SESSIONS_TOKEN", &token);
    let (code, said) = run(command, "");
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("This server takes user ids, not tokens: its authentication is open; give a user"), "{said}");
    kill_process(Pid::from_raw(i32::try_from(server.id()).unwrap()).unwrap(), Signal::TERM).unwrap();
    let mut log = String::new();
    server.stderr().unwrap().read_to_string(&mut log).unwrap();
    assert!(log.contains("authentication failed: invalid credential"), "{log}");
    let seal = token.rsplit('.').next().unwrap();
    let kept = ["live", "users"].map(|folder| std::fs::read(data.join(folder).join("data.mdb")).unwrap()).concat();
    let is_kept = kept.windows(seal.len()).any(|bytes| bytes == seal.as_bytes());
    assert!(!said.contains(seal) && !log.contains(seal) && !is_kept, "{said}{log}");
}

#[test]
fn a_user_and_a_token_exclude_each_other_and_no_token_is_printed() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), TOKEN).unwrap();
    let file = file.path().display().to_string();
    let with = |variable: &str, value: &str, arguments: &[&str]| {
        let mut command = client(arguments);
        command.env(variable, value);
        let (code, said) = run(command, "");
        assert!(!said.contains("hushhush"), "{said}");
        (code, said)
    };
    let both_told = "(--user or SESSIONS_USER) or a token, not both; --token-file has a token";
    for (variable, value, arguments, words) in [
        ("SESSIONS_URL", "ws://localhost", &["--user", "ada", "--token-file", &*file][..], both_told),
        ("SESSIONS_USER", "ada", &["--token-file", &file], both_told),
        ("SESSIONS_TOKEN", TOKEN, &["--user", "ada"], "not both; SESSIONS_TOKEN has a token"),
    ] {
        let (code, said) = with(variable, value, arguments);
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(words), "{said}");
    }
    for value in ["", "Bearer head.hushhush.seal"] {
        let (code, said) = with("SESSIONS_TOKEN", value, &[]);
        assert_eq!(code, 2, "{said}");
        assert!(said.contains("no token in SESSIONS_TOKEN: "), "{said}");
    }
    let (code, said) = with("SESSIONS_TOKEN", TOKEN, &["--help"]);
    assert!(code == 0 && said.contains("--token-file") && said.contains("SESSIONS_TOKEN"), "{said}");
    let (code, said) = with("SESSIONS_TOKEN", TOKEN, &["--token-file", "/nowhere"]);
    assert!(code == 2 && said.contains("no token in /nowhere: No such file"), "{said}");
}

/// A server with these arguments, and a client of it.
fn at(arguments: &[&str]) -> (tempfile::TempDir, TestProcess, String) {
    let directory = tempfile::tempdir().unwrap();
    let process = TestProcess::start(SERVER, &directory.path().join("data"), arguments);
    let url = process.url();
    (directory, process, url)
}

#[test]
fn sessions_are_listed_and_ended_from_the_command_line_also_at_the_limit() {
    let (_directory, process, url) = at(&["--limit", "2", "--client-choice"]);
    let mut first = RawClient::open(process.address);
    first.text(r#"{"type":"AUTHENTICATE","payload":{"user":"ada","label":"Firefox"}}"#);
    let Received::Text(granted) = first.read() else { panic!("no answer") };
    let session = granted.split("\"session\":\"").nth(1).unwrap()[..32].to_owned();
    let ask = |arguments: &[&str]| run(client(&[arguments, &["--url", &url, "--user", "ada"]].concat()), "");
    let (code, said) = ask(&["sessions"]);
    assert!(code == 0 && said.starts_with("1 slot of 2 taken\n"), "{said}");
    assert!(said.contains(&format!("{session}, label \"Firefox\", since 20")), "{said}");
    let mut second = RawClient::authenticated(process.address, "ada", 2);
    let (code, said) = ask(&["sessions", "--json"]);
    assert!(code == 0 && said.starts_with(r#"{"limit":2,"connections":2,"sessions":[{"id":""#), "{said}");
    assert_eq!(said.matches("\"state\":\"live\"").count(), 2, "{said}");

    assert_eq!(ask(&["end", &session]), (0, "ended\n".into()));
    first.expect_text(r#"{"type":"EVICTED","payload":"Another session of this user has taken the place of this one"}"#);
    let (code, said) = ask(&["end", &session]);
    assert!(code == 4 && said.contains("This user has no such session"), "{said}");
    let (code, said) = ask(&["end", "7"]);
    assert!(code == 2 && said.contains("32 hexadecimal digits"), "{said}");
    second.send_bye();
}

#[test]
fn whom_it_is_told_to_end_a_client_ends_also_where_a_slot_lingers() {
    let (_directory, process, url) = at(&["--limit", "2", "--client-choice", "--linger", "1m"]);
    let [lost, mut there] = two_of(&process);
    drop(lost);
    let ask = |arguments: &[&str]| run(client(&[arguments, &["--url", &url, "--user", "ada"]].concat()), "");
    let mut said = String::new();
    eventually("one is lost", || {
        said = ask(&["sessions"]).1;
        said.contains(", lost, kept until")
    });
    let there_is = said.lines().find(|line| line.contains("telly")).unwrap()[..32].to_owned();
    let (code, refused) = ask(&["end", "00000000000000000000000000000001"]);
    assert!(code == 4 && refused.contains("This user has no such session"), "{refused}");
    assert_eq!(ask(&["sessions"]).1, said, "nobody has lost anything by that");
    assert_eq!(ask(&["end", &there_is]), (0, "ended\n".into()));
    let Received::Text(told) = there.read() else { panic!("it is still there") };
    assert!(told.starts_with(r#"{"type":"EVICTED","#), "{told}");
}

#[test]
fn who_only_asks_ends_nobody_though_the_newest_takes_the_place_of_the_oldest() {
    let (_directory, process, url) = at(&["--limit", "1", "--when-full", "evict-oldest"]);
    let mut only = RawClient::authenticated(process.address, "ada", 1);
    let at = ["--url", &*url, "--user", "ada"];
    let (code, said) = run(client(&[&["sessions"][..], &at].concat()), "");
    assert!(code == 0 && said.starts_with("1 slot of 1 taken\n"), "{said}");
    let (code, said) = run(client(&[&at[..], &["--evict", "nobody"]].concat()), "");
    assert_eq!(code, 3, "{said}");
    let (code, said) = run(client(&[&["end", "00000000000000000000000000000001"][..], &at].concat()), "");
    assert_eq!(code, 3, "{said}");
    only.send_bye();
}

#[test]
fn a_client_ends_others_if_told_to_and_is_ended_with_a_code_of_its_own() {
    let (_directory, process, url) = at(&["--limit", "1", "--client-choice"]);
    let mut held = client(&["--url", &url, "--label", "first"]).spawn().unwrap();
    let mut lines = BufReader::new(held.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("AUTHENTICATE_SUCCESS")));
    let (code, said) = run(client(&["--url", &url, "--label", "second", "--evict", "oldest"]), "");
    assert!(code == 0 && said.contains("AUTHENTICATE_SUCCESS testuser holds 1 connection\n"), "{said}");
    assert_eq!(lines.next().unwrap(), "EVICTED second has taken the place of this session");
    assert_eq!(wait_for_exit(&mut held).code(), Some(5));
    let (code, said) = run(client(&["--url", &url, "--evict", "everybody"]), "");
    assert!(code == 2 && said.contains("write oldest, nobody, or 1 to 100 ids"), "{said}");
    drop(process);
}

/// A client that somebody sits at.
struct Terminal {
    client: Child,
    person: File,
    /// What it prints, as it comes.
    screen: Receiver<String>,
    shown: String,
}

impl Terminal {
    fn start(mut command: Command) -> Self {
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let name = ptsname(&person, vec![]).unwrap().into_string().unwrap();
        let open = || File::options().read(true).write(true).open(&name).unwrap();
        let client = command.stdin(open()).stdout(open()).stderr(open()).spawn().unwrap();
        let person = File::from(person);
        let (sender, screen) = mpsc::channel();
        let mut reader = person.try_clone().unwrap();
        thread::spawn(move || {
            let mut bytes = [0; 1024];
            // An error: nobody has the other end any more.
            while let Ok(length @ 1..) = reader.read(&mut bytes) {
                let text = std::str::from_utf8(&bytes[..length]).unwrap().replace('\r', "");
                // An error: the test has failed, and goes nowhere.
                drop(sender.send(text));
            }
        });
        Self { client, person, screen, shown: String::new() }
    }

    fn wait_for(&mut self, words: &str) {
        while !self.shown.contains(words) {
            let more = self.screen.recv_timeout(TIMEOUT);
            self.shown += &more.unwrap_or_else(|_| panic!("waited in vain for {words:?} after {:?}", self.shown));
        }
    }

    fn answer(&mut self, line: &str) {
        self.shown.clear();
        writeln!(self.person, "{line}").unwrap();
    }

    fn interrupt(&self) {
        kill_process(Pid::from_raw(i32::try_from(self.client.id()).unwrap()).unwrap(), Signal::INT).unwrap();
    }

    /// Waits for the end: the exit code, and what was shown since the last answer.
    fn end(mut self) -> (i32, String) {
        let code = wait_for_exit(&mut self.client).code().unwrap();
        self.shown.extend(self.screen);
        (code, self.shown)
    }
}

/// Two sessions of ada's, called by these names.
fn two_of(process: &TestProcess) -> [RawClient; 2] {
    ["Firefox", "the telly"].map(|label| {
        let mut raw = RawClient::open(process.address);
        raw.text(&format!(r#"{{"type":"AUTHENTICATE","payload":{{"user":"ada","label":"{label}"}}}}"#));
        let Received::Text(granted) = raw.read() else { panic!("no answer") };
        assert!(granted.starts_with(r#"{"type":"AUTHENTICATE_SUCCESS""#), "{granted}");
        raw
    })
}

#[test]
fn whoever_is_refused_at_a_terminal_sees_who_is_there() {
    let (_directory, process, url) = at(&["--limit", "2"]);
    let _held = two_of(&process);
    let (code, shown) = Terminal::start(client(&["--url", &url, "--user", "ada"])).end();
    let refused = "\nAUTHENTICATE_FAILURE User has reached connection limit, no more connections allowed\n\
                   the slots are held by\n  ";
    assert!(code == 3 && shown.contains(refused) && !shown.contains('?'), "{shown}");
    let lines: Vec<_> = shown.lines().skip_while(|line| !line.starts_with("  ")).collect();
    assert!(lines[0].contains(", label \"Firefox\", since 20") && lines[1].contains("label \"the telly\""), "{shown}");
    assert!(lines[2].starts_with("error: user \"ada\" has reached") && lines[3] == "BYE_SUCCESS goodbye", "{shown}");
    // It is for people.
    let (code, said) = run(client(&["--url", &url, "--user", "ada"]), "");
    assert!(code == 3 && !said.contains("Firefox"), "{said}");
}

#[test]
fn whoever_is_refused_at_a_terminal_may_pick_whom_to_end() {
    let (_directory, process, url) = at(&["--limit", "2", "--client-choice"]);
    let [_first, mut second] = two_of(&process);
    let start = || Terminal::start(client(&["--url", &url, "--user", "ada", "--label", "desk"]));
    let question = "end which of them? 1 to 2, several with spaces between, or Enter for none\n";
    let mut nobody = start();
    nobody.wait_for(question);
    nobody.answer("");
    let (code, shown) = nobody.end();
    assert!(code == 3 && shown.contains("error: user \"ada\" has reached"), "{shown}");
    assert!(!shown.contains("AUTHENTICATE_FAILURE"), "told before: {shown}");

    let mut undecided = start();
    undecided.wait_for(question);
    undecided.interrupt();
    let (code, shown) = undecided.end();
    assert!(code == 3 && shown.ends_with("\nBYE_SUCCESS goodbye\n"), "{shown}");
    let mut picky = start();
    // It is no answer yet.
    picky.answer("1");
    picky.wait_for(question);
    assert!(picky.shown.contains("\n1: ") && picky.shown.contains("\n2: "), "{}", picky.shown);
    picky.answer("the telly");
    picky.wait_for(question);
    picky.answer("2");
    picky.wait_for("AUTHENTICATE_SUCCESS ada holds 2 connections\n");
    second.expect_text(r#"{"type":"EVICTED","payload":"desk has taken the place of this session"}"#);
    // Nobody waits for an answer that would be of no use.
    let mut abandoned = start();
    abandoned.wait_for(question);
    drop(process);
    for lost in [picky, abandoned] {
        let (code, shown) = lost.end();
        assert!(code == 4 && shown.contains("error: the connection is lost: "), "{shown}");
    }
}

#[test]
fn a_session_is_taken_up_again_from_its_file_and_no_token_is_printed() {
    let (directory, process, url) = at(&["--limit", "1", "--linger", "1m", "--lingering-first=false"]);
    let file = directory.path().join("resume");
    let name = file.display().to_string();
    let mut lost = client(&["--url", &url, "--resume", &name, "--json"]).spawn().unwrap();
    let mut lines = BufReader::new(lost.stdout.take().unwrap()).lines();
    let said: String = lines.by_ref().take(3).map(Result::unwrap).collect();
    assert!(said.contains("AUTHENTICATE_SUCCESS"), "{said}");
    lost.kill().unwrap();
    lost.wait().unwrap();
    let token = std::fs::read_to_string(&file).unwrap();
    assert!(token.trim().len() == 64 && !said.contains(token.trim()), "{said}");
    eventually("it is lost", || run(client(&["sessions", "--url", &url]), "").1.contains(", lost, kept until 20"));
    let (code, said) = run(client(&["--url", &url]), "");
    assert_eq!(code, 3, "{said}");
    let (code, said) = run(client(&["--url", &url, "--resume", &name]), "");
    assert!(code == 0 && said.contains("AUTHENTICATE_SUCCESS testuser holds 1 connection\n"), "{said}");
    assert!(!said.contains(token.trim()), "{said}");
    std::fs::write(&file, "my diary\n").unwrap();
    let (code, said) = run(client(&["--url", &url, "--resume", &name]), "");
    assert!(code == 4 && said.contains("it does not hold one"), "{said}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "my diary\n");
    drop(process);
}

#[test]
fn a_client_that_is_to_comes_back_to_its_slot_when_the_server_does() {
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
    let _sent = kill_process(Pid::from_raw(i32::try_from(held.id()).unwrap()).unwrap(), Signal::INT);
    assert_eq!(wait_for_exit(&mut held).code(), Some(0));
}
