//! Builds the messages that a session sends.

use alloc::boxed::Box;
use core::hash::{Hash as _, Hasher};
use core::mem;
use core::num::NonZeroU32;

use super::io::{Actions, Frame, Violation};
use super::state::StoreQuery;
use crate::id::UserId;
use crate::ledger::{Outcome, RenewalDenied, SlotLimit, SlotUsage};
use crate::protocol::{
    AuthenticateFailure, AuthenticateFailureDetails, CloseReason, RequestError, ServerMessage, SessionList,
    SessionSummary, UserSummary,
};
use crate::time::Timestamp;

pub(super) fn reply(message: ServerMessage) -> Actions {
    Actions { send: Some(Frame::Message(message)), ..Actions::default() }
}

pub(super) fn error(error: RequestError) -> Actions {
    reply(ServerMessage::Error(error))
}

/// A failure that says nothing about the user's sessions.
pub(super) fn authenticate_failure(failure: AuthenticateFailure, is_detailed: bool) -> ServerMessage {
    if is_detailed {
        ServerMessage::AuthenticateFailureDetailed(Box::new(AuthenticateFailureDetails::new(failure)))
    } else {
        ServerMessage::AuthenticateFailure(failure)
    }
}

/// A denial that lists the sessions that hold the user's slots, unless the last list was the same. `listed` is its
/// fingerprint. A list is up to 36 KB, and the request for it less than a hundred bytes.
pub(super) fn limit_failure(usage: &SlotUsage, listed: &mut Option<NonZeroU32>, now: Timestamp) -> ServerMessage {
    let sessions = session_summaries(usage);
    let fingerprint = Some(fingerprint(&sessions));
    let is_new = mem::replace(listed, fingerprint) != fingerprint;
    let failure =
        if usage.is_device_full { AuthenticateFailure::DeviceFull } else { AuthenticateFailure::LimitReached };
    ServerMessage::AuthenticateFailureDetailed(Box::new(AuthenticateFailureDetails {
        reason: failure,
        limit: Some(usage.limit),
        connections: Some(usage.slots),
        retry_after: usage.free_at.map(|at| at.since(now)),
        sessions: is_new.then_some(sessions),
        client_choice: usage.client_choice,
    }))
}

/// A fresh token that the session may not go on with.
fn renewal_failure(denied: RenewalDenied, is_detailed: bool) -> ServerMessage {
    match denied {
        RenewalDenied::AnotherDevice => authenticate_failure(AuthenticateFailure::AnotherDevice, is_detailed),
        RenewalDenied::Banned if is_detailed => {
            let details = AuthenticateFailureDetails::new(AuthenticateFailure::LimitReached);
            let limit = SlotLimit::new(0).ok();
            ServerMessage::AuthenticateFailureDetailed(Box::new(AuthenticateFailureDetails { limit, ..details }))
        }
        RenewalDenied::Banned => authenticate_failure(AuthenticateFailure::LimitReached, false),
    }
}

/// The reply to a client whose query the store answered.
pub(super) fn query_reply(user: UserId, query: StoreQuery, outcome: Outcome) -> ServerMessage {
    let store_error = match (query, outcome) {
        (StoreQuery::Connections, Outcome::Counted { slots: connections }) => {
            return ServerMessage::CheckConnectionsSuccess(UserSummary { id: user, connections });
        }
        (StoreQuery::Renewal { .. }, Outcome::Counted { slots: connections }) => {
            return ServerMessage::AuthenticateSuccess(UserSummary { id: user, connections });
        }
        (StoreQuery::Sessions, Outcome::Listed(usage)) => {
            let (limit, connections) = (usage.limit.slots(), usage.slots);
            let sessions = SessionList { limit, connections, sessions: session_summaries(&usage) };
            return ServerMessage::ListSessionsSuccess(Box::new(sessions));
        }
        (StoreQuery::End(_), Outcome::Ended { sessions, .. }) if sessions.is_empty() => {
            return ServerMessage::Error(RequestError::NoSuchSession);
        }
        (StoreQuery::End(_), Outcome::Ended { slots: connections, .. }) => {
            return ServerMessage::EndSessionSuccess(UserSummary { id: user, connections });
        }
        (StoreQuery::Renewal { is_detailed, .. }, Outcome::NotRenewed(denied)) => {
            return renewal_failure(denied, is_detailed);
        }
        (_, Outcome::Rejected(error)) => Some(error),
        // An outcome that does not fit the query says as little as `Unknown`.
        (
            _,
            Outcome::Granted { .. }
            | Outcome::Denied(_)
            | Outcome::Released
            | Outcome::Counted { .. }
            | Outcome::Listed(_)
            | Outcome::Ended { .. }
            | Outcome::NotRenewed(_)
            | Outcome::Unknown,
        ) => None,
    };
    match query {
        StoreQuery::Renewal { is_detailed, .. } => authenticate_failure(
            store_error.map_or(AuthenticateFailure::StoreTimedOut, AuthenticateFailure::Store),
            is_detailed,
        ),
        StoreQuery::Connections | StoreQuery::Sessions | StoreQuery::End(_) => {
            ServerMessage::Error(store_error.map_or(RequestError::StoreTimedOut, RequestError::Store))
        }
    }
}

/// The error to send and the reason to close with.
pub(super) fn violation_reply(violation: Violation) -> (RequestError, CloseReason) {
    match violation {
        Violation::Protocol => (RequestError::ProtocolError, CloseReason::ProtocolError),
        Violation::InvalidUtf8 => (RequestError::InvalidUtf8, CloseReason::InvalidUtf8),
        Violation::MessageTooBig => (RequestError::MessageTooBig, CloseReason::MessageTooBig),
        Violation::BinaryMessage => (RequestError::BinaryMessage, CloseReason::BinaryMessage),
    }
}

fn session_summaries(usage: &SlotUsage) -> Box<[SessionSummary]> {
    usage.sessions.iter().map(SessionSummary::from).collect()
}

/// A number that stands for a list. If two lists have the same one by chance, a client is not told of the change.
fn fingerprint(sessions: &[SessionSummary]) -> NonZeroU32 {
    let mut hasher = Fnv(0x811c_9dc5);
    sessions.hash(&mut hasher);
    NonZeroU32::new(hasher.0).unwrap_or(NonZeroU32::MIN)
}

/// FNV-1a with 32 bits (draft-eastlake-fnv §2). Nobody gains from a collision: a client that could make one only hides a
/// change from itself.
struct Fnv(u32);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    }

    fn finish(&self) -> u64 {
        self.0.into()
    }
}
