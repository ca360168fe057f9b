//! What the `client` binary does: holds sessions of one user until it is told to leave.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::time::Instant;

use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt as _};
use session_core::{Evict, Refusal, Reply, ResumeToken, SessionId, SessionInfo};
use smol::Timer;
use smol::channel::{self, Receiver, Sender};
use smol::future::or;
use smol::lock::Mutex;

use super::options::Plan;
use super::printer::{Line, Printer};
use super::prompt::{Answer, Person, listed, question};
use super::resume_file::ResumeFile;
use crate::client::reconnect::{Again, Backoff};
use crate::client::{Connection, Error, Event, Grant, Login, Token, Verdict};

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
            Error::BadUrl(_)
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
