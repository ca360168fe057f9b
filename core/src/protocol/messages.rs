//! The table of all messages. The page of the protocol is drawn from it.

use core::fmt;

/// Who sends a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sender {
    /// The client.
    Client,
    /// The server.
    Server,
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Server => "server",
        })
    }
}

/// A type of message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageType {
    /// Who sends it.
    pub sender: Sender,
    /// Its `type`.
    pub name: &'static str,
    /// Its `payload`, in words.
    pub payload: &'static str,
}

const fn client(name: &'static str, payload: &'static str) -> MessageType {
    MessageType { sender: Sender::Client, name, payload }
}

const fn server(name: &'static str, payload: &'static str) -> MessageType {
    MessageType { sender: Sender::Server, name, payload }
}

/// Every type of message:
///
#[doc = include_str!("messages.md")]
pub const MESSAGES: &[MessageType] = &[
    server("HELLO", "`\"message from server\"`. The first message on every connection"),
    client("AUTHENTICATE", "the user's id, or a token, as a string; or an object"),
    server("AUTHENTICATE_SUCCESS", "the user, `{\"id\":\"ada\",\"connections\":1}`; more after an object"),
    server(
        "AUTHENTICATE_FAILURE",
        "the reason, as text. The socket stays open and the client may try again, unless the server closes with 1013",
    ),
    server("AUTHENTICATE_WAITING", "the place in line, after an object with `wait_ms`. A success or a failure follows"),
    client("CHECK_CONNECTIONS", "`null`, or none"),
    server("CHECK_CONNECTIONS_SUCCESS", "the user"),
    client(
        "LIST_SESSIONS",
        "`null`, or none; or `{\"watch\":true}` or `{\"watch\":false}`, to be told of changes or not",
    ),
    server(
        "LIST_SESSIONS_SUCCESS",
        "`{\"limit\":3,\"connections\":1,\"sessions\":[…]}`, the sessions that hold the user's slots",
    ),
    server("SESSIONS_CHANGED", "the same, after a change, for a client that watches"),
    client(
        "END_SESSION",
        "the slot, or the id, of another session of the user. Where devices are counted, all sessions of its device end, so \
         that the slot becomes free; on the client's own device, only this one",
    ),
    server("END_SESSION_SUCCESS", "the user"),
    server("EVICTED", "who ended the session, as text; then the server closes"),
    client("PING", "`null`, or none. At any time; it never reaches the store"),
    server("PONG", "`null`"),
    client("BYE", "`null`, or none"),
    server("BYE_SUCCESS", "`null`; then the server closes. An acquire that is sent after this finds the slot free"),
    server("ERROR", "the error, as text"),
];
