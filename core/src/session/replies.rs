//! What a session says and asks for, put together from what it knows.

use alloc::boxed::Box;

use super::io::{Actions, Effect, Frame, Violation};
use super::state::StoreQuery;
use crate::id::UserId;
use crate::ledger::{self, Outcome, SlotListing};
use crate::protocol::{
    AuthenticateFailure, AuthenticateFailureDetails, CloseReason, RequestError, ServerMessage, SessionInfo,
    SessionList, UserSummary,
};
use crate::time::Timestamp;

pub(super) fn store_command(command: ledger::StoreCommand) -> Actions {
    Actions { effect: Some(Effect::Store(command)), ..Actions::default() }
}

pub(super) fn reply(reply: ServerMessage) -> Actions {
    Actions { send: Some(Frame::Message(reply)), ..Actions::default() }
}

pub(super) fn error(error: RequestError) -> Actions {
    reply(ServerMessage::Error(error))
}

/// A refusal that has to do with nobody else's sessions, at length if that was asked for.
pub(super) fn authenticate_failure(failure: AuthenticateFailure, at_length: bool) -> ServerMessage {
    if at_length {
        ServerMessage::AuthenticateFailureDetailed(Box::new(AuthenticateFailureDetails {
            reason: failure,
            limit: None,
            connections: None,
            sessions: None,
            retry_after: None,
            client_choice: false,
        }))
    } else {
        ServerMessage::AuthenticateFailure(failure)
    }
}

/// A refusal because of these sessions, told to a client that asked at length.
pub(super) fn limit_failure(listing: &SlotListing, now: Timestamp) -> ServerMessage {
    let failure =
        if listing.is_device_full { AuthenticateFailure::DeviceFull } else { AuthenticateFailure::LimitReached };
    ServerMessage::AuthenticateFailureDetailed(Box::new(AuthenticateFailureDetails {
        reason: failure,
        limit: Some(listing.limit),
        connections: Some(listing.connections),
        retry_after: listing.free_at.map(|at| at.since(now)),
        sessions: Some(shown_sessions(listing)),
        client_choice: listing.client_choice,
    }))
}

/// What a client is told of the store's answer to its question.
pub(super) fn query_reply(user: UserId, question: StoreQuery, outcome: Outcome) -> ServerMessage {
    // None: an answer to another question, which is as good as none.
    let cause = match (&question, outcome) {
        (StoreQuery::Connections, Outcome::Counted { connections }) => {
            return ServerMessage::CheckConnectionsSuccess(UserSummary { id: user, connections });
        }
        (StoreQuery::Renewal { .. }, Outcome::Counted { connections }) => {
            return ServerMessage::AuthenticateSuccess(UserSummary { id: user, connections });
        }
        (StoreQuery::Sessions, Outcome::Listed(listing)) => {
            let (limit, connections) = (listing.limit.slots(), listing.connections);
            let sessions = SessionList { limit, connections, sessions: shown_sessions(&listing) };
            return ServerMessage::ListSessionsSuccess(Box::new(sessions));
        }
        (StoreQuery::End, Outcome::Ended { sessions, .. }) if sessions.is_empty() => {
            return ServerMessage::Error(RequestError::NoSuchSession);
        }
        (StoreQuery::End, Outcome::Ended { connections, .. }) => {
            return ServerMessage::EndSessionSuccess(UserSummary { id: user, connections });
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
        StoreQuery::Renewal { is_detailed: at_length, .. } => authenticate_failure(
            cause.map_or(AuthenticateFailure::StoreTimedOut, AuthenticateFailure::Store),
            at_length,
        ),
        StoreQuery::Connections | StoreQuery::Sessions | StoreQuery::End => {
            ServerMessage::Error(cause.map_or(RequestError::StoreTimedOut, RequestError::Store))
        }
    }
}

/// What a peer is told that did this, and what its connection is closed with.
pub(super) fn violation_reply(violation: Violation) -> (RequestError, CloseReason) {
    match violation {
        Violation::Protocol => (RequestError::ProtocolError, CloseReason::ProtocolError),
        Violation::InvalidUtf8 => (RequestError::InvalidUtf8, CloseReason::InvalidUtf8),
        Violation::MessageTooBig => (RequestError::MessageTooBig, CloseReason::MessageTooBig),
        Violation::BinaryMessage => (RequestError::BinaryMessage, CloseReason::BinaryMessage),
    }
}

fn shown_sessions(listing: &SlotListing) -> Box<[SessionInfo]> {
    listing.sessions.iter().map(SessionInfo::from).collect()
}
