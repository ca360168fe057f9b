//! What the `client` binary does: holds sessions of one user until it is told to leave.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Instant;

use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt as _};
use session_core::{Ask, Evict, Refusal, Reply, ResumeToken, SessionId, SessionInfo};
use smol::Timer;
use smol::channel::{self, Receiver, Sender};
use smol::future::or;
use smol::lock::Mutex;

use super::printer::{Line, Printer};
use super::prompt::{Answer, Person, listed, question};
use super::resume_file::ResumeFile;
use crate::client::reconnect::{Again, Backoff};
use crate::client::{Connection, Error, Event, Grant, Login, Options, Token, Url};

/// Which sessions to hold.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server.
    pub url: Url,
    /// Whose sessions.
    pub login: Login,
    /// What else is asked for. None, and nothing of the next four: the plain protocol.
    pub ask: Option<Ask>,
    /// Where the token is kept with which a session is taken up again.
    pub resume: Option<PathBuf>,
    /// Whether to come back by itself.
    pub reconnect: bool,
    /// Where a fresh token of the user's may be, once the first has run out.
    pub token_file: Option<String>,
    /// Whether somebody is there at standard input: to be shown who holds the slots, and to choose whom to end.
    pub picks: bool,
    /// How many.
    pub connections: u16,
    /// How long to wait for the server, and whom to trust.
    pub options: Options,
}

impl Plan {
    /// One session of this user by the plain protocol, which is not tried again.
    #[must_use]
    pub fn new(url: Url, login: Login) -> Self {
        Self {
            url,
            login,
            ask: None,
            resume: None,
            reconnect: false,
            token_file: None,
            picks: false,
            connections: 1,
            options: Options::default(),
        }
    }

    fn asks_at_length(&self) -> bool {
        self.ask.is_some() || self.resume.is_some() || self.reconnect || self.picks
    }
}

/// How it ended, the better first. Of many sessions the worst counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// With BYE, on request; or of load that was made, none failed. Exit code 0.
    Goodbye,
    /// The limit refused it. Exit code 3.
    LimitReached,
    /// No server, a lost connection, or a server that closed or refused for another reason than the limit; or load that
    /// failed in part. Exit code 4.
    Lost,
    /// The slot was taken away, or the session goes on on another connection. Exit code 5.
    Evicted,
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        Self::from(match verdict {
            Verdict::Goodbye => 0,
            Verdict::LimitReached => 3,
            Verdict::Lost => 4,
            Verdict::Evicted => 5,
        })
    }
}

/// Holds the sessions of `plan` and prints what happens to them, until all have ended.
///
/// At the first interrupt every session says BYE; the second ends at once. What is refused or lost is tried again only if
/// the plan says so, and as [`Again`] has it. When nobody reads the output any more, that is an interrupt too.
///
/// # Errors
/// When the output cannot be written for any other reason. The sessions have said BYE then.
pub async fn hold(plan: &Plan, printer: Printer<'_>, interrupts: impl Stream<Item = ()>) -> io::Result<Verdict> {
    let (leave, left) = channel::bounded(1);
    let printer = RefCell::new(printer.numbered(plan.connections > 1));
    let holder = Holder { plan, printer, leave, left, door: Mutex::new(Door::Open), person: Person::default() };
    let verdict = or(holder.hold_all(), holder.heed(interrupts)).await;
    holder.printer.into_inner().finish().map(|()| verdict)
}

struct Holder<'a, 'p> {
    plan: &'a Plan,
    printer: RefCell<Printer<'p>>,
    /// Never sends: closing it tells every session to leave.
    leave: Sender<Infallible>,
    left: Receiver<Infallible>,
    /// Sessions come in one after another, so that those with the lowest numbers get the slots.
    door: Mutex<Door>,
    person: Person,
}

enum Door {
    Open,
    /// There is no server to be had: what one session has found out the others need not try.
    Shut,
}

impl Holder<'_, '_> {
    async fn hold_all(&self) -> Verdict {
        let mut sessions: FuturesUnordered<_> =
            (1..=self.plan.connections).map(|number| self.hold_one(number)).collect();
        let mut worst = Verdict::Goodbye;
        while let Some(verdict) = sessions.next().await {
            worst = worst.max(verdict);
        }
        worst
    }

    async fn heed(&self, interrupts: impl Stream<Item = ()>) -> Verdict {
        let mut interrupts = pin!(interrupts.chain(futures_util::stream::pending()));
        interrupts.next().await;
        self.leave.close();
        interrupts.next().await;
        Verdict::Lost
    }

    async fn hold_one(&self, number: u16) -> Verdict {
        let file = self.plan.resume.as_ref().map(|file| ResumeFile::of(file, number, self.plan.connections));
        let mut visit = Visit { number, login: self.plan.login.clone(), resume: None, file };
        match visit.file.as_ref().map_or(Ok(None), ResumeFile::read) {
            Ok(token) => visit.resume = token,
            Err(error) => return self.fail(number, &error).verdict,
        }
        let mut backoff = Backoff::default();
        loop {
            let begun = Instant::now();
            let end = match self.enter(&mut visit).await {
                Ok(connection) => {
                    let end = self.stay(number, connection).await;
                    backoff.held_for(begun.elapsed());
                    end
                }
                Err(end) => end,
            };
            if !self.plan.reconnect || (end.again == Again::WithFreshToken && !self.has_fresh_token(&mut visit)) {
                return end.verdict;
            }
            let Some(wait) = backoff.wait(end.again, fastrand::f64()) else { return end.verdict };
            self.print(number, &Line::Retry(wait));
            let waited = async {
                Timer::after(wait).await;
                Some(())
            };
            if or(self.asked_to_leave(), waited).await.is_none() {
                return Verdict::Goodbye;
            }
        }
    }

    /// Whether there is another token than the one that has run out.
    fn has_fresh_token(&self, visit: &mut Visit) -> bool {
        let read = self.plan.token_file.as_ref().and_then(|file| Token::read(file).ok()).map(Login::Token);
        match read {
            Some(login) if login != visit.login => {
                visit.login = login;
                true
            }
            Some(_) | None => false,
        }
    }

    /// A connection with a slot, or how it ended without.
    async fn enter(&self, visit: &mut Visit) -> Result<Connection, End> {
        let number = visit.number;
        let mut door = self.door.lock().await;
        if matches!(*door, Door::Shut) {
            return Err(End { verdict: Verdict::Lost, again: Again::Never });
        }
        let opened =
            or(self.asked_to_leave(), async { Some(Connection::open_with(&self.plan.url, &self.plan.options).await) });
        let mut connection = match opened.await {
            None => return Err(End { verdict: Verdict::Goodbye, again: Again::Never }),
            Some(Ok(connection)) => connection,
            Some(Err(error)) => {
                if !self.plan.reconnect {
                    *door = Door::Shut;
                }
                return Err(self.fail(number, &error));
            }
        };
        self.print(number, &Line::Connected(&self.plan.url));
        self.print(number, &Line::Reply(&Reply::Hello));
        match self.get_in(&mut connection, visit).await {
            Ok(grant) => {
                let kept = visit.keep(&grant);
                self.print(number, &Line::Reply(&grant.into_reply()));
                match kept {
                    Ok(()) => Ok(connection),
                    Err(error) => {
                        drop(door);
                        let end = self.fail(number, &error);
                        self.part(number, connection).await;
                        Err(end)
                    }
                }
            }
            Err(error) => {
                drop(door);
                if is_still_open(&error) {
                    self.part(number, connection).await;
                }
                Err(End::after(&error))
            }
        }
    }

    /// Signs in, or says why not. Somebody at the terminal is shown who holds the slots, and asked whom to end if the server
    /// lets clients choose.
    async fn get_in(&self, connection: &mut Connection, visit: &Visit) -> Result<Grant, Error> {
        let number = visit.number;
        let mut choice = None;
        loop {
            let error = match self.sign_in(connection, visit, choice).await {
                Ok(grant) => return Ok(grant),
                Err(error) => error,
            };
            let listing = error.denial().filter(|_| self.plan.picks);
            let listing = listing.and_then(|denial| Some((denial.sessions.as_deref()?, denial.may_choose)));
            let Some((sessions @ [_, ..], may_choose)) = listing else {
                self.print(number, &Line::Failed(&error));
                return Err(error);
            };
            self.print(number, &Line::Refused(&error));
            self.printer.borrow_mut().tell(&listed(sessions, may_choose));
            let chosen = if may_choose { self.choose(connection, sessions).await } else { Ok(None) };
            choice = match chosen {
                Ok(Some(these)) => Some(these),
                Ok(None) => {
                    self.print(number, &Line::Error(&error));
                    return Err(error);
                }
                Err(error) => {
                    self.print(number, &Line::Failed(&error));
                    return Err(error);
                }
            };
        }
    }

    async fn sign_in(
        &self,
        connection: &mut Connection,
        visit: &Visit,
        choice: Option<Box<[SessionId]>>,
    ) -> Result<Grant, Error> {
        if !self.plan.asks_at_length() {
            return connection.authenticate_with(&visit.login).await.map(Grant::Short);
        }
        let mut ask = self.plan.ask.clone().unwrap_or_default();
        ask.resume = visit.resume;
        if let Some(these) = choice {
            ask.evict = Some(Evict::These(these));
        }
        connection.authenticate_with_ask(&visit.login, ask).await
    }

    /// Whom somebody at the terminal wants to end, if anybody.
    ///
    /// # Errors
    /// When the connection is gone, for which the server has its reasons if the answer takes too long.
    async fn choose(
        &self,
        connection: &mut Connection,
        sessions: &[SessionInfo],
    ) -> Result<Option<Box<[SessionId]>>, Error> {
        loop {
            let put_question = || self.printer.borrow_mut().tell(&[question(sessions.len())]);
            let answered = async {
                let line = or(self.asked_to_leave(), self.person.answer(put_question)).await;
                Ok(line.map_or(Answer::Nobody, |line| Answer::parse(&line, sessions)))
            };
            let closed = async {
                loop {
                    if let Event::Closed { code, words } = connection.next_event().await? {
                        return Err(Error::Closed { code, words });
                    }
                }
            };
            match or(answered, closed).await? {
                Answer::Nobody => return Ok(None),
                Answer::These(these) => return Ok(Some(these)),
                Answer::Nonsense => {}
            }
        }
    }

    /// Holds the slot until told to leave, or until the server takes it away.
    async fn stay(&self, number: u16, mut connection: Connection) -> End {
        let mut evicted = false;
        loop {
            match or(self.asked_to_leave(), async { Some(connection.next_event().await) }).await {
                None => return self.part(number, connection).await,
                // The close frame may not arrive: it is over all the same, and not to be tried again.
                Some(Ok(Event::Reply(reply @ Reply::Evicted(_)))) => {
                    self.print(number, &Line::Reply(&reply));
                    evicted = true;
                }
                Some(Ok(Event::Reply(reply))) => self.print(number, &Line::Reply(&reply)),
                Some(Ok(Event::Unknown(text))) => self.print(number, &Line::Unknown(&text)),
                Some(Ok(Event::Closed { code, words })) => return self.fail(number, &Error::Closed { code, words }),
                Some(Err(error)) => {
                    let end = self.fail(number, &error);
                    return if evicted { End { verdict: Verdict::Evicted, again: Again::Never } } else { end };
                }
            }
        }
    }

    async fn part(&self, number: u16, connection: Connection) -> End {
        match connection.bye().await {
            Ok(()) => {
                self.print(number, &Line::Reply(&Reply::ByeSuccess));
                End { verdict: Verdict::Goodbye, again: Again::Never }
            }
            Err(error) => End { again: Again::Never, ..self.fail(number, &error) },
        }
    }

    /// Ready with nothing, when it is time to leave.
    async fn asked_to_leave<T>(&self) -> Option<T> {
        match self.left.recv().await {
            Ok(never) => match never {},
            Err(channel::RecvError) => None,
        }
    }

    fn fail(&self, number: u16, error: &Error) -> End {
        self.print(number, &Line::Failed(error));
        End::after(error)
    }

    fn print(&self, number: u16, line: &Line<'_>) {
        let mut printer = self.printer.borrow_mut();
        printer.print(number, line);
        if printer.has_failed() {
            self.leave.close();
        }
    }
}

/// How one connection ended.
struct End {
    verdict: Verdict,
    again: Again,
}

impl End {
    fn after(error: &Error) -> Self {
        let verdict = match error {
            Error::LimitReached { .. } | Error::Refused { refusal: Refusal::DeviceFull, .. } => Verdict::LimitReached,
            Error::Evicted(_) | Error::Closed { code: 4409 | 4410, .. } => Verdict::Evicted,
            Error::BadUrl { .. }
            | Error::Unreachable { .. }
            | Error::Handshake { .. }
            | Error::BadCa { .. }
            | Error::BadToken { .. }
            | Error::Refused { .. }
            | Error::TokenTakenForName
            | Error::BadResumeFile { .. }
            | Error::Complaint(_)
            | Error::Unexpected { .. }
            | Error::Closed { .. }
            | Error::Lost(_)
            | Error::TimedOut { .. }
            | Error::NotConnected { .. } => Verdict::Lost,
        };
        Self { verdict, again: Again::after(error) }
    }
}

/// What one session, and those that follow it, know from one connection to the next.
struct Visit {
    number: u16,
    login: Login,
    /// What it takes the session up with.
    resume: Option<ResumeToken>,
    file: Option<ResumeFile>,
}

impl Visit {
    /// Keeps the token of a grant.
    fn keep(&mut self, grant: &Grant) -> Result<(), Error> {
        let Some(token) = grant.admission().and_then(|admission| admission.resume) else { return Ok(()) };
        self.resume = Some(token);
        self.file.as_ref().map_or(Ok(()), |file| file.write(&token))
    }
}

/// Whether the server still listens to a connection that did not get what it asked for.
fn is_still_open(error: &Error) -> bool {
    matches!(error, Error::LimitReached { .. } | Error::Refused { .. } | Error::TokenTakenForName | Error::Complaint(_))
}

#[cfg(test)]
mod tests {
    use super::super::printer::Format;
    use super::*;
    use crate::client::testing::fake_server::{Listener, bounded};
    use session_core::UserId;

    /// Runs the client with this many connections against a server with a limit. The interrupt comes once this many
    /// lines are printed.
    async fn run(listener: &Listener, limit: u32, connections: u16, lines: usize) -> (Verdict, String, String) {
        let (interrupt, interrupts) = channel::unbounded();
        let mut out = Interrupting { text: String::new(), lines, interrupt };
        let mut err = Vec::new();
        let printer = Printer::new(Format::Words, &mut out, &mut err);
        let plan = plan(listener.url(), connections);
        let verdict = or(hold(&plan, printer, interrupts), listener.serve(limit)).await.expect("a writable output");
        (verdict, out.text, String::from_utf8(err).expect("text"))
    }

    fn plan(url: Url, connections: u16) -> Plan {
        Plan { connections, ..Plan::new(url, Login::User("testuser".into())) }
    }

    /// An output that interrupts the client once it has this many lines.
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
    fn one_session_is_held_until_the_interrupt() {
        bounded(async |listener: Listener| {
            let (verdict, out, err) = run(&listener, 3, 1, 3).await;
            let expected = format!(
                "connected to {}\n\
                 HELLO message from server\n\
                 AUTHENTICATE_SUCCESS testuser holds 1 connection\n\
                 BYE_SUCCESS goodbye\n",
                listener.url()
            );
            assert_eq!((verdict, &*out, &*err), (Verdict::Goodbye, &*expected, ""));
        });
    }

    #[test]
    fn a_lone_refused_session_ends_at_once() {
        bounded(async |listener: Listener| {
            let (verdict, out, err) = run(&listener, 0, 1, usize::MAX).await;
            assert_eq!(verdict, Verdict::LimitReached);
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
    fn what_is_granted_is_held_though_others_are_refused_and_the_first_come_first() {
        bounded(async |listener: Listener| {
            // Five greeted, three granted, two refused and gone: then the interrupt.
            let (verdict, out, err) = run(&listener, 3, 5, 5 * 2 + 3 + 2 * 2).await;
            assert_eq!(verdict, Verdict::LimitReached);
            for number in 1..=3 {
                let granted = format!("#{number} AUTHENTICATE_SUCCESS testuser holds {number} connection");
                assert!(out.contains(&granted), "{out}");
            }
            assert_eq!(out.lines().filter(|line| line.ends_with("BYE_SUCCESS goodbye")).count(), 5);
            let refused: Vec<_> = err.lines().map(|line| &line[..line.len().min(16)]).collect();
            assert_eq!(refused, ["error: #4 user \"", "error: #5 user \""]);
        });
    }

    #[test]
    fn a_server_that_closes_is_a_loss_told_with_its_reason() {
        bounded(async |listener: Listener| {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let plan = plan(listener.url(), 1);
            let printer = Printer::new(Format::Json, &mut out, &mut err);
            let server = async {
                let mut peer = listener.accept().await;
                peer.say(&Reply::Hello).await;
                peer.hear().await;
                let user = session_core::User { id: UserId::parse("testuser").expect("a good id"), connections: 1 };
                peer.say(&Reply::AuthenticateSuccess(user)).await;
                peer.close(1001, "Server is shutting down").await;
            };
            let (verdict, ()) = smol::future::zip(hold(&plan, printer, pending_interrupts()), server).await;
            assert_eq!(verdict.ok(), Some(Verdict::Lost));
            let out = String::from_utf8(out).expect("text");
            let closed =
                r#"{"connection":1,"type":"CLOSED","payload":{"code":1001,"words":"Server is shutting down"}}"#;
            assert_eq!(out.lines().last(), Some(closed));
        });
    }

    #[test]
    fn an_evicted_session_says_so_and_shows_no_resume_token() {
        bounded(async |listener: Listener| {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let ask = Ask { label: session_core::Name::parse("desk"), ..Ask::default() };
            let plan = Plan { ask: Some(ask.clone()), ..plan(listener.url(), 1) };
            let printer = Printer::new(Format::Json, &mut out, &mut err);
            let server = async {
                let mut peer = listener.accept().await;
                peer.say(&Reply::Hello).await;
                let user = session_core::Credential::User("testuser".into());
                assert_eq!(peer.hear().await, Some(session_core::Request::AuthenticateWith(user, Box::new(ask))));
                let grant = session_core::Admission {
                    user: session_core::User { id: UserId::parse("testuser").expect("a good id"), connections: 1 },
                    limit: session_core::Limit::default(),
                    session: session_core::NodeId::new(7).session(1),
                    resume: Some(ResumeToken::new([0xab; 32])),
                    linger: std::time::Duration::from_secs(1),
                };
                peer.say(&Reply::Admitted(Box::new(grant))).await;
                // A message of a later version may have one, too.
                peer.say_text(&format!(r#"{{"type":"NEWS","payload":{{"resume":"{}"}}}}"#, "ab".repeat(32))).await;
                peer.say(&Reply::Evicted("desk\u{1b} has ended this session".into())).await;
                peer.close(4409, "The slot of this session was taken away").await;
            };
            let (verdict, ()) = smol::future::zip(hold(&plan, printer, pending_interrupts()), server).await;
            assert_eq!(verdict.ok(), Some(Verdict::Evicted));
            let out = String::from_utf8(out).expect("text");
            let err = String::from_utf8(err).expect("text");
            assert!(!out.contains("abab") && !err.contains("abab") && !out.contains("resume"), "{out}{err}");
            assert!(!out.contains('\u{1b}') && out.contains(r#""type":"EVICTED""#), "{out}");
            assert!(out.ends_with("\"code\":4409,\"words\":\"The slot of this session was taken away\"}}\n"), "{out}");
        });
    }

    #[test]
    fn without_a_server_all_fail_and_one_says_so() {
        bounded(async |listener: Listener| {
            let plan = plan(listener.url(), 100);
            drop(listener);
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let printer = Printer::new(Format::Words, &mut out, &mut err);
            let verdict = hold(&plan, printer, pending_interrupts()).await;
            assert_eq!(verdict.ok(), Some(Verdict::Lost));
            let err = String::from_utf8(err).expect("text");
            assert!(err.starts_with("error: #1 cannot reach ws://127.0.0.1:") && err.lines().count() == 1, "{err}");
        });
    }

    #[test]
    fn the_second_interrupt_ends_at_once() {
        bounded(async |listener: Listener| {
            let plan = plan(listener.url(), 2);
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let printer = Printer::new(Format::Quiet, &mut out, &mut err);
            let (interrupt, interrupts) = channel::unbounded();
            let server = async {
                let mut peer = listener.accept().await;
                peer.say(&Reply::Hello).await;
                peer.hear().await;
                let user = session_core::User { id: UserId::parse("testuser").expect("a good id"), connections: 1 };
                peer.say(&Reply::AuthenticateSuccess(user)).await;
                interrupt.send(()).await.expect("a listening client");
                assert!(peer.hear().await.is_some(), "a BYE, which is left unanswered");
                interrupt.send(()).await.expect("a listening client");
                std::future::pending().await
            };
            let verdict = or(hold(&plan, printer, interrupts), server).await;
            assert_eq!((verdict.ok(), out), (Some(Verdict::Lost), vec![]));
        });
    }

    #[test]
    fn an_output_that_nobody_reads_is_an_interrupt() {
        struct Broken;

        impl io::Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        bounded(async |listener: Listener| {
            let plan = plan(listener.url(), 2);
            let mut err = Vec::new();
            let mut broken = Broken;
            let printer = Printer::new(Format::Json, &mut broken, &mut err);
            let verdict = or(hold(&plan, printer, pending_interrupts()), listener.serve(3)).await;
            assert_eq!((verdict.ok(), err), (Some(Verdict::Goodbye), vec![]));
        });
    }

    fn pending_interrupts() -> impl Stream<Item = ()> {
        futures_util::stream::pending()
    }
}
