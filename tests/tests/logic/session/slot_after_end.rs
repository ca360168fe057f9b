//! What becomes of a resumable slot, for each way in which its session can end: as the table of close codes says it.

use std::time::Duration;

use session_core::ledger::{EndReason, GrantDetails, KnownToken, Outcome, RenewalDenied, Resumption, StoreCommand};
use session_core::protocol::{CloseReason, SlotAfter};
use session_core::session::{Actions, Effect, Event, Identity, Session, SessionSettings, Violation};
use session_core::{ResumeToken, SlotId, UnixSeconds};
use tests::values::{limit, user};

use super::inputs::{SETTINGS, at, id};

/// A session with a slot whose token its client knows. Its credential expires.
fn live(settings: &SessionSettings) -> Session {
    let mut session = Session::new(id(), settings, at(0));
    drop(session.handle(Event::ConnectedV1, at(0)));
    drop(session.handle(Event::Text(AUTHENTICATE), at(0)));
    drop(session.handle(Event::Verified(Ok(identity())), at(0)));
    let (slot, since, linger) = (SlotId::new(id()), at(0), Duration::from_secs(60));
    let grant = GrantDetails { limit: limit(3), linger, slot, since, resume: Resumption::NotAsked, evicted: [].into() };
    drop(session.handle(Event::Stored(Outcome::Granted { slots: 1, grant: Some(Box::new(grant)) }), at(0)));
    session
}

const AUTHENTICATE: &str = r#"{"type":"AUTHENTICATE","payload":{"token":"a.b.c"}}"#;

fn identity() -> Identity {
    let (expires, resume_token) = (Some(UnixSeconds::from_unix_seconds(100)), Some(ResumeToken::new([7; 32])));
    Identity { expires, resume_token, ..Identity::for_user(user()) }
}

/// The events that end such a session with this reason, each at its second. `None` if no session with a slot ends so.
fn events(reason: CloseReason) -> Option<Vec<(u64, Event<'static>)>> {
    let violation = |violation| Some(vec![(1, Event::Violation(violation))]);
    match reason {
        CloseReason::Bye => Some(vec![(1, Event::Text(r#"{"type":"BYE"}"#))]),
        CloseReason::ShuttingDown => Some(vec![(1, Event::Draining)]),
        CloseReason::ProtocolError => violation(Violation::Protocol),
        CloseReason::BinaryMessage => violation(Violation::BinaryMessage),
        CloseReason::InvalidUtf8 => violation(Violation::InvalidUtf8),
        CloseReason::MessageTooBig => violation(Violation::MessageTooBig),
        CloseReason::TooManyBadMessages => {
            Some(vec![(1, Event::Text("?")), (1, Event::Text("?")), (1, Event::Text("?"))])
        }
        CloseReason::TooManyMessages => Some(vec![(1, Event::Alive), (1, Event::Alive)]),
        CloseReason::TokenExpired => Some(vec![(1, Event::Expired)]),
        CloseReason::PeerSilent => Some(vec![(30, Event::Tick), (35, Event::Tick)]),
        CloseReason::Evicted => Some(vec![(1, Event::Ended(EndReason::ByOperator))]),
        CloseReason::Resumed => Some(vec![(1, Event::Ended(EndReason::Resumed))]),
        CloseReason::Contested => Some(vec![(1, Event::Ended(EndReason::Contested))]),
        // The server closes with these before the session has a slot; or, after an internal error, without asking it.
        CloseReason::Internal | CloseReason::TryAgainLater | CloseReason::NotAuthenticated | CloseReason::NotChosen => {
            None
        }
    }
}

fn run(settings: &SessionSettings, events: Vec<(u64, Event<'static>)>) -> Actions {
    let mut session = live(settings);
    let mut last = Actions::default();
    for (second, event) in events {
        last = session.handle(event, at(second));
    }
    assert!(session.is_finished(), "{last:?}");
    last
}

#[test]
fn each_end_treats_the_slot_as_the_table_says() {
    let one_a_second = SessionSettings { max_message_rate: std::num::NonZeroU32::new(1), ..SETTINGS };
    for reason in CloseReason::ALL {
        let Some(events) = events(reason) else { continue };
        let settings = if reason == CloseReason::TooManyMessages { &one_a_second } else { &SETTINGS };
        let Actions { effect, close, .. } = run(settings, events);
        assert_eq!(close, Some(reason));
        let Some(Effect::Store(command)) = effect else { panic!("{reason}: the slot is not given up") };
        match reason.slot_after() {
            SlotAfter::Kept => {
                assert!(matches!(&command, StoreCommand::Linger { token: KnownToken::Granted, .. }), "{reason}");
            }
            SlotAfter::Released => assert!(matches!(command, StoreCommand::Release { .. }), "{reason}"),
            // It has no slot to keep, unless the store is in doubt whether the other connection got it: then the slot lingers.
            SlotAfter::Lost => assert!(command.is_release(), "{reason}"),
        }
    }
}

/// A browser sends a close frame at a reload as well as when its tab is closed, so the server cannot tell them apart.
#[test]
fn close_frame_of_the_client_counts_as_a_lost_socket() {
    let Actions { effect, close, .. } = run(&SETTINGS, vec![(1, Event::Disconnected)]);
    assert_eq!(close, None);
    assert!(matches!(effect, Some(Effect::Store(StoreCommand::Linger { .. }))), "{effect:?}");
}

/// A fresh token that bans its user ends the session, and nobody can resume it.
#[test]
fn banning_token_releases_the_slot() {
    let banned = Event::Stored(Outcome::NotRenewed(RenewalDenied::Banned));
    let events = vec![(1, Event::Text(AUTHENTICATE)), (1, Event::Verified(Ok(identity()))), (1, banned)];
    let Actions { effect, close, .. } = run(&SETTINGS, events);
    assert_eq!(close, Some(CloseReason::Evicted));
    assert!(matches!(effect, Some(Effect::Store(StoreCommand::Release { .. }))), "{effect:?}");
}
