//! A session that waits in line, and one that watches.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use std::time::Duration;

use session_core::ledger::{
    AcquireOptions, DenyReason, Evict, GrantDetails, Hint, LinePlace, Outcome, Resumption, SessionRecord, SlotLimit,
    SlotUsage, StoreCommand, StoreError,
};
use session_core::protocol::{
    AuthenticateFailure, ClientMessage, CloseReason, RequestError, ServerMessage, SessionList, WaitingDetails,
};
use session_core::session::{Actions, Effect, Event, Frame, Identity, Session};
use session_core::{NodeId, SlotId, Timestamp};

use super::inputs::*;

const WAIT: &str = r#"{"type":"AUTHENTICATE","payload":{"token":"ada's token","wait_ms":60000}}"#;

/// A session and what it did last.
struct Subject {
    session: Session,
    did: Actions,
}

impl Subject {
    fn new() -> Self {
        Self { session: session(), did: Actions::default() }
    }

    /// The same session after these events, each at its second.
    fn after(mut self, events: Vec<(u64, Event<'_>)>) -> Self {
        for (second, event) in events {
            self.on(second, event);
        }
        self
    }

    fn on(&mut self, second: u64, event: Event<'_>) -> &Actions {
        self.did = self.session.handle(event, at(second));
        &self.did
    }

    /// A session that asked at 2 s to wait for a minute, and has this place since 3 s.
    fn waiting(place: u16) -> Self {
        Self::asking().after(vec![(3, waits_at(place))])
    }

    /// The same, before the store's answer.
    fn asking() -> Self {
        Self::new().after(vec![(0, Event::Connected), (1, Event::Text(WAIT)), (2, verified())])
    }

    fn deadline(&self) -> Option<u64> {
        self.session.deadline().map(|deadline| deadline.since(at(0)).as_secs())
    }

    /// What the session asks the store: the time, and whether it still wants to wait.
    fn asks(&self) -> (Timestamp, bool) {
        match &self.did.effect {
            Some(Effect::Store(StoreCommand::Acquire { at, options: Some(options), .. })) => (*at, options.waits),
            other => panic!("{other:?}"),
        }
    }

    /// The place and the time left that the client is told, if it is.
    fn told_place(&self) -> Option<(u16, u64)> {
        match &self.did.send {
            Some(Frame::Message(ServerMessage::AuthenticateWaiting(details))) => {
                Some((details.place, details.wait.as_secs()))
            }
            Some(other) => panic!("{other:?}"),
            None => None,
        }
    }

    fn is_granted(&self) -> bool {
        matches!(&self.did.send, Some(Frame::Message(ServerMessage::AuthenticateSuccessDetailed(_))))
    }

    fn leaves(&self) -> bool {
        self.did.effect == release()
    }
}

fn verified() -> Event<'static> {
    Event::Verified(Ok(Identity::for_user(user())))
}

fn waits_at(place: u16) -> Event<'static> {
    Event::Stored(Outcome::Waiting(Box::new(in_line(place))))
}

fn denied(line: LinePlace) -> Event<'static> {
    Event::Stored(Outcome::Denied(Some(Box::new(SlotUsage { line, ..in_line(0) }))))
}

fn granted() -> Event<'static> {
    let grant = GrantDetails {
        limit: SlotLimit::new(1).unwrap(),
        linger: Duration::ZERO,
        slot: SlotId::new(id()),
        since: at(3),
        resume: Resumption::NotAsked,
        evicted: [].into(),
    };
    Event::Stored(Outcome::Granted { slots: 1, grant: Some(Box::new(grant)) })
}

#[test]
fn client_is_told_its_place_and_then_its_slot() {
    let mut subject = Subject::asking();
    assert_eq!(subject.asks(), (at(2), true));
    subject.on(3, waits_at(2));
    let Some(Frame::Message(ServerMessage::AuthenticateWaiting(details))) = &subject.did.send else { panic!() };
    let WaitingDetails { place, wait, connections, sessions, .. } = &**details;
    assert_eq!((*place, wait.as_secs(), *connections), (2, 59, 1));
    assert_eq!(sessions.as_ref().map(|sessions| sessions.len()), Some(1), "it learns who holds the slots");
    assert!(!subject.session.is_busy(), "a session in line takes messages");

    subject.on(5, Event::Hinted(Hint::Turn));
    assert_eq!(subject.asks(), (at(5), true));
    subject.on(6, granted());
    assert!(subject.is_granted());
    assert_eq!(subject.deadline(), Some(36), "it has a slot, and is pinged");
    assert_eq!(subject.on(7, Event::Hinted(Hint::Turn)), &no_actions(), "it waits for nothing any more");
    subject.on(8, Event::Disconnected);
    assert!(subject.leaves());
}

#[test]
fn session_in_line_asks_again_by_itself() {
    let mut subject = Subject::waiting(2);
    assert_eq!(subject.deadline(), Some(13), "ten seconds after the last answer, if no hint comes");
    subject.on(13, Event::Tick);
    assert_eq!(subject.asks(), (at(13), true));
    subject.on(14, waits_at(2));
    assert_eq!(subject.told_place(), None, "nothing is new");
    subject.on(24, Event::Tick);
    subject.on(24, waits_at(1));
    assert_eq!(subject.told_place(), Some((1, 38)), "its place is new");
    subject.on(25, Event::Alive);

    // A slot that lapses by itself has a time.
    let lapses_at = |second| SlotUsage { free_at: Some(at(second)), ..in_line(1) };
    subject.on(34, Event::Tick);
    subject.on(34, Event::Stored(Outcome::Waiting(Box::new(lapses_at(37)))));
    assert_eq!(subject.deadline(), Some(37));
    subject.on(37, Event::Tick);
    // By the store's clock it has not come yet.
    subject.on(37, Event::Stored(Outcome::Waiting(Box::new(lapses_at(37)))));
    assert_eq!(subject.deadline(), Some(38), "it does not ask without end");
}

#[test]
fn hint_that_comes_before_the_answer_is_not_lost() {
    let hinted = |second| (second, Event::Hinted(Hint::Turn));
    let first = Subject::asking().after(vec![hinted(3), (3, waits_at(1))]);
    let again = Subject::waiting(1).after(vec![(13, Event::Tick), hinted(13), (13, waits_at(1))]);
    for (mut subject, now) in [(first, 3), (again, 13)] {
        assert_eq!(subject.deadline(), Some(now), "it asks at once");
        subject.on(now, Event::Tick);
        assert_eq!(subject.asks(), (at(now), true));
    }
}

#[test]
fn change_is_asked_for_once_a_second() {
    let mut subject = Subject::waiting(3);
    for now in [3, 3, 3] {
        assert_eq!(subject.on(now, Event::Hinted(Hint::Changed)), &no_actions());
    }
    assert_eq!(subject.deadline(), Some(4));
    subject.on(4, Event::Tick);
    assert_eq!(subject.asks(), (at(4), true));
    subject.on(4, waits_at(2));
    assert_eq!(subject.told_place(), Some((2, 58)));
    subject.on(5, Event::Hinted(Hint::Changed));
    assert_eq!(subject.asks(), (at(5), true), "a second has passed");
}

#[test]
fn wait_ends_with_a_failure_that_can_be_answered() {
    let mut subject = Subject::waiting(1);
    for now in [13, 23, 33, 43, 53] {
        // It is pinged meanwhile, and answers.
        while subject.deadline() < Some(now) {
            let due = subject.deadline().unwrap();
            subject.on(due, Event::Tick);
            assert_eq!(subject.did.send, Some(Frame::Ping));
            subject.on(due, Event::Alive);
        }
        subject.on(now, Event::Tick);
        assert_eq!(subject.asks(), (at(now), true));
        subject.on(now, waits_at(1));
    }
    assert_eq!(subject.deadline(), Some(62), "sixty seconds after it was asked for");
    subject.on(62, Event::Tick);
    assert_eq!(subject.asks(), (at(62), false), "the last time it does not want to wait any longer");
    subject.on(63, denied(LinePlace::NotInLine));
    let Some(Frame::Message(ServerMessage::AuthenticateFailureDetailed(details))) = &subject.did.send else { panic!() };
    assert_eq!((&details.reason, details.is_line_full), (&AuthenticateFailure::LimitReached, false));
    assert_eq!(details.choose_within, Some(Session::RETRY_WINDOW));
    assert_eq!(subject.deadline(), Some(63 + 60));
    subject.on(64, Event::Text(WAIT));
    assert!(matches!(subject.did.effect, Some(Effect::Verify(_))), "it may wait again");
    // The second time the rest of the time to choose is left.
    subject.on(64, verified());
    subject.on(64, waits_at(1));
    subject.on(64, Event::Hinted(Hint::Turn));
    subject.on(70, denied(LinePlace::NotInLine));
    assert_eq!(subject.deadline(), Some(70 + 59));
    subject.on(70 + 59, Event::Tick);
    assert_eq!(
        (subject.did.close, &subject.did.effect),
        (Some(CloseReason::NotChosen), &None),
        "nothing is left to release"
    );
}

#[test]
fn full_line_is_said() {
    let mut subject = Subject::asking();
    subject.on(3, denied(LinePlace::Full));
    let Some(Frame::Message(ServerMessage::AuthenticateFailureDetailed(details))) = &subject.did.send else { panic!() };
    assert!(details.is_line_full);
    assert_eq!(subject.on(4, Event::Hinted(Hint::Turn)), &no_actions(), "it is not in line");
}

#[test]
fn session_leaves_the_line_when_its_connection_ends() {
    let by_token = || Event::Verified(Ok(by_token(100)));
    let expiring = || Subject::new().after(vec![(1, Event::Text(WAIT)), (2, by_token()), (3, waits_at(1))]);
    assert!(expiring().session.expires_at().is_some());
    let bye = ClientMessage::Bye.encode();
    for (event, close) in [
        (Event::Text(&bye), Some(CloseReason::Bye)),
        (Event::Disconnected, None),
        (Event::Draining, Some(CloseReason::ShuttingDown)),
        (Event::Expired, Some(CloseReason::TokenExpired)),
        (Event::Violation(session_core::session::Violation::Protocol), Some(CloseReason::ProtocolError)),
    ] {
        let mut subject = expiring();
        subject.on(4, event.clone());
        assert_eq!((subject.leaves(), subject.did.close), (true, close), "{event:?}");
        assert!(subject.session.is_finished());
        // While it asks again, it leaves when the answer comes, whatever the answer is.
        for answer in
            [waits_at(1), denied(LinePlace::NotInLine), granted(), rejected(), Event::Stored(Outcome::Unknown)]
        {
            let mut subject = expiring();
            subject.on(4, Event::Hinted(Hint::Turn));
            assert!(subject.session.is_busy());
            if let Event::Text(_) = event {
                continue;
            }
            subject.on(4, event.clone());
            assert!(!subject.session.is_finished() && subject.session.is_acquire_abandoned());
            subject.on(5, answer.clone());
            // What the store may have done without saying so, the release tracker undoes.
            let leaves = !matches!(answer, Event::Stored(Outcome::Unknown));
            assert_eq!((subject.leaves(), subject.session.is_finished()), (leaves, true), "{event:?} {answer:?}");
        }
    }
}

fn rejected() -> Event<'static> {
    Event::Stored(Outcome::Rejected(StoreError::Overloaded))
}

#[test]
fn silent_client_leaves_the_line() {
    let mut subject = Subject::waiting(1);
    let mut pinged = false;
    for _ in 0..9 {
        let due = subject.deadline().unwrap();
        subject.on(due, Event::Tick);
        if subject.did.close.is_some() {
            assert!(pinged && subject.leaves());
            assert_eq!((subject.did.close, due), (Some(CloseReason::PeerSilent), 38));
            return;
        }
        pinged |= subject.did.send == Some(Frame::Ping);
        if subject.session.is_busy() {
            subject.on(due, waits_at(1));
        }
    }
    panic!("its own questions to the store are no sign of life of the client");
}

#[test]
fn pong_counts_while_the_session_asks_by_itself() {
    let mut subject = Subject::waiting(1);
    for due in [13, 23] {
        subject.on(due, Event::Tick);
        subject.on(due, waits_at(1));
    }
    assert!(subject.on(33, Event::Tick).effect.is_some());
    subject.on(33, Event::Alive);
    subject.on(33, waits_at(1));
    subject.on(43, Event::Tick);
    assert_eq!(subject.did.send, None, "no ping is due");
}

#[test]
fn store_that_fails_keeps_the_place_or_ends_the_session() {
    let mut subject = Subject::waiting(1);
    subject.on(4, Event::Hinted(Hint::Turn));
    assert_eq!(subject.on(4, rejected()), &no_actions(), "it certainly kept its place");
    assert_eq!(subject.deadline(), Some(5), "and asks again");
    subject.on(5, Event::Tick);
    subject.on(6, Event::Stored(Outcome::Unknown));
    // The release tracker takes it out of the line.
    assert_eq!((subject.did.close, &subject.did.effect), (Some(CloseReason::TryAgainLater), &None));

    // If it asks for the last time, a rejection ends it.
    let mut last = Subject::waiting(1);
    last.on(62, Event::Tick);
    last.on(63, rejected());
    assert_eq!((last.did.close, last.leaves()), (Some(CloseReason::TryAgainLater), true));
}

#[test]
fn client_that_asks_anew_is_always_answered() {
    let evicting = r#"{"type":"AUTHENTICATE","payload":{"token":"t","evict":"oldest"}}"#;
    let gone = |line| SlotUsage { denied: Some(DenyReason::Gone), line, ..in_line(2) };
    let gone = |line| Event::Stored(Outcome::Denied(Some(Box::new(gone(line)))));
    for text in [WAIT, evicting] {
        for answer in [rejected(), gone(LinePlace::At(2))] {
            let mut subject = Subject::waiting(2).after(vec![(4, Event::Text(text)), (5, verified())]);
            subject.on(6, answer.clone());
            let Some(Frame::Message(ServerMessage::AuthenticateFailureDetailed(details))) = &subject.did.send else {
                panic!("{text} {answer:?}: {:?}", subject.did)
            };
            assert_eq!((details.choose_within, subject.did.close), (None, None), "{text} {answer:?}");
            subject.on(8, Event::Hinted(Hint::Turn));
            assert_eq!(subject.asks(), (at(8), true), "its earlier request goes on");
            subject.on(9, Event::Disconnected);
            subject.on(9, rejected());
            assert!(subject.leaves());
        }
        let mut subject = Subject::waiting(2).after(vec![(4, Event::Text(text)), (5, verified())]);
        subject.on(6, gone(LinePlace::NotInLine));
        assert_eq!(subject.on(8, Event::Hinted(Hint::Turn)), &no_actions(), "it left the line");
    }
}

#[test]
fn client_in_line_may_ask_anew() {
    let evicting = r#"{"type":"AUTHENTICATE","payload":{"token":"t","evict":"oldest"}}"#;
    let mut subject = Subject::waiting(2).after(vec![(4, Event::Text(evicting)), (5, verified())]);
    assert_eq!(subject.asks(), (at(5), false));
    subject.on(6, granted());
    assert!(subject.is_granted());

    // Another user is another session.
    let mut subject = Subject::waiting(2).after(vec![(4, Event::Text(WAIT))]);
    subject.on(5, Event::Verified(Ok(Identity::for_user(bob()))));
    let Some(Frame::Message(ServerMessage::AuthenticateFailureDetailed(details))) = &subject.did.send else { panic!() };
    assert_eq!((&details.reason, &subject.did.effect), (&AuthenticateFailure::AnotherUser, &None));
    subject.on(6, Event::Hinted(Hint::Turn));
    assert_eq!(subject.asks(), (at(6), true), "it still waits for the first one");

    // So does an invalid credential.
    let mut subject = Subject::waiting(2).after(vec![(4, Event::Text(WAIT)), (5, Event::VerifyTimedOut)]);
    assert_eq!(subject.did.close, None);
    subject.on(6, Event::Hinted(Hint::Turn));
    assert_eq!(subject.asks(), (at(6), true));
    // A second wait counts from the second request.
    let mut subject = Subject::waiting(2).after(vec![(30, Event::Text(WAIT)), (31, verified())]);
    subject.on(32, waits_at(2));
    assert_eq!(subject.told_place(), Some((2, 59)));
}

#[test]
fn chosen_sessions_are_ended_once() {
    let other = NodeId::new(9).session(9);
    let text = format!(r#"{{"type":"AUTHENTICATE","payload":{{"token":"t","wait_ms":9000,"evict":["{other}"]}}}}"#);
    let mut subject = Subject::new().after(vec![(1, Event::Text(&text)), (2, verified())]);
    let evict = |subject: &Subject| match &subject.did.effect {
        Some(Effect::Store(StoreCommand::Acquire { options: Some(options), .. })) => options.evict.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(evict(&subject), Some(Evict::Sessions([other].into())));
    subject.on(3, waits_at(1));
    subject.on(4, Event::Hinted(Hint::Turn));
    let nobody = Some(Evict::Sessions([].into()));
    assert_eq!(evict(&subject), nobody, "a choice that is not there any more would deny it, and none could end others");
}

#[test]
fn waits_are_bounded() {
    let longest = r#"{"type":"AUTHENTICATE","payload":{"token":"t","wait_ms":18446744073709551615}}"#;
    let mut subject = Subject::new().after(vec![(1, Event::Text(longest)), (2, verified())]);
    subject.on(2, waits_at(1));
    assert_eq!(subject.told_place(), Some((1, 3600)));
    let none = r#"{"type":"AUTHENTICATE","payload":{"token":"t","wait_ms":0}}"#;
    let subject = Subject::new().after(vec![(1, Event::Text(none)), (2, verified())]);
    let Some(Effect::Store(StoreCommand::Acquire { options: Some(options), .. })) = &subject.did.effect else {
        panic!()
    };
    assert_eq!(**options, AcquireOptions::default());
}

/// A session that has its slot since 3 s and watches since 4 s.
fn watching() -> Subject {
    let watch = ClientMessage::ListSessions(Some(true)).encode();
    let mut subject = Subject::asking().after(vec![(3, granted()), (4, Event::Text(&watch))]);
    assert_eq!(watch_of(&subject), Some(true));
    subject.on(4, listed(1));
    let Some(Frame::Message(ServerMessage::ListSessionsSuccess(_))) = &subject.did.send else { panic!() };
    subject
}

fn watch_of(subject: &Subject) -> Option<bool> {
    match &subject.did.effect {
        Some(Effect::Store(StoreCommand::ListSessions { watch, .. })) => *watch,
        other => panic!("{other:?}"),
    }
}

fn listed(sessions: u64) -> Event<'static> {
    let sessions: Box<[_]> =
        (1..=sessions).map(|number| SessionRecord::new(id().node().session(number), at(0))).collect();
    let slots = u32::try_from(sessions.len()).unwrap();
    Event::Stored(Outcome::Listed(Box::new(SlotUsage { slots, sessions, denied: None, ..in_line(0) })))
}

fn changed(subject: &Subject) -> Option<&SessionList> {
    match &subject.did.send {
        Some(Frame::Message(ServerMessage::SessionsChanged(list))) => Some(list),
        Some(other) => panic!("{other:?}"),
        None => None,
    }
}

#[test]
fn watching_client_is_told_of_changes_once_a_second() {
    let mut subject = watching();
    assert_eq!(subject.deadline(), Some(34), "nothing to do but to ping");
    subject.on(5, Event::Hinted(Hint::Changed));
    assert_eq!(watch_of(&subject), None);
    // Another change while it asks.
    subject.on(5, Event::Hinted(Hint::Changed));
    subject.on(5, listed(2));
    assert_eq!(changed(&subject).map(|list| list.connections), Some(2));
    assert_eq!(subject.deadline(), Some(6));
    subject.on(6, Event::Tick);
    subject.on(6, listed(2));
    assert_eq!(changed(&subject), None, "the list is as before");
    assert_eq!(subject.deadline(), Some(34), "its own questions do not put off the ping");
    subject.on(9, Event::Hinted(Hint::Changed));
    subject.on(9, rejected());
    assert_eq!((changed(&subject), subject.deadline()), (None, Some(10)), "it asks again");
}

#[test]
fn watching_client_learns_when_a_session_lapses() {
    let mut subject = watching();
    subject.on(5, Event::Hinted(Hint::Changed));
    let mut lost = SessionRecord::new(NodeId::new(9).session(9), at(0));
    lost.status = session_core::ledger::SessionStatus::Lingering { until: at(20) };
    let usage = SlotUsage { sessions: [lost].into(), denied: None, ..in_line(0) };
    subject.on(5, Event::Stored(Outcome::Listed(Box::new(usage))));
    assert!(changed(&subject).is_some());
    assert_eq!(subject.deadline(), Some(20));
    subject.on(20, Event::Tick);
    assert_eq!(watch_of(&subject), None);
}

#[test]
fn client_ceases_to_watch() {
    let [stop, list] = [Some(false), None].map(|watch| ClientMessage::ListSessions(watch).encode());
    let mut subject = watching();
    subject.on(5, Event::Text(&list));
    assert_eq!(watch_of(&subject), None);
    subject.on(5, listed(1));
    subject.on(6, Event::Text(&stop));
    assert_eq!(watch_of(&subject), Some(false));
    subject.on(6, listed(1));
    assert_eq!(subject.on(7, Event::Hinted(Hint::Changed)), &no_actions());
}

#[test]
fn nobody_watches_without_a_slot() {
    let watch = ClientMessage::ListSessions(Some(true)).encode();
    let mut subject = Subject::waiting(1);
    subject.on(4, Event::Text(&watch));
    let Some(Frame::Message(ServerMessage::ErrorDetailed(details))) = &subject.did.send else { panic!() };
    assert_eq!((&details.error, &subject.did.effect), (&RequestError::NotAuthenticated, &None));
}

#[test]
fn client_that_takes_no_data_gets_nothing_unasked() {
    let mut subject = watching();
    subject.session.set_congested(true);
    assert_eq!(subject.on(6, Event::Hinted(Hint::Changed)), &no_actions());
    assert_eq!(subject.deadline(), Some(34), "it does not ask");
    subject.session.set_congested(false);
    assert_eq!(subject.deadline(), Some(6));
    subject.on(7, Event::Tick);
    assert_eq!(watch_of(&subject), None);

    let mut subject = Subject::waiting(3);
    subject.session.set_congested(true);
    subject.on(5, Event::Hinted(Hint::Changed));
    subject.on(5, waits_at(2));
    assert_eq!(subject.told_place(), None);
    // It is admitted all the same.
    let mut called = Subject::waiting(1);
    called.session.set_congested(true);
    called.on(5, Event::Hinted(Hint::Turn));
    called.on(5, granted());
    assert!(called.is_granted());
    // It learns its place when it takes data again.
    subject.session.set_congested(false);
    subject.on(15, Event::Tick);
    subject.on(15, waits_at(2));
    assert_eq!(subject.told_place(), Some((2, 47)));
}
