//! Sessions in an application on axum and tokio: a WebSocket route on which each user may hold three sessions.
//!
//! ```sh
//! cargo run -p session-core --example axum
//! ```
//!
//! Any name signs in, and the store is a map in memory. In `tests.rs` 200 clients of one user sign in at once. The page
//! `embedding` of `cargo doc -p session-core --open` says why each step is where it is.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::routing::any;
use session_core::leaving_tracker::LeavingTracker;
use session_core::ledger::{
    self, AdmissionPolicy, EndedSession, Liveness, Outcome, SessionHint, StoreCommand, UserRecord,
};
use session_core::protocol::{Credential, CredentialError};
use session_core::release_tracker::ReleaseTracker;
use session_core::session::{Actions, Effect, Event, Frame, Identity, Session, SessionSettings, Violation};
use session_core::{NodeId, SessionId, Timestamp, UserId};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

#[cfg(test)]
mod tests;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let server = Server::new(AdmissionPolicy::default());
    let listener = TcpListener::bind(("127.0.0.1", 3000)).await?;
    let interrupted = async { tokio::signal::ctrl_c().await.expect("the system has signals") };
    axum::serve(listener, router(&server)).with_graceful_shutdown(interrupted).await?;
    // No connection is accepted any more. A client that takes too long is cut by the end of the process.
    let _is_cut = timeout(Duration::from_secs(10), server.shut_down()).await.is_err();
    Ok(())
}

fn router(server: &Arc<Server>) -> Router {
    let upgrade = |State(server): State<Arc<Server>>, upgrade: WebSocketUpgrade| async {
        upgrade.max_message_size(Server::MAX_MESSAGE_BYTES).on_upgrade(|socket| Connection::run(server, socket))
    };
    Router::new().route("/", any(upgrade)).with_state(Arc::clone(server))
}

/// What all connections share.
struct Server {
    policy: AdmissionPolicy,
    settings: SessionSettings,
    /// The same moment by both clocks. From then on only the monotonic one is read.
    started: (Instant, Timestamp),
    shared: Mutex<Shared>,
}

/// The store, who is live, and who is leaving. One lock for all: so the others learn of what the store did in the order in
/// which it did it.
struct Shared {
    records: BTreeMap<UserId, UserRecord>,
    releases: ReleaseTracker,
    leaving: LeavingTracker,
    live: BTreeMap<SessionId, Live>,
    last_number: u64,
    is_draining: bool,
}

/// A connection in the registry.
struct Live {
    /// Takes the store's answer, the loss of the slot, and the shutdown. It never holds more than one of each.
    mailbox: UnboundedSender<Event<'static>>,
    /// A grant that the client must not learn of yet.
    held: Option<Outcome>,
    /// Whether the client is served no more.
    is_gone: bool,
}

impl Server {
    const MAX_MESSAGE_BYTES: usize = 16 * 1024;
    const MAX_SESSIONS: usize = 100_000;

    fn new(policy: AdmissionPolicy) -> Arc<Self> {
        let since_epoch = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let shared = Shared {
            records: BTreeMap::new(),
            releases: ReleaseTracker::new(Self::MAX_SESSIONS),
            leaving: LeavingTracker::default(),
            live: BTreeMap::new(),
            last_number: 0,
            is_draining: false,
        };
        Arc::new(Self {
            policy,
            settings: SessionSettings::default(),
            started: (Instant::now(), Timestamp::from_epoch(since_epoch)),
            shared: Mutex::new(shared),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Timestamp {
        self.started.1 + self.started.0.elapsed()
    }

    fn instant(&self, at: Timestamp) -> Instant {
        self.started.0 + at.since(self.started.1)
    }

    /// Gives a connection an id that was never used before, and a mailbox.
    fn register(&self) -> (SessionId, UnboundedReceiver<Event<'static>>) {
        let (mailbox, events) = mpsc::unbounded_channel();
        let mut shared = self.lock();
        shared.last_number += 1;
        // The node is this start of the process. If the store outlives the process, draw its number at random.
        let id = NodeId::new(1).session(shared.last_number);
        let live = Live { mailbox, held: None, is_gone: false };
        if shared.is_draining {
            live.tell(Event::Draining);
        }
        shared.live.insert(id, live);
        (id, events)
    }

    /// Applies a command, tells those who lost their slots, and then answers. This store never fails and answers at once. Another
    /// one needs time limits, and a task that retries releases.
    fn submit(&self, command: &StoreCommand) {
        let (user, now) = (command.user(), self.now());
        let shared = &mut *self.lock();
        let outcome = match shared.releases.begin(command) {
            Err(error) => Outcome::Rejected(error),
            Ok(ticket) => {
                let record = shared.records.entry(user.clone()).or_default();
                let result = ledger::apply(user, record, command, &self.policy, |_| Liveness::Alive);
                if record.is_empty() {
                    shared.records.remove(user);
                }
                shared.releases.answered(&ticket, &result.outcome, now);
                for ended in result.ended {
                    shared.tell_ended(user, ended, now);
                }
                for SessionHint { session, hint } in result.hints {
                    if let Some(live) = shared.live.get(&session) {
                        live.tell(Event::Hinted(hint));
                    }
                }
                result.outcome
            }
        };
        if !command.is_release() {
            shared.answer(user, command.session(), outcome);
        }
    }

    /// The server closes this session. If the session may have a slot, it is leaving: returns when to cut its socket.
    fn leave(&self, user: &UserId, session: SessionId) -> Option<Instant> {
        let now = self.now();
        let mut shared = self.lock();
        if shared.releases.is_settled(session) {
            return None;
        }
        Some(self.instant(shared.leaving.slot_lost(user, session, now)))
    }

    /// Closes all sessions, and waits until their clients are told and the store has their slots back.
    async fn shut_down(&self) {
        {
            let mut shared = self.lock();
            shared.is_draining = true;
            shared.live.values().for_each(|live| live.tell(Event::Draining));
        }
        while !self.is_idle() {
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn is_idle(&self) -> bool {
        let shared = self.lock();
        shared.live.is_empty() && shared.releases.tracked() == 0
    }
}

impl Shared {
    /// A session lost its slot to another one.
    fn tell_ended(&mut self, user: &UserId, ended: EndedSession, now: Timestamp) {
        let EndedSession { session, reason } = ended;
        // For a connection that has left, nobody would call `gone`.
        let Some(live) = self.live.get(&session) else { return };
        let _cut_at = self.leaving.slot_lost(user, session, now);
        live.tell(Event::Ended(reason));
        if live.is_gone {
            self.gone(session);
        }
    }

    fn answer(&mut self, user: &UserId, session: SessionId, outcome: Outcome) {
        let Some(live) = self.live.get_mut(&session) else { return };
        let is_granted = matches!(outcome, Outcome::Granted { .. });
        if is_granted && !live.is_gone && self.leaving.must_wait(user, session) {
            live.held = Some(outcome);
        } else {
            live.tell(Event::Stored(outcome));
        }
    }

    /// The client is served no more. Passes on the grants that waited for this.
    fn gone(&mut self, session: SessionId) {
        if let Some(live) = self.live.get_mut(&session) {
            live.is_gone = true;
        }
        for ready in self.leaving.gone(session) {
            let Some(live) = self.live.get_mut(&ready) else { continue };
            let outcome = live.held.take().expect("the grant of a session that waits is held");
            live.tell(Event::Stored(outcome));
        }
    }
}

impl Live {
    fn tell(&self, event: Event<'static>) {
        // A connection that has ended needs no event.
        let _is_told = self.mailbox.send(event).is_ok();
    }
}

/// One connection: its session, and its socket as long as the client is served.
struct Connection {
    server: Arc<Server>,
    session: Session,
    /// The user of the slot that the session has or asked for.
    user: Option<UserId>,
    socket: Option<WebSocket>,
    /// When to cut the socket, if the session is leaving.
    cut_at: Option<Instant>,
}

impl Connection {
    async fn run(server: Arc<Server>, socket: WebSocket) {
        let (id, mut mailbox) = server.register();
        let session = Session::new(id, &server.settings, server.now());
        let mut connection = Self { server, session, user: None, socket: Some(socket), cut_at: None };
        connection.handle(Event::Connected).await;
        // A message that came while the session was busy. Until it is handled, nothing more is read.
        let mut unhandled: Option<Utf8Bytes> = None;
        while !connection.session.is_finished() {
            if !connection.session.is_busy()
                && let Some(text) = unhandled.take()
            {
                connection.handle(Event::Text(&text)).await;
                continue;
            }
            let deadline = connection.session.deadline().map(|at| connection.server.instant(at));
            tokio::select! {
                // The timer comes last: a client whose answer has arrived is not silent.
                biased;
                Some(event) = mailbox.recv() => connection.handle(event).await,
                message = read(&mut connection.socket), if unhandled.is_none() => match message {
                    Some(Ok(Message::Text(text))) => unhandled = Some(text),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => connection.handle(Event::Alive).await,
                    Some(Ok(Message::Binary(_))) => {
                        connection.handle(Event::Violation(Violation::BinaryMessage)).await;
                    }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => {
                        connection.gone();
                        connection.handle(Event::Disconnected).await;
                    }
                },
                () = wait_until(deadline) => connection.handle(Event::Tick).await,
            }
        }
    }

    /// Passes an event to the session and carries out its actions.
    async fn handle(&mut self, event: Event<'_>) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let Actions { effect, send, close } = self.session.handle(event, self.server.now());
            // Before the effect, which may give the slot up.
            match (close, &self.user) {
                (Some(reason), Some(user)) if !reason.is_by_client() => {
                    self.cut_at = self.server.leave(user, self.session.id());
                }
                (Some(_) | None, _) => {}
            }
            match effect {
                None => {}
                Some(Effect::Verify(credential)) => next = Some(Event::Verified(verify(&credential))),
                Some(Effect::Store(command)) => {
                    self.user = Some(command.user().clone());
                    self.server.submit(&command);
                }
            }
            let is_lost = match send {
                None => false,
                Some(Frame::Message(message)) => self.write(Message::text(message.encode())).await.is_err(),
                Some(Frame::Ping) => self.write(Message::Ping(Bytes::new())).await.is_err(),
            };
            if let Some(reason) = close {
                let frame = CloseFrame { code: reason.code(), reason: reason.message().into() };
                if self.write(Message::Close(Some(frame))).await.is_ok() {
                    tokio::spawn(discard(self.socket.take()));
                }
            }
            if close.is_some() || is_lost {
                self.gone();
                // After a close it changes nothing.
                next = Some(Event::Disconnected);
            }
        }
    }

    /// Writes a message. Nothing else happens meanwhile, so the client gets a limited time to take it.
    async fn write(&mut self, message: Message) -> Result<(), Lost> {
        let until = self.cut_at.unwrap_or_else(|| Instant::now() + LeavingTracker::CUT_AFTER);
        let socket = self.socket.as_mut().ok_or(Lost)?;
        timeout_at(until, socket.send(message)).await.map_err(|_| Lost)?.map_err(|_| Lost)
    }

    /// The client was told that it is out, or its socket is lost. From now on it is not served.
    fn gone(&mut self) {
        self.socket = None;
        self.server.lock().gone(self.session.id());
    }
}

/// Also if the task panics: then the session gives up its slot here.
impl Drop for Connection {
    fn drop(&mut self) {
        let session = self.session.id();
        let mut shared = self.server.lock();
        shared.live.remove(&session);
        shared.gone(session);
        let is_settled = shared.releases.is_settled(session);
        drop(shared);
        if let Some(user) = self.user.take().filter(|_| !is_settled) {
            self.server.submit(&StoreCommand::Release { user, session });
        }
    }
}

/// The client does not take what is written to it, or its socket has an error.
struct Lost;

/// Anybody may be anybody: the credential is the user id. An application checks a token here. If tokens expire, `run` also waits
/// for `Session::expires_at`.
fn verify(credential: &Credential) -> Result<Identity, CredentialError> {
    let user = UserId::parse(credential.user().ok_or(CredentialError::NotText)?).map_err(CredentialError::UserId)?;
    Ok(Identity::for_user(user))
}

async fn read(socket: &mut Option<WebSocket>) -> Option<Result<Message, axum::Error>> {
    match socket {
        Some(socket) => socket.recv().await,
        None => pending().await,
    }
}

/// Reads until the client has closed as well. A system may drop what was written last if a socket is closed before all is read.
async fn discard(mut socket: Option<WebSocket>) {
    let _is_late =
        timeout(LeavingTracker::CUT_AFTER, async { while let Some(Ok(_)) = read(&mut socket).await {} }).await;
}

async fn wait_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}
