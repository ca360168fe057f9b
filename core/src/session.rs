//! The session machine: one per connection, one event in, one set of actions out.

use crate::bucket::Bucket;
use crate::id::{SessionId, UserId};
use crate::ledger::{self, Outcome};
use crate::limits::{Limit, Limits};
use crate::time::{Time, WallTime};
use crate::wire::{CloseReason, Complaint, Credential, Refusal, Rejection, Reply, Request, User};

/// One connection, from its first byte until it owes nothing any more. The [crate documentation](crate) shows how
/// it is driven and draws its states.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    limits: Limits,
    authenticate_by: Time,
    bad_messages: u16,
    /// What the peer may still say.
    pace: Bucket,
    /// When the token runs out that the session was, or is to be, let in with.
    expires: Option<WallTime>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// No slot and nothing under way.
    Anonymous,
    /// The authenticator has the credential.
    Verifying,
    /// The store has the acquire.
    Acquiring(UserId),
    /// The session has a slot. Nothing is under way.
    Live(UserId, Peer),
    /// The session has a slot, and the store has a question of the client's.
    Asking(UserId, Question),
    /// The session has a slot, and the authenticator has another credential for it.
    Renewing(UserId),
    /// The connection is over, and the answer to the command under way decides what is left to do.
    Leaving(Pending),
    /// Nothing is left to do.
    Drained,
}

/// Why the store is asked how many slots the user holds.
#[derive(Debug, Clone, Copy)]
enum Question {
    /// The client wants to know.
    Connections,
    /// The client has shown a fresh token, which runs out then, and the answer to it has the number.
    Renewal(Option<WallTime>),
}

/// What is under way while a session leaves.
#[derive(Debug)]
enum Pending {
    Verification,
    Acquire(UserId),
    Lookup(UserId),
    Renewal(UserId),
}

/// What is known of the peer of a live session.
#[derive(Debug, Clone, Copy)]
enum Peer {
    HeardAt(Time),
    PingedAt(Time),
}

/// What can happen to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// The WebSocket is open. Comes first.
    Connected,
    /// A text message. Not to be delivered while [`Session::is_busy`].
    Text(&'a str),
    /// The peer gave a sign of life that is no message: a ping or a pong.
    Alive,
    /// The peer did what the protocol forbids.
    Violation(Violation),
    /// The authenticator's answer to [`Command::Verify`].
    Verified(Result<Identity, Rejection>),
    /// The store's answer to [`Command::Store`], for every ledger command but a release.
    Stored(Outcome),
    /// The wall clock has reached [`Session::expires_at`].
    Expired,
    /// The server is going down.
    Draining,
    /// The peer has left: its close frame arrived, or the socket is lost.
    Disconnected,
    /// The [`Session::deadline`] has passed. An early tick does nothing.
    Tick,
}

/// What a peer may do that ends the connection. After any of these the stream cannot be read any further, but can
/// still be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Violation {
    /// A frame against RFC 6455: reserved bits, an unmasked frame, a stray continuation, …
    Protocol,
    /// A text message that is not UTF-8.
    InvalidUtf8,
    /// A message above the configured size.
    MessageTooBig,
    /// A binary message, which this protocol has no use for.
    BinaryMessage,
}

/// Who a verified credential belongs to, and what it says about its user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// How many sessions the user may hold, if the credential says so.
    pub limit: Option<Limit>,
    /// When the credential runs out, and with it a session that was let in with it. Only one that runs out can be
    /// followed by another.
    pub expires: Option<WallTime>,
}

impl Identity {
    /// The identity that is nothing but a user: for as long as the connection lasts, under whatever limit is in force.
    #[must_use]
    pub const fn of(user: UserId) -> Self {
        Self { user, limit: None, expires: None }
    }
}

/// What is to be done, in this order: submit the command, send the frame, close.
///
/// Destructure it whole, so that a field added later does not compile until it is served.
#[must_use = "actions not carried out are lost"]
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Actions {
    /// To submit, not to await: its answer comes back as an event. A release has no answer.
    pub command: Option<Command>,
    /// To send.
    pub send: Option<Frame>,
    /// To close the connection with, after what was sent. Nothing is sent after it.
    pub close: Option<CloseReason>,
}

/// Work for somebody else than the socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Ask the authenticator who this is. Answered by [`Event::Verified`].
    Verify(Credential),
    /// Ask the store. An acquire or a lookup is answered by [`Event::Stored`]; a release is handed over for good,
    /// whatever becomes of it is for [`Debts`](crate::Debts).
    Store(ledger::Command),
}

/// What goes to the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A text message.
    Reply(Reply),
    /// A WebSocket ping (RFC 6455 §5.5.2) without data.
    Ping,
}

impl Session {
    /// A session that begins `now`: the time to authenticate counts from here.
    #[must_use]
    pub fn new(id: SessionId, limits: &Limits, now: Time) -> Self {
        Self {
            id,
            limits: *limits,
            authenticate_by: now + limits.auth_timeout,
            bad_messages: 0,
            pace: Bucket::default(),
            expires: None,
            state: State::Anonymous,
        }
    }

    /// The session's id.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Whether a command is under way. Until its answer comes no message is to be delivered; every other event is.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        match self.state {
            State::Verifying | State::Acquiring(_) | State::Asking(..) | State::Renewing(_) | State::Leaving(_) => true,
            State::Anonymous | State::Live(..) | State::Drained => false,
        }
    }

    /// Whether the session owes nothing and will never act again. It must be driven until then.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        matches!(self.state, State::Drained)
    }

    /// When [`Event::Tick`] is due. May change with every event.
    ///
    /// There is none while a command is under way: then it is not the peer who keeps others waiting, and the store's
    /// own time limit bounds the wait.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        match self.state {
            State::Anonymous => Some(self.authenticate_by),
            State::Live(_, Peer::HeardAt(at)) => Some(at + self.limits.ping_interval),
            State::Live(_, Peer::PingedAt(at)) => Some(at + self.limits.pong_timeout),
            State::Verifying
            | State::Acquiring(_)
            | State::Asking(..)
            | State::Renewing(_)
            | State::Leaving(_)
            | State::Drained => None,
        }
    }

    /// When, by the wall clock, [`Event::Expired`] is due. May change with every event.
    ///
    /// There is none while the authenticator has another credential: whether the session goes on is for its answer.
    #[must_use]
    pub fn expires_at(&self) -> Option<WallTime> {
        match self.state {
            State::Acquiring(_) | State::Live(..) | State::Asking(_, Question::Connections) => self.expires,
            State::Asking(_, Question::Renewal(expires)) => expires,
            State::Anonymous | State::Verifying | State::Renewing(_) | State::Leaving(_) | State::Drained => None,
        }
    }

    /// Takes one event and says what is to be done. It cannot fail: whatever a client sends becomes a reply or a
    /// close, and an event that makes no sense in the present state changes nothing.
    pub fn handle(&mut self, event: Event<'_>, now: Time) -> Actions {
        match event {
            Event::Connected => self.connected(),
            Event::Text(text) => self.text(text, now),
            Event::Alive => self.alive(now),
            Event::Violation(violation) => self.violation(violation),
            Event::Verified(verdict) => self.verified(verdict, now),
            Event::Stored(outcome) => self.stored(outcome, now),
            Event::Expired => self.expired(),
            Event::Draining => self.leave(Some(CloseReason::ShuttingDown)),
            Event::Disconnected => self.leave(None),
            Event::Tick => self.tick(now),
        }
    }

    fn connected(&self) -> Actions {
        match self.state {
            State::Anonymous => send(Reply::Hello),
            State::Verifying
            | State::Acquiring(_)
            | State::Live(..)
            | State::Asking(..)
            | State::Renewing(_)
            | State::Leaving(_)
            | State::Drained => Actions::default(),
        }
    }

    fn text(&mut self, text: &str, now: Time) -> Actions {
        match &mut self.state {
            State::Anonymous if now >= self.authenticate_by => return self.leave(Some(CloseReason::NotAuthenticated)),
            State::Anonymous => {}
            State::Live(_, peer) => *peer = Peer::HeardAt(now),
            State::Verifying | State::Acquiring(_) | State::Asking(..) | State::Renewing(_) => {
                return complain(Complaint::Impatient);
            }
            State::Leaving(_) | State::Drained => return Actions::default(),
        }
        if !self.keeps_pace(now) {
            return self.leave(Some(CloseReason::TooManyMessages));
        }
        match Request::parse(text) {
            Ok(Request::Authenticate(credential)) => self.authenticate(credential),
            Ok(Request::CheckConnections) => self.check_connections(),
            Ok(Request::Bye) => {
                Actions { send: Some(Frame::Reply(Reply::ByeSuccess)), ..self.leave(Some(CloseReason::Bye)) }
            }
            Err(complaint) => self.bad_message(Reply::Error(complaint)),
        }
    }

    fn authenticate(&mut self, credential: Credential) -> Actions {
        self.state = match core::mem::replace(&mut self.state, State::Drained) {
            State::Anonymous => State::Verifying,
            State::Live(user, _) if self.expires.is_some() => State::Renewing(user),
            state @ State::Live(..) => {
                self.state = state;
                return self.bad_message(Reply::Error(Complaint::AlreadyAuthenticated));
            }
            state @ (State::Verifying
            | State::Acquiring(_)
            | State::Asking(..)
            | State::Renewing(_)
            | State::Leaving(_)
            | State::Drained) => {
                self.state = state;
                return Actions::default();
            }
        };
        Actions { command: Some(Command::Verify(credential)), ..Actions::default() }
    }

    fn check_connections(&mut self) -> Actions {
        match core::mem::replace(&mut self.state, State::Drained) {
            State::Live(user, _) => self.ask(user, Question::Connections),
            state @ State::Anonymous => {
                self.state = state;
                self.bad_message(Reply::Error(Complaint::NotAuthenticated))
            }
            state @ (State::Verifying
            | State::Acquiring(_)
            | State::Asking(..)
            | State::Renewing(_)
            | State::Leaving(_)
            | State::Drained) => {
                self.state = state;
                Actions::default()
            }
        }
    }

    fn ask(&mut self, user: UserId, question: Question) -> Actions {
        self.state = State::Asking(user.clone(), question);
        store(ledger::Command::Lookup { user, session: self.id })
    }

    /// Whether the peer may say something now, and takes note that it does.
    fn keeps_pace(&mut self, now: Time) -> bool {
        self.limits.max_message_rate.is_none_or(|rate| self.pace.take(rate, now).is_ok())
    }

    /// Answers a message that makes no sense here, and closes if it was one too many.
    fn bad_message(&mut self, reply: Reply) -> Actions {
        let actions = if self.limits.max_bad_messages.is_some_and(|most| self.bad_messages >= most) {
            self.leave(Some(CloseReason::TooManyBadMessages))
        } else {
            self.bad_messages = self.bad_messages.saturating_add(1);
            Actions::default()
        };
        Actions { send: Some(Frame::Reply(reply)), ..actions }
    }

    fn alive(&mut self, now: Time) -> Actions {
        match &mut self.state {
            State::Live(_, peer) => *peer = Peer::HeardAt(now),
            State::Anonymous | State::Verifying | State::Acquiring(_) | State::Asking(..) | State::Renewing(_) => {}
            State::Leaving(_) | State::Drained => return Actions::default(),
        }
        if self.keeps_pace(now) { Actions::default() } else { self.leave(Some(CloseReason::TooManyMessages)) }
    }

    fn violation(&mut self, violation: Violation) -> Actions {
        let (complaint, reason) = match violation {
            Violation::Protocol => (Complaint::ProtocolError, CloseReason::ProtocolError),
            Violation::InvalidUtf8 => (Complaint::InvalidUtf8, CloseReason::InvalidUtf8),
            Violation::MessageTooBig => (Complaint::MessageTooBig, CloseReason::MessageTooBig),
            Violation::BinaryMessage => (Complaint::BinaryMessage, CloseReason::BinaryMessage),
        };
        match self.state {
            State::Leaving(_) | State::Drained => Actions::default(),
            State::Anonymous
            | State::Verifying
            | State::Acquiring(_)
            | State::Live(..)
            | State::Asking(..)
            | State::Renewing(_) => {
                Actions { send: Some(Frame::Reply(Reply::Error(complaint))), ..self.leave(Some(reason)) }
            }
        }
    }

    fn verified(&mut self, verdict: Result<Identity, Rejection>, now: Time) -> Actions {
        match core::mem::replace(&mut self.state, State::Drained) {
            State::Verifying => match verdict {
                Ok(Identity { user, limit, expires }) => {
                    self.expires = expires;
                    self.state = State::Acquiring(user.clone());
                    store(ledger::Command::Acquire { user, session: self.id, limit, at: now })
                }
                Err(rejection) => {
                    self.state = State::Anonymous;
                    self.bad_message(Reply::AuthenticateFailure(Refusal::Credential(rejection)))
                }
            },
            State::Renewing(user) => {
                let refusal = match verdict {
                    Ok(identity) if identity.user == user => {
                        return self.ask(user, Question::Renewal(identity.expires));
                    }
                    Ok(_) => Refusal::AnotherUser,
                    Err(rejection) => Refusal::Credential(rejection),
                };
                self.state = State::Live(user, Peer::HeardAt(now));
                self.bad_message(Reply::AuthenticateFailure(refusal))
            }
            State::Leaving(Pending::Verification) => Actions::default(),
            State::Leaving(Pending::Renewal(user)) => self.release(user),
            state @ (State::Anonymous
            | State::Acquiring(_)
            | State::Live(..)
            | State::Asking(..)
            | State::Leaving(Pending::Acquire(_) | Pending::Lookup(_))
            | State::Drained) => {
                self.state = state;
                Actions::default()
            }
        }
    }

    fn stored(&mut self, outcome: Outcome, now: Time) -> Actions {
        match core::mem::replace(&mut self.state, State::Drained) {
            State::Acquiring(user) => self.acquired(user, outcome, now),
            State::Asking(user, question) => self.looked_up(user, question, outcome, now),
            State::Leaving(Pending::Acquire(user)) => match outcome {
                Outcome::Granted { .. } => self.release(user),
                // Whatever may be in the store after these is owed by `Debts`, not by the session.
                Outcome::Denied
                | Outcome::Released
                | Outcome::Found { .. }
                | Outcome::Rejected(_)
                | Outcome::Unknown => Actions::default(),
            },
            State::Leaving(Pending::Lookup(user)) => self.release(user),
            state @ (State::Anonymous
            | State::Verifying
            | State::Renewing(_)
            | State::Live(..)
            | State::Leaving(Pending::Verification | Pending::Renewal(_))
            | State::Drained) => {
                self.state = state;
                Actions::default()
            }
        }
    }

    /// The acquire of a session that still wants it was answered. The state is `Drained` until this says otherwise.
    fn acquired(&mut self, user: UserId, outcome: Outcome, now: Time) -> Actions {
        let refusal = match outcome {
            Outcome::Granted { connections } => {
                self.state = State::Live(user.clone(), Peer::HeardAt(now));
                return send(Reply::AuthenticateSuccess(User { id: user, connections }));
            }
            Outcome::Denied => {
                self.state = State::Anonymous;
                return send(Reply::AuthenticateFailure(Refusal::LimitReached));
            }
            Outcome::Rejected(cause) => Refusal::Store(cause),
            // An answer to another question is as good as none: `Debts` sees it so, too.
            Outcome::Unknown | Outcome::Released | Outcome::Found { .. } => Refusal::StoreSilent,
        };
        Actions {
            command: None,
            send: Some(Frame::Reply(Reply::AuthenticateFailure(refusal))),
            close: Some(CloseReason::TryAgainLater),
        }
    }

    fn looked_up(&mut self, user: UserId, question: Question, outcome: Outcome, now: Time) -> Actions {
        self.state = State::Live(user.clone(), Peer::HeardAt(now));
        let found = match outcome {
            Outcome::Found { connections } => Ok(User { id: user, connections }),
            Outcome::Rejected(cause) => Err(Some(cause)),
            Outcome::Granted { .. } | Outcome::Denied | Outcome::Released | Outcome::Unknown => Err(None),
        };
        send(match (question, found) {
            (Question::Connections, Ok(user)) => Reply::CheckConnectionsSuccess(user),
            (Question::Connections, Err(cause)) => Reply::Error(cause.map_or(Complaint::StoreSilent, Complaint::Store)),
            (Question::Renewal(expires), Ok(user)) => {
                self.expires = expires;
                Reply::AuthenticateSuccess(user)
            }
            // The session goes on with the token it had.
            (Question::Renewal(_), Err(cause)) => {
                Reply::AuthenticateFailure(cause.map_or(Refusal::StoreSilent, Refusal::Store))
            }
        })
    }

    fn expired(&mut self) -> Actions {
        if self.expires_at().is_none() {
            return Actions::default();
        }
        self.leave(Some(CloseReason::TokenExpired))
    }

    fn tick(&mut self, now: Time) -> Actions {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Actions::default();
        }
        match &mut self.state {
            State::Anonymous => self.leave(Some(CloseReason::NotAuthenticated)),
            State::Live(_, Peer::PingedAt(_)) => self.leave(Some(CloseReason::PeerSilent)),
            State::Live(_, peer @ Peer::HeardAt(_)) => {
                *peer = Peer::PingedAt(now);
                Actions { send: Some(Frame::Ping), ..Actions::default() }
            }
            State::Verifying
            | State::Acquiring(_)
            | State::Asking(..)
            | State::Renewing(_)
            | State::Leaving(_)
            | State::Drained => Actions::default(),
        }
    }

    /// Ends the connection: gives the slot back, or remembers to once the command under way is answered.
    fn leave(&mut self, close: Option<CloseReason>) -> Actions {
        let (state, command) = match core::mem::replace(&mut self.state, State::Drained) {
            State::Anonymous => (State::Drained, None),
            State::Live(user, _) => (State::Drained, self.release(user).command),
            State::Verifying => (State::Leaving(Pending::Verification), None),
            State::Acquiring(user) => (State::Leaving(Pending::Acquire(user)), None),
            State::Asking(user, _) => (State::Leaving(Pending::Lookup(user)), None),
            State::Renewing(user) => (State::Leaving(Pending::Renewal(user)), None),
            state @ (State::Leaving(_) | State::Drained) => {
                self.state = state;
                return Actions::default();
            }
        };
        self.state = state;
        Actions { command, send: None, close }
    }

    fn release(&self, user: UserId) -> Actions {
        store(ledger::Command::Release { user, session: self.id })
    }
}

fn store(command: ledger::Command) -> Actions {
    Actions { command: Some(Command::Store(command)), ..Actions::default() }
}

fn send(reply: Reply) -> Actions {
    Actions { send: Some(Frame::Reply(reply)), ..Actions::default() }
}

fn complain(complaint: Complaint) -> Actions {
    send(Reply::Error(complaint))
}
