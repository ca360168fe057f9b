//! Transitions of one session: a row per (state, event), scenarios in words, and any history at all.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

use proptest::prelude::*;
use session_core::ledger::{self, EndReason, Outcome, SlotLimit, StoreError};
use session_core::protocol::RequestError::{AlreadyAuthenticated, NotAuthenticated, NotJson, RequestPending};
use session_core::protocol::{
    AuthenticateFailure, CloseReason, Credential, CredentialError, RequestError, ServerMessage, UserSummary,
};
use session_core::session::{Actions, Effect, Event, Frame, Identity, Session, SessionSettings, Violation};
use session_core::{NodeId, SessionId, Timestamp, UnixSeconds, UserId, UserIdError};

const NANOSECOND: Duration = Duration::from_nanos(1);
const HOUR: Duration = Duration::from_secs(3600);

/// A unit-only enum and the list of all its variants, so that the table below cannot miss one.
macro_rules! listed {
    ($(#[$doc:meta])* $name:ident { $($variant:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        enum $name { $($variant),+ }

        impl $name {
            const ALL: &[Self] = &[$(Self::$variant),+];
        }
    };
}

listed! {
    /// The states of a session. Only events lead into them: see [`State::histories`].
    State {
        Anonymous, Verifying, Acquiring, LiveHeard, LivePinged, Asking, AcquiringByToken, LiveByToken, Renewing,
        AskingRenewal, LeavingVerification, LeavingAcquire, LeavingLookup, LeavingRenewal, Drained,
    }
}

listed! {
    /// What can happen, in every kind that could matter.
    Input {
        Connected,
        Authenticate, AuthenticateNobody, Check, Bye, Garbage, Unknown,
        Alive,
        Protocol, Utf8, Size, Binary,
        Verified, VerifiedByToken, VerifiedOther, NotVerified,
        Granted, Denied, Released, Found, Overloaded, Full, Failed, Silent,
        Evicted, TakenUp, Expired, Draining, Disconnected,
        EarlyTick, Tick, LateTick,
    }
}

use Input::*;

const MESSAGES: &[Input] = &[Authenticate, AuthenticateNobody, Check, Bye, Garbage, Unknown];
const VIOLATIONS: &[Input] = &[Protocol, Utf8, Size, Binary];
const VERDICTS: &[Input] = &[Verified, VerifiedByToken, VerifiedOther, NotVerified];
const OUTCOMES: &[Input] = &[Granted, Denied, Released, Found, Overloaded, Full, Failed, Silent];
const ENDINGS: &[Input] = &[Evicted, TakenUp];
const TICKS: &[Input] = &[EarlyTick, Tick, LateTick];

/// Every (state, input) => what is submitted, sent and closed with, and when the session ticks next. Seconds count
/// from the session's beginning; the limits are 10 s to authenticate, a ping after 30 s of silence, 5 s to answer it.
#[rustfmt::skip]
fn specification() -> Vec<(State, Vec<Row>)> {
    vec![
        // Now is 1 s.
        (State::Anonymous, vec![
            on(&[Connected],          None,              say(ServerMessage::Hello),                    None,                    Waits(10)),
            on(&[Authenticate],       verify(),          None,                                 None,                    Busy),
            on(&[AuthenticateNobody], verify_none(),     None,                                 None,                    Busy),
            on(&[Check],              None,              error_reply(NotAuthenticated),              None,                    Waits(10)),
            on(&[Bye],                None,              say(ServerMessage::ByeSuccess),               close(CloseReason::Bye), Over),
            on(&[Garbage],            None,              error_reply(NotJson),                       None,                    Waits(10)),
            on(&[Unknown],            None,              error_reply(no_such_type()),                None,                    Waits(10)),
            on(&[Protocol],           None,              error_reply(RequestError::ProtocolError),      close(CloseReason::ProtocolError),    Over),
            on(&[Utf8],               None,              error_reply(RequestError::InvalidUtf8),        close(CloseReason::InvalidUtf8),      Over),
            on(&[Size],               None,              error_reply(RequestError::MessageTooBig),      close(CloseReason::MessageTooBig),    Over),
            on(&[Binary],             None,              error_reply(RequestError::BinaryMessage),      close(CloseReason::BinaryMessage),    Over),
            on(&[Draining],           None,              None,                                 close(CloseReason::ShuttingDown),     Over),
            on(&[Disconnected],       None,              None,                                 None,                    Over),
            on(&[Tick, LateTick],     None,              None,                                 close(CloseReason::NotAuthenticated), Over),
            ignores(&[ENDINGS, &[Alive, Expired, EarlyTick], VERDICTS, OUTCOMES], Waits(10)),
        ]),
        // Now is 2 s.
        (State::Verifying, vec![
            on(MESSAGES,              None,              error_reply(RequestPending),                     None,                    Busy),
            on(&[Protocol],           None,              error_reply(RequestError::ProtocolError),      close(CloseReason::ProtocolError),    Busy),
            on(&[Utf8],               None,              error_reply(RequestError::InvalidUtf8),        close(CloseReason::InvalidUtf8),      Busy),
            on(&[Size],               None,              error_reply(RequestError::MessageTooBig),      close(CloseReason::MessageTooBig),    Busy),
            on(&[Binary],             None,              error_reply(RequestError::BinaryMessage),      close(CloseReason::BinaryMessage),    Busy),
            on(&[Verified],           acquire(at(2)),    None,                                 None,                    Busy),
            on(&[VerifiedByToken],    acquire_up_to(7),  None,                                 None,                    Busy),
            on(&[VerifiedOther],      acquire_for_bob(), None,                                 None,                    Busy),
            on(&[NotVerified],        None,              refuse(nobody()),                     None,                    Waits(10)),
            on(&[Draining],           None,              None,                                 close(CloseReason::ShuttingDown),     Busy),
            on(&[Disconnected],       None,              None,                                 None,                    Busy),
            ignores(&[ENDINGS, &[Connected, Alive, Expired], OUTCOMES, TICKS], Busy),
        ]),
        // Now is 3 s.
        (State::Acquiring, vec![
            on(MESSAGES,              None,              error_reply(RequestPending),                     None,                    Busy),
            on(&[Protocol],           None,              error_reply(RequestError::ProtocolError),      close(CloseReason::ProtocolError),    Busy),
            on(&[Utf8],               None,              error_reply(RequestError::InvalidUtf8),        close(CloseReason::InvalidUtf8),      Busy),
            on(&[Size],               None,              error_reply(RequestError::MessageTooBig),      close(CloseReason::MessageTooBig),    Busy),
            on(&[Binary],             None,              error_reply(RequestError::BinaryMessage),      close(CloseReason::BinaryMessage),    Busy),
            on(&[Granted],            None,              say(ServerMessage::AuthenticateSuccess(ada(2))), None,                 Waits(33)),
            on(&[Denied],             None,              refuse(AuthenticateFailure::LimitReached),        None,                    Waits(10)),
            on(&[Overloaded],         None,              refuse(AuthenticateFailure::Store(StoreError::Overloaded)), close(CloseReason::TryAgainLater), Over),
            on(&[Full],               None,              refuse(AuthenticateFailure::Store(StoreError::Full)),  close(CloseReason::TryAgainLater),    Over),
            on(&[Failed],             None,              refuse(AuthenticateFailure::Store(StoreError::Failed)), close(CloseReason::TryAgainLater),   Over),
            on(&[Silent, Released, Found], None,         refuse(AuthenticateFailure::StoreTimedOut),         close(CloseReason::TryAgainLater),    Over),
            on(&[Evicted],            None,              evicted(),                            close(CloseReason::Evicted),          Busy),
            on(&[TakenUp],            None,              None,                                 close(CloseReason::Resumed),          Busy),
            on(&[Draining],           None,              None,                                 close(CloseReason::ShuttingDown),     Busy),
            on(&[Disconnected],       None,              None,                                 None,                    Busy),
            ignores(&[&[Connected, Alive, Expired], VERDICTS, TICKS], Busy),
        ]),
        // Now is 4 s, the peer was heard at 3 s.
        (State::LiveHeard, vec![
            on(&[Authenticate, AuthenticateNobody], None, error_reply(AlreadyAuthenticated),         None,                    Waits(34)),
            on(&[Check],              look_up(4),         None,                                 None,                    Busy),
            on(&[Bye],                release(),         say(ServerMessage::ByeSuccess),               close(CloseReason::Bye), Over),
            on(&[Garbage],            None,              error_reply(NotJson),                       None,                    Waits(34)),
            on(&[Unknown],            None,              error_reply(no_such_type()),                None,                    Waits(34)),
            on(&[Alive],              None,              None,                                 None,                    Waits(34)),
            on(&[Protocol],           release(),         error_reply(RequestError::ProtocolError),      close(CloseReason::ProtocolError),    Over),
            on(&[Utf8],               release(),         error_reply(RequestError::InvalidUtf8),        close(CloseReason::InvalidUtf8),      Over),
            on(&[Size],               release(),         error_reply(RequestError::MessageTooBig),      close(CloseReason::MessageTooBig),    Over),
            on(&[Binary],             release(),         error_reply(RequestError::BinaryMessage),      close(CloseReason::BinaryMessage),    Over),
            on(&[Evicted],            release(),         evicted(),                            close(CloseReason::Evicted),          Over),
            on(&[TakenUp],            release(),         None,                                 close(CloseReason::Resumed),          Over),
            on(&[Draining],           release(),         None,                                 close(CloseReason::ShuttingDown),     Over),
            on(&[Disconnected],       release(),         None,                                 None,                    Over),
            on(&[Tick],               None,              Some(Frame::Ping),                    None,                    Waits(33 + 5)),
            on(&[LateTick],           None,              Some(Frame::Ping),                    None,                    Waits(3633 + 5)),
            ignores(&[&[Connected, Expired, EarlyTick], VERDICTS, OUTCOMES], Waits(33)),
        ]),
        // Now is 34 s, the peer was pinged at 33 s.
        (State::LivePinged, vec![
            on(&[Authenticate, AuthenticateNobody], None, error_reply(AlreadyAuthenticated),         None,                    Waits(64)),
            on(&[Check],              look_up(34),         None,                                 None,                    Busy),
            on(&[Bye],                release(),         say(ServerMessage::ByeSuccess),               close(CloseReason::Bye), Over),
            on(&[Garbage],            None,              error_reply(NotJson),                       None,                    Waits(64)),
            on(&[Unknown],            None,              error_reply(no_such_type()),                None,                    Waits(64)),
            on(&[Alive],              None,              None,                                 None,                    Waits(64)),
            on(&[Protocol],           release(),         error_reply(RequestError::ProtocolError),      close(CloseReason::ProtocolError),    Over),
            on(&[Utf8],               release(),         error_reply(RequestError::InvalidUtf8),        close(CloseReason::InvalidUtf8),      Over),
            on(&[Size],               release(),         error_reply(RequestError::MessageTooBig),      close(CloseReason::MessageTooBig),    Over),
            on(&[Binary],             release(),         error_reply(RequestError::BinaryMessage),      close(CloseReason::BinaryMessage),    Over),
            on(&[Evicted],            release(),         evicted(),                            close(CloseReason::Evicted),          Over),
            on(&[TakenUp],            release(),         None,                                 close(CloseReason::Resumed),          Over),
            on(&[Draining],           release(),         None,                                 close(CloseReason::ShuttingDown),     Over),
            on(&[Disconnected],       release(),         None,                                 None,                    Over),
            on(&[Tick, LateTick],     release(),         None,                                 close(CloseReason::PeerSilent),       Over),
            ignores(&[&[Connected, Expired, EarlyTick], VERDICTS, OUTCOMES], Waits(38)),
        ]),
        // Now is 35 s, whenever the question came.
        (State::Asking, vec![
            on(MESSAGES,              None,              error_reply(RequestPending),                     None,                    Busy),
            on(&[Protocol],           None,              error_reply(RequestError::ProtocolError),      close(CloseReason::ProtocolError),    Busy),
            on(&[Utf8],               None,              error_reply(RequestError::InvalidUtf8),        close(CloseReason::InvalidUtf8),      Busy),
            on(&[Size],               None,              error_reply(RequestError::MessageTooBig),      close(CloseReason::MessageTooBig),    Busy),
            on(&[Binary],             None,              error_reply(RequestError::BinaryMessage),      close(CloseReason::BinaryMessage),    Busy),
            on(&[Found],              None,              say(ServerMessage::CheckConnectionsSuccess(ada(3))), None,             Waits(65)),
            on(&[Granted, Denied, Released, Silent], None, error_reply(RequestError::StoreTimedOut),      None,                    Waits(65)),
            on(&[Overloaded],         None,              error_reply(RequestError::Store(StoreError::Overloaded)), None,              Waits(65)),
            on(&[Full],               None,              error_reply(RequestError::Store(StoreError::Full)), None,                    Waits(65)),
            on(&[Failed],             None,              error_reply(RequestError::Store(StoreError::Failed)), None,                  Waits(65)),
            on(&[Evicted],            None,              evicted(),                            close(CloseReason::Evicted),          Busy),
            on(&[TakenUp],            None,              None,                                 close(CloseReason::Resumed),          Busy),
            on(&[Draining],           None,              None,                                 close(CloseReason::ShuttingDown),     Busy),
            on(&[Disconnected],       None,              None,                                 None,                    Busy),
            ignores(&[&[Connected, Alive, Expired], VERDICTS, TICKS], Busy),
        ]),
        // The same three states of a session whose token runs out. Now is 3 s, 4 s and 35 s as above.
        (State::AcquiringByToken, vec![
            on(MESSAGES,              None,              error_reply(RequestPending),                     None,                    Busy),
            on(&[Protocol],           None,              error_reply(RequestError::ProtocolError),      close(CloseReason::ProtocolError),    Busy),
            on(&[Utf8],               None,              error_reply(RequestError::InvalidUtf8),        close(CloseReason::InvalidUtf8),      Busy),
            on(&[Size],               None,              error_reply(RequestError::MessageTooBig),      close(CloseReason::MessageTooBig),    Busy),
            on(&[Binary],             None,              error_reply(RequestError::BinaryMessage),      close(CloseReason::BinaryMessage),    Busy),
            on(&[Granted],            None,              say(ServerMessage::AuthenticateSuccess(ada(2))), None,                 Waits(33)),
            on(&[Denied],             None,              refuse(AuthenticateFailure::LimitReached),        None,                    Waits(10)),
            on(&[Overloaded],         None,              refuse(AuthenticateFailure::Store(StoreError::Overloaded)), close(CloseReason::TryAgainLater), Over),
            on(&[Full],               None,              refuse(AuthenticateFailure::Store(StoreError::Full)),  close(CloseReason::TryAgainLater),    Over),
            on(&[Failed],             None,              refuse(AuthenticateFailure::Store(StoreError::Failed)), close(CloseReason::TryAgainLater),   Over),
            on(&[Silent, Released, Found], None,         refuse(AuthenticateFailure::StoreTimedOut),         close(CloseReason::TryAgainLater),    Over),
            on(&[Expired],            None,              None,                                 close(CloseReason::TokenExpired),     Busy),
            on(&[Evicted],            None,              evicted(),                            close(CloseReason::Evicted),          Busy),
            on(&[TakenUp],            None,              None,                                 close(CloseReason::Resumed),          Busy),
            on(&[Draining],           None,              None,                                 close(CloseReason::ShuttingDown),     Busy),
            on(&[Disconnected],       None,              None,                                 None,                    Busy),
            ignores(&[&[Connected, Alive], VERDICTS, TICKS], Busy),
        ]),
        (State::LiveByToken, vec![
            on(&[Authenticate],       verify(),          None,                                 None,                    Busy),
            on(&[AuthenticateNobody], verify_none(),     None,                                 None,                    Busy),
            on(&[Check],              look_up(4),         None,                                 None,                    Busy),
            on(&[Bye],                release(),         say(ServerMessage::ByeSuccess),               close(CloseReason::Bye), Over),
            on(&[Garbage],            None,              error_reply(NotJson),                       None,                    Waits(34)),
            on(&[Unknown],            None,              error_reply(no_such_type()),                None,                    Waits(34)),
            on(&[Alive],              None,              None,                                 None,                    Waits(34)),
            on(&[Protocol],           release(),         error_reply(RequestError::ProtocolError),      close(CloseReason::ProtocolError),    Over),
            on(&[Utf8],               release(),         error_reply(RequestError::InvalidUtf8),        close(CloseReason::InvalidUtf8),      Over),
            on(&[Size],               release(),         error_reply(RequestError::MessageTooBig),      close(CloseReason::MessageTooBig),    Over),
            on(&[Binary],             release(),         error_reply(RequestError::BinaryMessage),      close(CloseReason::BinaryMessage),    Over),
            on(&[Expired],            release(),         None,                                 close(CloseReason::TokenExpired),     Over),
            on(&[Evicted],            release(),         evicted(),                            close(CloseReason::Evicted),          Over),
            on(&[TakenUp],            release(),         None,                                 close(CloseReason::Resumed),          Over),
            on(&[Draining],           release(),         None,                                 close(CloseReason::ShuttingDown),     Over),
            on(&[Disconnected],       release(),         None,                                 None,                    Over),
            on(&[Tick],               None,              Some(Frame::Ping),                    None,                    Waits(33 + 5)),
            on(&[LateTick],           None,              Some(Frame::Ping),                    None,                    Waits(3633 + 5)),
            ignores(&[&[Connected, EarlyTick], VERDICTS, OUTCOMES], Waits(33)),
        ]),
        // Now is 5 s.
        (State::Renewing, vec![
            on(MESSAGES,              None,              error_reply(RequestPending),                     None,                    Busy),
            on(&[Protocol],           None,              error_reply(RequestError::ProtocolError),      close(CloseReason::ProtocolError),    Busy),
            on(&[Utf8],               None,              error_reply(RequestError::InvalidUtf8),        close(CloseReason::InvalidUtf8),      Busy),
            on(&[Size],               None,              error_reply(RequestError::MessageTooBig),      close(CloseReason::MessageTooBig),    Busy),
            on(&[Binary],             None,              error_reply(RequestError::BinaryMessage),      close(CloseReason::BinaryMessage),    Busy),
            on(&[Verified, VerifiedByToken], look_up(5),  None,                                 None,                    Busy),
            on(&[VerifiedOther],      None,              refuse(AuthenticateFailure::AnotherUser),         None,                    Waits(35)),
            on(&[NotVerified],        None,              refuse(nobody()),                     None,                    Waits(35)),
            on(&[Evicted],            None,              evicted(),                            close(CloseReason::Evicted),          Busy),
            on(&[TakenUp],            None,              None,                                 close(CloseReason::Resumed),          Busy),
            on(&[Draining],           None,              None,                                 close(CloseReason::ShuttingDown),     Busy),
            on(&[Disconnected],       None,              None,                                 None,                    Busy),
            ignores(&[&[Connected, Alive, Expired], OUTCOMES, TICKS], Busy),
        ]),
        // Now is 35 s.
        (State::AskingRenewal, vec![
            on(MESSAGES,              None,              error_reply(RequestPending),                     None,                    Busy),
            on(&[Protocol],           None,              error_reply(RequestError::ProtocolError),      close(CloseReason::ProtocolError),    Busy),
            on(&[Utf8],               None,              error_reply(RequestError::InvalidUtf8),        close(CloseReason::InvalidUtf8),      Busy),
            on(&[Size],               None,              error_reply(RequestError::MessageTooBig),      close(CloseReason::MessageTooBig),    Busy),
            on(&[Binary],             None,              error_reply(RequestError::BinaryMessage),      close(CloseReason::BinaryMessage),    Busy),
            on(&[Found],              None,              say(ServerMessage::AuthenticateSuccess(ada(3))), None,                 Waits(65)),
            on(&[Granted, Denied, Released, Silent], None, refuse(AuthenticateFailure::StoreTimedOut),       None,                    Waits(65)),
            on(&[Overloaded],         None,              refuse(AuthenticateFailure::Store(StoreError::Overloaded)), None,               Waits(65)),
            on(&[Full],               None,              refuse(AuthenticateFailure::Store(StoreError::Full)),  None,                    Waits(65)),
            on(&[Failed],             None,              refuse(AuthenticateFailure::Store(StoreError::Failed)), None,                   Waits(65)),
            on(&[Expired],            None,              None,                                 close(CloseReason::TokenExpired),     Busy),
            on(&[Evicted],            None,              evicted(),                            close(CloseReason::Evicted),          Busy),
            on(&[TakenUp],            None,              None,                                 close(CloseReason::Resumed),          Busy),
            on(&[Draining],           None,              None,                                 close(CloseReason::ShuttingDown),     Busy),
            on(&[Disconnected],       None,              None,                                 None,                    Busy),
            ignores(&[&[Connected, Alive], VERDICTS, TICKS], Busy),
        ]),
        (State::LeavingVerification, vec![
            on(VERDICTS,              None,              None,                                 None,                    Over),
            ignores(&[ENDINGS, &[Connected, Alive, Expired, Draining, Disconnected], MESSAGES, VIOLATIONS, OUTCOMES, TICKS], Busy),
        ]),
        (State::LeavingAcquire, vec![
            on(&[Granted],            release(),         None,                                 None,                    Over),
            on(&[Denied, Released, Found, Overloaded, Full, Failed, Silent], None, None,       None,                    Over),
            ignores(&[ENDINGS, &[Connected, Alive, Expired, Draining, Disconnected], MESSAGES, VIOLATIONS, VERDICTS, TICKS], Busy),
        ]),
        (State::LeavingLookup, vec![
            on(OUTCOMES,              release(),         None,                                 None,                    Over),
            ignores(&[ENDINGS, &[Connected, Alive, Expired, Draining, Disconnected], MESSAGES, VIOLATIONS, VERDICTS, TICKS], Busy),
        ]),
        (State::LeavingRenewal, vec![
            on(VERDICTS,              release(),         None,                                 None,                    Over),
            ignores(&[ENDINGS, &[Connected, Alive, Expired, Draining, Disconnected], MESSAGES, VIOLATIONS, OUTCOMES, TICKS], Busy),
        ]),
        (State::Drained, vec![
            ignores(&[Input::ALL], Over),
        ]),
    ]
}

/// The three questions a shell asks of a session after every event, answered together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// Ticks at this second and takes messages.
    Waits(u64),
    /// A command is under way, no tick is due, messages wait.
    Busy,
    /// Nothing is ever due again.
    Over,
}

use After::{Busy, Over, Waits};

struct Row {
    inputs: Vec<Input>,
    actions: Actions,
    after: After,
    /// Not even what the session hides of its state may change.
    nothing_changes: bool,
}

fn on(inputs: &[Input], command: Option<Effect>, send: Option<Frame>, close: Option<CloseReason>, after: After) -> Row {
    Row { inputs: inputs.to_vec(), actions: Actions { effect: command, send, close }, after, nothing_changes: false }
}

fn ignores(inputs: &[&[Input]], after: After) -> Row {
    Row { inputs: inputs.concat(), actions: Actions::default(), after, nothing_changes: true }
}

#[test]
fn every_transition_is_as_specified() {
    for (state, rows) in specification() {
        for Row { inputs, actions, after, nothing_changes } in rows {
            for (input, history) in
                inputs.into_iter().flat_map(|input| state.histories().into_iter().map(move |history| (input, history)))
            {
                let mut session = session();
                for &(time, ref event) in &history {
                    drop(session.handle(event.clone(), at(time)));
                }
                let before = format!("{session:?}");
                let now = input.time(&session, at(state.now()));
                let row = format!("{state:?}, {input:?} at {now}, after {history:?}");
                assert_eq!(session.handle(input.event(), now), actions, "{row}");
                assert_eq!(after_of(&session), after, "{row}");
                assert_eq!(session.id(), id(), "{row}");
                if nothing_changes {
                    assert_eq!(format!("{session:?}"), before, "{row}");
                }
            }
        }
    }
}

#[test]
fn the_specification_has_every_state_and_event_exactly_once() {
    let specification = specification();
    let states: Vec<_> = specification.iter().map(|(state, _)| *state).collect();
    assert_eq!(states, State::ALL);
    for (state, rows) in specification {
        let mut inputs: Vec<_> = rows.into_iter().flat_map(|row| row.inputs).collect();
        inputs.sort();
        assert_eq!(inputs, Input::ALL, "{state:?}");
    }
    let kinds: BTreeSet<_> = Input::ALL.iter().map(|input| kind(&input.event())).collect();
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), (0..KINDS).collect::<Vec<_>>(), "an event without an input");
}

const KINDS: u8 = 23;

/// Numbers the kinds of event. Whoever adds one must give it an [`Input`], and with it a row in every state.
fn kind(event: &Event<'_>) -> u8 {
    match event {
        Event::Connected => 0,
        Event::Text(_) => 1,
        Event::Alive => 2,
        Event::Violation(Violation::Protocol) => 3,
        Event::Violation(Violation::InvalidUtf8) => 4,
        Event::Violation(Violation::MessageTooBig) => 5,
        Event::Violation(Violation::BinaryMessage) => 6,
        Event::Verified(Ok(_)) => 7,
        Event::Verified(Err(_)) => 8,
        Event::Stored(Outcome::Granted { .. }) => 9,
        Event::Stored(Outcome::Denied(_)) => 10,
        Event::Stored(Outcome::Released) => 11,
        // The last two come only to those who asked for them: `guests` has them.
        Event::Stored(Outcome::Counted { .. } | Outcome::Listed(_) | Outcome::Ended { .. }) => 12,
        Event::Stored(Outcome::Rejected(StoreError::Overloaded)) => 13,
        Event::Stored(Outcome::Rejected(StoreError::Full)) => 14,
        Event::Stored(Outcome::Rejected(StoreError::Failed)) => 15,
        Event::Stored(Outcome::Unknown) => 16,
        Event::Draining => 17,
        Event::Disconnected => 18,
        Event::Tick => 19,
        Event::Expired => 20,
        Event::Ended(EndReason::Resumed) => 21,
        Event::Ended(EndReason::TakenOver(_) | EndReason::ByUser(_) | EndReason::ByOperator) => 22,
    }
}

/// The machine, driven by inputs at seconds.
fn run(session: &mut Session, inputs: &[(u64, Input)]) -> Vec<Actions> {
    inputs.iter().map(|&(second, input)| session.handle(input.event(), at(second))).collect()
}

/// A session at one of the states, by the first way that leads there.
fn session_in(state: State) -> Session {
    let mut session = session();
    for (second, event) in state.histories().swap_remove(0) {
        drop(session.handle(event, at(second)));
    }
    session
}

fn nothing() -> Actions {
    Actions::default()
}

fn only(command: Option<Effect>, send: Option<Frame>, close: Option<CloseReason>) -> Actions {
    Actions { effect: command, send, close }
}

#[test]
fn a_whole_visit() {
    let mut session = session();
    let actions = run(
        &mut session,
        &[(0, Connected), (1, Authenticate), (2, Verified), (3, Granted), (4, Check), (5, Found), (6, Bye)],
    );
    assert_eq!(
        actions,
        [
            only(None, say(ServerMessage::Hello), None),
            only(verify(), None, None),
            only(acquire(at(2)), None, None),
            only(None, say(ServerMessage::AuthenticateSuccess(ada(2))), None),
            only(look_up(4), None, None),
            only(None, say(ServerMessage::CheckConnectionsSuccess(ada(3))), None),
            // The shell serves a struct's fields in this order: the release is queued before the reply.
            only(release(), say(ServerMessage::ByeSuccess), close(CloseReason::Bye)),
        ]
    );
    assert!(session.is_finished());
}

#[test]
fn a_grant_that_comes_after_the_peer_left_is_released_once_and_never_told() {
    for (leaving, told) in [
        (Disconnected, nothing()),
        (Draining, only(None, None, close(CloseReason::ShuttingDown))),
        (Size, only(None, error_reply(RequestError::MessageTooBig), close(CloseReason::MessageTooBig))),
    ] {
        let mut session = session_in(State::Acquiring);
        let actions = run(&mut session, &[(3, leaving), (4, Granted), (5, Granted), (6, Disconnected), (7, Tick)]);
        let released = only(release(), None, None);
        assert_eq!(actions, [told, released, nothing(), nothing(), nothing()]);
        assert!(session.is_finished());
    }
}

#[test]
fn the_authentication_deadline_counts_from_the_beginning_whatever_is_tried() {
    let mut session = session();
    let tries = [(1, Connected), (2, Authenticate), (3, Verified), (4, Denied), (8, Authenticate), (9, NotVerified)];
    drop(run(&mut session, &tries));
    assert_eq!(session.deadline(), Some(at(10)));
    assert_eq!(session.handle(Event::Tick, before(at(10))), nothing());
    assert_eq!(session.handle(Event::Tick, at(10)), only(None, None, close(CloseReason::NotAuthenticated)));
    assert!(session.is_finished());
}

#[test]
fn a_message_that_comes_too_late_to_authenticate_is_not_served_even_without_a_tick() {
    for &message in MESSAGES {
        let mut early = session();
        let late = only(None, None, close(CloseReason::NotAuthenticated));
        assert_ne!(early.handle(message.event(), before(at(10))), late, "{message:?}");
        for time in [at(10), at(10) + HOUR] {
            let mut session = session();
            assert_eq!(session.handle(message.event(), time), late, "{message:?} at {time}");
            assert!(session.is_finished());
        }
    }
}

#[test]
fn an_answer_that_comes_after_the_authentication_deadline_still_counts() {
    let mut session = session();
    let actions = run(&mut session, &[(9, Authenticate), (11, Tick), (12, Verified), (13, Tick), (14, Granted)]);
    let success = only(None, say(ServerMessage::AuthenticateSuccess(ada(2))), None);
    assert_eq!(actions[1..], [nothing(), only(acquire(at(12)), None, None), nothing(), success]);

    let mut session = session_in(State::Anonymous);
    let actions = run(&mut session, &[(9, Authenticate), (11, Verified), (14, Denied), (14, Tick)]);
    let denied = only(None, refuse(AuthenticateFailure::LimitReached), None);
    assert_eq!(actions[2..], [denied, only(None, None, close(CloseReason::NotAuthenticated))]);
}

#[test]
fn a_silent_peer_is_pinged_and_then_closed_each_at_its_exact_time() {
    let mut session = session_in(State::LiveHeard);
    assert_eq!(session.deadline(), Some(at(33)));
    assert_eq!(session.handle(Event::Tick, before(at(33))), nothing());
    assert_eq!(session.handle(Event::Tick, at(33)), only(None, Some(Frame::Ping), None));
    assert_eq!(session.deadline(), Some(at(38)));
    assert_eq!(session.handle(Event::Tick, before(at(38))), nothing());
    assert_eq!(session.handle(Event::Tick, at(38)), only(release(), None, close(CloseReason::PeerSilent)));
    assert_eq!(session.deadline(), None);
}

#[test]
fn every_sign_of_life_puts_the_next_ping_off() {
    for sign in [Alive, Garbage, Authenticate] {
        let mut session = session_in(State::LivePinged);
        assert_eq!(session.deadline(), Some(at(38)));
        drop(run(&mut session, &[(37, sign)]));
        assert_eq!(session.deadline(), Some(at(67)), "{sign:?}");
        assert_eq!(run(&mut session, &[(66, Tick), (67, Tick)]), [nothing(), only(None, Some(Frame::Ping), None)]);
        assert_eq!(session.deadline(), Some(at(72)), "{sign:?}");
    }
}

#[test]
fn silence_is_not_counted_while_a_question_is_under_way() {
    let mut session = session_in(State::LivePinged);
    let actions = run(&mut session, &[(37, Check), (38, Tick), (99, Tick), (100, Found), (129, Tick), (130, Tick)]);
    let found = only(None, say(ServerMessage::CheckConnectionsSuccess(ada(3))), None);
    let ping = only(None, Some(Frame::Ping), None);
    assert_eq!(actions[1..], [nothing(), nothing(), found, nothing(), ping]);
}

/// LIMITS tolerates two.
#[test]
fn exactly_so_many_bad_messages_are_tolerated_and_the_next_one_closes() {
    let anonymous = [(Garbage, NotJson), (Unknown, no_such_type()), (Check, NotAuthenticated)];
    let live = [
        (Garbage, NotJson),
        (Unknown, no_such_type()),
        (Authenticate, AlreadyAuthenticated),
        (AuthenticateNobody, AlreadyAuthenticated),
    ];
    for (state, bad, release) in [
        (State::Anonymous, &anonymous[..], None),
        (State::LiveHeard, &live, release()),
        (State::LivePinged, &live, release()),
    ] {
        let now = at(state.now());
        for (last, error) in bad {
            let mut session = session_in(state);
            for (message, error) in [&bad[0], &bad[1]] {
                let tolerated = only(None, error_reply(error.clone()), None);
                assert_eq!(session.handle(message.event(), now), tolerated, "{state:?} {message:?}");
            }
            // What makes sense is served as ever.
            assert_eq!(session.handle(Event::Alive, now), nothing());
            assert!(session.deadline().is_some());
            let closed = only(release.clone(), error_reply(error.clone()), close(CloseReason::TooManyBadMessages));
            assert_eq!(session.handle(last.event(), now), closed, "{state:?} {last:?}");
            assert!(session.is_finished());
        }
    }
}

#[test]
fn credentials_that_name_nobody_are_bad_messages() {
    let mut session = session();
    let nobody_twice = [(0, AuthenticateNobody), (0, NotVerified), (0, Authenticate), (0, NotVerified), (0, Garbage)];
    let actions = run(&mut session, &nobody_twice);
    assert_eq!(actions[3], only(None, refuse(nobody()), None));
    assert_eq!(actions[4], only(None, error_reply(NotJson), close(CloseReason::TooManyBadMessages)));

    for last_straw in [AuthenticateNobody, Authenticate] {
        let mut session = session_in(State::Anonymous);
        let actions = run(&mut session, &[(0, Garbage), (0, Garbage), (0, last_straw), (0, NotVerified)]);
        let closed = only(None, refuse(nobody()), close(CloseReason::TooManyBadMessages));
        assert_eq!(actions.last(), Some(&closed));
        assert!(session.is_finished());
    }
}

#[test]
fn bad_messages_are_counted_across_authentication() {
    let mut session = session();
    let inputs = [
        (0, Garbage),
        (0, Authenticate),
        (0, Verified),
        (0, Granted),
        (1, Garbage),
        (2, Check),
        (2, Found),
        (3, Garbage),
    ];
    let last = run(&mut session, &inputs).pop();
    assert_eq!(last, Some(only(release(), error_reply(NotJson), close(CloseReason::TooManyBadMessages))));
}

#[test]
fn with_none_tolerated_the_first_bad_message_closes() {
    let mut session = Session::new(id(), &SessionSettings { max_bad_messages: Some(0), ..LIMITS }, at(0));
    let closed = only(None, error_reply(NotJson), close(CloseReason::TooManyBadMessages));
    assert_eq!(session.handle(Garbage.event(), at(0)), closed);
}

#[test]
fn the_most_that_can_be_tolerated_is_a_bound_too() {
    let mut session = Session::new(id(), &SessionSettings { max_bad_messages: Some(u16::MAX), ..LIMITS }, at(0));
    for _ in 0..u16::MAX {
        assert_eq!(session.handle(Garbage.event(), at(0)), only(None, error_reply(NotJson), None));
    }
    let closed = only(None, error_reply(NotJson), close(CloseReason::TooManyBadMessages));
    assert_eq!(session.handle(Garbage.event(), at(0)), closed);
}

#[test]
fn refusals_by_limit_are_not_bad_messages() {
    let mut session = session();
    for _ in 0..100 {
        let actions = run(&mut session, &[(1, Authenticate), (1, Verified), (1, Denied)]);
        assert_eq!(actions[2], only(None, refuse(AuthenticateFailure::LimitReached), None));
    }
    for _ in 0..2 {
        assert_eq!(run(&mut session, &[(1, Garbage)]), [only(None, error_reply(NotJson), None)]);
    }
    let actions = run(&mut session, &[(1, Authenticate), (1, Verified), (1, Granted)]);
    assert_eq!(actions[2], only(None, say(ServerMessage::AuthenticateSuccess(ada(2))), None));
}

#[test]
fn questions_the_store_does_not_answer_and_impatience_are_not_bad_messages() {
    let mut session = session_in(State::LiveHeard);
    for _ in 0..100 {
        let actions = run(&mut session, &[(4, Check), (4, Garbage), (4, Silent)]);
        let impatient = only(None, error_reply(RequestPending), None);
        let silent = only(None, error_reply(RequestError::StoreTimedOut), None);
        assert_eq!(actions, [only(look_up(4), None, None), impatient, silent]);
    }
    for _ in 0..2 {
        assert_eq!(run(&mut session, &[(4, Garbage)]), [only(None, error_reply(NotJson), None)]);
    }
}

#[test]
fn authenticating_twice_takes_no_second_slot() {
    let mut session = session_in(State::LiveHeard);
    let already = only(None, error_reply(AlreadyAuthenticated), None);
    // Not even if somebody answers what was never asked.
    let actions = run(&mut session, &[(4, Authenticate), (4, Verified), (4, Granted), (4, Authenticate)]);
    assert_eq!(actions, [already.clone(), nothing(), nothing(), already]);
    assert_eq!(run(&mut session, &[(5, Disconnected), (5, Disconnected)]), [only(release(), None, None), nothing()]);
}

#[test]
fn a_question_under_way_does_not_cost_the_release() {
    for answer in OUTCOMES {
        let mut session = session_in(State::Asking);
        let actions = run(&mut session, &[(35, Disconnected), (36, *answer), (37, *answer)]);
        assert_eq!(actions, [nothing(), only(release(), None, None), nothing()], "{answer:?}");
        assert!(session.is_finished());
    }
}

#[test]
fn a_deadline_beyond_the_end_of_time_is_none_that_comes() {
    let end = Timestamp::from_epoch(Duration::MAX);
    let session = Session::new(id(), &LIMITS, end);
    assert_eq!(session.deadline(), Some(end));
}

#[test]
fn a_session_lasts_as_long_as_the_last_token_that_was_told_to_be_good() {
    let until = |second| Some(UnixSeconds::from_unix_seconds(second));
    let fresh = |second| Event::Verified(Ok(by_token(second)));
    let mut session = session_in(State::LiveByToken);
    assert_eq!(session.expires_at(), until(100));
    drop(run(&mut session, &[(4, Check)]));
    assert_eq!(session.expires_at(), until(100), "also while a question is asked");
    drop(run(&mut session, &[(4, Found), (5, Authenticate)]));
    assert_eq!(session.expires_at(), None, "whether it goes on is for the authenticator now");
    drop(session.handle(fresh(200), at(5)));
    assert_eq!(session.expires_at(), until(200), "the fresh token is good");
    drop(run(&mut session, &[(6, Silent)]));
    assert_eq!(session.expires_at(), until(100), "but the client was not told so");
    drop(run(&mut session, &[(7, Authenticate)]));
    drop(session.handle(fresh(50), at(7)));
    let told = run(&mut session, &[(8, Found)]);
    assert_eq!(told, [only(None, say(ServerMessage::AuthenticateSuccess(ada(3))), None)]);
    assert_eq!(session.expires_at(), until(50), "the last counts, also if it is shorter");
    for (verdict, failure) in [(VerifiedOther, AuthenticateFailure::AnotherUser), (NotVerified, nobody())] {
        let actions = run(&mut session, &[(9, Authenticate), (9, verdict)]);
        assert_eq!(actions[1], only(None, refuse(failure), None));
        assert_eq!(session.expires_at(), until(50));
    }
    let actions =
        run(&mut session, &[(10, Authenticate), (10, Verified), (10, Found), (11, Expired), (12, Authenticate)]);
    assert_eq!(session.expires_at(), None);
    assert_eq!(actions[3], nothing(), "a credential that never runs out");
    assert_eq!(actions[4], only(release(), error_reply(AlreadyAuthenticated), close(CloseReason::TooManyBadMessages)));
}

#[test]
fn a_peer_may_speak_so_often_in_a_second_and_at_once() {
    let limits = SessionSettings { max_message_rate: NonZeroU32::new(10), max_bad_messages: None, ..LIMITS };
    let mut session = Session::new(id(), &limits, at(0));
    let mut say = |input: Input, millis: u64| session.handle(input.event(), at(0) + Duration::from_millis(millis));
    for _ in 0..10 {
        assert_eq!(say(Garbage, 0).close, None, "ten at once");
    }
    assert_eq!(say(Garbage, 100).close, None, "one more in a tenth of a second");
    for second in 2..5 {
        for tenth in 0..10 {
            assert_eq!(say(if tenth % 2 == 0 { Garbage } else { Alive }, second * 1000 + tenth * 100).close, None);
        }
    }
    for _ in 0..9 {
        assert_eq!(say(Alive, 4950).close, None);
    }
    assert_eq!(say(Alive, 4950), only(None, None, close(CloseReason::TooManyMessages)));

    let mut session = session_in(State::LiveByToken);
    assert!((0..10_000).all(|_| session.handle(Event::Alive, at(4)) == nothing()), "without a bound there is none");
}

#[test]
fn who_speaks_too_often_gives_the_slot_back() {
    let limits = SessionSettings { max_message_rate: NonZeroU32::MIN.checked_add(1), ..LIMITS };
    let mut session = Session::new(id(), &limits, at(0));
    let actions = run(&mut session, &[(0, Authenticate), (0, Verified), (0, Granted), (0, Alive), (0, Check)]);
    assert_eq!(actions[4], only(release(), None, close(CloseReason::TooManyMessages)));
    // One that asks for a slot meanwhile is released once it has it.
    let mut session = Session::new(id(), &limits, at(0));
    let actions = run(&mut session, &[(0, Authenticate), (0, Verified), (0, Alive), (0, Alive), (0, Granted)]);
    assert_eq!(actions[3..], [only(None, None, close(CloseReason::TooManyMessages)), only(release(), None, None)]);
}

/// A session together with what must hold after each of its events, whatever came before.
struct Witness {
    session: Session,
    now: Timestamp,
    under_way: Option<Question>,
    grants: u32,
    releases: u32,
    /// Who was let in, and until when the token lasts that did it, if it runs out.
    identity: Option<Identity>,
    /// The identity that a fresh token of the same user has proved, while the store is asked.
    renewal: Option<Identity>,
    /// It closed, or its peer left.
    over: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    Verify,
    Acquire,
    Lookup,
}

impl Witness {
    fn new() -> Self {
        Self {
            session: session(),
            now: at(0),
            under_way: None,
            grants: 0,
            releases: 0,
            identity: None,
            renewal: None,
            over: false,
        }
    }

    fn handle(&mut self, event: &Event<'_>) {
        let answered = match (event, self.under_way) {
            (Event::Verified(_), Some(Question::Verify))
            | (Event::Stored(_), Some(Question::Acquire | Question::Lookup)) => self.under_way.take(),
            _ => None,
        };
        if let (Event::Stored(Outcome::Granted { .. }), Some(Question::Acquire)) = (event, answered) {
            self.grants += 1;
        }
        if let (Event::Verified(Ok(identity)), Some(Question::Verify)) = (event, answered) {
            if !self.has_slot() {
                self.identity = Some(identity.clone());
            } else if self.identity.as_ref().is_some_and(|known| known.user == identity.user) {
                self.renewal = Some(identity.clone());
            }
        }
        let was_drained = self.session.is_finished();
        let Actions { effect: command, send, close } = self.session.handle(event.clone(), self.now);

        assert!(!was_drained || (&command, &send, close) == (&None, &None, None), "drained, it does nothing");
        assert!(!self.over || (&send, close) == (&None, None), "nothing is sent after a close");
        self.over |= close.is_some() || *event == Event::Disconnected;

        if let Some(Frame::Message(ServerMessage::AuthenticateSuccess(user))) = send {
            let connections = match (event, answered, &self.renewal) {
                (&Event::Stored(Outcome::Granted { connections, .. }), Some(Question::Acquire), None) => connections,
                (&Event::Stored(Outcome::Counted { connections }), Some(Question::Lookup), Some(renewal)) => {
                    self.identity = Some(renewal.clone());
                    connections
                }
                _ => panic!("told without a grant, or a renewal"),
            };
            assert_eq!((Some(user.id), user.connections), (self.user(), connections));
        }
        if answered == Some(Question::Lookup) {
            self.renewal = None;
        }
        if answered == Some(Question::Acquire) && !self.has_slot() {
            self.identity = None;
        }
        let question = match command {
            None => None,
            Some(Effect::Verify(credential)) => {
                assert!([Credential::new("ada's token"), Credential::None].contains(&credential));
                let renewable = self.identity.as_ref().is_none_or(|known| known.expires.is_some());
                assert!(renewable, "only a token that runs out is followed by another");
                Some(Question::Verify)
            }
            Some(Effect::Store(command)) => {
                assert_eq!((Some(command.user()), command.session()), (self.user().as_ref(), id()));
                match command {
                    ledger::StoreCommand::Acquire { limit, at, .. } => {
                        assert!(!self.has_slot(), "no second slot");
                        assert_eq!(limit, self.identity.as_ref().and_then(|identity| identity.limit));
                        assert_eq!(at, self.now);
                        Some(Question::Acquire)
                    }
                    ledger::StoreCommand::CountSlots { at, .. } => {
                        assert_eq!(at, self.now);
                        Some(Question::Lookup)
                    }
                    ledger::StoreCommand::Linger { .. }
                    | ledger::StoreCommand::ListSessions { .. }
                    | ledger::StoreCommand::EndSessions { .. } => {
                        panic!("nobody asked for that")
                    }
                    ledger::StoreCommand::Release { .. } => {
                        self.releases += 1;
                        None
                    }
                }
            }
        };
        if question.is_some() {
            assert_eq!(self.under_way, None, "one command at a time");
            assert!(!self.over, "nothing is asked for a peer that left");
            self.under_way = question;
        }
        assert_eq!(self.session.is_busy(), self.under_way.is_some());
        let in_force = self.renewal.as_ref().or(self.identity.as_ref());
        let is_asked = self.over || self.under_way == Some(Question::Verify);
        let expires = in_force.filter(|_| !is_asked).and_then(|identity| identity.expires);
        assert_eq!(self.session.expires_at(), expires);
        assert_eq!(self.session.deadline().is_none(), self.session.is_busy() || self.session.is_finished());
        assert_eq!(self.session.is_finished(), self.over && self.under_way.is_none());
        assert!(self.releases <= self.grants, "a release for every grant, no more");
        assert!(!self.session.is_finished() || self.releases == self.grants, "a release for every grant, no fewer");
    }

    fn has_slot(&self) -> bool {
        self.grants > self.releases
    }

    fn user(&self) -> Option<UserId> {
        self.identity.as_ref().map(|identity| identity.user.clone())
    }

    fn take(&mut self, input: Input) {
        self.now = self.now.max(input.time(&self.session, self.now));
        self.handle(&input.event());
    }

    /// An answer to what is under way, if anything is.
    fn answer(&mut self, outcome: Outcome) {
        match self.under_way {
            Some(Question::Verify) => self.take(Verified),
            Some(Question::Acquire | Question::Lookup) => self.handle(&Event::Stored(outcome)),
            None => {}
        }
    }

    /// The peer leaves, and what is under way is answered at last.
    fn end(mut self) {
        self.take(Disconnected);
        self.answer(Outcome::granted(1));
        assert!(self.session.is_finished());
        assert_eq!(self.releases, self.grants);
    }
}

#[test]
fn what_always_holds_holds_after_every_two_inputs_in_every_state() {
    for history in State::ALL.iter().flat_map(|state| state.histories()) {
        for &first in Input::ALL {
            for &second in Input::ALL {
                let mut witness = Witness::new();
                for &(time, ref event) in &history {
                    witness.now = at(time);
                    witness.handle(event);
                }
                witness.take(first);
                witness.take(second);
                witness.end();
            }
        }
    }
}

/// One step of any history at all.
#[derive(Debug, Clone)]
enum Step {
    /// Even what breaks the contract, such as an answer that nobody asked for.
    Input(Input),
    Answer(Outcome),
    Pause(Duration),
}

fn step() -> impl Strategy<Value = Step> {
    const ENDS: &[Input] =
        &[Bye, Protocol, Utf8, Size, Binary, Evicted, TakenUp, Expired, Draining, Disconnected, LateTick];
    let goes_on: Vec<_> = Input::ALL.iter().copied().filter(|input| !ENDS.contains(input)).collect();
    let outcome = prop_oneof![
        4 => (1..9_u32).prop_map(Outcome::granted),
        2 => (0..9_u32).prop_map(|connections| Outcome::Counted { connections }),
        1 => Just(Outcome::Denied(None)),
        1 => prop::sample::select(&StoreError::ALL[..]).prop_map(Outcome::Rejected),
        1 => Just(Outcome::Unknown),
    ];
    prop_oneof![
        12 => prop::sample::select(goes_on).prop_map(Step::Input),
        1 => prop::sample::select(ENDS).prop_map(Step::Input),
        4 => Just(Step::Input(Authenticate)),
        8 => outcome.prop_map(Step::Answer),
        3 => (0..40_000_u64).prop_map(|millis| Step::Pause(Duration::from_millis(millis))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn what_always_holds_holds_in_any_history(steps in prop::collection::vec(step(), 0..40)) {
        let mut witness = Witness::new();
        for step in steps {
            match step {
                Step::Input(input) => witness.take(input),
                Step::Answer(outcome) => witness.answer(outcome),
                Step::Pause(pause) => witness.now = witness.now + pause,
            }
        }
        witness.end();
    }

    #[test]
    fn no_message_whatever_makes_it_panic_or_take_a_slot(
        messages in prop::collection::vec(prop_oneof![any::<String>(), r#"\{("type"|"payload"|:|,|"BYE"|null|[{}\[\]]){0,9}\}?"#], 0..8),
    ) {
        for state in [State::Anonymous, State::LiveHeard, State::Asking, State::LiveByToken] {
            let mut session = session_in(state);
            for message in &messages {
                let actions = session.handle(Event::Text(message), at(state.now()));
                let acquires = matches!(actions.effect, Some(Effect::Store(ledger::StoreCommand::Acquire { .. })));
                prop_assert!(!acquires && !matches!(actions.send, Some(Frame::Message(ServerMessage::AuthenticateSuccess(_)))));
            }
        }
    }
}

impl State {
    /// The ways into the state, as (second, event).
    fn histories(self) -> Vec<History> {
        match self {
            Self::Anonymous => vec![
                vec![],
                vec![(0, Connected.event())],
                // Denied, so it may try again.
                [Connected, Authenticate, Verified, Denied].map(|input| (0, input.event())).to_vec(),
                // Not verified, which is the first of two bad messages that are tolerated.
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
            Self::Drained => [
                then(Self::Anonymous, &[(1, Disconnected)]),
                then(Self::Anonymous, &[(10, Tick)]),
                then(Self::LiveHeard, &[(4, Bye)]),
                then(Self::LivePinged, &[(38, Tick)]),
                then(Self::Acquiring, &[(3, Silent)]),
                then(Self::LeavingVerification, &[(4, Verified)]),
                then(Self::LeavingAcquire, &[(4, Granted)]),
                then(Self::LeavingLookup, &[(36, Found)]),
                then(Self::LiveByToken, &[(4, Expired)]),
                then(Self::LeavingRenewal, &[(36, NotVerified)]),
            ]
            .concat(),
        }
    }

    /// The second at which the specification's event comes.
    fn now(self) -> u64 {
        match self {
            Self::Anonymous => 1,
            Self::Verifying => 2,
            Self::Acquiring | Self::AcquiringByToken | Self::LeavingVerification => 3,
            Self::LiveHeard | Self::LiveByToken | Self::LeavingAcquire => 4,
            Self::Renewing => 5,
            Self::LivePinged => 34,
            Self::Asking | Self::AskingRenewal => 35,
            Self::LeavingLookup | Self::LeavingRenewal => 36,
            Self::Drained => 50,
        }
    }
}

type History = Vec<(u64, Event<'static>)>;

fn then(state: State, inputs: &[(u64, Input)]) -> Vec<History> {
    let more = inputs.iter().map(|&(time, input)| (time, input.event()));
    state.histories().into_iter().map(|history| history.into_iter().chain(more.clone()).collect()).collect()
}

fn left(state: State) -> Vec<History> {
    [Disconnected, Draining, Size].into_iter().flat_map(|input| then(state, &[(state.now(), input)])).collect()
}

impl Input {
    fn event(self) -> Event<'static> {
        match self {
            Connected => Event::Connected,
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
            Granted => Event::Stored(Outcome::granted(2)),
            Denied => Event::Stored(Outcome::Denied(None)),
            Released => Event::Stored(Outcome::Released),
            Found => Event::Stored(Outcome::Counted { connections: 3 }),
            Overloaded => Event::Stored(Outcome::Rejected(StoreError::Overloaded)),
            Full => Event::Stored(Outcome::Rejected(StoreError::Full)),
            Failed => Event::Stored(Outcome::Rejected(StoreError::Failed)),
            Silent => Event::Stored(Outcome::Unknown),
            Evicted => Event::Ended(EndReason::TakenOver(None)),
            TakenUp => Event::Ended(EndReason::Resumed),
            Expired => Event::Expired,
            Draining => Event::Draining,
            Disconnected => Event::Disconnected,
            EarlyTick | Tick | LateTick => Event::Tick,
        }
    }

    /// When it comes: at `now`, but ticks around the deadline if there is one.
    fn time(self, session: &Session, now: Timestamp) -> Timestamp {
        let deadline = session.deadline();
        match self {
            EarlyTick => deadline.map_or(now, before),
            Tick => deadline.unwrap_or(now),
            LateTick => deadline.unwrap_or(now) + HOUR,
            Connected | Authenticate | AuthenticateNobody | Check | Bye | Garbage | Unknown | Alive | Protocol
            | Utf8 | Size | Binary | Verified | VerifiedByToken | VerifiedOther | NotVerified | Granted | Denied
            | Released | Found | Overloaded | Full | Failed | Silent | Evicted | TakenUp | Expired | Draining
            | Disconnected => now,
        }
    }
}

fn after_of(session: &Session) -> After {
    match (session.deadline(), session.is_busy(), session.is_finished()) {
        (Some(deadline), false, false) => {
            let since = deadline.since(at(0));
            assert_eq!(since.subsec_nanos(), 0, "the table counts in seconds");
            Waits(since.as_secs())
        }
        (None, true, false) => Busy,
        (None, false, true) => Over,
        contradiction => panic!("deadline, busy and drained contradict each other: {contradiction:?}"),
    }
}

const LIMITS: SessionSettings = SessionSettings {
    auth_timeout: Duration::from_secs(10),
    ping_interval: Duration::from_secs(30),
    pong_timeout: Duration::from_secs(5),
    max_bad_messages: Some(2),
    max_message_rate: None,
};

fn session() -> Session {
    Session::new(id(), &LIMITS, at(0))
}

fn id() -> SessionId {
    NodeId::new(0xada).session(7)
}

/// A second of the session's life; it began some time after the epoch.
fn at(second: u64) -> Timestamp {
    Timestamp::from_epoch(Duration::from_secs(1_700_000_000 + second))
}

fn before(time: Timestamp) -> Timestamp {
    Timestamp::from_epoch(time.since_epoch() - NANOSECOND)
}

fn user() -> UserId {
    UserId::parse("ada").unwrap()
}

fn ada(connections: u32) -> UserSummary {
    UserSummary { id: user(), connections }
}

fn verify() -> Option<Effect> {
    Some(Effect::Verify(Credential::new("ada's token")))
}

fn verify_none() -> Option<Effect> {
    Some(Effect::Verify(Credential::None))
}

fn acquire(at: Timestamp) -> Option<Effect> {
    Some(Effect::Store(ledger::StoreCommand::Acquire { user: user(), session: id(), limit: None, at, options: None }))
}

/// What a token of limit so many leads to at 2 s.
fn acquire_up_to(slots: u32) -> Option<Effect> {
    let limit = SlotLimit::new(slots).ok();
    Some(Effect::Store(ledger::StoreCommand::Acquire { user: user(), session: id(), limit, at: at(2), options: None }))
}

fn acquire_for_bob() -> Option<Effect> {
    let limit = SlotLimit::new(7).ok();
    Some(Effect::Store(ledger::StoreCommand::Acquire { user: bob(), session: id(), limit, at: at(2), options: None }))
}

/// Ada by a token that claims a limit of 7 and runs out at this second of the wall clock.
fn by_token(expires: u64) -> Identity {
    let expires = Some(UnixSeconds::from_unix_seconds(expires));
    Identity { limit: SlotLimit::new(7).ok(), expires, ..Identity::for_user(user()) }
}

fn bob() -> UserId {
    UserId::parse("bob").unwrap()
}

fn look_up(second: u64) -> Option<Effect> {
    Some(Effect::Store(ledger::StoreCommand::CountSlots { user: user(), session: id(), at: at(second) }))
}

fn release() -> Option<Effect> {
    Some(Effect::Store(ledger::StoreCommand::Release { user: user(), session: id() }))
}

fn say(reply: ServerMessage) -> Option<Frame> {
    Some(Frame::Message(reply))
}

fn evicted() -> Option<Frame> {
    say(ServerMessage::Evicted("Another session of this user has taken the place of this one".into()))
}

fn refuse(failure: AuthenticateFailure) -> Option<Frame> {
    say(ServerMessage::AuthenticateFailure(failure))
}

fn error_reply(error: RequestError) -> Option<Frame> {
    say(ServerMessage::Error(error))
}

fn close(reason: CloseReason) -> Option<CloseReason> {
    Some(reason)
}

fn nobody() -> AuthenticateFailure {
    AuthenticateFailure::Credential(CredentialError::UserId(UserIdError::TooLong))
}

fn no_such_type() -> RequestError {
    RequestError::UnknownType("DANCE".into())
}
