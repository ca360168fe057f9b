//! Holds sessions of one user and prints their events.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::time::Instant;

use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt as _};
use session_core::ledger::Evict;
use session_core::protocol::{CloseReason, ServerMessage, SessionSummary, WaitingDetails};
use session_core::{ResumeToken, SessionId};
use smol::Timer;
use smol::channel::{self, Receiver, Sender};
use smol::future::or;
use smol::lock::{Mutex, MutexGuard};

use super::options::RunOptions;
use super::printer::{Line, Printer};
use super::prompt::{Answer, StdinPrompt, format_question, format_sessions};
use super::resume_file::ResumeFile;
use crate::client::reconnect::{Backoff, RetryDecision};
use crate::client::{Connection, Credentials, Error, Event, ExitReason, Grant, Token};

/// Holds the sessions of `run_options` and prints their events until all have ended.
///
/// At the first interrupt every session sends BYE. The second interrupt ends the run at once. A session that is denied,
/// refused or lost retries only if the options ask for it, as [`RetryDecision`] says. A closed output counts as an interrupt.
///
/// # Errors
/// When the output cannot be written for another reason. Every session has sent BYE by then.
pub async fn run(
    run_options: &RunOptions,
    printer: Printer<'_>,
    interrupts: impl Stream<Item = ()>,
) -> io::Result<ExitReason> {
    let (stop, stopped) = channel::bounded(1);
    let printer = RefCell::new(printer.with_numbers(run_options.connections > 1));
    let runner = Runner {
        run_options,
        printer,
        stop,
        stopped,
        server_status: Mutex::new(ServerStatus::Reachable),
        prompt: StdinPrompt::default(),
    };
    let exit_reason = or(runner.run_all(), runner.watch_signals(interrupts)).await;
    runner.printer.into_inner().finish().map(|()| exit_reason)
}

struct Runner<'a, 'p> {
    run_options: &'a RunOptions,
    printer: RefCell<Printer<'p>>,
    /// Never sends. Closing it stops every session.
    stop: Sender<Infallible>,
    stopped: Receiver<Infallible>,
    /// Locked while a session signs in: sessions sign in one after another, so that those with the lowest numbers get
    /// the slots. Unlocked when it is in line: the next one is behind it there.
    server_status: Mutex<ServerStatus>,
    prompt: StdinPrompt,
}

enum ServerStatus {
    Reachable,
    /// One session could not connect, so the others do not try.
    Unreachable,
}

impl Runner<'_, '_> {
    async fn run_all(&self) -> ExitReason {
        let mut sessions: FuturesUnordered<_> =
            (1..=self.run_options.connections).map(|number| self.run_one(number)).collect();
        let mut worst = ExitReason::Goodbye;
        while let Some(exit_reason) = sessions.next().await {
            worst = worst.max(exit_reason);
        }
        worst
    }

    async fn watch_signals(&self, interrupts: impl Stream<Item = ()>) -> ExitReason {
        let mut interrupts = pin!(interrupts.chain(futures_util::stream::pending()));
        interrupts.next().await;
        self.stop.close();
        interrupts.next().await;
        ExitReason::Lost
    }

    async fn run_one(&self, number: u16) -> ExitReason {
        let file = self
            .run_options
            .resume
            .as_ref()
            .map(|file| ResumeFile::for_connection(file, number, self.run_options.connections));
        let mut context =
            SessionContext { number, credentials: self.run_options.credentials.clone(), resume: None, file };
        match context.file.as_ref().map_or(Ok(None), ResumeFile::read) {
            Ok(token) => context.resume = token,
            Err(error) => return self.fail(number, &error).exit_reason,
        }
        let mut backoff = Backoff::default();
        loop {
            let end = match self.connect(&mut context).await {
                Ok(connection) => {
                    let begun = Instant::now();
                    let end = self.wait_until_ended(number, connection).await;
                    backoff.record_held(begun.elapsed());
                    end
                }
                Err(end) => end,
            };
            if !self.run_options.reconnect
                || (end.retry == RetryDecision::WithFreshToken && !self.has_fresh_token(&mut context))
            {
                return end.exit_reason;
            }
            let Some(wait) = backoff.next_wait(end.retry, fastrand::f64()) else { return end.exit_reason };
            self.print(number, &Line::Retry(wait));
            let waited = async {
                Timer::after(wait).await;
                Some(())
            };
            if or(self.wait_for_stop(), waited).await.is_none() {
                return ExitReason::Goodbye;
            }
        }
    }

    /// Reads the token file again. Returns whether it has another token than the expired one.
    fn has_fresh_token(&self, context: &mut SessionContext) -> bool {
        let read = self.run_options.token_file.as_ref().and_then(|file| Token::read(file).ok()).map(Credentials::Token);
        match read {
            Some(credentials) if credentials != context.credentials => {
                context.credentials = credentials;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Connects and authenticates.
    async fn connect(&self, context: &mut SessionContext) -> Result<Connection, SessionEnd> {
        let number = context.number;
        let mut server_status = self.server_status.lock().await;
        if matches!(*server_status, ServerStatus::Unreachable) {
            return Err(SessionEnd { exit_reason: ExitReason::Lost, retry: RetryDecision::Never });
        }
        let opened = or(self.wait_for_stop(), async {
            Some(Connection::open_with(&self.run_options.url, &self.run_options.options).await)
        });
        let mut connection = match opened.await {
            None => return Err(SessionEnd { exit_reason: ExitReason::Goodbye, retry: RetryDecision::Never }),
            Some(Ok(connection)) => connection,
            Some(Err(error)) => {
                if !self.run_options.reconnect {
                    *server_status = ServerStatus::Unreachable;
                }
                return Err(self.fail(number, &error));
            }
        };
        self.print(number, &Line::Connected(&self.run_options.url));
        self.print(number, &Line::Reply(&ServerMessage::Hello));
        let mut turn = Some(server_status);
        match self.authenticate(&mut connection, context, &mut turn).await {
            Ok(None) => {
                drop(turn);
                Err(self.end_with_bye(number, connection).await)
            }
            Ok(Some(grant)) => {
                let kept = context.keep_resume_token(&grant);
                self.print(number, &Line::Reply(&grant.into_reply()));
                match kept {
                    Ok(()) => Ok(connection),
                    Err(error) => {
                        drop(turn);
                        let end = self.fail(number, &error);
                        self.end_with_bye(number, connection).await;
                        Err(end)
                    }
                }
            }
            Err(error) => {
                drop(turn);
                if is_still_open(&error) {
                    self.end_with_bye(number, connection).await;
                }
                Err(SessionEnd::from_error(&error))
            }
        }
    }

    /// Authenticates, and prints why if that fails. At a terminal it shows who holds the slots, and asks which sessions
    /// to end if the server lets clients choose. `None` if a stop is requested before the answer.
    async fn authenticate(
        &self,
        connection: &mut Connection,
        context: &SessionContext,
        turn: &mut Option<MutexGuard<'_, ServerStatus>>,
    ) -> Result<Option<Grant>, Error> {
        let number = context.number;
        let mut choice = None;
        loop {
            let answered = async { self.send_authenticate(connection, context, choice, turn).await.map(Some) };
            let stopped = async { Ok(self.wait_for_stop().await) };
            let error = match or(stopped, answered).await {
                Ok(grant) => return Ok(grant),
                Err(error) => error,
            };
            let listing = error.failure_details().filter(|_| self.run_options.is_interactive);
            let listing = listing.and_then(|details| Some((details.sessions.as_deref()?, details.client_choice)));
            let Some((sessions @ [_, ..], may_choose)) = listing else {
                self.print(number, &Line::Failed(&error));
                return Err(error);
            };
            self.print(number, &Line::Denied(&error));
            self.printer.borrow_mut().print_lines(&format_sessions(sessions, may_choose));
            let chosen = if may_choose { self.choose_sessions(connection, sessions).await } else { Ok(None) };
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

    async fn send_authenticate(
        &self,
        connection: &mut Connection,
        context: &SessionContext,
        choice: Option<Box<[SessionId]>>,
        turn: &mut Option<MutexGuard<'_, ServerStatus>>,
    ) -> Result<Grant, Error> {
        if !self.run_options.is_detailed() {
            return connection.authenticate_with(&context.credentials).await.map(Grant::Plain);
        }
        let mut authenticate_options = self.run_options.authenticate_options.clone().unwrap_or_default();
        authenticate_options.resume = context.resume;
        if let Some(these) = choice {
            authenticate_options.evict = Some(Evict::Sessions(these));
            // It has waited before the question.
            authenticate_options.wait = None;
        }
        let on_waiting = |details: &WaitingDetails| {
            drop(turn.take());
            self.print(context.number, &Line::Reply(&ServerMessage::AuthenticateWaiting(Box::new(details.clone()))));
        };
        connection.authenticate_in_line(&context.credentials, authenticate_options, on_waiting).await
    }

    /// Asks which sessions to end.
    ///
    /// # Errors
    /// When the connection ends, for example because the answer took too long.
    async fn choose_sessions(
        &self,
        connection: &mut Connection,
        sessions: &[SessionSummary],
    ) -> Result<Option<Box<[SessionId]>>, Error> {
        loop {
            let print_question = || self.printer.borrow_mut().print_lines(&[format_question(sessions.len())]);
            let answered = async {
                let line = or(self.wait_for_stop(), self.prompt.read_answer(print_question)).await;
                Ok(line.map_or(Answer::EndNone, |line| Answer::parse(&line, sessions)))
            };
            let closed = async {
                loop {
                    if let Event::Closed { code, reason } = connection.next_event().await? {
                        return Err(Error::Closed { code, reason });
                    }
                }
            };
            match or(answered, closed).await? {
                Answer::EndNone => return Ok(None),
                Answer::End(these) => return Ok(Some(these)),
                Answer::Invalid => {}
            }
        }
    }

    /// Holds the slot until a stop is requested or the session ends.
    async fn wait_until_ended(&self, number: u16, mut connection: Connection) -> SessionEnd {
        if self.run_options.watch {
            match or(self.wait_for_stop(), async { Some(connection.watch_sessions(true).await) }).await {
                None => return self.end_with_bye(number, connection).await,
                Some(Ok(sessions)) => {
                    self.print(number, &Line::Reply(&ServerMessage::ListSessionsSuccess(Box::new(sessions))));
                }
                Some(Err(error)) => {
                    let end = self.fail(number, &error);
                    if is_still_open(&error) {
                        self.end_with_bye(number, connection).await;
                    }
                    return end;
                }
            }
        }
        let mut evicted = false;
        loop {
            match or(self.wait_for_stop(), async { Some(connection.next_event().await) }).await {
                None => return self.end_with_bye(number, connection).await,
                // The session has ended even if the close frame does not arrive. It must not retry.
                Some(Ok(Event::Reply(reply @ (ServerMessage::Evicted(_) | ServerMessage::EvictedDetailed(_))))) => {
                    self.print(number, &Line::Reply(&reply));
                    evicted = true;
                }
                Some(Ok(Event::Reply(reply))) => self.print(number, &Line::Reply(&reply)),
                Some(Ok(Event::Unknown(text))) => self.print(number, &Line::Unknown(&text)),
                Some(Ok(Event::Closed { code, reason })) => return self.fail(number, &Error::Closed { code, reason }),
                Some(Err(error)) => {
                    let end = self.fail(number, &error);
                    return if evicted {
                        SessionEnd { exit_reason: ExitReason::Evicted, retry: RetryDecision::Never }
                    } else {
                        end
                    };
                }
            }
        }
    }

    async fn end_with_bye(&self, number: u16, connection: Connection) -> SessionEnd {
        match connection.bye().await {
            Ok(()) => {
                self.print(number, &Line::Reply(&ServerMessage::ByeSuccess));
                SessionEnd { exit_reason: ExitReason::Goodbye, retry: RetryDecision::Never }
            }
            Err(error) => SessionEnd { retry: RetryDecision::Never, ..self.fail(number, &error) },
        }
    }

    /// Returns `None` once a stop is requested.
    async fn wait_for_stop<T>(&self) -> Option<T> {
        match self.stopped.recv().await {
            Ok(never) => match never {},
            Err(channel::RecvError) => None,
        }
    }

    fn fail(&self, number: u16, error: &Error) -> SessionEnd {
        self.print(number, &Line::Failed(error));
        SessionEnd::from_error(error)
    }

    fn print(&self, number: u16, line: &Line<'_>) {
        let mut printer = self.printer.borrow_mut();
        printer.print(number, line);
        if printer.has_failed() {
            self.stop.close();
        }
    }
}

/// How one connection ended.
struct SessionEnd {
    exit_reason: ExitReason,
    retry: RetryDecision,
}

impl SessionEnd {
    fn from_error(error: &Error) -> Self {
        let exit_reason = match error {
            Error::Denied { .. } => ExitReason::Denied,
            Error::Evicted(_) => ExitReason::Evicted,
            Error::Closed { code, .. } if CloseReason::with_code(*code).any(CloseReason::is_slot_lost) => {
                ExitReason::Evicted
            }
            Error::BadUrl(_)
            | Error::Unreachable { .. }
            | Error::Handshake { .. }
            | Error::BadCa { .. }
            | Error::BadToken { .. }
            | Error::Refused { .. }
            | Error::TokenTakenForName
            | Error::BadResumeFile { .. }
            | Error::RequestFailed(_)
            | Error::Unexpected { .. }
            | Error::Closed { .. }
            | Error::Lost(_)
            | Error::TimedOut { .. }
            | Error::NotConnected { .. } => ExitReason::Lost,
        };
        Self { exit_reason, retry: RetryDecision::from_error(error) }
    }
}

/// What a session remembers from one connection to the next.
struct SessionContext {
    number: u16,
    credentials: Credentials,
    /// Resumes the session.
    resume: Option<ResumeToken>,
    file: Option<ResumeFile>,
}

impl SessionContext {
    /// Remembers the grant's resume token, and writes it to the file if there is one.
    fn keep_resume_token(&mut self, grant: &Grant) -> Result<(), Error> {
        let Some(token) = grant.details().and_then(|details| details.resume) else { return Ok(()) };
        self.resume = Some(token);
        self.file.as_ref().map_or(Ok(()), |file| file.write(&token))
    }
}

/// Whether the connection can still be used after this failure to authenticate.
fn is_still_open(error: &Error) -> bool {
    matches!(error, Error::Denied { .. } | Error::Refused { .. } | Error::TokenTakenForName | Error::RequestFailed(_))
}
