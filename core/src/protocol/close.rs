//! The WebSocket close codes that the server sends.

use core::fmt;

/// Why the server closes a connection: a close code for programs ([RFC 6455 §7.4]) and a reason phrase for people.
///
/// Codes from 4000 on belong to this protocol.
///
/// [RFC 6455 §7.4]: https://www.rfc-editor.org/rfc/rfc6455#section-7.4
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The client sent BYE.
    Bye,
    /// The server is shutting down. The client may reconnect, with backoff.
    ShuttingDown,
    /// The peer broke the WebSocket protocol.
    ProtocolError,
    /// The peer sent a binary message.
    BinaryMessage,
    /// The peer sent a text message that is not UTF-8.
    InvalidUtf8,
    /// The peer sent more invalid messages than the limit allows.
    TooManyBadMessages,
    /// The peer sent more messages in a second than the limit allows.
    TooManyMessages,
    /// The peer sent a message longer than the limit allows.
    MessageTooBig,
    /// The server failed.
    Internal,
    /// No session can be admitted now: the store or the authenticator did not answer, the store is full, or the user has too
    /// many connections. The client may reconnect, with backoff.
    TryAgainLater,
    /// The client did not authenticate in time.
    NotAuthenticated,
    /// The client's token has expired. The client may reconnect with a new one.
    TokenExpired,
    /// The peer was silent for too long and did not answer a ping.
    PeerSilent,
    /// Another session of the user, or the operator, ended this session. The client must not reconnect by itself: it could
    /// evict the session that has the slot now.
    Evicted,
    /// The client resumed the session on another connection.
    Resumed,
}

impl CloseReason {
    /// Every reason, in the order of its code.
    pub const ALL: [Self; 15] = [
        Self::Bye,
        Self::ShuttingDown,
        Self::ProtocolError,
        Self::BinaryMessage,
        Self::InvalidUtf8,
        Self::TooManyBadMessages,
        Self::TooManyMessages,
        Self::MessageTooBig,
        Self::Internal,
        Self::TryAgainLater,
        Self::NotAuthenticated,
        Self::TokenExpired,
        Self::PeerSilent,
        Self::Evicted,
        Self::Resumed,
    ];

    /// The WebSocket close code, 1000 to 4999.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Bye => 1000,
            Self::ShuttingDown => 1001,
            Self::ProtocolError => 1002,
            Self::BinaryMessage => 1003,
            Self::InvalidUtf8 => 1007,
            Self::TooManyBadMessages | Self::TooManyMessages => 1008,
            Self::MessageTooBig => 1009,
            Self::Internal => 1011,
            Self::TryAgainLater => 1013,
            Self::NotAuthenticated => 4401,
            Self::TokenExpired => 4402,
            Self::PeerSilent => 4408,
            Self::Evicted => 4409,
            Self::Resumed => 4410,
        }
    }

    /// Whether a resumable session keeps its slot for its grace period after a close with this reason. After a lost socket it
    /// does as well.
    #[must_use]
    pub const fn keeps_slot(self) -> bool {
        match self {
            Self::ShuttingDown | Self::PeerSilent => true,
            Self::Bye
            | Self::ProtocolError
            | Self::BinaryMessage
            | Self::InvalidUtf8
            | Self::TooManyBadMessages
            | Self::TooManyMessages
            | Self::MessageTooBig
            | Self::Internal
            | Self::TryAgainLater
            | Self::NotAuthenticated
            | Self::TokenExpired
            | Self::Evicted
            | Self::Resumed => false,
        }
    }

    /// Whether the client itself says that it is out. It counts as told then, even before the close frame is written. After
    /// any other close it counts as served until then
    /// ([`LeavingTracker`](crate::leaving_tracker::LeavingTracker)).
    #[must_use]
    pub const fn is_by_client(self) -> bool {
        match self {
            Self::Bye => true,
            Self::ShuttingDown
            | Self::ProtocolError
            | Self::BinaryMessage
            | Self::InvalidUtf8
            | Self::TooManyBadMessages
            | Self::TooManyMessages
            | Self::MessageTooBig
            | Self::Internal
            | Self::TryAgainLater
            | Self::NotAuthenticated
            | Self::TokenExpired
            | Self::PeerSilent
            | Self::Evicted
            | Self::Resumed => false,
        }
    }

    /// The reason phrase of the close frame, at most 123 bytes as RFC 6455 §5.5 asks.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::Bye => "Goodbye",
            Self::ShuttingDown => "Server is shutting down",
            Self::ProtocolError => "WebSocket protocol error",
            Self::BinaryMessage => "Binary messages are not supported",
            Self::InvalidUtf8 => "Text message is not valid UTF-8",
            Self::TooManyBadMessages => "Too many bad messages",
            Self::TooManyMessages => "Too many messages in a second",
            Self::MessageTooBig => "Message is too big",
            Self::Internal => "Internal error",
            Self::TryAgainLater => "Nobody can be admitted now",
            Self::NotAuthenticated => "Not authenticated in time",
            Self::TokenExpired => "Token has expired",
            Self::PeerSilent => "Peer was silent for too long",
            Self::Evicted => "The slot of this session was taken away",
            Self::Resumed => "The session goes on on another connection",
        }
    }
}

/// Code and reason phrase, as in `4401 Not authenticated in time`.
impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code(), self.message())
    }
}
