//! The WebSocket close codes that the server sends.

use core::fmt;

/// Why the server closes a connection: a close code for programs ([RFC 6455 §7.4]) and a reason phrase for people.
///
/// Codes from 4000 on belong to this protocol.
///
#[doc = include_str!("close_codes.md")]
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
    /// The client was denied a slot and told that it may choose a session to evict, and it did not in time. It comes back
    /// when the person asks for it.
    NotChosen,
    /// Another client resumed the session, as one did a moment before: two clients have its resume token.
    Contested,
}

impl CloseReason {
    /// Every reason, in the order of its code.
    pub const ALL: [Self; 17] = [
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
        Self::NotChosen,
        Self::PeerSilent,
        Self::Evicted,
        Self::Resumed,
        Self::Contested,
    ];

    /// Every reason with this close code: none for a code that this protocol does not use.
    pub fn with_code(code: u16) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |reason| reason.code() == code)
    }

    /// The WebSocket close code, 1000 to 4999.
    #[must_use]
    pub const fn code(self) -> u16 {
        self.row().code
    }

    /// The reason phrase of the close frame, at most 123 bytes as RFC 6455 §5.5 asks.
    #[must_use]
    pub const fn message(self) -> &'static str {
        self.row().message
    }

    /// What it means, for documentation. It may name keys of the server's configuration.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        self.row().meaning
    }

    /// Whether, and how, a client may reconnect by itself. Reasons with the same code have the same answer.
    #[must_use]
    pub const fn reconnect(self) -> Reconnect {
        self.row().reconnect
    }

    /// What the close does to the slot of a session that can be resumed. Any other session releases its slot, or has lost it.
    #[must_use]
    pub const fn slot_after(self) -> SlotAfter {
        self.row().slot
    }

    /// What to do after this close, for people. Empty if there is nothing to do.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        self.row().advice
    }

    /// Whether a resumable session keeps its slot for its grace period after a close with this reason. After a lost socket it
    /// does as well.
    #[must_use]
    pub const fn keeps_slot(self) -> bool {
        matches!(self.row().slot, SlotAfter::Kept)
    }

    /// Whether the session ended because its slot went to another connection, or because the operator ended it.
    #[must_use]
    pub const fn is_slot_lost(self) -> bool {
        matches!(self.row().slot, SlotAfter::Lost)
    }

    /// Whether the client itself says that it is out. It counts as told then, even before the close frame is written. After
    /// any other close it counts as served until then
    /// ([`LeavingTracker`](crate::leaving_tracker::LeavingTracker)).
    #[must_use]
    pub const fn is_by_client(self) -> bool {
        matches!(self, Self::Bye)
    }

    /// The one table of close codes. The client, its exit code, and the documentation are drawn from it.
    const fn row(self) -> Row {
        const fn row(
            code: u16,
            message: &'static str,
            slot: SlotAfter,
            reconnect: Reconnect,
            advice: &'static str,
            meaning: &'static str,
        ) -> Row {
            Row { code, message, slot, reconnect, advice, meaning }
        }
        const LATER: &str = "try again in a while";
        use Reconnect::{Immediately, Never, WithBackoff, WithFreshToken};
        use SlotAfter::{Kept, Lost, Released};
        match self {
            Self::Bye => row(1000, "Goodbye", Released, Never, "", "the client sent BYE"),
            Self::ShuttingDown => {
                row(1001, "Server is shutting down", Kept, WithBackoff, LATER, "the server is shutting down")
            }
            Self::ProtocolError => row(
                1002,
                "WebSocket protocol error",
                Released,
                Never,
                "this is an error in the client, or in a proxy",
                "the client broke the WebSocket protocol",
            ),
            Self::BinaryMessage => row(
                1003,
                "Binary messages are not supported",
                Released,
                Never,
                "send text messages only",
                "the client sent a binary message",
            ),
            Self::InvalidUtf8 => row(
                1007,
                "Text message is not valid UTF-8",
                Released,
                Never,
                "send text in UTF-8",
                "the client sent text that is not UTF-8",
            ),
            Self::TooManyBadMessages => row(
                1008,
                "Too many bad messages",
                Released,
                Never,
                "send only messages of the protocol",
                "more than `max_bad_messages` bad messages; an `AUTHENTICATE` that is denied a slot is not one",
            ),
            Self::TooManyMessages => row(
                1008,
                "Too many messages in a second",
                Released,
                Never,
                "send fewer messages",
                "more than `max_message_rate` messages in a second",
            ),
            Self::MessageTooBig => row(
                1009,
                "Message is too big",
                Released,
                Never,
                "send shorter messages",
                "a message was longer than `max_message_bytes`",
            ),
            Self::Internal => row(1011, "Internal error", Released, WithBackoff, LATER, "internal error"),
            Self::TryAgainLater => row(
                1013,
                "Nobody can be admitted now",
                Released,
                WithBackoff,
                LATER,
                "the store does not answer or is full, so the server admits no session; or a token was not checked in time, \
                 or the provider's keys have not come yet; or \
                 the user has `max_connections_per_user`",
            ),
            Self::NotAuthenticated => row(
                4401,
                "Not authenticated in time",
                Released,
                Never,
                "authenticate sooner after connecting",
                "the client did not authenticate within `auth_timeout`",
            ),
            Self::TokenExpired => row(
                4402,
                "Token has expired",
                Kept,
                WithFreshToken,
                "authenticate again with a fresh token",
                "the token has expired",
            ),
            Self::NotChosen => row(
                4403,
                "No session was chosen in time",
                Released,
                Never,
                "connect again when the person asks for it",
                "a client that was denied a slot did not authenticate again within `choose_within_ms`",
            ),
            Self::PeerSilent => row(
                4408,
                "Peer was silent for too long",
                Kept,
                Immediately,
                "connect again",
                "the client was silent for `ping_interval` and `pong_timeout`",
            ),
            Self::Evicted => row(
                4409,
                "The slot of this session was taken away",
                Lost,
                Never,
                "a client that connects again by itself could end the session that has the slot now",
                "another session of the user, or the operator, took the slot; or a fresh token allows the user no session",
            ),
            Self::Resumed => row(
                4410,
                "The session goes on on another connection",
                Lost,
                Never,
                "this connection is not needed any more",
                "the session continues on another connection",
            ),
            Self::Contested => row(
                4411,
                "Two clients resume the same session",
                Lost,
                Never,
                "another client has the same resume token, so sign in without it",
                "within 10 seconds the session was resumed a second time while it was live: two clients have its token",
            ),
        }
    }
}

/// A row of the table of close codes.
struct Row {
    code: u16,
    message: &'static str,
    slot: SlotAfter,
    reconnect: Reconnect,
    advice: &'static str,
    meaning: &'static str,
}

/// What a close does to the slot of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SlotAfter {
    /// It is released.
    Released,
    /// A resumable session keeps it for its grace period.
    Kept,
    /// The session had lost it before.
    Lost,
}

/// As the table of close codes says it: `released`, `lingers`, `taken`.
impl fmt::Display for SlotAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Released => "released",
            Self::Kept => "lingers",
            Self::Lost => "taken",
        })
    }
}

/// Whether, and how, a client may reconnect by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reconnect {
    /// It must not: the same would happen again, or it would end another session.
    Never,
    /// At once, then with backoff: only the connection was lost.
    Immediately,
    /// With backoff: the server, or its store, has a problem.
    WithBackoff,
    /// With a fresh token.
    WithFreshToken,
}

impl Reconnect {
    /// What a client may do after a close with this code. After a code that this protocol does not use, it must not
    /// reconnect by itself.
    #[must_use]
    pub fn after_code(code: u16) -> Self {
        CloseReason::with_code(code).next().map_or(Self::Never, CloseReason::reconnect)
    }
}

/// As the table of close codes says it: `no`, `yes`, `with backoff`, `with a fresh token`.
impl fmt::Display for Reconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Never => "no",
            Self::Immediately => "yes",
            Self::WithBackoff => "with backoff",
            Self::WithFreshToken => "with a fresh token",
        })
    }
}

/// Code and reason phrase, as in `4401 Not authenticated in time`.
impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code(), self.message())
    }
}
