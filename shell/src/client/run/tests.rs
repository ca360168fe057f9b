//! Tests of a whole run against a scripted server.

use std::io;
use std::time::Duration;

use futures_util::Stream;
use session_core::ledger::SlotLimit;
use session_core::protocol::{AuthenticateOptions, ClientMessage, ServerMessage, UserSummary, WaitingDetails};
use session_core::{ResumeToken, UserId};
use smol::channel::{self, Sender};
use smol::future::or;

use super::{Format, Printer, RunOptions, run};
use crate::client::testing::fake_server::{FakeConnection, FakeServer, with_server};
use crate::client::{Credentials, ExitReason, Url};

/// Runs the client against a server with a limit, and interrupts it after this many lines.
async fn run_client(listener: &FakeServer, limit: u32, connections: u16, lines: usize) -> (ExitReason, String, String) {
    let (interrupt, interrupts) = channel::unbounded();
    let mut out = Interrupting { text: String::new(), lines, interrupt };
    let mut err = Vec::new();
    let printer = Printer::new(Format::Text, &mut out, &mut err);
    let run_options = run_options(listener.url(), connections);
    let exit_reason =
        or(run(&run_options, printer, interrupts), listener.serve(limit)).await.expect("a writable output");
    (exit_reason, out.text, String::from_utf8(err).expect("text"))
}

fn run_options(url: Url, connections: u16) -> RunOptions {
    RunOptions { connections, ..RunOptions::new(url, Credentials::User("testuser".into())) }
}

/// An output that interrupts the client after this many lines.
struct Interrupting {
    text: String,
    lines: usize,
    interrupt: Sender<()>,
}

impl io::Write for Interrupting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text += std::str::from_utf8(bytes).expect("whole lines of text");
        if self.text.lines().count() == self.lines {
            self.interrupt.try_send(()).expect("a listening client");
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn session_is_held_until_the_interrupt() {
    with_server(async |listener: FakeServer| {
        let (exit_reason, out, err) = run_client(&listener, 3, 1, 3).await;
        let expected = format!(
            "connected to {}\n\
             HELLO message from server\n\
             AUTHENTICATE_SUCCESS testuser holds 1 connection\n\
             BYE_SUCCESS goodbye\n",
            listener.url()
        );
        assert_eq!((exit_reason, &*out, &*err), (ExitReason::Goodbye, &*expected, ""));
    });
}

#[test]
fn single_refused_session_ends_the_run() {
    with_server(async |listener: FakeServer| {
        let (exit_reason, out, err) = run_client(&listener, 0, 1, usize::MAX).await;
        assert_eq!(exit_reason, ExitReason::Denied);
        assert!(out.ends_with(
            "\nAUTHENTICATE_FAILURE User has reached connection limit, no more connections allowed\n\
             BYE_SUCCESS goodbye\n"
        ));
        assert_eq!(
            err,
            "error: user \"testuser\" has reached the connection limit; end another session of this user first\n"
        );
    });
}

#[test]
fn lowest_numbers_get_the_slots() {
    with_server(async |listener: FakeServer| {
        // Two lines for each of five connections, one for each of three grants, two for each of two refusals.
        let (exit_reason, out, err) = run_client(&listener, 3, 5, 5 * 2 + 3 + 2 * 2).await;
        assert_eq!(exit_reason, ExitReason::Denied);
        for number in 1..=3 {
            let granted = format!("#{number} AUTHENTICATE_SUCCESS testuser holds {number} connection");
            assert!(out.contains(&granted), "{out}");
        }
        assert_eq!(out.lines().filter(|line| line.ends_with("BYE_SUCCESS goodbye")).count(), 5);
        let refused: Vec<_> = err.lines().map(|line| &line[..line.len().min(16)]).collect();
        assert_eq!(refused, ["error: #4 user \"", "error: #5 user \""]);
    });
}

/// Accepts the next client, and puts it into the line.
async fn put_in_line(listener: &FakeServer, place: u16) -> FakeConnection {
    let mut connection = listener.accept().await;
    connection.send(&ServerMessage::Hello).await;
    connection.receive().await;
    let waiting = WaitingDetails {
        place,
        wait: Duration::from_secs(60),
        limit: SlotLimit::default(),
        connections: 3,
        sessions: None,
        retry_after: None,
        client_choice: false,
    };
    connection.send(&ServerMessage::AuthenticateWaiting(Box::new(waiting))).await;
    connection
}

fn waiting_options(url: Url, connections: u16) -> RunOptions {
    let wait = Some(Duration::from_secs(60));
    let authenticate_options = Some(AuthenticateOptions { wait, ..AuthenticateOptions::default() });
    RunOptions { authenticate_options, ..run_options(url, connections) }
}

#[test]
fn waiting_session_lets_the_next_one_in_line() {
    with_server(async |listener: FakeServer| {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let run_options = waiting_options(listener.url(), 2);
        let printer = Printer::new(Format::Text, &mut out, &mut err);
        let server = async {
            let mut first = put_in_line(&listener, 1).await;
            let mut second = put_in_line(&listener, 2).await;
            for connection in [&mut second, &mut first] {
                connection.send(&ServerMessage::AuthenticateSuccess(test_user())).await;
                connection.close(1001, "Server is shutting down").await;
            }
        };
        let (exit_reason, ()) = smol::future::zip(run(&run_options, printer, pending_interrupts()), server).await;
        assert_eq!(exit_reason.ok(), Some(ExitReason::Lost));
        let out = String::from_utf8(out).expect("text");
        for number in 1..=2 {
            let lines: Vec<_> = out.lines().filter_map(|line| line.strip_prefix(&format!("#{number} "))).collect();
            let place = format!("AUTHENTICATE_WAITING place {number} in line, for another 1m at most");
            assert_eq!(lines[2..], [&*place, "AUTHENTICATE_SUCCESS testuser holds 1 connection", lines[4]], "{out}");
        }
    });
}

#[test]
fn interrupt_while_waiting_leaves_with_bye() {
    with_server(async |listener: FakeServer| {
        let (interrupt, interrupts) = channel::unbounded();
        // The third line says that it waits.
        let mut out = Interrupting { text: String::new(), lines: 3, interrupt };
        let mut err = Vec::new();
        let run_options = waiting_options(listener.url(), 1);
        let printer = Printer::new(Format::Text, &mut out, &mut err);
        let server = async {
            let mut connection = put_in_line(&listener, 1).await;
            assert_eq!(connection.receive().await, Some(ClientMessage::Bye));
            connection.send(&ServerMessage::ByeSuccess).await;
            connection.close(1000, "Goodbye").await;
            assert_eq!(connection.receive().await, None);
        };
        let (exit_reason, ()) = smol::future::zip(run(&run_options, printer, interrupts), server).await;
        assert_eq!((exit_reason.ok(), &*err), (Some(ExitReason::Goodbye), &[][..]));
        assert_eq!(out.text.lines().last(), Some("BYE_SUCCESS goodbye"));
    });
}

#[test]
fn closed_session_is_lost_with_its_reason() {
    with_server(async |listener: FakeServer| {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let run_options = run_options(listener.url(), 1);
        let printer = Printer::new(Format::Json, &mut out, &mut err);
        let server = async {
            let mut connection = sign_in(&listener).await;
            connection.close(1001, "Server is shutting down").await;
        };
        let (exit_reason, ()) = smol::future::zip(run(&run_options, printer, pending_interrupts()), server).await;
        assert_eq!(exit_reason.ok(), Some(ExitReason::Lost));
        let out = String::from_utf8(out).expect("text");
        let closed = r#"{"connection":1,"type":"CLOSED","payload":{"code":1001,"words":"Server is shutting down"}}"#;
        assert_eq!(out.lines().last(), Some(closed));
    });
}

#[test]
fn evicted_session_prints_no_resume_token() {
    with_server(async |listener: FakeServer| {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let authenticate_options =
            AuthenticateOptions { label: session_core::DisplayName::parse("desk"), ..AuthenticateOptions::default() };
        let run_options =
            RunOptions { authenticate_options: Some(authenticate_options.clone()), ..run_options(listener.url(), 1) };
        let printer = Printer::new(Format::Json, &mut out, &mut err);
        let server = async {
            let mut connection = listener.accept().await;
            connection.send(&ServerMessage::Hello).await;
            let user = session_core::protocol::Credential::User("testuser".into());
            assert_eq!(
                connection.receive().await,
                Some(ClientMessage::AuthenticateWith(user, Box::new(authenticate_options)))
            );
            let (limit, session) = (SlotLimit::default(), session_core::NodeId::new(7).session(1));
            let grant = session_core::protocol::AuthenticateSuccessDetails {
                resume: Some(ResumeToken::new([0xab; 32])),
                linger: Duration::from_secs(1),
                ..session_core::protocol::AuthenticateSuccessDetails::new(test_user(), limit, session)
            };
            connection.send(&ServerMessage::AuthenticateSuccessDetailed(Box::new(grant))).await;
            // An unknown message may have a resume token, too.
            connection.send_text(&format!(r#"{{"type":"NEWS","payload":{{"resume":"{}"}}}}"#, "ab".repeat(32))).await;
            connection.send(&ServerMessage::Evicted("desk\u{1b} has ended this session".into())).await;
            connection.close(4409, "The slot of this session was taken away").await;
        };
        let (exit_reason, ()) = smol::future::zip(run(&run_options, printer, pending_interrupts()), server).await;
        assert_eq!(exit_reason.ok(), Some(ExitReason::Evicted));
        let out = String::from_utf8(out).expect("text");
        let err = String::from_utf8(err).expect("text");
        assert!(!out.contains("abab") && !err.contains("abab") && !out.contains(r#""resume""#), "{out}{err}");
        assert!(!out.contains('\u{1b}') && out.contains(r#""type":"EVICTED""#), "{out}");
        assert!(out.ends_with("\"code\":4409,\"words\":\"The slot of this session was taken away\"}}\n"), "{out}");
    });
}

#[test]
fn unreachable_server_is_reported_once() {
    with_server(async |listener: FakeServer| {
        let run_options = run_options(listener.url(), 100);
        drop(listener);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let printer = Printer::new(Format::Text, &mut out, &mut err);
        let exit_reason = run(&run_options, printer, pending_interrupts()).await;
        assert_eq!(exit_reason.ok(), Some(ExitReason::Lost));
        let err = String::from_utf8(err).expect("text");
        assert!(err.starts_with("error: #1 cannot reach ws://127.0.0.1:") && err.lines().count() == 1, "{err}");
    });
}

#[test]
fn second_interrupt_ends_at_once() {
    with_server(async |listener: FakeServer| {
        let run_options = run_options(listener.url(), 2);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let printer = Printer::new(Format::Quiet, &mut out, &mut err);
        let (interrupt, interrupts) = channel::unbounded();
        let server = async {
            let mut connection = sign_in(&listener).await;
            interrupt.send(()).await.expect("a listening client");
            assert!(connection.receive().await.is_some(), "a BYE, which is left unanswered");
            interrupt.send(()).await.expect("a listening client");
            std::future::pending().await
        };
        let exit_reason = or(run(&run_options, printer, interrupts), server).await;
        assert_eq!((exit_reason.ok(), out), (Some(ExitReason::Lost), vec![]));
    });
}

#[test]
fn closed_output_is_an_interrupt() {
    struct Broken;

    impl io::Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    with_server(async |listener: FakeServer| {
        let run_options = run_options(listener.url(), 2);
        let mut err = Vec::new();
        let mut broken = Broken;
        let printer = Printer::new(Format::Json, &mut broken, &mut err);
        let exit_reason = or(run(&run_options, printer, pending_interrupts()), listener.serve(3)).await;
        assert_eq!((exit_reason.ok(), err), (Some(ExitReason::Goodbye), vec![]));
    });
}

fn pending_interrupts() -> impl Stream<Item = ()> {
    futures_util::stream::pending()
}

fn test_user() -> UserSummary {
    UserSummary { id: UserId::parse("testuser").expect("a good id"), connections: 1 }
}

/// Signs the next client in as the only session of its user.
async fn sign_in(listener: &FakeServer) -> FakeConnection {
    let mut connection = listener.accept().await;
    connection.send(&ServerMessage::Hello).await;
    connection.receive().await;
    connection.send(&ServerMessage::AuthenticateSuccess(test_user())).await;
    connection
}
