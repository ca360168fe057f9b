//! A session with its socket, as a server would hold it, and its client.

use std::collections::VecDeque;

use session_core::ledger::StoreCommand as LedgerCommand;
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
    pub(super) under_way: Option<(LedgerCommand, Timestamp)>,
    /// Whether the socket can still carry something to the client.
    pub(super) open: bool,
    /// Whether the client was told that it has a slot, and not since that it is over.
    pub(super) told: bool,
    /// Whether the last AUTHENTICATE that was looked into was by somebody who had a slot.
    pub(super) renews: bool,
    pub(super) greeted: bool,
}

impl Connection {
    /// The client hears a frame. If that tells it a token, that and whose.
    pub(super) fn receive(&mut self, frame: &Frame) -> Option<(UserId, ResumeToken)> {
        let Frame::Message(reply) = frame else { return None };
        let text = reply.encode();
        let heard = ServerMessage::parse(&text).expect("a client can read what the server says");
        assert_eq!(&heard, reply, "a client reads something else than was said");
        match reply {
            ServerMessage::Hello => {
                assert!(!self.greeted, "HELLO twice");
                self.greeted = true;
            }
            ServerMessage::AuthenticateSuccess(_) => {
                assert_eq!(self.told, self.renews, "granted twice");
                self.told = true;
            }
            ServerMessage::AuthenticateSuccessDetailed(admission) => {
                assert!(!self.told, "granted twice");
                self.told = true;
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
