//! One WebSocket, seen from the client.

use std::time::Duration;

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::protocol::{CloseFrame, Message};
use async_tungstenite::tungstenite::{self, error::ProtocolError};
use futures_util::{SinkExt as _, StreamExt as _};
use session_core::SessionId;
use session_core::protocol::{
    AuthenticateFailure, AuthenticateFailureDetails, AuthenticateOptions, AuthenticateSuccessDetails, ClientMessage,
    ServerMessage, SessionList, SessionSummary, UserSummary, WaitingDetails,
};
use smol::future::poll_once;

use super::connect_error::is_hang_up;
use super::redact::{redact_unknown, redacted_json};
use super::reply_timeout::ReplyTimeout;
use super::stream::{Stream, connect, encrypt};
use super::upgrade::upgrade;
use super::{Credentials, Error, RootCertificates, Url};

/// A WebSocket on which the server has sent HELLO.
///
/// Pings are answered only while one of its futures is polled. The server considers a connection dead that is left
/// alone for longer than its timeout (40 s by default). Dropping a connection closes the socket without a BYE.
#[derive(Debug)]
pub struct Connection {
    socket: WebSocketStream<Stream>,
    reply_timeout: Duration,
    /// The sessions that the server listed last while it denied a slot.
    listed: Option<Box<[SessionSummary]>>,
    /// The last SESSIONS_CHANGED that came between a request and its answer. It is the next event.
    changed: Option<Box<SessionList>>,
}

/// Timeouts and trusted certificate authorities. Each timeout is 10 s by default; [`Duration::MAX`] disables it.
#[derive(Debug, Clone)]
pub struct Options {
    /// From resolving the server's name to its HELLO.
    pub connect_timeout: Duration,
    /// From a request to its reply.
    pub reply_timeout: Duration,
    /// The authorities trusted for `wss://`.
    pub root_certificates: RootCertificates,
}

impl Default for Options {
    fn default() -> Self {
        let timeout = Duration::from_secs(10);
        Self { connect_timeout: timeout, reply_timeout: timeout, root_certificates: RootCertificates::SYSTEM }
    }
}

/// Something that the server sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A message of the protocol. After [`ServerMessage::Evicted`] the slot is gone, and a close with 4409 follows.
    Reply(ServerMessage),
    /// A message that this version does not know, without any resume token.
    Unknown(String),
    /// A close frame. Nothing follows it.
    Closed {
        /// The close code (RFC 6455 §7.4), 1005 if the frame has none.
        code: u16,
        /// The reason in the frame.
        reason: String,
    },
}

/// A granted slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// The user only: the answer to a plain AUTHENTICATE, and to one with a new token.
    Plain(UserSummary),
    /// Also the session's id, the limit and the resume token.
    Detailed(Box<AuthenticateSuccessDetails>),
}

impl Grant {
    /// The user with the slots held, this one included.
    #[must_use]
    pub fn user(&self) -> &UserSummary {
        match self {
            Self::Plain(user) => user,
            Self::Detailed(details) => &details.user,
        }
    }

    /// The details, if the client authenticated with an object.
    #[must_use]
    pub fn details(&self) -> Option<&AuthenticateSuccessDetails> {
        match self {
            Self::Plain(_) => None,
            Self::Detailed(details) => Some(details),
        }
    }

    pub(super) fn into_reply(self) -> ServerMessage {
        match self {
            Self::Plain(user) => ServerMessage::AuthenticateSuccess(user),
            Self::Detailed(details) => ServerMessage::AuthenticateSuccessDetailed(details),
        }
    }
}

impl Connection {
    /// Connects and waits for the server's HELLO, with the default [`Options`].
    ///
    /// # Errors
    /// As [`Connection::open_with`].
    pub async fn open(url: &Url) -> Result<Self, Error> {
        Self::open_with(url, &Options::default()).await
    }

    /// Connects, trying every address of the host in turn, and waits for the server's HELLO.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Handshake`], [`Error::TimedOut`]; and from here on, like every other method,
    /// [`Error::Closed`], [`Error::Lost`] and [`Error::Unexpected`].
    pub async fn open_with(url: &Url, options: &Options) -> Result<Self, Error> {
        let timeout = ReplyTimeout::new(options.connect_timeout);
        let stream = timeout.wait_for("TCP connection", connect(url)).await?;
        let stream = match url.server_name() {
            // Boxed because it is large and most connections are plain.
            Some(name) => {
                let encrypting = Box::pin(encrypt(url, name, &options.root_certificates, stream));
                timeout.wait_for("TLS handshake", encrypting).await?
            }
            None => Stream::Plain(stream),
        };
        let socket = timeout.wait_for("WebSocket handshake", upgrade(url, stream)).await?;
        let mut connection = Self { socket, reply_timeout: options.reply_timeout, listed: None, changed: None };
        let greeting = timeout.wait_for("HELLO", connection.next_reply()).await?;
        if let ServerMessage::Hello | ServerMessage::HelloDetailed(_) = greeting {
            Ok(connection)
        } else {
            Err(unexpected_reply("HELLO", &greeting))
        }
    }

    /// Asks for a slot for `user`. Returns the user with the slots held, including this one.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::Refused`], or [`Error::RequestFailed`] if the connection has a slot already.
    /// The connection stays usable after each of them.
    pub async fn authenticate(&mut self, user: &str) -> Result<UserSummary, Error> {
        self.authenticate_with(&Credentials::User(user.into())).await
    }

    /// Asks for a slot with a plain AUTHENTICATE, which has nothing but the credentials.
    ///
    /// # Errors
    /// As [`Connection::authenticate`]; and [`Error::TokenTakenForName`], after which the connection has a slot.
    pub async fn authenticate_with(&mut self, credentials: &Credentials) -> Result<UserSummary, Error> {
        let request = ClientMessage::Authenticate(credentials.credential());
        self.send_authenticate(credentials, &request, |_| {}).await.map(|grant| grant.user().clone())
    }

    /// Asks for a slot with an AUTHENTICATE object. After a denial, the client can choose sessions to end
    /// from [`Error::failure_details`] and ask again on this connection within 60 s. With [`AuthenticateOptions::wait`] it
    /// waits in line, as [`Connection::authenticate_in_line`] does.
    ///
    /// # Errors
    /// As [`Connection::authenticate_with`]. The error carries [`AuthenticateFailureDetails`] if the server sent them.
    pub async fn authenticate_with_options(
        &mut self,
        credentials: &Credentials,
        authenticate_options: AuthenticateOptions,
    ) -> Result<Grant, Error> {
        self.authenticate_in_line(credentials, authenticate_options, |_| {}).await
    }

    /// As [`Connection::authenticate_with_options`]. `on_waiting` hears each place in line that the server tells, always with
    /// the list of the sessions.
    ///
    /// While the client waits, the reply timeout begins when the wait that the server told last is over. Dropping the future
    /// does not leave the line: [`Connection::bye`] does, and so does dropping the connection.
    ///
    /// # Errors
    /// As [`Connection::authenticate_with_options`]. [`Error::Denied`] also when the wait is over, or as many sessions wait as
    /// may.
    pub async fn authenticate_in_line(
        &mut self,
        credentials: &Credentials,
        authenticate_options: AuthenticateOptions,
        on_waiting: impl FnMut(&WaitingDetails),
    ) -> Result<Grant, Error> {
        let request =
            ClientMessage::AuthenticateWith(credentials.detailed_credential(), Box::new(authenticate_options));
        self.send_authenticate(credentials, &request, on_waiting).await
    }

    async fn send_authenticate(
        &mut self,
        credentials: &Credentials,
        request: &ClientMessage,
        mut on_waiting: impl FnMut(&WaitingDetails),
    ) -> Result<Grant, Error> {
        const AWAITED: &str = "answer to AUTHENTICATE";

        let failed = |reason, details| authenticate_failure(credentials.user(), reason, details);
        let mut reply = self.request(request, AWAITED).await?;
        while let ServerMessage::AuthenticateWaiting(mut details) = reply {
            self.complete_list(&mut details.sessions);
            on_waiting(&details);
            let timeout = ReplyTimeout::new(self.reply_timeout.saturating_add(details.wait));
            reply = timeout.wait_for(AWAITED, self.next_answer()).await?;
        }
        let grant = match reply {
            ServerMessage::AuthenticateSuccess(user) => Grant::Plain(user),
            ServerMessage::AuthenticateSuccessDetailed(details) => Grant::Detailed(details),
            ServerMessage::AuthenticateFailure(reason) => return Err(failed(reason, None)),
            ServerMessage::AuthenticateFailureDetailed(mut details) => {
                if details.connections.is_some() {
                    self.complete_list(&mut details.sessions);
                }
                return Err(failed(details.reason.clone(), Some(details)));
            }
            ServerMessage::Error(error) => return Err(Error::RequestFailed(error)),
            ServerMessage::ErrorDetailed(details) => return Err(Error::RequestFailed(details.error)),
            other @ (ServerMessage::Hello
            | ServerMessage::HelloDetailed(_)
            | ServerMessage::Pong
            | ServerMessage::EvictedDetailed(_)
            | ServerMessage::ByeSuccess
            | ServerMessage::CheckConnectionsSuccess(_)
            | ServerMessage::ListSessionsSuccess(_)
            | ServerMessage::AuthenticateWaiting(_)
            | ServerMessage::SessionsChanged(_)
            | ServerMessage::EndSessionSuccess(_)
            | ServerMessage::Evicted(_)) => return Err(unexpected_reply(AWAITED, &other)),
        };
        if credentials.is_token_text(grant.user().id.as_str()) { Err(Error::TokenTakenForName) } else { Ok(grant) }
    }

    /// The server lists the sessions once, and then only if the list has changed.
    fn complete_list(&mut self, sessions: &mut Option<Box<[SessionSummary]>>) {
        match sessions {
            Some(sessions) => self.listed = Some(sessions.clone()),
            None => sessions.clone_from(&self.listed),
        }
    }

    /// Lists the sessions of the user, including this one.
    ///
    /// # Errors
    /// As [`Connection::check_connections`].
    pub async fn list_sessions(&mut self) -> Result<SessionList, Error> {
        self.send_list_sessions(None).await
    }

    /// Lists the sessions of the user, and begins or ceases to watch them. While the session watches,
    /// [`ServerMessage::SessionsChanged`] is the [next event](Connection::next_event) after a change.
    ///
    /// # Errors
    /// As [`Connection::check_connections`].
    pub async fn watch_sessions(&mut self, watch: bool) -> Result<SessionList, Error> {
        self.send_list_sessions(Some(watch)).await
    }

    async fn send_list_sessions(&mut self, watch: Option<bool>) -> Result<SessionList, Error> {
        let request = ClientMessage::ListSessions(watch);
        let sessions = self.request_as(&request, "answer to LIST_SESSIONS", |reply| {
            if let ServerMessage::ListSessionsSuccess(sessions) = reply { Ok(*sessions) } else { Err(reply) }
        });
        let sessions = sessions.await?;
        // The list is newer.
        self.changed = None;
        Ok(sessions)
    }

    /// Ends another session of the same user, named by its id or by its slot. Returns the user with the slots that remain.
    ///
    /// # Errors
    /// As [`Connection::check_connections`]; [`Error::RequestFailed`] also when the user has no such session, or it is this one.
    pub async fn end_session(&mut self, session: SessionId) -> Result<UserSummary, Error> {
        self.request_as(&ClientMessage::EndSession(session), "answer to END_SESSION", |reply| {
            if let ServerMessage::EndSessionSuccess(user) = reply { Ok(user) } else { Err(reply) }
        })
        .await
    }

    /// Asks who the session's user is, and how many slots the user holds.
    ///
    /// # Errors
    /// [`Error::RequestFailed`] before a successful [`Connection::authenticate`], or when the store does not answer.
    pub async fn check_connections(&mut self) -> Result<UserSummary, Error> {
        self.request_as(&ClientMessage::CheckConnections, "answer to CHECK_CONNECTIONS", |reply| {
            if let ServerMessage::CheckConnectionsSuccess(user) = reply { Ok(user) } else { Err(reply) }
        })
        .await
    }

    /// Gives the slot back: sends BYE, waits for BYE_SUCCESS and for the server to close.
    ///
    /// # Errors
    /// Those of a lost connection. The server then frees the slot once it notices.
    pub async fn bye(mut self) -> Result<(), Error> {
        let timeout = ReplyTimeout::new(self.reply_timeout);
        let farewell = async {
            self.send(ClientMessage::Bye.encode()).await?;
            // Answers to earlier requests arrive first.
            while self.next_reply().await? != ServerMessage::ByeSuccess {}
            Ok(())
        };
        timeout.wait_for("BYE_SUCCESS", farewell).await?;
        // The slot is given back already, so an end without a close frame is no error.
        let end = async {
            while let Some(Ok(_)) = self.socket.next().await {}
            Ok(())
        };
        timeout.wait_for("close after BYE_SUCCESS", end).await
    }

    /// Sends any text message. [`Connection::next_event`] returns the answer, if there is one.
    ///
    /// # Errors
    /// [`Error::Lost`], or [`Error::TimedOut`] when the server does not read.
    pub async fn send_text(&mut self, text: impl Into<String>) -> Result<(), Error> {
        let timeout = ReplyTimeout::new(self.reply_timeout);
        timeout.wait_for("end of a message being sent", self.send(text.into())).await
    }

    /// Waits without a timeout for the next message or close frame, and answers pings meanwhile.
    ///
    /// Cancel safe: dropping the future loses no event.
    ///
    /// # Errors
    /// [`Error::Lost`].
    pub async fn next_event(&mut self) -> Result<Event, Error> {
        match self.changed.take() {
            Some(sessions) => Ok(Event::Reply(ServerMessage::SessionsChanged(sessions))),
            None => self.receive().await,
        }
    }

    async fn receive(&mut self) -> Result<Event, Error> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    return Ok(ServerMessage::parse(&text)
                        .map_or_else(|_| Event::Unknown(redact_unknown(&text)), Event::Reply));
                }
                Some(Ok(Message::Binary(bytes))) => {
                    return Ok(Event::Unknown(redact_unknown(&String::from_utf8_lossy(&bytes))));
                }
                // Tungstenite answers a ping when it is next asked to read.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(frame))) => {
                    // Answers with a close frame. It is polled once and not awaited, so that dropping this future
                    // cannot lose the event. A close frame is small enough to fit.
                    let _sent: Option<Result<(), tungstenite::Error>> = poll_once(self.socket.flush()).await;
                    return Ok(close_event(frame));
                }
                Some(Err(error)) => return Err(lost_error(&error)),
                None => return Err(Error::Lost("it was closed before".into())),
            }
        }
    }

    async fn request(&mut self, request: &ClientMessage, awaited: &'static str) -> Result<ServerMessage, Error> {
        let timeout = ReplyTimeout::new(self.reply_timeout);
        let exchange = async {
            self.send(request.encode()).await?;
            self.next_answer().await
        };
        timeout.wait_for(awaited, exchange).await
    }

    /// The next answer to a request.
    async fn next_answer(&mut self) -> Result<ServerMessage, Error> {
        let reply = self.next_reply().await?;
        if let ServerMessage::Evicted(reason) = reply {
            Err(Error::Evicted(reason))
        } else if let ServerMessage::EvictedDetailed(details) = reply {
            Err(Error::Evicted(details.message))
        } else {
            Ok(reply)
        }
    }

    /// Sends a request and reads its answer with `read`, which returns any other reply as `Err`.
    async fn request_as<T>(
        &mut self,
        request: &ClientMessage,
        awaited: &'static str,
        read: impl FnOnce(ServerMessage) -> Result<T, ServerMessage>,
    ) -> Result<T, Error> {
        match read(self.request(request, awaited).await?) {
            Ok(answer) => Ok(answer),
            Err(ServerMessage::Error(error)) => Err(Error::RequestFailed(error)),
            Err(ServerMessage::ErrorDetailed(details)) => Err(Error::RequestFailed(details.error)),
            Err(other) => Err(unexpected_reply(awaited, &other)),
        }
    }

    async fn send(&mut self, text: String) -> Result<(), Error> {
        self.socket.send(Message::text(text)).await.map_err(|error| lost_error(&error))
    }

    /// The next message that this version knows. Messages of later versions are skipped. SESSIONS_CHANGED, which answers
    /// nothing, is kept for [`Connection::next_event`].
    async fn next_reply(&mut self) -> Result<ServerMessage, Error> {
        loop {
            match self.receive().await? {
                Event::Reply(ServerMessage::SessionsChanged(sessions)) => self.changed = Some(sessions),
                Event::Reply(reply) => return Ok(reply),
                Event::Unknown(_) => {}
                Event::Closed { code, reason } => return Err(Error::Closed { code, reason }),
            }
        }
    }
}

/// The error for an AUTHENTICATE that failed. The connection stays usable.
pub(super) fn authenticate_failure(
    user: Option<&str>,
    reason: AuthenticateFailure,
    details: Option<Box<AuthenticateFailureDetails>>,
) -> Error {
    let user = user.map(Into::into);
    match reason {
        // That it chose a session which is gone concerns only what it may do next.
        AuthenticateFailure::LimitReached | AuthenticateFailure::Gone | AuthenticateFailure::Banned => {
            Error::Denied { user, is_device_full: false, details }
        }
        AuthenticateFailure::DeviceFull => Error::Denied { user, is_device_full: true, details },
        reason @ (AuthenticateFailure::NotResumed(_)
        | AuthenticateFailure::BadOptions(_)
        | AuthenticateFailure::AlreadyAuthenticated
        | AuthenticateFailure::Credential(_)
        | AuthenticateFailure::NotChecked
        | AuthenticateFailure::AnotherUser
        | AuthenticateFailure::AnotherDevice
        | AuthenticateFailure::Store(_)
        | AuthenticateFailure::StoreTimedOut
        | AuthenticateFailure::Other(_)) => Error::Refused { user, reason, details },
    }
}

pub(super) fn lost_error(error: &tungstenite::Error) -> Error {
    let is_end = if let tungstenite::Error::Io(error) = error {
        is_hang_up(error.kind())
    } else {
        matches!(error, tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))
    };
    Error::Lost(if is_end { "the server went away without a word".into() } else { error.to_string() })
}

fn close_event(frame: Option<CloseFrame>) -> Event {
    /// The code for a close frame without one (RFC 6455 §7.1.5).
    const NO_CODE: u16 = 1005;

    frame.map_or_else(
        || Event::Closed { code: NO_CODE, reason: String::new() },
        |CloseFrame { code, reason }| Event::Closed { code: code.into(), reason: reason.to_string() },
    )
}

pub(super) fn unexpected_reply(awaited: &'static str, received: &ServerMessage) -> Error {
    Error::Unexpected { awaited, received: redacted_json(received) }
}

#[cfg(test)]
mod tests;
