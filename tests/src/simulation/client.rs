//! A simulated client. It checks every frame that the server sends to it.

use std::collections::VecDeque;

use session_core::protocol::{
    AuthenticateFailure, ClientMessage, CloseReason, Credential, RequestError, ServerMessage,
};
use session_core::{NodeId, SessionId, UnixSeconds, UserId};

use super::authenticator;
use super::server::Server;
use super::socket::{ClientInput, ServerOutput, SimulatedSocket};
use super::trace::Trace;

/// One connection, seen from its client.
pub(super) struct Client {
    pub(super) node: NodeId,
    pub(super) session: SessionId,
    pub(super) socket: SimulatedSocket,
    /// The server granted it a slot, and the session has not ended since.
    pub(super) granted: bool,
    /// It answers pings.
    pub(super) answers_pings: bool,
    pub(super) greeted: bool,
    /// The credentials in the messages that are not answered yet.
    pub(super) unanswered: VecDeque<ShownCredential>,
    /// It waits in line, with this credential.
    pub(super) waits: Option<ShownCredential>,
    /// It sent another AUTHENTICATE while it waited. So it cannot tell which of them an answer is for.
    pub(super) is_ambiguous: bool,
    /// When the token expires that it was admitted by.
    pub(super) expires: Option<UnixSeconds>,
    pub(super) user: Option<UserId>,
    pub(super) closed: Option<CloseReason>,
    /// It received EVICTED.
    pub(super) evicted: bool,
}

/// The credential that a message shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ShownCredential {
    /// No credential.
    Nothing,
    /// A user id, which never expires.
    Name,
    /// A token that expires at this time.
    Token(UnixSeconds),
}

impl ShownCredential {
    pub(super) fn from_request(request: &ClientMessage) -> Self {
        let (ClientMessage::Authenticate(credential) | ClientMessage::AuthenticateWith(credential, _)) = request else {
            return Self::Nothing;
        };
        match credential {
            Credential::None => Self::Nothing,
            Credential::Text(_) | Credential::User(_) => Self::Name,
            Credential::Token(token) => authenticator::expiry(token).map_or(Self::Nothing, Self::Token),
        }
    }
}

impl Client {
    pub(super) fn leave(&mut self) {
        (self.granted, self.waits) = (false, None);
        self.socket.lose();
    }

    pub(super) fn send(&mut self, text: &str) {
        self.unanswered.push_back(
            ClientMessage::parse(text).as_ref().map_or(ShownCredential::Nothing, ShownCredential::from_request),
        );
        self.socket.send(ClientInput::Text(text.to_owned()));
    }

    /// Checks that the session ended when its token expired, unless the server is verifying a newer credential.
    pub(super) fn check_token(&self, server: &Server) {
        let has_come = |unix_seconds: &UnixSeconds| server.store_client().clock().has_passed(*unix_seconds);
        let renewed = self.unanswered.iter().any(|shown| match shown {
            ShownCredential::Nothing => false,
            ShownCredential::Name => true,
            ShownCredential::Token(expires) => !has_come(expires),
        });
        let expires = match self.waits {
            Some(ShownCredential::Token(expires)) if !self.is_ambiguous => Some(expires),
            Some(_) => None,
            None => self.expires,
        };
        assert!(
            renewed || !expires.as_ref().is_some_and(has_come),
            "session {} is open although its token has expired",
            self.session
        );
    }

    /// Whether it is owed an answer.
    pub(super) fn is_owed_answer(&self) -> bool {
        !self.is_ambiguous && (self.waits.is_some() || !self.unanswered.is_empty())
    }

    /// The credential that a reply is for, if the client can tell. A client that waits in line gets replies that it did not ask
    /// for: a change of its place, and in the end a grant or a denial.
    fn answered(&mut self, reply: &ServerMessage) -> Option<ShownCredential> {
        let is_wait_over = match reply {
            ServerMessage::Hello
            | ServerMessage::HelloDetailed(_)
            | ServerMessage::Evicted(_)
            | ServerMessage::EvictedDetailed(_)
            | ServerMessage::SessionsChanged(_) => return None,
            ServerMessage::AuthenticateWaiting(_) => false,
            ServerMessage::AuthenticateSuccess(_) | ServerMessage::AuthenticateSuccessDetailed(_) => true,
            ServerMessage::AuthenticateFailure(failure) if is_denial(failure) => true,
            ServerMessage::AuthenticateFailureDetailed(details) if is_denial(&details.reason) => true,
            ServerMessage::AuthenticateFailure(_)
            | ServerMessage::AuthenticateFailureDetailed(_)
            | ServerMessage::Pong
            | ServerMessage::ErrorDetailed(_)
            | ServerMessage::Error(_)
            | ServerMessage::ByeSuccess
            | ServerMessage::CheckConnectionsSuccess(_)
            | ServerMessage::ListSessionsSuccess(_)
            | ServerMessage::EndSessionSuccess(_) => return self.unanswered.pop_front(),
        };
        let Some(waited) = self.waits.take() else {
            let shown = self.unanswered.pop_front();
            self.waits = shown.filter(|_| !is_wait_over);
            return shown;
        };
        self.is_ambiguous |= self.unanswered.front().is_some_and(|shown| *shown != ShownCredential::Nothing);
        self.waits = Some(waited).filter(|_| !is_wait_over);
        Some(waited)
    }

    /// Takes a frame from the server. Returns whether the client answers it.
    pub(super) fn receive(&mut self, output: &ServerOutput, trace: &mut Trace) -> bool {
        assert!(self.closed.is_none(), "session {} receives {output:?} after its close", self.session);
        let name = match output {
            ServerOutput::Ping if self.answers_pings && self.socket.is_attentive() => {
                self.socket.send(ClientInput::Alive);
                return true;
            }
            ServerOutput::Ping => "ping unanswered",
            ServerOutput::Close(reason) => {
                (self.granted, self.waits) = (false, None);
                self.closed = Some(*reason);
                reason.message()
            }
            ServerOutput::Reply(reply) => {
                let read = ServerMessage::parse(&reply.encode()).expect("the server sends valid messages");
                // Not the messages: a time is sent in whole milliseconds.
                assert_eq!(read.encode(), reply.encode(), "the message changes by encoding");
                let is_hello = matches!(reply, ServerMessage::Hello | ServerMessage::HelloDetailed(_));
                assert_eq!(is_hello, !self.greeted, "HELLO comes first, and once");
                self.greeted = true;
                let did_wait = self.waits.is_some();
                let shown = self.answered(reply);
                let has_waited = did_wait && self.waits.is_none();
                let expires = match shown {
                    Some(ShownCredential::Token(expires)) if !self.is_ambiguous => Some(expires),
                    Some(_) | None => None,
                };
                match reply {
                    ServerMessage::Hello | ServerMessage::HelloDetailed(_) => "HELLO",
                    ServerMessage::Pong => "PONG",
                    ServerMessage::AuthenticateSuccessDetailed(admission) => {
                        assert!(!self.granted, "granted twice");
                        assert!(!self.evicted, "granted after an eviction");
                        assert_eq!(admission.session, self.session);
                        self.granted = self.socket.is_open();
                        self.user = Some(admission.user.id.clone());
                        self.expires = expires;
                        if has_waited { "granted after a wait" } else { "granted in detail" }
                    }
                    ServerMessage::AuthenticateFailureDetailed(_) if has_waited => "wait over",
                    ServerMessage::AuthenticateFailureDetailed(details) if details.is_line_full => "line full",
                    ServerMessage::AuthenticateFailureDetailed(_) => "denied in detail",
                    ServerMessage::ListSessionsSuccess(_) => "listed",
                    ServerMessage::AuthenticateWaiting(_) if did_wait => "place or list changed",
                    ServerMessage::AuthenticateWaiting(details) => {
                        assert!(!self.granted && !self.evicted, "a session with a slot waits in line");
                        assert!(details.place > 0, "the first in line has place 1");
                        "waits in line"
                    }
                    ServerMessage::SessionsChanged(_) => "sessions changed",
                    ServerMessage::EndSessionSuccess(_) => "ended another",
                    ServerMessage::Evicted(_) | ServerMessage::EvictedDetailed(_) => {
                        (self.granted, self.waits) = (false, None);
                        self.evicted = true;
                        // The server does not answer its remaining messages.
                        self.unanswered.clear();
                        "EVICTED"
                    }
                    ServerMessage::AuthenticateSuccess(user) => {
                        assert!(!self.evicted, "granted after an eviction");
                        let is_renewed = self.granted;
                        assert!(!is_renewed || self.expires.is_some() || self.is_ambiguous, "granted twice");
                        assert!(user.connections > 0, "a grant of nothing");
                        assert!(!is_renewed || self.user.as_ref() == Some(&user.id), "a session changed its user");
                        self.granted = self.socket.is_open();
                        self.user = Some(user.id.clone());
                        self.expires = expires;
                        if is_renewed { "renewed" } else { "granted" }
                    }
                    ServerMessage::AuthenticateFailure(_) => "denied",
                    ServerMessage::ByeSuccess => {
                        (self.granted, self.waits) = (false, None);
                        "BYE_SUCCESS"
                    }
                    ServerMessage::CheckConnectionsSuccess(_) => "counted",
                    ServerMessage::Error(error) => {
                        assert_ne!(*error, RequestError::RequestPending, "a message was delivered to a busy session");
                        "ERROR"
                    }
                    ServerMessage::ErrorDetailed(details) => {
                        let is_pending = details.error == RequestError::RequestPending;
                        assert!(!is_pending, "a message was delivered to a busy session");
                        if details.sessions.is_some() { "ERROR gone" } else { "ERROR" }
                    }
                }
            }
        };
        *trace.counts.entry(name).or_insert(0) += 1;
        false
    }
}

/// Whether a session that gets this answer is not in line any more.
fn is_denial(failure: &AuthenticateFailure) -> bool {
    match failure {
        AuthenticateFailure::LimitReached
        | AuthenticateFailure::Banned
        | AuthenticateFailure::DeviceFull
        | AuthenticateFailure::Gone
        | AuthenticateFailure::NotResumed(_)
        | AuthenticateFailure::Store(_)
        | AuthenticateFailure::StoreTimedOut => true,
        AuthenticateFailure::BadOptions(_)
        | AuthenticateFailure::AlreadyAuthenticated
        | AuthenticateFailure::Credential(_)
        | AuthenticateFailure::AnotherUser
        | AuthenticateFailure::AnotherDevice
        | AuthenticateFailure::NotChecked
        | AuthenticateFailure::Other(_) => false,
    }
}
