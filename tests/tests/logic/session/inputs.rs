//! The states and inputs of a session, and the actions that tests expect.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use std::time::Duration;

use session_core::ledger::{
    self, DenyReason, EndReason, Hint, LimitSource, LinePlace, Outcome, RenewalDenied, SessionRecord, SlotLimit,
    SlotUsage, StoreError,
};
use session_core::protocol::Greeting;
use session_core::protocol::{
    AuthenticateFailure, CloseReason, Credential, CredentialError, RequestError, ServerMessage,
};
use session_core::session::{Actions, Effect, Event, Frame, Identity, Session, SessionSettings, Violation};
use session_core::{NodeId, SessionId, Timestamp, UnixSeconds, UserId, UserIdError};

pub(super) use tests::values::{NANOSECOND, user, user_summary};

pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// A unit-only enum and the list of all its variants, so that the specification cannot miss one.
macro_rules! listed {
    ($(#[$doc:meta])* $name:ident { $($variant:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum $name { $($variant),+ }

        impl $name {
            pub(super) const ALL: &[Self] = &[$(Self::$variant),+];
        }
    };
}

listed! {
    /// The states of a session. Only events lead into them: see [`State::histories`].
    State {
        Anonymous, Verifying, Acquiring, LiveHeard, LivePinged, Asking, AcquiringByToken, LiveByToken, Renewing,
        AskingRenewal, LeavingVerification, LeavingAcquire, LeavingLookup, LeavingRenewal, Finished,
    }
}

listed! {
    /// Every kind of event.
    Input {
        Connected, ConnectedV1,
        Authenticate, AuthenticateNobody, Check, Ping, Bye, Garbage, Unknown,
        Alive,
        Protocol, Utf8, Size, Binary,
        Verified, VerifiedByToken, VerifiedOther, NotVerified, VerifyLate,
        Granted, Denied, InLine, Released, Found, Banned, OtherDevice, Overloaded, Full, Failed, Silent, TooMany,
        Evicted, ResumedElsewhere, Hinted, Expired, Draining, Disconnected,
        EarlyTick, Tick, LateTick,
    }
}

use Input::*;

pub(super) const MESSAGES: &[Input] = &[Authenticate, AuthenticateNobody, Check, Ping, Bye, Garbage, Unknown];
pub(super) const VIOLATIONS: &[Input] = &[Protocol, Utf8, Size, Binary];
pub(super) const VERDICTS: &[Input] = &[Verified, VerifiedByToken, VerifiedOther, NotVerified, VerifyLate];
pub(super) const OUTCOMES: &[Input] =
    &[Granted, Denied, InLine, Released, Found, Banned, OtherDevice, Overloaded, Full, Failed, Silent];
pub(super) const ENDINGS: &[Input] = &[Evicted, ResumedElsewhere];
pub(super) const HINTS: &[Input] = &[Hinted];
pub(super) const TICKS: &[Input] = &[EarlyTick, Tick, LateTick];

/// Feeds inputs to a session at these seconds.
pub(super) fn run(session: &mut Session, inputs: &[(u64, Input)]) -> Vec<Actions> {
    inputs.iter().map(|&(second, input)| session.handle(input.event(), at(second))).collect()
}

/// A session in this state, by its first history.
pub(super) fn session_in(state: State) -> Session {
    let mut session = session();
    for (second, event) in state.histories().swap_remove(0) {
        drop(session.handle(event, at(second)));
    }
    session
}

pub(super) fn no_actions() -> Actions {
    Actions::default()
}

pub(super) fn expected(command: Option<Effect>, send: Option<Frame>, close: Option<CloseReason>) -> Actions {
    Actions { effect: command, send, close }
}

impl State {
    /// The histories that lead to the state, as (second, event).
    pub(super) fn histories(self) -> Vec<History> {
        match self {
            Self::Anonymous => vec![
                vec![],
                vec![(0, Connected.event())],
                // Denied, so it may retry.
                [Connected, Authenticate, Verified, Denied].map(|input| (0, input.event())).to_vec(),
                // Not verified: the first of the two tolerated bad messages.
                [Connected, Authenticate, NotVerified].map(|input| (0, input.event())).to_vec(),
            ],
            Self::Verifying => then(Self::Anonymous, &[(1, Authenticate)]),
            Self::Acquiring => then(Self::Verifying, &[(2, Verified)]),
            Self::LiveHeard => [
                then(Self::Acquiring, &[(3, Granted)]),
                then(Self::Acquiring, &[(3, Granted), (3, Check), (3, Found)]),
                then(Self::Acquiring, &[(3, Granted), (3, Check), (3, Silent)]),
            ]
            .concat(),
            Self::LivePinged => then(Self::LiveHeard, &[(33, Tick)]),
            Self::Asking => [then(Self::LiveHeard, &[(4, Check)]), then(Self::LivePinged, &[(34, Check)])].concat(),
            Self::AcquiringByToken => then(Self::Verifying, &[(2, VerifiedByToken)]),
            Self::LiveByToken => then(Self::AcquiringByToken, &[(3, Granted)]),
            Self::Renewing => then(Self::LiveByToken, &[(4, Authenticate)]),
            Self::AskingRenewal => then(Self::Renewing, &[(5, VerifiedByToken)]),
            Self::LeavingRenewal => left(Self::Renewing),
            Self::LeavingVerification => left(Self::Verifying),
            Self::LeavingAcquire => left(Self::Acquiring),
            Self::LeavingLookup => left(Self::Asking),
            Self::Finished => [
                then(Self::Anonymous, &[(1, Disconnected)]),
                then(Self::Anonymous, &[(10, Tick)]),
                then(Self::LiveHeard, &[(4, Bye)]),
                then(Self::LivePinged, &[(38, Tick)]),
                then(Self::Acquiring, &[(3, Silent)]),
                then(Self::Verifying, &[(3, VerifyLate)]),
                then(Self::LeavingVerification, &[(4, Verified)]),
                then(Self::LeavingAcquire, &[(4, Granted)]),
                then(Self::LeavingLookup, &[(36, Found)]),
                then(Self::LiveByToken, &[(4, Expired)]),
                then(Self::LeavingRenewal, &[(36, NotVerified)]),
            ]
            .concat(),
        }
    }

    /// The second of the specification's event.
    pub(super) fn now(self) -> u64 {
        match self {
            Self::Anonymous => 1,
            Self::Verifying => 2,
            Self::Acquiring | Self::AcquiringByToken | Self::LeavingVerification => 3,
            Self::LiveHeard | Self::LiveByToken | Self::LeavingAcquire => 4,
            Self::Renewing => 5,
            Self::LivePinged => 34,
            Self::Asking | Self::AskingRenewal => 35,
            Self::LeavingLookup | Self::LeavingRenewal => 36,
            Self::Finished => 50,
        }
    }
}

pub(super) type History = Vec<(u64, Event<'static>)>;

pub(super) fn then(state: State, inputs: &[(u64, Input)]) -> Vec<History> {
    let more = inputs.iter().map(|&(time, input)| (time, input.event()));
    state.histories().into_iter().map(|history| history.into_iter().chain(more.clone()).collect()).collect()
}

pub(super) fn left(state: State) -> Vec<History> {
    [Disconnected, Draining, Size].into_iter().flat_map(|input| then(state, &[(state.now(), input)])).collect()
}

impl Input {
    pub(super) fn event(self) -> Event<'static> {
        match self {
            Connected => Event::Connected,
            ConnectedV1 => Event::ConnectedV1,
            Ping => Event::Text(r#"{"type":"PING","payload":null}"#),
            Authenticate => Event::Text(r#"{"type":"AUTHENTICATE","payload":"ada's token"}"#),
            AuthenticateNobody => Event::Text(r#"{"type":"AUTHENTICATE","payload":7}"#),
            Check => Event::Text(r#"{"type":"CHECK_CONNECTIONS","payload":null}"#),
            Bye => Event::Text(r#"{"type":"BYE","payload":null}"#),
            Garbage => Event::Text("Hello?"),
            Unknown => Event::Text(r#"{"type":"DANCE","payload":"ada"}"#),
            Alive => Event::Alive,
            Protocol => Event::Violation(Violation::Protocol),
            Utf8 => Event::Violation(Violation::InvalidUtf8),
            Size => Event::Violation(Violation::MessageTooBig),
            Binary => Event::Violation(Violation::BinaryMessage),
            Verified => Event::Verified(Ok(Identity::for_user(user()))),
            VerifiedByToken => Event::Verified(Ok(by_token(100))),
            VerifiedOther => Event::Verified(Ok(Identity { user: bob(), ..by_token(100) })),
            NotVerified => Event::Verified(Err(CredentialError::UserId(UserIdError::TooLong))),
            VerifyLate => Event::VerifyTimedOut,
            Granted => Event::Stored(Outcome::granted(2)),
            Denied => Event::Stored(Outcome::Denied(None)),
            InLine => Event::Stored(Outcome::Waiting(Box::new(in_line(1)))),
            Released => Event::Stored(Outcome::Released),
            Found => Event::Stored(Outcome::Counted { slots: 3 }),
            Banned => Event::Stored(Outcome::NotRenewed(RenewalDenied::Banned)),
            OtherDevice => Event::Stored(Outcome::NotRenewed(RenewalDenied::AnotherDevice)),
            Overloaded => Event::Stored(Outcome::Rejected(StoreError::Overloaded)),
            Full => Event::Stored(Outcome::Rejected(StoreError::Full)),
            Failed => Event::Stored(Outcome::Rejected(StoreError::Failed)),
            Silent => Event::Stored(Outcome::Unknown),
            TooMany => Event::TooManyConnections,
            Evicted => Event::Ended(EndReason::TakenOver(None)),
            ResumedElsewhere => Event::Ended(EndReason::Resumed),
            Hinted => Event::Hinted(Hint::Turn),
            Expired => Event::Expired,
            Draining => Event::Draining,
            Disconnected => Event::Disconnected,
            EarlyTick | Tick | LateTick => Event::Tick,
        }
    }

    /// The time of the input: `now`, but ticks come around the deadline if there is one.
    pub(super) fn time(self, session: &Session, now: Timestamp) -> Timestamp {
        let deadline = session.deadline();
        match self {
            EarlyTick => deadline.map_or(now, before),
            Tick => deadline.unwrap_or(now),
            LateTick => deadline.unwrap_or(now) + HOUR,
            Connected | ConnectedV1 | Authenticate | AuthenticateNobody | Check | Ping | Bye | Garbage | Unknown
            | Alive | Protocol | Utf8 | Size | Binary | Verified | VerifiedByToken | VerifiedOther | NotVerified
            | VerifyLate | Granted | Denied | InLine | Released | Found | Banned | OtherDevice | Overloaded | Full
            | Failed | Silent | TooMany | Evicted | ResumedElsewhere | Hinted | Expired | Draining | Disconnected => {
                now
            }
        }
    }
}

pub(super) const SETTINGS: SessionSettings = SessionSettings {
    auth_timeout: Duration::from_secs(10),
    ping_interval: Duration::from_secs(30),
    pong_timeout: Duration::from_secs(5),
    max_bad_messages: Some(2),
    max_message_rate: None,
};

pub(super) fn session() -> Session {
    Session::new(id(), &SETTINGS, at(0))
}

pub(super) fn id() -> SessionId {
    NodeId::new(0xada).session(7)
}

/// A full user with one session, and the asker at this place in line.
pub(super) fn in_line(place: u16) -> SlotUsage {
    SlotUsage {
        limit: SlotLimit::new(1).unwrap(),
        limit_source: LimitSource::Server,
        slots: 1,
        sessions: [SessionRecord::new(NodeId::new(0xb0b).session(1), at(0))].into(),
        free_at: None,
        denied: Some(DenyReason::LimitReached),
        client_choice: false,
        waiting: place,
        line: LinePlace::At(place),
    }
}

/// A second of the session, which begins some time after the epoch.
pub(super) fn at(second: u64) -> Timestamp {
    Timestamp::from_epoch(Duration::from_secs(1_700_000_000 + second))
}

pub(super) fn before(time: Timestamp) -> Timestamp {
    Timestamp::from_epoch(time.since_epoch() - NANOSECOND)
}

pub(super) fn verify() -> Option<Effect> {
    Some(Effect::Verify(Credential::new("ada's token")))
}

pub(super) fn verify_none() -> Option<Effect> {
    Some(Effect::Verify(Credential::None))
}

pub(super) fn acquire(at: Timestamp) -> Option<Effect> {
    Some(Effect::Store(ledger::StoreCommand::Acquire { user: user(), session: id(), limit: None, at, options: None }))
}

/// The acquire at 2 s with the limit of a token.
pub(super) fn acquire_up_to(slots: u32) -> Option<Effect> {
    let limit = SlotLimit::new(slots).ok();
    Some(Effect::Store(ledger::StoreCommand::Acquire { user: user(), session: id(), limit, at: at(2), options: None }))
}

pub(super) fn acquire_for_bob() -> Option<Effect> {
    let limit = SlotLimit::new(7).ok();
    Some(Effect::Store(ledger::StoreCommand::Acquire { user: bob(), session: id(), limit, at: at(2), options: None }))
}

/// Ada by a token with a limit of 7 that expires at this second of the wall clock.
pub(super) fn by_token(expires: u64) -> Identity {
    let expires = Some(UnixSeconds::from_unix_seconds(expires));
    Identity { limit: SlotLimit::new(7).ok(), expires, ..Identity::for_user(user()) }
}

pub(super) fn bob() -> UserId {
    UserId::parse("bob").unwrap()
}

pub(super) fn count_slots(second: u64) -> Option<Effect> {
    Some(Effect::Store(ledger::StoreCommand::CountSlots { user: user(), session: id(), at: at(second) }))
}

/// The renewal by the token of [`by_token`], or by a name.
pub(super) fn renew(limit: Option<u32>) -> Option<Effect> {
    let (user, limit, at) = (user(), limit.and_then(|slots| SlotLimit::new(slots).ok()), at(5));
    Some(Effect::Store(ledger::StoreCommand::Renew { user, session: id(), limit, device: None, at }))
}

pub(super) fn release() -> Option<Effect> {
    Some(Effect::Store(ledger::StoreCommand::Release { user: user(), session: id() }))
}

pub(super) fn reply(reply: ServerMessage) -> Option<Frame> {
    Some(Frame::Message(reply))
}

/// The greeting of a client that selected the subprotocol, a second after the connection began.
pub(super) fn greeting() -> Option<Frame> {
    reply(ServerMessage::HelloDetailed(Greeting { authenticate_within: Duration::from_secs(9) }))
}

pub(super) fn evicted() -> Option<Frame> {
    reply(ServerMessage::Evicted("Another session of this user has taken the place of this one".into()))
}

pub(super) fn failure(failure: AuthenticateFailure) -> Option<Frame> {
    reply(ServerMessage::AuthenticateFailure(failure))
}

pub(super) fn error_reply(error: RequestError) -> Option<Frame> {
    reply(ServerMessage::Error(error))
}

pub(super) fn close(reason: CloseReason) -> Option<CloseReason> {
    Some(reason)
}

pub(super) fn invalid_id() -> AuthenticateFailure {
    AuthenticateFailure::Credential(CredentialError::UserId(UserIdError::TooLong))
}

pub(super) fn no_such_type() -> RequestError {
    RequestError::UnknownType("DANCE".into())
}
