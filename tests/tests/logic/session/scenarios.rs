//! Scenarios, one per test.

use std::num::NonZeroU32;
use std::time::Duration;

use session_core::protocol::RequestError::{AlreadyAuthenticated, NotAuthenticated, NotJson, RequestPending};
use session_core::protocol::{AuthenticateFailure, CloseReason, RequestError, ServerMessage};
use session_core::session::{Event, Frame, Session, SessionSettings};
use session_core::{Timestamp, UnixSeconds};

use super::inputs::Input::*;
use super::inputs::*;

#[test]
fn session_from_hello_to_bye() {
    let mut session = session();
    let actions = run(
        &mut session,
        &[(0, Connected), (1, Authenticate), (2, Verified), (3, Granted), (4, Check), (5, Found), (6, Bye)],
    );
    assert_eq!(
        actions,
        [
            expected(None, reply(ServerMessage::Hello), None),
            expected(verify(), None, None),
            expected(acquire(at(2)), None, None),
            expected(None, reply(ServerMessage::AuthenticateSuccess(user_summary(2))), None),
            expected(count_slots(4), None, None),
            expected(None, reply(ServerMessage::CheckConnectionsSuccess(user_summary(3))), None),
            // The shell carries out the fields in this order: the release is queued before the reply.
            expected(release(), reply(ServerMessage::ByeSuccess), close(CloseReason::Bye)),
        ]
    );
    assert!(session.is_finished());
}

#[test]
fn late_grant_is_released_and_not_sent() {
    for (leaving, sent) in [
        (Disconnected, no_actions()),
        (Draining, expected(None, None, close(CloseReason::ShuttingDown))),
        (Size, expected(None, error_reply(RequestError::MessageTooBig), close(CloseReason::MessageTooBig))),
    ] {
        let mut session = session_in(State::Acquiring);
        let actions = run(&mut session, &[(3, leaving), (4, Granted), (5, Granted), (6, Disconnected), (7, Tick)]);
        let released = expected(release(), None, None);
        assert_eq!(actions, [sent, released, no_actions(), no_actions(), no_actions()]);
        assert!(session.is_finished());
    }
}

#[test]
fn authentication_deadline_counts_from_the_beginning() {
    let mut session = session();
    let tries = [(1, Connected), (2, Authenticate), (3, Verified), (4, Denied), (8, Authenticate), (9, NotVerified)];
    drop(run(&mut session, &tries));
    assert_eq!(session.deadline(), Some(at(10)));
    assert_eq!(session.handle(Event::Tick, before(at(10))), no_actions());
    assert_eq!(session.handle(Event::Tick, at(10)), expected(None, None, close(CloseReason::NotAuthenticated)));
    assert!(session.is_finished());
}

#[test]
fn late_message_is_not_served_before_the_tick() {
    for &message in MESSAGES {
        let mut early = session();
        let late = expected(None, None, close(CloseReason::NotAuthenticated));
        assert_ne!(early.handle(message.event(), before(at(10))), late, "{message:?}");
        for time in [at(10), at(10) + HOUR] {
            let mut session = session();
            assert_eq!(session.handle(message.event(), time), late, "{message:?} at {time}");
            assert!(session.is_finished());
        }
    }
}

#[test]
fn answer_after_the_authentication_deadline_still_counts() {
    let mut session = session();
    let actions = run(&mut session, &[(9, Authenticate), (11, Tick), (12, Verified), (13, Tick), (14, Granted)]);
    let success = expected(None, reply(ServerMessage::AuthenticateSuccess(user_summary(2))), None);
    assert_eq!(actions[1..], [no_actions(), expected(acquire(at(12)), None, None), no_actions(), success]);

    let mut session = session_in(State::Anonymous);
    let actions = run(&mut session, &[(9, Authenticate), (11, Verified), (14, Denied), (14, Tick)]);
    let denied = expected(None, failure(AuthenticateFailure::LimitReached), None);
    assert_eq!(actions[2..], [denied, expected(None, None, close(CloseReason::NotAuthenticated))]);
}

#[test]
fn silent_client_is_pinged_and_closed_on_time() {
    let mut session = session_in(State::LiveHeard);
    assert_eq!(session.deadline(), Some(at(33)));
    assert_eq!(session.handle(Event::Tick, before(at(33))), no_actions());
    assert_eq!(session.handle(Event::Tick, at(33)), expected(None, Some(Frame::Ping), None));
    assert_eq!(session.deadline(), Some(at(38)));
    assert_eq!(session.handle(Event::Tick, before(at(38))), no_actions());
    assert_eq!(session.handle(Event::Tick, at(38)), expected(release(), None, close(CloseReason::PeerSilent)));
    assert_eq!(session.deadline(), None);
}

#[test]
fn every_sign_of_life_delays_the_ping() {
    for sign in [Alive, Garbage, Authenticate] {
        let mut session = session_in(State::LivePinged);
        assert_eq!(session.deadline(), Some(at(38)));
        drop(run(&mut session, &[(37, sign)]));
        assert_eq!(session.deadline(), Some(at(67)), "{sign:?}");
        assert_eq!(
            run(&mut session, &[(66, Tick), (67, Tick)]),
            [no_actions(), expected(None, Some(Frame::Ping), None)]
        );
        assert_eq!(session.deadline(), Some(at(72)), "{sign:?}");
    }
}

#[test]
fn pending_request_stops_the_silence_timer() {
    let mut session = session_in(State::LivePinged);
    let actions = run(&mut session, &[(37, Check), (38, Tick), (99, Tick), (100, Found), (129, Tick), (130, Tick)]);
    let found = expected(None, reply(ServerMessage::CheckConnectionsSuccess(user_summary(3))), None);
    let ping = expected(None, Some(Frame::Ping), None);
    assert_eq!(actions[1..], [no_actions(), no_actions(), found, no_actions(), ping]);
}

/// `SETTINGS` tolerates two.
#[test]
fn bad_message_beyond_the_limit_closes() {
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
                let tolerated = expected(None, error_reply(error.clone()), None);
                assert_eq!(session.handle(message.event(), now), tolerated, "{state:?} {message:?}");
            }
            // Valid input is still served.
            assert_eq!(session.handle(Event::Alive, now), no_actions());
            assert!(session.deadline().is_some());
            let closed = expected(release.clone(), error_reply(error.clone()), close(CloseReason::TooManyBadMessages));
            assert_eq!(session.handle(last.event(), now), closed, "{state:?} {last:?}");
            assert!(session.is_finished());
        }
    }
}

#[test]
fn invalid_credentials_count_as_bad_messages() {
    let mut session = session();
    let nobody_twice = [(0, AuthenticateNobody), (0, NotVerified), (0, Authenticate), (0, NotVerified), (0, Garbage)];
    let actions = run(&mut session, &nobody_twice);
    assert_eq!(actions[3], expected(None, failure(invalid_id()), None));
    assert_eq!(actions[4], expected(None, error_reply(NotJson), close(CloseReason::TooManyBadMessages)));

    for last_straw in [AuthenticateNobody, Authenticate] {
        let mut session = session_in(State::Anonymous);
        let actions = run(&mut session, &[(0, Garbage), (0, Garbage), (0, last_straw), (0, NotVerified)]);
        let closed = expected(None, failure(invalid_id()), close(CloseReason::TooManyBadMessages));
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
    assert_eq!(last, Some(expected(release(), error_reply(NotJson), close(CloseReason::TooManyBadMessages))));
}

#[test]
fn first_bad_message_closes_if_none_is_tolerated() {
    let mut session = Session::new(id(), &SessionSettings { max_bad_messages: Some(0), ..SETTINGS }, at(0));
    let closed = expected(None, error_reply(NotJson), close(CloseReason::TooManyBadMessages));
    assert_eq!(session.handle(Garbage.event(), at(0)), closed);
}

#[test]
fn highest_bad_message_limit_still_closes() {
    let mut session = Session::new(id(), &SessionSettings { max_bad_messages: Some(u16::MAX), ..SETTINGS }, at(0));
    for _ in 0..u16::MAX {
        assert_eq!(session.handle(Garbage.event(), at(0)), expected(None, error_reply(NotJson), None));
    }
    let closed = expected(None, error_reply(NotJson), close(CloseReason::TooManyBadMessages));
    assert_eq!(session.handle(Garbage.event(), at(0)), closed);
}

#[test]
fn denials_do_not_count_as_bad_messages() {
    let mut session = session();
    for _ in 0..100 {
        let actions = run(&mut session, &[(1, Authenticate), (1, Verified), (1, Denied)]);
        assert_eq!(actions[2], expected(None, failure(AuthenticateFailure::LimitReached), None));
    }
    for _ in 0..2 {
        assert_eq!(run(&mut session, &[(1, Garbage)]), [expected(None, error_reply(NotJson), None)]);
    }
    let actions = run(&mut session, &[(1, Authenticate), (1, Verified), (1, Granted)]);
    assert_eq!(actions[2], expected(None, reply(ServerMessage::AuthenticateSuccess(user_summary(2))), None));
}

#[test]
fn store_timeouts_do_not_count_as_bad_messages() {
    let mut session = session_in(State::LiveHeard);
    for _ in 0..100 {
        let actions = run(&mut session, &[(4, Check), (4, Garbage), (4, Silent)]);
        let impatient = expected(None, error_reply(RequestPending), None);
        let silent = expected(None, error_reply(RequestError::StoreTimedOut), None);
        assert_eq!(actions, [expected(count_slots(4), None, None), impatient, silent]);
    }
    for _ in 0..2 {
        assert_eq!(run(&mut session, &[(4, Garbage)]), [expected(None, error_reply(NotJson), None)]);
    }
}

#[test]
fn authenticating_twice_takes_no_second_slot() {
    let mut session = session_in(State::LiveHeard);
    let already = expected(None, error_reply(AlreadyAuthenticated), None);
    // Not even after an answer without a query.
    let actions = run(&mut session, &[(4, Authenticate), (4, Verified), (4, Granted), (4, Authenticate)]);
    assert_eq!(actions, [already.clone(), no_actions(), no_actions(), already]);
    assert_eq!(
        run(&mut session, &[(5, Disconnected), (5, Disconnected)]),
        [expected(release(), None, None), no_actions()]
    );
}

#[test]
fn pending_request_still_leads_to_a_release() {
    for answer in OUTCOMES {
        let mut session = session_in(State::Asking);
        let actions = run(&mut session, &[(35, Disconnected), (36, *answer), (37, *answer)]);
        assert_eq!(actions, [no_actions(), expected(release(), None, None), no_actions()], "{answer:?}");
        assert!(session.is_finished());
    }
}

#[test]
fn deadline_is_capped_at_the_last_timestamp() {
    let end = Timestamp::from_epoch(Duration::MAX);
    let session = Session::new(id(), &SETTINGS, end);
    assert_eq!(session.deadline(), Some(end));
}

#[test]
fn session_expires_with_its_last_confirmed_token() {
    let until = |second| Some(UnixSeconds::from_unix_seconds(second));
    let fresh = |second| Event::Verified(Ok(by_token(second)));
    let mut session = session_in(State::LiveByToken);
    assert_eq!(session.expires_at(), until(100));
    drop(run(&mut session, &[(4, Check)]));
    assert_eq!(session.expires_at(), until(100), "also while a query is pending");
    drop(run(&mut session, &[(4, Found), (5, Authenticate)]));
    assert_eq!(session.expires_at(), None, "the authenticator verifies a fresh token");
    drop(session.handle(fresh(200), at(5)));
    assert_eq!(session.expires_at(), until(200), "the fresh token is good");
    drop(run(&mut session, &[(6, Silent)]));
    assert_eq!(session.expires_at(), until(100), "the store did not confirm it to the client");
    drop(run(&mut session, &[(7, Authenticate)]));
    drop(session.handle(fresh(50), at(7)));
    let sent = run(&mut session, &[(8, Found)]);
    assert_eq!(sent, [expected(None, reply(ServerMessage::AuthenticateSuccess(user_summary(3))), None)]);
    assert_eq!(session.expires_at(), until(50), "the last counts, also if it is shorter");
    for (verdict, reason) in [(VerifiedOther, AuthenticateFailure::AnotherUser), (NotVerified, invalid_id())] {
        let actions = run(&mut session, &[(9, Authenticate), (9, verdict)]);
        assert_eq!(actions[1], expected(None, failure(reason), None));
        assert_eq!(session.expires_at(), until(50));
    }
    let actions =
        run(&mut session, &[(10, Authenticate), (10, Verified), (10, Found), (11, Expired), (12, Authenticate)]);
    assert_eq!(session.expires_at(), None);
    assert_eq!(actions[3], no_actions(), "a credential without expiry");
    assert_eq!(
        actions[4],
        expected(release(), error_reply(AlreadyAuthenticated), close(CloseReason::TooManyBadMessages))
    );
}

#[test]
fn message_rate_allows_a_burst_and_refills() {
    let limits = SessionSettings { max_message_rate: NonZeroU32::new(10), max_bad_messages: None, ..SETTINGS };
    let mut session = Session::new(id(), &limits, at(0));
    let mut feed = |input: Input, millis: u64| session.handle(input.event(), at(0) + Duration::from_millis(millis));
    for _ in 0..10 {
        assert_eq!(feed(Garbage, 0).close, None, "ten at once");
    }
    assert_eq!(feed(Garbage, 100).close, None, "one more in a tenth of a second");
    for second in 2..5 {
        for tenth in 0..10 {
            assert_eq!(feed(if tenth % 2 == 0 { Garbage } else { Alive }, second * 1000 + tenth * 100).close, None);
        }
    }
    for _ in 0..9 {
        assert_eq!(feed(Alive, 4950).close, None);
    }
    assert_eq!(feed(Alive, 4950), expected(None, None, close(CloseReason::TooManyMessages)));

    let mut session = session_in(State::LiveByToken);
    assert!((0..10_000).all(|_| session.handle(Event::Alive, at(4)) == no_actions()), "no limit");
}

#[test]
fn exceeded_message_rate_releases_the_slot() {
    let limits = SessionSettings { max_message_rate: NonZeroU32::MIN.checked_add(1), ..SETTINGS };
    let mut session = Session::new(id(), &limits, at(0));
    let actions = run(&mut session, &[(0, Authenticate), (0, Verified), (0, Granted), (0, Alive), (0, Check)]);
    assert_eq!(actions[4], expected(release(), None, close(CloseReason::TooManyMessages)));
    // A slot that is granted afterwards is released.
    let mut session = Session::new(id(), &limits, at(0));
    let actions = run(&mut session, &[(0, Authenticate), (0, Verified), (0, Alive), (0, Alive), (0, Granted)]);
    assert_eq!(
        actions[3..],
        [expected(None, None, close(CloseReason::TooManyMessages)), expected(release(), None, None)]
    );
}
