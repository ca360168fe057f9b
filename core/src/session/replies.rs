//! What a session says and asks for, put together from what it knows.

use alloc::boxed::Box;

use super::io::{Actions, Effect, Frame, Violation};
use super::state::StoreQuery;
use crate::id::UserId;
use crate::ledger::{self, Outcome, SlotListing};
use crate::protocol::{CloseReason, Complaint, Denial, Refusal, Reply, SessionInfo, Sessions, User};
use crate::time::Timestamp;

pub(super) fn store_command(command: ledger::StoreCommand) -> Actions {
    Actions { effect: Some(Effect::Store(command)), ..Actions::default() }
}

pub(super) fn reply(reply: Reply) -> Actions {
    Actions { send: Some(Frame::Reply(reply)), ..Actions::default() }
}

pub(super) fn error(complaint: Complaint) -> Actions {
    reply(Reply::Error(complaint))
}

/// A refusal that has to do with nobody else's sessions, at length if that was asked for.
pub(super) fn failure(refusal: Refusal, at_length: bool) -> Reply {
    if at_length {
        Reply::Denied(Box::new(Denial {
            refusal,
            limit: None,
            connections: None,
            sessions: None,
            retry_after: None,
            may_choose: false,
        }))
    } else {
        Reply::AuthenticateFailure(refusal)
    }
}

/// A refusal because of these sessions, told to a client that asked at length.
pub(super) fn limit_failure(listing: &SlotListing, now: Timestamp) -> Reply {
    let refusal = if listing.is_device_full { Refusal::DeviceFull } else { Refusal::LimitReached };
    Reply::Denied(Box::new(Denial {
        refusal,
        limit: Some(listing.limit),
        connections: Some(listing.connections),
        retry_after: listing.free_at.map(|at| at.since(now)),
        sessions: Some(shown_sessions(listing)),
        may_choose: listing.client_choice,
    }))
}

/// What a client is told of the store's answer to its question.
pub(super) fn query_reply(user: UserId, question: StoreQuery, outcome: Outcome) -> Reply {
    // None: an answer to another question, which is as good as none.
    let cause = match (&question, outcome) {
        (StoreQuery::Connections, Outcome::Counted { connections }) => {
            return Reply::CheckConnectionsSuccess(User { id: user, connections });
        }
        (StoreQuery::Renewal { .. }, Outcome::Counted { connections }) => {
            return Reply::AuthenticateSuccess(User { id: user, connections });
        }
        (StoreQuery::Sessions, Outcome::Listed(listing)) => {
            let (limit, connections) = (listing.limit.slots(), listing.connections);
            let sessions = Sessions { limit, connections, sessions: shown_sessions(&listing) };
            return Reply::ListSessionsSuccess(Box::new(sessions));
        }
        (StoreQuery::End, Outcome::Ended { sessions, .. }) if sessions.is_empty() => {
            return Reply::Error(Complaint::NoSuchSession);
        }
        (StoreQuery::End, Outcome::Ended { connections, .. }) => {
            return Reply::EndSessionSuccess(User { id: user, connections });
        }
        (_, Outcome::Rejected(cause)) => Some(cause),
        (
            _,
            Outcome::Granted { .. }
            | Outcome::Denied(_)
            | Outcome::Released
            | Outcome::Counted { .. }
            | Outcome::Listed(_)
            | Outcome::Ended { .. }
            | Outcome::Unknown,
        ) => None,
    };
    match question {
        // The session goes on with the token it had.
        StoreQuery::Renewal { is_detailed: at_length, .. } => {
            failure(cause.map_or(Refusal::StoreSilent, Refusal::Store), at_length)
        }
        StoreQuery::Connections | StoreQuery::Sessions | StoreQuery::End => {
            Reply::Error(cause.map_or(Complaint::StoreSilent, Complaint::Store))
        }
    }
}

/// What a peer is told that did this, and what its connection is closed with.
pub(super) fn violation_reply(violation: Violation) -> (Complaint, CloseReason) {
    match violation {
        Violation::Protocol => (Complaint::ProtocolError, CloseReason::ProtocolError),
        Violation::InvalidUtf8 => (Complaint::InvalidUtf8, CloseReason::InvalidUtf8),
        Violation::MessageTooBig => (Complaint::MessageTooBig, CloseReason::MessageTooBig),
        Violation::BinaryMessage => (Complaint::BinaryMessage, CloseReason::BinaryMessage),
    }
}

fn shown_sessions(listing: &SlotListing) -> Box<[SessionInfo]> {
    listing.sessions.iter().map(SessionInfo::from).collect()
}
