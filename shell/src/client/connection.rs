//! One WebSocket, as its client sees it.

use std::time::Duration;

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::protocol::{CloseFrame, Message};
use async_tungstenite::tungstenite::{self, error::ProtocolError};
use futures_util::{SinkExt as _, StreamExt as _};
use session_core::{Admission, Ask, Denial, Refusal, Reply, Request, SessionId, Sessions, User};
use smol::future::poll_once;

use super::connect_error::is_hang_up;
use super::redact::{redact_unknown, redacted_json};
use super::reply_timeout::ReplyTimeout;
use super::stream::{Stream, connect, encrypt};
use super::upgrade::upgrade;
use super::{Credentials, Error, RootCertificates, Url};

/// A WebSocket that the server has greeted.
///
/// Pings are answered while something of it is awaited, and only then: a connection left alone for longer than the
/// server's patience (40 s by default) counts as dead there. Dropping it drops the socket without a BYE.
#[derive(Debug)]
pub struct Connection {
    socket: WebSocketStream<Stream>,
    reply_timeout: Duration,
}

/// How long a client waits, and whom it trusts. The default of each time is 10 s; [`Duration::MAX`] is for ever.
#[derive(Debug, Clone)]
pub struct Options {
    /// From resolving the server's name to its HELLO.
    pub connect_timeout: Duration,
    /// From a request to its reply.
    pub reply_timeout: Duration,
    /// Who vouches for a server at `wss://`.
    pub root_certificates: RootCertificates,
}

impl Default for Options {
    fn default() -> Self {
        let timeout = Duration::from_secs(10);
        Self { connect_timeout: timeout, reply_timeout: timeout, root_certificates: RootCertificates::SYSTEM }
    }
}

/// What the server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A message of the protocol. [`Reply::Evicted`] says that the slot is gone; a close with 4409 follows.
    Reply(Reply),
    /// A message this version does not understand, as it came, but for a resume token.
    Unknown(String),
    /// A close frame, the last thing it says.
    Closed {
        /// The close code (RFC 6455 §7.4), 1005 if the frame has none.
        code: u16,
        /// The frame's words.
        reason: String,
    },
}

/// A slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// Who has it: all that is said to whoever has not asked at length, or shows a fresh token.
    Plain(User),
    /// And the session's id, the limit, and what it can be taken up again with.
    Detailed(Box<Admission>),
}

impl Grant {
    /// The user with the slots held, this one included.
    #[must_use]
    pub fn user(&self) -> &User {
        match self {
            Self::Plain(user) => user,
            Self::Detailed(details) => &details.user,
        }
    }

    /// What was said at length.
    #[must_use]
    pub fn details(&self) -> Option<&Admission> {
        match self {
            Self::Plain(_) => None,
            Self::Detailed(details) => Some(details),
        }
    }

    pub(super) fn into_reply(self) -> Reply {
        match self {
            Self::Plain(user) => Reply::AuthenticateSuccess(user),
            Self::Detailed(details) => Reply::Admitted(details),
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
            // Boxed: it is large, and most are plain.
            Some(name) => {
                let encrypting = Box::pin(encrypt(url, name, &options.root_certificates, stream));
                timeout.wait_for("TLS handshake", encrypting).await?
            }
            None => Stream::Plain(stream),
        };
        let socket = timeout.wait_for("WebSocket handshake", upgrade(url, stream)).await?;
        let mut connection = Self { socket, reply_timeout: options.reply_timeout };
        let greeting = timeout.wait_for("HELLO", connection.next_reply()).await?;
        if greeting == Reply::Hello { Ok(connection) } else { Err(unexpected_reply("HELLO", &greeting)) }
    }

    /// Asks for a slot for `user`. The answer is the user with the slots held, this one included.
    ///
    /// # Errors
    /// [`Error::LimitReached`], [`Error::Refused`], or [`Error::Complaint`] when there is a slot already. After each
    /// of them the connection is as good as before.
    pub async fn authenticate(&mut self, user: &str) -> Result<User, Error> {
        self.authenticate_with(&Credentials::User(user.into())).await
    }

    /// Asks for a slot for the user that this names, or proves to be. It says nothing else, and is answered so.
    ///
    /// # Errors
    /// As [`Connection::authenticate`]; and [`Error::TokenTakenForName`], with which there is a slot.
    pub async fn authenticate_with(&mut self, credentials: &Credentials) -> Result<User, Error> {
        let request = Request::Authenticate(credentials.credential());
        self.send_authenticate(credentials, &request).await.map(|grant| grant.user().clone())
    }

    /// Asks for a slot at length: what else is asked for stands in `ask`, which may be empty. Who is refused at the limit
    /// may choose from [`Error::details`] whom to end, and ask again on this connection within 60 s.
    ///
    /// # Errors
    /// As [`Connection::authenticate_with`], with a [`Denial`] where the server said more.
    pub async fn authenticate_with_options(&mut self, credentials: &Credentials, ask: Ask) -> Result<Grant, Error> {
        let request = Request::AuthenticateWith(credentials.detailed_credential(), Box::new(ask));
        self.send_authenticate(credentials, &request).await
    }

    async fn send_authenticate(&mut self, credentials: &Credentials, request: &Request) -> Result<Grant, Error> {
        let refused = |refusal: Refusal, details: Option<Box<Denial>>| {
            let user = credentials.user().map(Into::into);
            match refusal {
                Refusal::LimitReached => Error::LimitReached { user, details },
                refusal @ (Refusal::DeviceFull
                | Refusal::Credential(_)
                | Refusal::AnotherUser
                | Refusal::Store(_)
                | Refusal::StoreSilent
                | Refusal::Other(_)) => Error::Refused { user, refusal, details },
            }
        };
        let grant = match self.request(request, "answer to AUTHENTICATE").await? {
            Reply::AuthenticateSuccess(user) => Grant::Plain(user),
            Reply::Admitted(details) => Grant::Detailed(details),
            Reply::AuthenticateFailure(refusal) => return Err(refused(refusal, None)),
            Reply::Denied(details) => return Err(refused(details.refusal.clone(), Some(details))),
            Reply::Error(complaint) => return Err(Error::RequestFailed(complaint)),
            other @ (Reply::Hello
            | Reply::ByeSuccess
            | Reply::CheckConnectionsSuccess(_)
            | Reply::ListSessionsSuccess(_)
            | Reply::EndSessionSuccess(_)
            | Reply::Evicted(_)) => return Err(unexpected_reply("answer to AUTHENTICATE", &other)),
        };
        if credentials.is_token_text(grant.user().id.as_str()) { Err(Error::TokenTakenForName) } else { Ok(grant) }
    }

    /// Asks who holds the slots of the session's user, this session included.
    ///
    /// # Errors
    /// As [`Connection::check_connections`].
    pub async fn list_sessions(&mut self) -> Result<Sessions, Error> {
        self.request_as(&Request::ListSessions, "answer to LIST_SESSIONS", |reply| {
            if let Reply::ListSessionsSuccess(sessions) = reply { Ok(*sessions) } else { Err(reply) }
        })
        .await
    }

    /// Ends another session of the same user. The answer is the user with the slots that are still held.
    ///
    /// # Errors
    /// As [`Connection::check_connections`]; [`Error::Complaint`] also when the user has no such session, or it is this one.
    pub async fn end_session(&mut self, session: SessionId) -> Result<User, Error> {
        self.request_as(&Request::EndSession(session), "answer to END_SESSION", |reply| {
            if let Reply::EndSessionSuccess(user) = reply { Ok(user) } else { Err(reply) }
        })
        .await
    }

    /// Asks who the session's user is and how many slots that user holds.
    ///
    /// # Errors
    /// [`Error::Complaint`] before a successful [`Connection::authenticate`], or when the store does not answer.
    pub async fn check_connections(&mut self) -> Result<User, Error> {
        self.request_as(&Request::CheckConnections, "answer to CHECK_CONNECTIONS", |reply| {
            if let Reply::CheckConnectionsSuccess(user) = reply { Ok(user) } else { Err(reply) }
        })
        .await
    }

    /// Gives the slot back: says BYE, waits for BYE_SUCCESS and for the server to close.
    ///
    /// # Errors
    /// Only those of a lost connection. The slot comes back then too, once the server notices.
    pub async fn bye(mut self) -> Result<(), Error> {
        let timeout = ReplyTimeout::new(self.reply_timeout);
        let farewell = async {
            self.send(Request::Bye.encode()).await?;
            // Answers to what was asked before it come first.
            while self.next_reply().await? != Reply::ByeSuccess {}
            Ok(())
        };
        timeout.wait_for("BYE_SUCCESS", farewell).await?;
        // An end without a close frame will do as well: the slot is given back.
        let end = async {
            while let Some(Ok(_)) = self.socket.next().await {}
            Ok(())
        };
        timeout.wait_for("close after BYE_SUCCESS", end).await
    }

    /// Sends a text message, whatever it says. The answer, if any, is for [`Connection::next_event`].
    ///
    /// # Errors
    /// [`Error::Lost`], or [`Error::TimedOut`] when the server does not read.
    pub async fn send_text(&mut self, text: impl Into<String>) -> Result<(), Error> {
        let timeout = ReplyTimeout::new(self.reply_timeout);
        timeout.wait_for("end of a message being sent", self.send(text.into())).await
    }

    /// Waits, for ever if need be, for the next thing the server says, and answers pings meanwhile.
    ///
    /// It may be dropped at any time and loses nothing.
    ///
    /// # Errors
    /// [`Error::Lost`].
    pub async fn next_event(&mut self) -> Result<Event, Error> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    return Ok(Reply::parse(&text).map_or_else(|_| Event::Unknown(redact_unknown(&text)), Event::Reply));
                }
                Some(Ok(Message::Binary(bytes))) => {
                    return Ok(Event::Unknown(redact_unknown(&String::from_utf8_lossy(&bytes))));
                }
                // Tungstenite answers a ping when it is next asked to read.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(frame))) => {
                    // Our close frame in answer. Tried once and not awaited, so that being dropped here cannot lose
                    // the event; few bytes always fit.
                    let _sent: Option<Result<(), tungstenite::Error>> = poll_once(self.socket.flush()).await;
                    return Ok(close_event(frame));
                }
                Some(Err(error)) => return Err(lost_error(&error)),
                None => return Err(Error::Lost("it was closed before".into())),
            }
        }
    }

    async fn request(&mut self, request: &Request, awaited: &'static str) -> Result<Reply, Error> {
        let timeout = ReplyTimeout::new(self.reply_timeout);
        let exchange = async {
            self.send(request.encode()).await?;
            let reply = self.next_reply().await?;
            if let Reply::Evicted(reason) = reply { Err(Error::Evicted(reason)) } else { Ok(reply) }
        };
        timeout.wait_for(awaited, exchange).await
    }

    /// Asks, for what `read` finds in the reply; or it hands the reply back, which is then no answer.
    async fn request_as<T>(
        &mut self,
        request: &Request,
        awaited: &'static str,
        read: impl FnOnce(Reply) -> Result<T, Reply>,
    ) -> Result<T, Error> {
        match read(self.request(request, awaited).await?) {
            Ok(answer) => Ok(answer),
            Err(Reply::Error(complaint)) => Err(Error::RequestFailed(complaint)),
            Err(other) => Err(unexpected_reply(awaited, &other)),
        }
    }

    async fn send(&mut self, text: String) -> Result<(), Error> {
        self.socket.send(Message::text(text)).await.map_err(|error| lost_error(&error))
    }

    /// The next message this version understands. Others may be there for clients that know more.
    async fn next_reply(&mut self) -> Result<Reply, Error> {
        loop {
            match self.next_event().await? {
                Event::Reply(reply) => return Ok(reply),
                Event::Unknown(_) => {}
                Event::Closed { code, reason } => return Err(Error::Closed { code, reason }),
            }
        }
    }
}

fn lost_error(error: &tungstenite::Error) -> Error {
    let is_end = if let tungstenite::Error::Io(error) = error {
        is_hang_up(error.kind())
    } else {
        matches!(error, tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))
    };
    Error::Lost(if is_end { "the server went away without a word".into() } else { error.to_string() })
}

fn close_event(frame: Option<CloseFrame>) -> Event {
    /// RFC 6455 §7.1.5: what a close frame without a code counts as.
    const NO_CODE: u16 = 1005;

    frame.map_or_else(
        || Event::Closed { code: NO_CODE, reason: String::new() },
        |CloseFrame { code, reason }| Event::Closed { code: code.into(), reason: reason.to_string() },
    )
}

fn unexpected_reply(awaited: &'static str, received: &Reply) -> Error {
    Error::Unexpected { awaited, received: redacted_json(received) }
}

#[cfg(test)]
mod tests;
