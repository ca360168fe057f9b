//! Builds the messages that a session sends.

use alloc::boxed::Box;
use core::hash::{Hash, Hasher};
use core::mem;
use core::num::NonZeroU32;

use super::io::{Actions, Frame, Violation};
use super::settings::RunningSettings;
use super::state::{AcquireRequest, StoreQuery};
use crate::id::{SessionId, UserId};
use crate::ledger::{
    DenyReason, EndReason, EvictedSession, GrantDetails, LinePlace, Outcome, RenewalDenied, Resumption, SlotLimit,
    SlotUsage,
};
use crate::protocol::{
    AuthenticateFailure, AuthenticateFailureDetails, AuthenticateSuccessDetails, CloseReason, ErrorDetails,
    EvictedDetails, EvictedSummary, RequestError, ServerMessage, SessionList, SessionSummary, UserSummary,
    WaitingDetails,
};
use crate::time::Timestamp;

pub(super) fn reply(message: ServerMessage) -> Actions {
    Actions { send: Some(Frame::Message(message)), ..Actions::default() }
}

/// An error, with its code for a client that speaks at length.
pub(super) fn error(error: RequestError, is_detailed: bool) -> ServerMessage {
    if is_detailed {
        ServerMessage::ErrorDetailed(Box::new(ErrorDetails { error, sessions: None }))
    } else {
        ServerMessage::Error(error)
    }
}

/// What an ended session tells its client.
pub(super) fn evicted(reason: &EndReason, is_detailed: bool) -> ServerMessage {
    let message = reason.message().into();
    if !is_detailed {
        return ServerMessage::Evicted(message);
    }
    let (label, device) = reason.names().map_or((None, None), |names| (names.label.clone(), names.device.clone()));
    ServerMessage::EvictedDetailed(Box::new(EvictedDetails { message, code: reason.code(), label, device }))
}

/// A failure that says nothing about the user's sessions.
pub(super) fn authenticate_failure(failure: AuthenticateFailure, is_detailed: bool) -> ServerMessage {
    if is_detailed {
        return ServerMessage::AuthenticateFailureDetailed(Box::new(AuthenticateFailureDetails::new(failure)));
    }
    // The plain protocol has one text for both.
    let is_banned = failure == AuthenticateFailure::Banned;
    ServerMessage::AuthenticateFailure(if is_banned { AuthenticateFailure::LimitReached } else { failure })
}

/// The failure for a denial by the ledger.
pub(super) fn failure_of(usage: &SlotUsage) -> AuthenticateFailure {
    match usage.denied {
        Some(DenyReason::DeviceFull) => AuthenticateFailure::DeviceFull,
        Some(DenyReason::Gone) => AuthenticateFailure::Gone,
        Some(DenyReason::NotResumed(why)) => AuthenticateFailure::NotResumed(why),
        Some(DenyReason::LimitReached | DenyReason::NodeDead) | None if usage.limit.slots() == 0 => {
            AuthenticateFailure::Banned
        }
        Some(DenyReason::LimitReached | DenyReason::NodeDead) | None => AuthenticateFailure::LimitReached,
    }
}

/// A denial that lists the sessions that hold the user's slots, unless the last list was the same. `listed` is its
/// fingerprint. A list is up to 75 KB, and the request for it less than a hundred bytes. A client that chose a session which
/// is gone has an old list, so it gets the new one.
pub(super) fn limit_failure(
    usage: &SlotUsage,
    asker: SessionId,
    listed: &mut Option<NonZeroU32>,
    choose_by: Option<Timestamp>,
    now: Timestamp,
) -> ServerMessage {
    let sessions = session_summaries(usage, Some(asker));
    let fingerprint = Some(fingerprint(&sessions));
    let is_new = mem::replace(listed, fingerprint) != fingerprint || usage.denied == Some(DenyReason::Gone);
    ServerMessage::AuthenticateFailureDetailed(Box::new(AuthenticateFailureDetails {
        reason: failure_of(usage),
        limit: Some(usage.limit),
        connections: Some(usage.slots),
        retry_after: usage.free_at.map(|at| at.since(now)),
        sessions: is_new.then_some(sessions),
        client_choice: usage.client_choice,
        choose_within: choose_by.map(|by| by.since(now)),
        waiting: usage.waiting,
        is_line_full: usage.line == LinePlace::Full,
    }))
}

/// The place in line of `asker`, and whether its client knows another list of sessions, as in [`limit_failure`].
pub(super) fn waiting_details(
    usage: &SlotUsage,
    place: u16,
    until: Timestamp,
    asker: SessionId,
    listed: &mut Option<NonZeroU32>,
    now: Timestamp,
) -> (WaitingDetails, bool) {
    let sessions = session_summaries(usage, Some(asker));
    let fingerprint = Some(fingerprint(&sessions));
    let is_new = mem::replace(listed, fingerprint) != fingerprint;
    let details = WaitingDetails {
        place,
        wait: until.since(now),
        limit: usage.limit,
        connections: usage.slots,
        sessions: is_new.then_some(sessions),
        retry_after: usage.free_at.map(|at| at.since(now)),
        client_choice: usage.client_choice,
    };
    (details, is_new)
}

/// The list of sessions for the client of `asker`, and its fingerprint.
pub(super) fn sessions_changed(usage: &SlotUsage, asker: SessionId, is_detailed: bool) -> (SessionList, NonZeroU32) {
    let list = session_list(usage, asker, is_detailed);
    let fingerprint = fingerprint(&(list.limit, list.connections, list.waiting, &list.sessions));
    (list, fingerprint)
}

fn session_list(usage: &SlotUsage, asker: SessionId, is_detailed: bool) -> SessionList {
    let (limit, connections) = (usage.limit.slots(), usage.slots);
    let sessions = session_summaries(usage, is_detailed.then_some(asker));
    SessionList { limit, connections, waiting: if is_detailed { usage.waiting } else { 0 }, sessions }
}

/// A grant to a client that speaks at length.
pub(super) fn success_details(
    user: UserSummary,
    session: SessionId,
    request: AcquireRequest,
    grant: GrantDetails,
    settings: &RunningSettings,
) -> AuthenticateSuccessDetails {
    let GrantDetails { limit, linger, slot, since, resume: resumption, evicted } = grant;
    let AcquireRequest { shown, new, cut_label, ignored, wait: _, is_own: _ } = request;
    let ended = |EvictedSession { slot, names }| {
        let (device, label) = names.map_or((None, None), |names| (names.device, names.label));
        EvictedSummary { slot, device, label }
    };
    AuthenticateSuccessDetails {
        user,
        limit,
        session,
        slot,
        since: since.millis(),
        resumption,
        resume: if resumption == Resumption::Resumed { shown } else { new },
        linger,
        ping_interval: settings.ping_interval,
        pong_timeout: settings.pong_timeout,
        cut_label,
        ended: evicted.into_iter().map(ended).collect(),
        ignored,
    }
}

/// A fresh token that the session may not go on with.
fn renewal_failure(denied: RenewalDenied, is_detailed: bool) -> ServerMessage {
    match denied {
        RenewalDenied::AnotherDevice => authenticate_failure(AuthenticateFailure::AnotherDevice, is_detailed),
        RenewalDenied::Banned if is_detailed => {
            let details = AuthenticateFailureDetails::new(AuthenticateFailure::Banned);
            let limit = SlotLimit::new(0).ok();
            ServerMessage::AuthenticateFailureDetailed(Box::new(AuthenticateFailureDetails { limit, ..details }))
        }
        RenewalDenied::Banned => authenticate_failure(AuthenticateFailure::Banned, false),
    }
}

/// The reply to the client of `asker`, whose query the store answered.
pub(super) fn query_reply(
    user: UserId,
    asker: SessionId,
    query: StoreQuery,
    outcome: Outcome,
    is_detailed: bool,
) -> ServerMessage {
    let store_error = match (&query, outcome) {
        (StoreQuery::Connections, Outcome::Counted { slots: connections }) => {
            return ServerMessage::CheckConnectionsSuccess(UserSummary { id: user, connections });
        }
        (StoreQuery::Renewal(_), Outcome::Counted { slots: connections }) => {
            return ServerMessage::AuthenticateSuccess(UserSummary { id: user, connections });
        }
        (StoreQuery::Sessions(_), Outcome::Listed(usage)) => {
            return ServerMessage::ListSessionsSuccess(Box::new(session_list(&usage, asker, is_detailed)));
        }
        (StoreQuery::Gone(target), Outcome::Listed(usage)) => {
            let own = usage.sessions.iter().find(|entry| entry.session == asker);
            if own.is_some_and(|own| own.is_named(*target)) {
                return error(RequestError::OwnSession, is_detailed);
            }
            let sessions = Some(session_summaries(&usage, Some(asker)));
            return ServerMessage::ErrorDetailed(Box::new(ErrorDetails {
                error: RequestError::NoSuchSession,
                sessions,
            }));
        }
        (StoreQuery::End(_), Outcome::Ended { sessions, .. }) if sessions.is_empty() => {
            return error(RequestError::NoSuchSession, is_detailed);
        }
        (StoreQuery::End(_), Outcome::Ended { slots: connections, .. }) => {
            return ServerMessage::EndSessionSuccess(UserSummary { id: user, connections });
        }
        (StoreQuery::Renewal(renewal), Outcome::NotRenewed(denied)) => {
            return renewal_failure(denied, renewal.is_detailed);
        }
        (_, Outcome::Rejected(cause)) => Some(cause),
        // An outcome that does not fit the query says as little as `Unknown`.
        (
            _,
            Outcome::Granted { .. }
            | Outcome::Denied(_)
            | Outcome::Waiting(_)
            | Outcome::Released
            | Outcome::Counted { .. }
            | Outcome::Listed(_)
            | Outcome::Ended { .. }
            | Outcome::NotRenewed(_)
            | Outcome::Unknown,
        ) => None,
    };
    match query {
        StoreQuery::Renewal(renewal) => authenticate_failure(
            store_error.map_or(AuthenticateFailure::StoreTimedOut, AuthenticateFailure::Store),
            renewal.is_detailed,
        ),
        StoreQuery::Connections
        | StoreQuery::Sessions(_)
        | StoreQuery::Watch
        | StoreQuery::End(_)
        | StoreQuery::Gone(_) => {
            error(store_error.map_or(RequestError::StoreTimedOut, RequestError::Store), is_detailed)
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

/// The sessions for the client of `asker`, if it speaks at length.
fn session_summaries(usage: &SlotUsage, asker: Option<SessionId>) -> Box<[SessionSummary]> {
    let summary = |record| match asker {
        Some(_) => SessionSummary::detailed(record, asker),
        None => SessionSummary::from(record),
    };
    usage.sessions.iter().take(SessionList::MAX_SHOWN).map(summary).collect()
}

/// A number that stands for a list. If two lists have the same one by chance, a client is not told of the change.
fn fingerprint(list: &impl Hash) -> NonZeroU32 {
    let mut hasher = Fnv(0x811c_9dc5);
    list.hash(&mut hasher);
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
