//! A session with its socket, as a server would hold it, and its client.

use std::collections::VecDeque;

use session_core::ledger::StoreCommand;
use session_core::protocol::ServerMessage;
use session_core::session::{Frame, Session};
use session_core::{ResumeToken, Timestamp, UserId};

/// A session with its socket, as a shell would hold it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) session: Session,
    /// Messages sent by the client that the server has not read.
    pub(super) unread: VecDeque<String>,
    /// The command under way, and when the wait for its answer ends.
    pub(super) under_way: Option<(StoreCommand, Timestamp)>,
    /// Whether the socket can still carry something to the client.
    pub(super) open: bool,
    /// Whether the client was told that it has a slot, and not since that it is over.
    pub(super) has_slot: bool,
    /// Whether the last AUTHENTICATE that was looked into was by somebody who had a slot.
    pub(super) is_renewal: bool,
    pub(super) greeted: bool,
}

impl Connection {
    /// The client hears a frame. If that tells it a token, that and whose.
    pub(super) fn receive(&mut self, frame: &Frame) -> Option<(UserId, ResumeToken)> {
        let Frame::Message(reply) = frame else { return None };
        let text = reply.encode();
        let read = ServerMessage::parse(&text).expect("a client can read what the server says");
        assert_eq!(&read, reply, "a client reads something else than was said");
        match reply {
            ServerMessage::Hello => {
                assert!(!self.greeted, "HELLO twice");
                self.greeted = true;
            }
            ServerMessage::AuthenticateSuccess(_) => {
                assert_eq!(self.has_slot, self.is_renewal, "granted twice");
                self.has_slot = true;
            }
            ServerMessage::AuthenticateSuccessDetailed(admission) => {
                assert!(!self.has_slot, "granted twice");
                self.has_slot = true;
                return admission.resume.map(|token| (admission.user.id.clone(), token));
            }
            ServerMessage::ByeSuccess
            | ServerMessage::AuthenticateFailure(_)
            | ServerMessage::AuthenticateFailureDetailed(_)
            | ServerMessage::CheckConnectionsSuccess(_)
            | ServerMessage::ListSessionsSuccess(_)
            | ServerMessage::EndSessionSuccess(_)
            | ServerMessage::Evicted(_)
            | ServerMessage::Error(_) => {}
        }
        None
    }
}
