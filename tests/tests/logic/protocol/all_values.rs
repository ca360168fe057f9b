//! Every message and every reason that the protocol has.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use std::iter::successors;
use std::time::Duration;

use session_core::SlotId;
use session_core::ledger::{EndReason, SlotLimit, StoreError};
use session_core::ledger::{NotResumed, Resumption, SessionNames};
use session_core::protocol::{
    AuthenticateFailure, AuthenticateFailureDetails, AuthenticateOptionsError, AuthenticateSuccessDetails, CloseReason,
    CredentialError, RequestError, ServerMessage, SessionList, SessionSummary, StatusWord, TokenError, UserSummary,
};
use session_core::protocol::{ErrorDetails, EvictedDetails, EvictedSummary, Greeting, WaitingDetails};
use session_core::{DisplayName, NodeId, ResumeToken, UserId, UserIdError};

/// Every message of a server.
pub(super) fn server_messages() -> Vec<ServerMessage> {
    let users = [user("ada", 1), user("ada \"the\" \\ countess é🦀", u32::MAX)];
    let successes = users.iter().cloned().map(ServerMessage::AuthenticateSuccess);
    let failures = failures().into_iter().map(ServerMessage::AuthenticateFailure);
    let ends = users.iter().cloned().map(ServerMessage::EndSessionSuccess);
    let counts = users.iter().cloned().map(ServerMessage::CheckConnectionsSuccess);
    let errors = request_errors().into_iter().map(ServerMessage::Error);
    [ServerMessage::Hello, ServerMessage::Pong]
        .into_iter()
        .chain(successes)
        .chain(failures)
        .chain([ServerMessage::ByeSuccess])
        .chain(counts)
        .chain(detailed())
        .chain(ends)
        .chain(errors)
        .collect()
}

/// The messages for clients that authenticate with an object, or list and end sessions.
pub(super) fn detailed() -> Vec<ServerMessage> {
    let session = NodeId::new(0x0123_4567_89ab_cdef).session(7);
    let limit = SlotLimit::new(3).unwrap();
    let resume = Some(ResumeToken::new([0x5e; 32]));
    let success = AuthenticateSuccessDetails {
        user: user("ada", 2),
        limit,
        session,
        resume,
        slot: SlotId::new(NodeId::new(9).session(1)),
        since: 1_700_000_000_123,
        resumption: Resumption::Resumed,
        linger: Duration::from_millis(90_001),
        ping_interval: Duration::from_secs(30),
        pong_timeout: Duration::from_secs(10),
        cut_label: None,
        ended: [].into(),
        ignored: [].into(),
    };
    let bare = AuthenticateSuccessDetails {
        resume: None,
        resumption: Resumption::NotAsked,
        linger: Duration::ZERO,
        ..success.clone()
    };
    let name = |text: &str| DisplayName::parse(text);
    let one = |slot, device, label| EvictedSummary { slot: SlotId::new(slot), device, label };
    let with_all = AuthenticateSuccessDetails {
        resumption: Resumption::Failed(NotResumed::Taken),
        cut_label: name("a long label that was"),
        ended: [one(session, name("laptop"), None), one(NodeId::new(9).session(2), None, name("é🦀"))].into(),
        ignored: ["colour".into(), "device".into()].into(),
        ..bare.clone()
    };
    let live = SessionSummary {
        id: session,
        slot: None,
        is_own: false,
        device: None,
        label: None,
        since: 1_700_000_000_123,
        state: StatusWord::Live,
        until: None,
    };
    let lost = SessionSummary {
        device: name("laptop \"7\""),
        label: name("é🦀"),
        state: StatusWord::Lingering,
        until: Some(1_700_000_060_123),
        ..live.clone()
    };
    let own = SessionSummary { slot: Some(SlotId::new(session)), is_own: true, ..live.clone() };
    let sessions: Box<[_]> = [live, lost, own].into();
    let retry_after = Some(Duration::from_millis(1_500));
    let failure = |failure, limit| AuthenticateFailureDetails {
        reason: failure,
        limit,
        connections: None,
        sessions: None,
        retry_after: None,
        client_choice: false,
        choose_within: None,
        waiting: 0,
        is_line_full: false,
    };
    let full = AuthenticateFailureDetails {
        sessions: Some(sessions.clone()),
        retry_after,
        client_choice: true,
        choose_within: Some(Duration::from_secs(60)),
        ..failure(AuthenticateFailure::LimitReached, Some(limit))
    };
    vec![
        ServerMessage::AuthenticateSuccessDetailed(Box::new(success)),
        ServerMessage::AuthenticateSuccessDetailed(Box::new(bare)),
        ServerMessage::AuthenticateSuccessDetailed(Box::new(with_all)),
        ServerMessage::HelloDetailed(Greeting { authenticate_within: Duration::from_secs(10) }),
        ServerMessage::AuthenticateFailureDetailed(Box::new(full)),
        ServerMessage::ListSessionsSuccess(Box::new(SessionList {
            limit: 3,
            connections: 2,
            waiting: 0,
            sessions: sessions.clone(),
        })),
        ServerMessage::SessionsChanged(Box::new(SessionList {
            limit: 3,
            connections: 2,
            waiting: 1,
            sessions: sessions.clone(),
        })),
        ServerMessage::AuthenticateWaiting(Box::new(WaitingDetails {
            place: 1,
            wait: Duration::from_secs(30),
            limit,
            connections: 2,
            sessions: Some(sessions.clone()),
            retry_after,
            client_choice: true,
        })),
        ServerMessage::AuthenticateWaiting(Box::new(WaitingDetails {
            place: 2,
            wait: Duration::from_millis(29_999),
            limit,
            connections: 2,
            sessions: None,
            retry_after: None,
            client_choice: false,
        })),
        ServerMessage::AuthenticateFailureDetailed(Box::new(AuthenticateFailureDetails {
            waiting: 16,
            is_line_full: true,
            ..failure(AuthenticateFailure::LimitReached, Some(limit))
        })),
        ServerMessage::ErrorDetailed(Box::new(ErrorDetails {
            error: RequestError::NoSuchSession,
            sessions: Some(sessions),
        })),
        ServerMessage::ListSessionsSuccess(Box::new(SessionList {
            limit: 0,
            connections: 0,
            waiting: 0,
            sessions: [].into(),
        })),
    ]
    .into_iter()
    .chain(failures().into_iter().map(|cause| {
        let limit = Some(limit).filter(|_| cause == AuthenticateFailure::Banned);
        ServerMessage::AuthenticateFailureDetailed(Box::new(failure(cause, limit)))
    }))
    .chain(
        request_errors()
            .into_iter()
            .map(|error| ServerMessage::ErrorDetailed(Box::new(ErrorDetails { error, sessions: None }))),
    )
    .chain(end_reasons().iter().map(|reason| ServerMessage::Evicted(reason.message().into())))
    .chain(end_reasons().iter().map(|reason| {
        let names = reason.names();
        ServerMessage::EvictedDetailed(Box::new(EvictedDetails {
            message: reason.message().into(),
            code: reason.code(),
            label: names.and_then(|names| names.label.clone()),
            device: names.and_then(|names| names.device.clone()),
        }))
    }))
    .collect()
}

/// Every reason with which a session is told that it was ended.
fn end_reasons() -> Vec<EndReason> {
    let phone = || SessionNames::new(DisplayName::parse("phone").as_ref(), DisplayName::parse("Ada's").as_ref());
    vec![
        EndReason::TakenOver(phone()),
        EndReason::TakenOver(None),
        EndReason::DeviceFull(phone()),
        EndReason::ByUser(phone()),
        EndReason::ByUser(None),
        EndReason::ByOperator,
        EndReason::LimitLowered,
        EndReason::Banned,
    ]
}

pub(super) fn user(id: &str, connections: u32) -> UserSummary {
    UserSummary { id: UserId::parse(id).unwrap(), connections }
}

pub(super) fn failures() -> Vec<AuthenticateFailure> {
    successors(failure_after(None), |failure| failure_after(Some(failure))).collect()
}

pub(super) fn request_errors() -> Vec<RequestError> {
    successors(request_error_after(None), |error| request_error_after(Some(error))).collect()
}

/// The failure after this one. A new variant breaks this match, and those below, until it has its place.
pub(super) fn failure_after(failure: Option<&AuthenticateFailure>) -> Option<AuthenticateFailure> {
    match failure {
        None => Some(AuthenticateFailure::LimitReached),
        Some(AuthenticateFailure::LimitReached) => Some(AuthenticateFailure::Banned),
        Some(AuthenticateFailure::Banned) => Some(AuthenticateFailure::DeviceFull),
        Some(AuthenticateFailure::DeviceFull) => Some(AuthenticateFailure::Gone),
        Some(AuthenticateFailure::Gone) => Some(AuthenticateFailure::NotResumed(NotResumed::Expired)),
        Some(AuthenticateFailure::NotResumed(NotResumed::Expired)) => {
            Some(AuthenticateFailure::NotResumed(NotResumed::Taken))
        }
        Some(AuthenticateFailure::NotResumed(NotResumed::Taken)) => {
            Some(AuthenticateFailure::NotResumed(NotResumed::Unknown))
        }
        Some(AuthenticateFailure::NotResumed(NotResumed::Unknown)) => {
            options_error_after(None).map(AuthenticateFailure::BadOptions)
        }
        Some(&AuthenticateFailure::BadOptions(error)) => Some(
            options_error_after(Some(error))
                .map_or(AuthenticateFailure::AlreadyAuthenticated, AuthenticateFailure::BadOptions),
        ),
        Some(AuthenticateFailure::AlreadyAuthenticated) => {
            credential_error_after(None).map(AuthenticateFailure::Credential)
        }
        Some(&AuthenticateFailure::Credential(error)) => credential_error_after(Some(error))
            .map(AuthenticateFailure::Credential)
            .or(Some(AuthenticateFailure::NotChecked)),
        Some(AuthenticateFailure::NotChecked) => store_error_after(None).map(AuthenticateFailure::Store),
        Some(&AuthenticateFailure::Store(error)) => {
            Some(store_error_after(Some(error)).map_or(AuthenticateFailure::StoreTimedOut, AuthenticateFailure::Store))
        }
        Some(AuthenticateFailure::StoreTimedOut) => Some(AuthenticateFailure::AnotherUser),
        Some(AuthenticateFailure::AnotherUser) => Some(AuthenticateFailure::AnotherDevice),
        Some(AuthenticateFailure::AnotherDevice) => Some(AuthenticateFailure::Other("Other words".into())),
        Some(AuthenticateFailure::Other(_)) => None,
    }
}

pub(super) fn request_error_after(error: Option<&RequestError>) -> Option<RequestError> {
    match error {
        None => Some(RequestError::NotJson),
        Some(RequestError::NotJson) => Some(RequestError::NotAnObject),
        Some(RequestError::NotAnObject) => Some(RequestError::DuplicateKey),
        Some(RequestError::DuplicateKey) => Some(RequestError::NoType),
        Some(RequestError::NoType) => Some(RequestError::TypeNotText),
        Some(RequestError::TypeNotText) => Some(RequestError::UnknownType("DANCE \"é\" 🦀".into())),
        Some(RequestError::UnknownType(_)) => Some(RequestError::UnwantedPayload),
        Some(RequestError::UnwantedPayload) => Some(RequestError::BadSessionId),
        Some(RequestError::BadSessionId) => Some(RequestError::BadWatch),
        Some(RequestError::BadWatch) => Some(RequestError::NoSuchSession),
        Some(RequestError::NoSuchSession) => Some(RequestError::OwnSession),
        Some(RequestError::OwnSession) => options_error_after(None).map(RequestError::BadOptions),
        Some(&RequestError::BadOptions(error)) => {
            Some(options_error_after(Some(error)).map_or(RequestError::AlreadyAuthenticated, RequestError::BadOptions))
        }
        Some(RequestError::AlreadyAuthenticated) => Some(RequestError::NotAuthenticated),
        Some(RequestError::NotAuthenticated) => Some(RequestError::RequestPending),
        Some(RequestError::RequestPending) => Some(RequestError::BinaryMessage),
        Some(RequestError::BinaryMessage) => Some(RequestError::ProtocolError),
        Some(RequestError::ProtocolError) => Some(RequestError::InvalidUtf8),
        Some(RequestError::InvalidUtf8) => Some(RequestError::MessageTooBig),
        Some(RequestError::MessageTooBig) => store_error_after(None).map(RequestError::Store),
        Some(&RequestError::Store(error)) => {
            Some(store_error_after(Some(error)).map_or(RequestError::StoreTimedOut, RequestError::Store))
        }
        Some(RequestError::StoreTimedOut) => Some(RequestError::Other("Other words".into())),
        Some(RequestError::Other(_)) => None,
    }
}

pub(super) fn options_error_after(error: Option<AuthenticateOptionsError>) -> Option<AuthenticateOptionsError> {
    match error {
        None => Some(AuthenticateOptionsError::UserAndToken),
        Some(AuthenticateOptionsError::UserAndToken) => Some(AuthenticateOptionsError::Device),
        Some(AuthenticateOptionsError::Device) => Some(AuthenticateOptionsError::Label),
        Some(AuthenticateOptionsError::Label) => Some(AuthenticateOptionsError::Resume),
        Some(AuthenticateOptionsError::Resume) => Some(AuthenticateOptionsError::Evict),
        Some(AuthenticateOptionsError::Evict) => Some(AuthenticateOptionsError::IfNotResumed),
        Some(AuthenticateOptionsError::IfNotResumed) => Some(AuthenticateOptionsError::WaitMs),
        Some(AuthenticateOptionsError::WaitMs) => None,
    }
}

pub(super) fn credential_error_after(error: Option<CredentialError>) -> Option<CredentialError> {
    match error {
        None => Some(CredentialError::NotText),
        Some(CredentialError::NotText) => Some(CredentialError::UnwantedToken),
        Some(CredentialError::UnwantedToken) => Some(CredentialError::UserId(UserIdError::Empty)),
        Some(CredentialError::UserId(UserIdError::Empty)) => Some(CredentialError::UserId(UserIdError::TooLong)),
        Some(CredentialError::UserId(UserIdError::TooLong)) => {
            Some(CredentialError::UserId(UserIdError::ControlCharacter))
        }
        Some(CredentialError::UserId(UserIdError::ControlCharacter)) => {
            Some(CredentialError::UserId(UserIdError::NotUsername))
        }
        Some(CredentialError::UserId(UserIdError::NotUsername)) => token_error_after(None).map(CredentialError::Token),
        Some(CredentialError::Token(error)) => token_error_after(Some(error)).map(CredentialError::Token),
    }
}

pub(super) fn token_error_after(error: Option<TokenError>) -> Option<TokenError> {
    match error {
        None => Some(TokenError::Missing),
        Some(TokenError::Missing) => Some(TokenError::Malformed),
        Some(TokenError::Malformed) => Some(TokenError::Algorithm),
        Some(TokenError::Algorithm) => Some(TokenError::Critical),
        Some(TokenError::Critical) => Some(TokenError::NoKeyId),
        Some(TokenError::NoKeyId) => Some(TokenError::UnknownKey),
        Some(TokenError::UnknownKey) => Some(TokenError::Signature),
        Some(TokenError::Signature) => Some(TokenError::DuplicateClaim),
        Some(TokenError::DuplicateClaim) => Some(TokenError::NoExpiry),
        Some(TokenError::NoExpiry) => Some(TokenError::Expired),
        Some(TokenError::Expired) => Some(TokenError::NotYetValid),
        Some(TokenError::NotYetValid) => Some(TokenError::Audience),
        Some(TokenError::Audience) => Some(TokenError::Issuer),
        Some(TokenError::Issuer) => Some(TokenError::ClaimType),
        Some(TokenError::ClaimType) => Some(TokenError::NoUser),
        Some(TokenError::NoUser) => Some(TokenError::Limit),
        Some(TokenError::Limit) => Some(TokenError::Device),
        Some(TokenError::Device) => Some(TokenError::NoDevice),
        Some(TokenError::NoDevice) => None,
    }
}

pub(super) fn store_error_after(error: Option<StoreError>) -> Option<StoreError> {
    match error {
        None => Some(StoreError::Overloaded),
        Some(StoreError::Overloaded) => Some(StoreError::Full),
        Some(StoreError::Full) => Some(StoreError::Failed),
        Some(StoreError::Failed) => None,
    }
}

pub(super) fn close_reason_after(reason: Option<CloseReason>) -> Option<CloseReason> {
    match reason {
        None => Some(CloseReason::Bye),
        Some(CloseReason::Bye) => Some(CloseReason::ShuttingDown),
        Some(CloseReason::ShuttingDown) => Some(CloseReason::ProtocolError),
        Some(CloseReason::ProtocolError) => Some(CloseReason::BinaryMessage),
        Some(CloseReason::BinaryMessage) => Some(CloseReason::InvalidUtf8),
        Some(CloseReason::InvalidUtf8) => Some(CloseReason::TooManyBadMessages),
        Some(CloseReason::TooManyBadMessages) => Some(CloseReason::TooManyMessages),
        Some(CloseReason::TooManyMessages) => Some(CloseReason::MessageTooBig),
        Some(CloseReason::MessageTooBig) => Some(CloseReason::Internal),
        Some(CloseReason::Internal) => Some(CloseReason::TryAgainLater),
        Some(CloseReason::TryAgainLater) => Some(CloseReason::NotAuthenticated),
        Some(CloseReason::NotAuthenticated) => Some(CloseReason::TokenExpired),
        Some(CloseReason::TokenExpired) => Some(CloseReason::NotChosen),
        Some(CloseReason::NotChosen) => Some(CloseReason::PeerSilent),
        Some(CloseReason::PeerSilent) => Some(CloseReason::Evicted),
        Some(CloseReason::Evicted) => Some(CloseReason::Resumed),
        Some(CloseReason::Resumed) => Some(CloseReason::Contested),
        Some(CloseReason::Contested) => None,
    }
}
