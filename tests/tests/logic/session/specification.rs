//! A row per (state, input).

use std::collections::BTreeSet;

use session_core::ledger::{EndReason, Outcome, RenewalDenied, StoreError};
use session_core::protocol::RequestError::{AlreadyAuthenticated, NotAuthenticated, NotJson, RequestPending};
use session_core::protocol::{AuthenticateFailure, CloseReason, RequestError, ServerMessage};
use session_core::session::{Actions, Effect, Event, Frame, Session, Violation};

use super::inputs::Input::*;
use super::inputs::*;

/// Every (state, input) => effect, frame, close reason, and the next tick. Seconds count from the beginning of the
/// session. Timeouts: 10 s to authenticate, a ping after 30 s of silence, 5 s to answer it.
#[rustfmt::skip]
fn specification() -> Vec<(State, Vec<Row>)> {
    vec![
        // Now is 1 s.
        (State::Anonymous, vec![
            on(&[Connected],          None,              reply(ServerMessage::Hello),                    None,                    Waits(10)),
            on(&[ConnectedV1],        None,              greeting(),                                  None,                    Waits(10)),
            on(&[Authenticate],       verify(),          None,                                 None,                    Busy),
            on(&[AuthenticateNobody], verify_none(),     None,                                 None,                    Busy),
            on(&[Ping],               None,              reply(ServerMessage::Pong),                     None,                    Waits(10)),
            on(&[Check],              None,              error_reply(NotAuthenticated),              None,                    Waits(10)),
            on(&[Bye],                None,              reply(ServerMessage::ByeSuccess),               close(CloseReason::Bye), Over),
            on(&[Garbage],            None,              error_reply(NotJson),                       None,                    Waits(10)),
            on(&[Unknown],            None,              error_reply(no_such_type()),                None,                    Waits(10)),
            on(&[Protocol],           None,              error_reply(RequestError::ProtocolError),      close(CloseReason::ProtocolError),    Over),
            on(&[Utf8],               None,              error_reply(RequestError::InvalidUtf8),        close(CloseReason::InvalidUtf8),      Over),
            on(&[Size],               None,              error_reply(RequestError::MessageTooBig),      close(CloseReason::MessageTooBig),    Over),
            on(&[Binary],             None,              error_reply(RequestError::BinaryMessage),      close(CloseReason::BinaryMessage),    Over),
            on(&[Draining],           None,              None,                                 close(CloseReason::ShuttingDown),     Over),
            on(&[Disconnected],       None,              None,                                 None,                    Over),
            on(&[Tick, LateTick],     None,              None,                                 close(CloseReason::NotAuthenticated), Over),
            ignores(&[HINTS, ENDINGS, &[Alive, Expired, EarlyTick], VERDICTS, OUTCOMES, &[TooMany]], Waits(10)),
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
            on(&[NotVerified],        None,              failure(invalid_id()),                     None,                    Waits(10)),
            on(&[VerifyLate],         None,              failure(AuthenticateFailure::NotChecked),                    close(CloseReason::TryAgainLater), Over),
            on(&[Draining],           None,              None,                                 close(CloseReason::ShuttingDown),     Busy),
            on(&[Disconnected],       None,              None,                                 None,                    Busy),
            ignores(&[HINTS, ENDINGS, &[Connected, ConnectedV1, Alive, Expired], OUTCOMES, &[TooMany], TICKS], Busy),
        ]),
        // Now is 3 s.
        (State::Acquiring, vec![
            on(MESSAGES,              None,              error_reply(RequestPending),                     None,                    Busy),
            on(&[Protocol],           None,              error_reply(RequestError::ProtocolError),      close(CloseReason::ProtocolError),    Busy),
            on(&[Utf8],               None,              error_reply(RequestError::InvalidUtf8),        close(CloseReason::InvalidUtf8),      Busy),
            on(&[Size],               None,              error_reply(RequestError::MessageTooBig),      close(CloseReason::MessageTooBig),    Busy),
            on(&[Binary],             None,              error_reply(RequestError::BinaryMessage),      close(CloseReason::BinaryMessage),    Busy),
            on(&[Granted],            None,              reply(ServerMessage::AuthenticateSuccess(user_summary(2))), None,                 Waits(33)),
            on(&[Denied],             None,              failure(AuthenticateFailure::LimitReached),        None,                    Waits(10)),
            on(&[Overloaded],         None,              failure(AuthenticateFailure::Store(StoreError::Overloaded)), close(CloseReason::TryAgainLater), Over),
            on(&[Full],               None,              failure(AuthenticateFailure::Store(StoreError::Full)),  close(CloseReason::TryAgainLater),    Over),
            on(&[Failed],             None,              failure(AuthenticateFailure::Store(StoreError::Failed)), close(CloseReason::TryAgainLater),   Over),
            on(&[Silent, Released, Found, Banned, OtherDevice], None, failure(AuthenticateFailure::StoreTimedOut),         close(CloseReason::TryAgainLater),    Over),
            on(&[InLine],             release(),         failure(AuthenticateFailure::StoreTimedOut),        close(CloseReason::TryAgainLater),    Over),
            on(&[TooMany],            None,              failure(AuthenticateFailure::LimitReached),        close(CloseReason::TryAgainLater),    Over),
            on(&[Evicted],            None,              evicted(),                            close(CloseReason::Evicted),          Busy),
            on(&[ResumedElsewhere],            None,              None,                                 close(CloseReason::Resumed),          Busy),
            on(&[Draining],           None,              None,                                 close(CloseReason::ShuttingDown),     Busy),
            on(&[Disconnected],       None,              None,                                 None,                    Busy),
            ignores(&[HINTS, &[Connected, ConnectedV1, Alive, Expired], VERDICTS, TICKS], Busy),
        ]),
        // Now is 4 s, the client sent at 3 s.
        (State::LiveHeard, vec![
            on(&[Authenticate, AuthenticateNobody], None, error_reply(AlreadyAuthenticated),         None,                    Waits(34)),
            on(&[Ping],               None,              reply(ServerMessage::Pong),                     None,                    Waits(34)),
            on(&[Check],              count_slots(4),         None,                                 None,                    Busy),
            on(&[Bye],                release(),         reply(ServerMessage::ByeSuccess),               close(CloseReason::Bye), Over),
            on(&[Garbage],            None,              error_reply(NotJson),                       None,                    Waits(34)),
            on(&[Unknown],            None,              error_reply(no_such_type()),                None,                    Waits(34)),
            on(&[Alive],              None,              None,                                 None,                    Waits(34)),
            on(&[Protocol],           release(),         error_reply(RequestError::ProtocolError),      close(CloseReason::ProtocolError),    Over),
            on(&[Utf8],               release(),         error_reply(RequestError::InvalidUtf8),        close(CloseReason::InvalidUtf8),      Over),
            on(&[Size],               release(),         error_reply(RequestError::MessageTooBig),      close(CloseReason::MessageTooBig),    Over),
            on(&[Binary],             release(),         error_reply(RequestError::BinaryMessage),      close(CloseReason::BinaryMessage),    Over),
            on(&[Evicted],            release(),         evicted(),                            close(CloseReason::Evicted),          Over),
            on(&[ResumedElsewhere],            release(),         None,                                 close(CloseReason::Resumed),          Over),
            on(&[Draining],           release(),         None,                                 close(CloseReason::ShuttingDown),     Over),
            on(&[Disconnected],       release(),         None,                                 None,                    Over),
            on(&[Tick],               None,              Some(Frame::Ping),                    None,                    Waits(33 + 5)),
            on(&[LateTick],           None,              Some(Frame::Ping),                    None,                    Waits(3633 + 5)),
            ignores(&[HINTS, &[Connected, ConnectedV1, Expired, EarlyTick], VERDICTS, OUTCOMES, &[TooMany]], Waits(33)),
        ]),
        // Now is 34 s, the client was pinged at 33 s.
        (State::LivePinged, vec![
            on(&[Authenticate, AuthenticateNobody], None, error_reply(AlreadyAuthenticated),         None,                    Waits(64)),
            on(&[Ping],               None,              reply(ServerMessage::Pong),                     None,                    Waits(64)),
            on(&[Check],              count_slots(34),         None,                                 None,                    Busy),
            on(&[Bye],                release(),         reply(ServerMessage::ByeSuccess),               close(CloseReason::Bye), Over),
            on(&[Garbage],            None,              error_reply(NotJson),                       None,                    Waits(64)),
            on(&[Unknown],            None,              error_reply(no_such_type()),                None,                    Waits(64)),
            on(&[Alive],              None,              None,                                 None,                    Waits(64)),
            on(&[Protocol],           release(),         error_reply(RequestError::ProtocolError),      close(CloseReason::ProtocolError),    Over),
            on(&[Utf8],               release(),         error_reply(RequestError::InvalidUtf8),        close(CloseReason::InvalidUtf8),      Over),
            on(&[Size],               release(),         error_reply(RequestError::MessageTooBig),      close(CloseReason::MessageTooBig),    Over),
            on(&[Binary],             release(),         error_reply(RequestError::BinaryMessage),      close(CloseReason::BinaryMessage),    Over),
            on(&[Evicted],            release(),         evicted(),                            close(CloseReason::Evicted),          Over),
            on(&[ResumedElsewhere],            release(),         None,                                 close(CloseReason::Resumed),          Over),
            on(&[Draining],           release(),         None,                                 close(CloseReason::ShuttingDown),     Over),
            on(&[Disconnected],       release(),         None,                                 None,                    Over),
            on(&[Tick, LateTick],     release(),         None,                                 close(CloseReason::PeerSilent),       Over),
            ignores(&[HINTS, &[Connected, ConnectedV1, Expired, EarlyTick], VERDICTS, OUTCOMES, &[TooMany]], Waits(38)),
        ]),
        // Now is 35 s, whenever the request came.
        (State::Asking, vec![
            on(MESSAGES,              None,              error_reply(RequestPending),                     None,                    Busy),
            on(&[Protocol],           None,              error_reply(RequestError::ProtocolError),      close(CloseReason::ProtocolError),    Busy),
            on(&[Utf8],               None,              error_reply(RequestError::InvalidUtf8),        close(CloseReason::InvalidUtf8),      Busy),
            on(&[Size],               None,              error_reply(RequestError::MessageTooBig),      close(CloseReason::MessageTooBig),    Busy),
            on(&[Binary],             None,              error_reply(RequestError::BinaryMessage),      close(CloseReason::BinaryMessage),    Busy),
            on(&[Found],              None,              reply(ServerMessage::CheckConnectionsSuccess(user_summary(3))), None,             Waits(65)),
            on(&[Granted, Denied, InLine, Released, Banned, OtherDevice, Silent], None, error_reply(RequestError::StoreTimedOut),      None,                    Waits(65)),
            on(&[Overloaded],         None,              error_reply(RequestError::Store(StoreError::Overloaded)), None,              Waits(65)),
            on(&[Full],               None,              error_reply(RequestError::Store(StoreError::Full)), None,                    Waits(65)),
            on(&[Failed],             None,              error_reply(RequestError::Store(StoreError::Failed)), None,                  Waits(65)),
            on(&[Evicted],            None,              evicted(),                            close(CloseReason::Evicted),          Busy),
            on(&[ResumedElsewhere],            None,              None,                                 close(CloseReason::Resumed),          Busy),
            on(&[Draining],           None,              None,                                 close(CloseReason::ShuttingDown),     Busy),
            on(&[Disconnected],       None,              None,                                 None,                    Busy),
            ignores(&[HINTS, &[TooMany], &[Connected, ConnectedV1, Alive, Expired], VERDICTS, TICKS], Busy),
        ]),
        // The same three states of a session whose token expires. Now is 3 s, 4 s and 35 s as above.
        (State::AcquiringByToken, vec![
            on(MESSAGES,              None,              error_reply(RequestPending),                     None,                    Busy),
            on(&[Protocol],           None,              error_reply(RequestError::ProtocolError),      close(CloseReason::ProtocolError),    Busy),
            on(&[Utf8],               None,              error_reply(RequestError::InvalidUtf8),        close(CloseReason::InvalidUtf8),      Busy),
            on(&[Size],               None,              error_reply(RequestError::MessageTooBig),      close(CloseReason::MessageTooBig),    Busy),
            on(&[Binary],             None,              error_reply(RequestError::BinaryMessage),      close(CloseReason::BinaryMessage),    Busy),
            on(&[Granted],            None,              reply(ServerMessage::AuthenticateSuccess(user_summary(2))), None,                 Waits(33)),
            on(&[Denied],             None,              failure(AuthenticateFailure::LimitReached),        None,                    Waits(10)),
            on(&[Overloaded],         None,              failure(AuthenticateFailure::Store(StoreError::Overloaded)), close(CloseReason::TryAgainLater), Over),
            on(&[Full],               None,              failure(AuthenticateFailure::Store(StoreError::Full)),  close(CloseReason::TryAgainLater),    Over),
            on(&[Failed],             None,              failure(AuthenticateFailure::Store(StoreError::Failed)), close(CloseReason::TryAgainLater),   Over),
            on(&[Silent, Released, Found, Banned, OtherDevice], None, failure(AuthenticateFailure::StoreTimedOut),         close(CloseReason::TryAgainLater),    Over),
            on(&[InLine],             release(),         failure(AuthenticateFailure::StoreTimedOut),        close(CloseReason::TryAgainLater),    Over),
            on(&[TooMany],            None,              failure(AuthenticateFailure::LimitReached),        close(CloseReason::TryAgainLater),    Over),
            on(&[Expired],            None,              None,                                 close(CloseReason::TokenExpired),     Busy),
            on(&[Evicted],            None,              evicted(),                            close(CloseReason::Evicted),          Busy),
            on(&[ResumedElsewhere],            None,              None,                                 close(CloseReason::Resumed),          Busy),
            on(&[Draining],           None,              None,                                 close(CloseReason::ShuttingDown),     Busy),
            on(&[Disconnected],       None,              None,                                 None,                    Busy),
            ignores(&[HINTS, &[Connected, ConnectedV1, Alive], VERDICTS, TICKS], Busy),
        ]),
        (State::LiveByToken, vec![
            on(&[Authenticate],       verify(),          None,                                 None,                    Busy),
            on(&[AuthenticateNobody], verify_none(),     None,                                 None,                    Busy),
            on(&[Ping],               None,              reply(ServerMessage::Pong),                     None,                    Waits(34)),
            on(&[Check],              count_slots(4),         None,                                 None,                    Busy),
            on(&[Bye],                release(),         reply(ServerMessage::ByeSuccess),               close(CloseReason::Bye), Over),
            on(&[Garbage],            None,              error_reply(NotJson),                       None,                    Waits(34)),
            on(&[Unknown],            None,              error_reply(no_such_type()),                None,                    Waits(34)),
            on(&[Alive],              None,              None,                                 None,                    Waits(34)),
            on(&[Protocol],           release(),         error_reply(RequestError::ProtocolError),      close(CloseReason::ProtocolError),    Over),
            on(&[Utf8],               release(),         error_reply(RequestError::InvalidUtf8),        close(CloseReason::InvalidUtf8),      Over),
            on(&[Size],               release(),         error_reply(RequestError::MessageTooBig),      close(CloseReason::MessageTooBig),    Over),
            on(&[Binary],             release(),         error_reply(RequestError::BinaryMessage),      close(CloseReason::BinaryMessage),    Over),
            on(&[Expired],            release(),         None,                                 close(CloseReason::TokenExpired),     Over),
            on(&[Evicted],            release(),         evicted(),                            close(CloseReason::Evicted),          Over),
            on(&[ResumedElsewhere],            release(),         None,                                 close(CloseReason::Resumed),          Over),
            on(&[Draining],           release(),         None,                                 close(CloseReason::ShuttingDown),     Over),
            on(&[Disconnected],       release(),         None,                                 None,                    Over),
            on(&[Tick],               None,              Some(Frame::Ping),                    None,                    Waits(33 + 5)),
            on(&[LateTick],           None,              Some(Frame::Ping),                    None,                    Waits(3633 + 5)),
            ignores(&[HINTS, &[Connected, ConnectedV1, EarlyTick], VERDICTS, OUTCOMES, &[TooMany]], Waits(33)),
        ]),
        // Now is 5 s.
        (State::Renewing, vec![
            on(MESSAGES,              None,              error_reply(RequestPending),                     None,                    Busy),
            on(&[Protocol],           None,              error_reply(RequestError::ProtocolError),      close(CloseReason::ProtocolError),    Busy),
            on(&[Utf8],               None,              error_reply(RequestError::InvalidUtf8),        close(CloseReason::InvalidUtf8),      Busy),
            on(&[Size],               None,              error_reply(RequestError::MessageTooBig),      close(CloseReason::MessageTooBig),    Busy),
            on(&[Binary],             None,              error_reply(RequestError::BinaryMessage),      close(CloseReason::BinaryMessage),    Busy),
            on(&[Verified],           renew(None),       None,                                 None,                    Busy),
            on(&[VerifiedByToken],    renew(Some(7)),    None,                                 None,                    Busy),
            on(&[VerifiedOther],      None,              failure(AuthenticateFailure::AnotherUser),         None,                    Waits(35)),
            on(&[NotVerified],        None,              failure(invalid_id()),                     None,                    Waits(35)),
            on(&[VerifyLate],         None,              failure(AuthenticateFailure::NotChecked),                    None,               Waits(35)),
            on(&[Evicted],            None,              evicted(),                            close(CloseReason::Evicted),          Busy),
            on(&[ResumedElsewhere],            None,              None,                                 close(CloseReason::Resumed),          Busy),
            on(&[Draining],           None,              None,                                 close(CloseReason::ShuttingDown),     Busy),
            on(&[Disconnected],       None,              None,                                 None,                    Busy),
            ignores(&[HINTS, &[Connected, ConnectedV1, Alive, Expired], OUTCOMES, &[TooMany], TICKS], Busy),
        ]),
        // Now is 35 s.
        (State::AskingRenewal, vec![
            on(MESSAGES,              None,              error_reply(RequestPending),                     None,                    Busy),
            on(&[Protocol],           None,              error_reply(RequestError::ProtocolError),      close(CloseReason::ProtocolError),    Busy),
            on(&[Utf8],               None,              error_reply(RequestError::InvalidUtf8),        close(CloseReason::InvalidUtf8),      Busy),
            on(&[Size],               None,              error_reply(RequestError::MessageTooBig),      close(CloseReason::MessageTooBig),    Busy),
            on(&[Binary],             None,              error_reply(RequestError::BinaryMessage),      close(CloseReason::BinaryMessage),    Busy),
            on(&[Found],              None,              reply(ServerMessage::AuthenticateSuccess(user_summary(3))), None,                 Waits(65)),
            on(&[Granted, Denied, InLine, Released, Silent], None, failure(AuthenticateFailure::StoreTimedOut),       None,                    Waits(65)),
            on(&[Banned],             release(),         failure(AuthenticateFailure::LimitReached),        close(CloseReason::Evicted),          Over),
            on(&[OtherDevice],        None,              failure(AuthenticateFailure::AnotherDevice),       None,                    Waits(65)),
            on(&[Overloaded],         None,              failure(AuthenticateFailure::Store(StoreError::Overloaded)), None,               Waits(65)),
            on(&[Full],               None,              failure(AuthenticateFailure::Store(StoreError::Full)),  None,                    Waits(65)),
            on(&[Failed],             None,              failure(AuthenticateFailure::Store(StoreError::Failed)), None,                   Waits(65)),
            on(&[Expired],            None,              None,                                 close(CloseReason::TokenExpired),     Busy),
            on(&[Evicted],            None,              evicted(),                            close(CloseReason::Evicted),          Busy),
            on(&[ResumedElsewhere],            None,              None,                                 close(CloseReason::Resumed),          Busy),
            on(&[Draining],           None,              None,                                 close(CloseReason::ShuttingDown),     Busy),
            on(&[Disconnected],       None,              None,                                 None,                    Busy),
            ignores(&[HINTS, &[TooMany], &[Connected, ConnectedV1, Alive], VERDICTS, TICKS], Busy),
        ]),
        (State::LeavingVerification, vec![
            on(VERDICTS,              None,              None,                                 None,                    Over),
            ignores(&[HINTS, ENDINGS, &[Connected, ConnectedV1, Alive, Expired, Draining, Disconnected], MESSAGES, VIOLATIONS, OUTCOMES, &[TooMany], TICKS], Busy),
        ]),
        (State::LeavingAcquire, vec![
            on(&[Granted, InLine],    release(),         None,                                 None,                    Over),
            on(&[Denied, Released, Found, Banned, OtherDevice, Overloaded, Full, Failed, Silent, TooMany], None, None, None, Over),
            ignores(&[HINTS, ENDINGS, &[Connected, ConnectedV1, Alive, Expired, Draining, Disconnected], MESSAGES, VIOLATIONS, VERDICTS, TICKS], Busy),
        ]),
        (State::LeavingLookup, vec![
            on(OUTCOMES,              release(),         None,                                 None,                    Over),
            ignores(&[HINTS, &[TooMany], ENDINGS, &[Connected, ConnectedV1, Alive, Expired, Draining, Disconnected], MESSAGES, VIOLATIONS, VERDICTS, TICKS], Busy),
        ]),
        (State::LeavingRenewal, vec![
            on(VERDICTS,              release(),         None,                                 None,                    Over),
            ignores(&[HINTS, ENDINGS, &[Connected, ConnectedV1, Alive, Expired, Draining, Disconnected], MESSAGES, VIOLATIONS, OUTCOMES, &[TooMany], TICKS], Busy),
        ]),
        (State::Finished, vec![
            ignores(&[Input::ALL], Over),
        ]),
    ]
}

/// Deadline, `is_busy` and `is_finished` of a session, together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// The next tick is at this second. The session takes messages.
    Waits(u64),
    /// A command is under way, no tick is due, messages wait.
    Busy,
    /// The session is finished.
    Over,
}

use After::{Busy, Over, Waits};

struct Row {
    inputs: Vec<Input>,
    actions: Actions,
    after: After,
    /// No private field of the session may change either.
    nothing_changes: bool,
}

fn on(inputs: &[Input], command: Option<Effect>, send: Option<Frame>, close: Option<CloseReason>, after: After) -> Row {
    Row { inputs: inputs.to_vec(), actions: Actions { effect: command, send, close }, after, nothing_changes: false }
}

fn ignores(inputs: &[&[Input]], after: After) -> Row {
    Row { inputs: inputs.concat(), actions: Actions::default(), after, nothing_changes: true }
}

#[test]
fn every_transition_matches_the_specification() {
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
fn specification_has_every_state_and_event_once() {
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

const KINDS: u8 = 30;

/// Numbers the kinds of event. A new kind needs an [`Input`], and with it a row in every state.
fn kind(event: &Event<'_>) -> u8 {
    match event {
        Event::Connected => 0,
        Event::ConnectedV1 => 27,
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
        Event::Stored(Outcome::Waiting(_)) => 28,
        Event::Hinted(_) => 29,
        Event::Stored(Outcome::Released) => 11,
        // The last two answer requests that are tested in `client_info`.
        Event::Stored(Outcome::Counted { .. } | Outcome::Listed(_) | Outcome::Ended { .. }) => 12,
        Event::Stored(Outcome::NotRenewed(RenewalDenied::Banned)) => 23,
        Event::Stored(Outcome::NotRenewed(RenewalDenied::AnotherDevice)) => 24,
        Event::Stored(Outcome::Rejected(StoreError::Overloaded)) => 13,
        Event::Stored(Outcome::Rejected(StoreError::Full)) => 14,
        Event::Stored(Outcome::Rejected(StoreError::Failed)) => 15,
        Event::Stored(Outcome::Unknown) => 16,
        Event::TooManyConnections => 25,
        Event::VerifyTimedOut => 26,
        Event::Draining => 17,
        Event::Disconnected => 18,
        Event::Tick => 19,
        Event::Expired => 20,
        // `Contested` only has another close code, and the others only another text: `protocol`.
        Event::Ended(EndReason::Resumed | EndReason::Contested) => 21,
        Event::Ended(
            EndReason::TakenOver(_)
            | EndReason::DeviceFull(_)
            | EndReason::ByUser(_)
            | EndReason::ByOperator
            | EndReason::LimitLowered
            | EndReason::Banned,
        ) => 22,
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
