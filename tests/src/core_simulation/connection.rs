//! A session with its socket, and its client.

use std::collections::VecDeque;

use session_core::ledger::{Outcome, StoreCommand};
use session_core::protocol::ServerMessage;
use session_core::session::{Frame, Session};
use session_core::{ResumeToken, Timestamp, UserId};

/// A session with its socket, as in a server.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) session: Session,
    /// Messages sent by the client that the server has not read.
    pub(super) unread: VecDeque<String>,
    /// The command under way, and when the wait for its answer ends.
    pub(super) under_way: Option<(StoreCommand, Timestamp)>,
    /// Whether the session can still send to the client.
    pub(super) open: bool,
    /// Whether the socket takes no data. What the session sends is buffered.
    pub(super) is_stalled: bool,
    /// The user of the slot that the session has or asks for.
    pub(super) user: Option<UserId>,
    /// The grant that it must not be told yet.
    pub(super) held: Option<Outcome>,
    /// Whether the server has sent AUTHENTICATE_SUCCESS, and has written no close frame; nor is the socket gone, nor has the
    /// client said BYE.
    pub(super) is_told: bool,
    /// Whether the client is served no more.
    pub(super) is_gone: bool,
    /// When to cut the socket if the client is still served.
    pub(super) cut_at: Option<Timestamp>,
    /// Whether the server told the client that it has a slot, and has not ended the session since.
    pub(super) has_slot: bool,
    /// Whether the client had a slot when it sent the AUTHENTICATE that was verified last.
    pub(super) is_renewal: bool,
    pub(super) greeted: bool,
    /// Whether the store's last answer to its acquire was that it waits in line.
    pub(super) is_in_line: bool,
    /// When it asked for the list that it was answered last.
    pub(super) listed_at: Option<Timestamp>,
    /// When it asked for the list that it told its client by itself last.
    pub(super) changed_at: Option<Timestamp>,
}

impl Connection {
    /// Takes a frame from the server. Returns the resume token in it, with its user.
    pub(super) fn receive(&mut self, frame: &Frame, max_waiting: u16) -> Option<(UserId, ResumeToken)> {
        let Frame::Message(reply) = frame else { return None };
        let text = reply.encode();
        let read = ServerMessage::parse(&text).expect("the server sends valid messages");
        assert_eq!(&read, reply, "the message changes by encoding");
        match reply {
            ServerMessage::Hello | ServerMessage::HelloDetailed(_) => {
                assert!(!self.greeted, "HELLO twice");
                self.greeted = true;
            }
            ServerMessage::AuthenticateSuccess(_) => {
                assert_eq!(self.has_slot, self.is_renewal, "granted twice");
                (self.has_slot, self.is_told) = (true, true);
            }
            ServerMessage::AuthenticateSuccessDetailed(admission) => {
                assert!(!self.has_slot, "granted twice");
                (self.has_slot, self.is_told) = (true, true);
                return admission.resume.map(|token| (admission.user.id.clone(), token));
            }
            // It comes again when its place or the list changes.
            ServerMessage::AuthenticateWaiting(details) => {
                assert!(!self.has_slot, "a client with a slot waits for one");
                assert!(
                    (1..=max_waiting).contains(&details.place),
                    "place {} in a line of {max_waiting}",
                    details.place
                );
            }
            ServerMessage::SessionsChanged(_) => {
                assert!(self.has_slot, "a client without a slot hears of the sessions");
                let asked_at = self.listed_at.expect("it asked for the list");
                let is_late = |last: Timestamp| asked_at >= last + Session::WATCH_INTERVAL;
                assert!(
                    self.changed_at.replace(asked_at).is_none_or(is_late),
                    "it tells its client of changes too often"
                );
            }
            ServerMessage::ByeSuccess
            | ServerMessage::AuthenticateFailure(_)
            | ServerMessage::AuthenticateFailureDetailed(_)
            | ServerMessage::CheckConnectionsSuccess(_)
            | ServerMessage::ListSessionsSuccess(_)
            | ServerMessage::EndSessionSuccess(_)
            | ServerMessage::Pong
            | ServerMessage::Evicted(_)
            | ServerMessage::EvictedDetailed(_)
            | ServerMessage::Error(_)
            | ServerMessage::ErrorDetailed(_) => {}
        }
        None
    }
}
