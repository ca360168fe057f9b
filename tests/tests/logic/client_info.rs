//! Sessions of clients that authenticate with an object: detailed answers, choices, and lingering.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test that finds nothing there has failed")]

use std::time::Duration;

use session_core::SlotId;
use session_core::ledger::{self, AcquireOptions, EndTarget, GrantDetails, KnownToken, LimitSource, SlotUsage};
use session_core::ledger::{DenyReason, LinePlace, Resumption, SessionNames};
use session_core::ledger::{EndReason, Evict, Outcome, RenewalDenied, SessionRecord, SessionStatus, StoreError};
use session_core::protocol::{
    AuthenticateFailure, AuthenticateFailureDetails, AuthenticateSuccessDetails, CloseReason, CredentialError,
    RequestError, ServerMessage, SessionList, SessionSummary, StatusWord, TokenError,
};
use session_core::protocol::{ErrorDetails, EvictedCode, EvictedDetails};
use session_core::session::{Actions, Effect, Event, Frame, Identity, Session, SessionSettings, Violation};
use session_core::{NodeId, ResumeToken, SessionId, Timestamp, UnixSeconds, UserId};
use tests::values::{limit, name, user, user_summary};

const LINGER: Duration = Duration::from_secs(90);

fn at(second: u64) -> Timestamp {
    Timestamp::from_epoch(Duration::from_secs(1_700_000_000 + second))
}

fn id() -> SessionId {
    NodeId::new(0xada).session(7)
}

fn old_token() -> ResumeToken {
    ResumeToken::new([1; 32])
}

fn new_token() -> ResumeToken {
    ResumeToken::new([2; 32])
}

/// A session and its time.
struct SessionHarness {
    session: Session,
    /// The time of the next event, in seconds from the start.
    second: u64,
}

impl SessionHarness {
    fn new() -> Self {
        Self { session: Session::new(id(), &SessionSettings::default(), at(0)), second: 0 }
    }

    fn handle(&mut self, event: Event<'_>) -> Actions {
        self.session.handle(event, at(self.second))
    }

    /// Sends AUTHENTICATE with these fields, and the authenticator's answer. Returns the acquire.
    fn authenticate(&mut self, fields: &str, identity: Identity) -> ledger::StoreCommand {
        let text = format!(r#"{{"type":"AUTHENTICATE","payload":{{"user":"ada"{fields}}}}}"#);
        let actions = self.handle(Event::Text(&text));
        assert!(matches!(actions.effect, Some(Effect::Verify(_))) && actions.send.is_none(), "{actions:?}");
        let actions = self.handle(Event::Verified(Ok(identity)));
        let Actions { effect: Some(Effect::Store(command)), send: None, close: None } = actions else {
            panic!("{actions:?}")
        };
        command
    }

    fn granted(&mut self, is_resumed: bool, linger: Duration) -> Actions {
        let (slot, since) = (SlotId::new(id()), at(0));
        let resume = if is_resumed { Resumption::Resumed } else { Resumption::NotAsked };
        let grant = GrantDetails { limit: limit(3), linger, slot, since, resume, evicted: [].into() };
        self.handle(Event::Stored(Outcome::Granted { slots: 2, grant: Some(Box::new(grant)) }))
    }

    /// A session with a slot and this grace period.
    fn live(linger: Duration) -> Self {
        let mut harness = Self::new();
        drop(harness.authenticate("", identity()));
        let _granted: Actions = harness.granted(false, linger);
        harness
    }

    /// A session that waits for its acquire with a resume token.
    fn resuming() -> Self {
        let mut harness = Self::new();
        drop(harness.authenticate(&format!(r#","resume":"{}""#, old_token().text()), identity()));
        harness
    }
}

fn identity() -> Identity {
    Identity { resume_token: Some(new_token()), ..Identity::for_user(user()) }
}

fn reply(reply: ServerMessage) -> Actions {
    Actions { send: Some(Frame::Message(reply)), ..Actions::default() }
}

fn store(command: ledger::StoreCommand) -> Actions {
    Actions { effect: Some(Effect::Store(command)), ..Actions::default() }
}

fn release() -> ledger::StoreCommand {
    ledger::StoreCommand::Release { user: user(), session: id() }
}

fn linger(second: u64) -> ledger::StoreCommand {
    ledger::StoreCommand::Linger { user: user(), session: id(), at: at(second), token: KnownToken::Granted }
}

fn admitted(resume: Option<ResumeToken>, linger: Duration) -> Actions {
    let is_resumed = resume == Some(old_token());
    reply(ServerMessage::AuthenticateSuccessDetailed(Box::new(AuthenticateSuccessDetails {
        user: user_summary(2),
        limit: limit(3),
        session: id(),
        slot: SlotId::new(id()),
        since: at(0).millis(),
        resumption: if is_resumed { Resumption::Resumed } else { Resumption::NotAsked },
        resume,
        linger,
        ping_interval: Duration::from_secs(30),
        pong_timeout: Duration::from_secs(10),
        cut_label: None,
        ended: [].into(),
        ignored: [].into(),
    })))
}

fn usage() -> SlotUsage {
    let entry = SessionRecord::new(NodeId::new(9).session(9), at(0));
    SlotUsage {
        limit: limit(1),
        limit_source: LimitSource::Server,
        slots: 1,
        sessions: [entry].into(),
        free_at: Some(at(3)),
        denied: Some(DenyReason::LimitReached),
        client_choice: true,
        waiting: 0,
        line: LinePlace::NotInLine,
    }
}

fn info() -> SessionSummary {
    let (id, since) = (NodeId::new(9).session(9), at(0).millis());
    let slot = Some(SlotId::new(id));
    SessionSummary { id, slot, is_own: false, device: None, label: None, since, state: StatusWord::Live, until: None }
}

#[test]
fn options_reach_the_store_without_any_token() {
    let mut harness = SessionHarness::new();
    let fields = format!(
        r#","device":"laptop","label":"Firefox","resume":"{}","evict":["{}"]"#,
        old_token().text(),
        NodeId::new(9).session(9)
    );
    let ledger::StoreCommand::Acquire { options: Some(options), limit: claim, at: actions, .. } =
        harness.authenticate(&fields, Identity { limit: Some(limit(7)), ..identity() })
    else {
        panic!("an acquire")
    };
    let expected = AcquireOptions {
        device: name("laptop"),
        label: name("Firefox"),
        resume: Some(old_token().key()),
        new_resume_key: Some(new_token().key()),
        evict: Some(Evict::Sessions([NodeId::new(9).session(9)].into())),
        must_resume: false,
        waits: false,
    };
    assert_eq!((*options, claim, actions), (expected, Some(limit(7)), at(0)));
    // The device in the token overrides that of the client.
    let command =
        SessionHarness::new().authenticate(r#","device":"mine""#, Identity { device: name("laptop"), ..identity() });
    assert!(
        matches!(command, ledger::StoreCommand::Acquire { options: Some(options), .. } if options.device == name("laptop"))
    );
}

#[test]
fn detailed_grant_has_the_resume_token() {
    let mut anew = SessionHarness::new();
    drop(anew.authenticate("", identity()));
    assert_eq!(anew.granted(false, LINGER), admitted(Some(new_token()), LINGER));
    assert_eq!(SessionHarness::resuming().granted(true, LINGER), admitted(Some(old_token()), LINGER));
    // The slot to resume was gone, so the new slot has another token.
    assert_eq!(SessionHarness::resuming().granted(false, LINGER), admitted(Some(new_token()), LINGER));
    // Without a new token the slot has none.
    let mut without = SessionHarness::new();
    drop(without.authenticate("", Identity::for_user(user())));
    assert_eq!(without.granted(false, LINGER), admitted(None, LINGER));
    assert_eq!(without.handle(Event::Disconnected), store(release()), "a slot without a token cannot be resumed");
}

#[test]
fn detailed_denial_gives_one_minute_to_choose() {
    let mut harness = SessionHarness::new();
    harness.second = 2;
    drop(harness.authenticate("", identity()));
    let denial = AuthenticateFailureDetails {
        reason: AuthenticateFailure::LimitReached,
        limit: Some(limit(1)),
        connections: Some(1),
        sessions: Some([info()].into()),
        retry_after: Some(Duration::from_secs(1)),
        client_choice: true,
        choose_within: Some(Duration::from_secs(60)),
        waiting: 0,
        is_line_full: false,
    };
    let denied = |harness: &mut SessionHarness| harness.handle(Event::Stored(Outcome::Denied(Some(Box::new(usage())))));
    assert_eq!(harness.session.deadline(), None);
    assert_eq!(denied(&mut harness), reply(ServerMessage::AuthenticateFailureDetailed(Box::new(denial.clone()))));
    assert_eq!(harness.session.deadline(), Some(at(62)), "a minute after the denial");
    harness.second = 50;
    drop(harness.authenticate(r#","evict":"oldest""#, identity()));
    let choose_within = Some(Duration::from_secs(12));
    let late =
        AuthenticateFailureDetails { sessions: None, retry_after: Some(Duration::ZERO), choose_within, ..denial };
    assert_eq!(denied(&mut harness), reply(ServerMessage::AuthenticateFailureDetailed(Box::new(late))));
    assert_eq!(harness.session.deadline(), Some(at(62)), "once");
    harness.second = 62;
    let expected = Actions { close: Some(CloseReason::NotChosen), ..Actions::default() };
    assert_eq!(harness.handle(Event::Tick), expected);
    // A plain client has no time to choose.
    let mut plain = SessionHarness::new();
    drop(plain.handle(Event::Text(r#"{"type":"AUTHENTICATE","payload":"ada"}"#)));
    drop(plain.handle(Event::Verified(Ok(Identity::for_user(user())))));
    let refused = plain.handle(Event::Stored(Outcome::Denied(None)));
    assert_eq!(refused, reply(ServerMessage::AuthenticateFailure(AuthenticateFailure::LimitReached)));
    assert_eq!(plain.session.deadline(), Some(at(10)));
}

#[test]
fn list_is_sent_again_only_if_it_changed() {
    let mut harness = SessionHarness::new();
    let mut sessions_listed = |usage: SlotUsage| {
        drop(harness.authenticate("", identity()));
        let Actions { send: Some(Frame::Message(ServerMessage::AuthenticateFailureDetailed(details))), .. } =
            harness.handle(Event::Stored(Outcome::Denied(Some(Box::new(usage)))))
        else {
            panic!("a denial is answered")
        };
        assert_eq!(details.connections, Some(1), "the rest is always sent");
        details.sessions.map(|sessions| sessions.len())
    };
    let with = |change: &dyn Fn(&mut SessionRecord)| {
        let mut usage = usage();
        change(&mut usage.sessions[0]);
        usage
    };
    let (same, lingering) =
        (with(&|_| ()), with(&|session| session.status = SessionStatus::Lingering { until: at(9) }));
    let other = with(&|session| session.session = NodeId::new(7).session(7));
    assert_eq!(sessions_listed(same.clone()), Some(1));
    assert_eq!(sessions_listed(same.clone()), None);
    assert_eq!(sessions_listed(lingering.clone()), Some(1));
    assert_eq!(sessions_listed(lingering), None);
    assert_eq!(sessions_listed(other), Some(1));
    assert_eq!(sessions_listed(SlotUsage { sessions: [].into(), ..same.clone() }), Some(0));
    assert_eq!(sessions_listed(same), Some(1));
}

/// A detailed failure that says nothing about the user's sessions.
fn detailed_failure(reason: AuthenticateFailure) -> ServerMessage {
    ServerMessage::AuthenticateFailureDetailed(Box::new(AuthenticateFailureDetails {
        reason,
        limit: None,
        connections: None,
        sessions: None,
        retry_after: None,
        client_choice: false,
        choose_within: None,
        waiting: 0,
        is_line_full: false,
    }))
}

#[test]
fn object_client_gets_every_failure_detailed() {
    let denied = detailed_failure;
    let mut harness = SessionHarness::new();
    drop(harness.handle(Event::Text(r#"{"type":"AUTHENTICATE","payload":{}}"#)));
    let rejected = harness.handle(Event::Verified(Err(CredentialError::NotText)));
    assert_eq!(rejected, reply(denied(AuthenticateFailure::Credential(CredentialError::NotText))));
    for (outcome, failure) in [
        (Outcome::Rejected(StoreError::Full), AuthenticateFailure::Store(StoreError::Full)),
        (Outcome::Unknown, AuthenticateFailure::StoreTimedOut),
        (Outcome::Released, AuthenticateFailure::StoreTimedOut),
    ] {
        let mut harness = SessionHarness::new();
        drop(harness.authenticate("", identity()));
        let expected = Actions { close: Some(CloseReason::TryAgainLater), ..reply(denied(failure)) };
        assert_eq!(harness.handle(Event::Stored(outcome)), expected);
    }
    let mut harness = SessionHarness::new();
    drop(harness.authenticate("", identity()));
    let full = SlotUsage { denied: Some(DenyReason::DeviceFull), free_at: None, ..usage() };
    let actions = harness.handle(Event::Stored(Outcome::Denied(Some(Box::new(full)))));
    assert!(
        matches!(&actions.send, Some(Frame::Message(ServerMessage::AuthenticateFailureDetailed(denial))) if denial.reason == AuthenticateFailure::DeviceFull)
    );
}

#[test]
fn plain_client_has_the_device_of_its_token() {
    let waiting = || {
        let mut harness = SessionHarness::new();
        drop(harness.handle(Event::Text(r#"{"type":"AUTHENTICATE","payload":"ada"}"#)));
        let identity = Identity { device: name("laptop"), ..identity() };
        let actions = harness.handle(Event::Verified(Ok(identity)));
        let Some(Effect::Store(ledger::StoreCommand::Acquire { options: Some(options), .. })) = actions.effect else {
            panic!("{actions:?}")
        };
        assert_eq!(*options, AcquireOptions { device: name("laptop"), ..AcquireOptions::default() });
        harness
    };
    let mut harness = waiting();
    assert_eq!(harness.granted(false, LINGER), reply(ServerMessage::AuthenticateSuccess(user_summary(2))));
    assert_eq!(harness.handle(Event::Disconnected), store(release()), "a plain client cannot resume");
    for (reason, slots, failure) in [
        (DenyReason::DeviceFull, 1, AuthenticateFailure::DeviceFull),
        (DenyReason::LimitReached, 1, AuthenticateFailure::LimitReached),
        // The plain protocol has no word for it.
        (DenyReason::LimitReached, 0, AuthenticateFailure::LimitReached),
    ] {
        let full = SlotUsage { denied: Some(reason), limit: limit(slots), ..usage() };
        let actions = waiting().handle(Event::Stored(Outcome::Denied(Some(Box::new(full)))));
        assert_eq!(actions, reply(ServerMessage::AuthenticateFailure(failure)));
    }
}

#[test]
fn only_a_lost_session_lingers() {
    let lost = [(Event::Disconnected, None), (Event::Draining, Some(CloseReason::ShuttingDown))];
    for (event, close) in lost {
        let mut harness = SessionHarness::live(LINGER);
        harness.second = 5;
        assert_eq!(harness.handle(event.clone()), Actions { close, ..store(linger(5)) });
        assert!(harness.session.is_finished());
        // The ledger knows whether the slot has a grace period. A plain client has no token.
        assert_eq!(SessionHarness::live(Duration::ZERO).handle(event.clone()), Actions { close, ..store(linger(0)) });
        let mut plain = SessionHarness::new();
        drop(plain.handle(Event::Text(r#"{"type":"AUTHENTICATE","payload":"ada"}"#)));
        drop(plain.handle(Event::Verified(Ok(Identity::for_user(user())))));
        drop(plain.handle(Event::Stored(Outcome::granted(1))));
        assert_eq!(plain.handle(event), Actions { close, ..store(release()) });
    }
    let mut silent = SessionHarness::live(LINGER);
    for second in [30, 40] {
        silent.second = second;
        let actions = silent.handle(Event::Tick);
        if second == 40 {
            assert_eq!(actions, Actions { close: Some(CloseReason::PeerSilent), ..store(linger(40)) });
        }
    }
    let bye = r#"{"type":"BYE"}"#;
    let ended = Event::Ended(EndReason::ByOperator);
    for event in [Event::Text(bye), Event::Violation(Violation::Protocol), ended] {
        let actions = SessionHarness::live(LINGER).handle(event);
        assert_eq!(actions.effect, Some(Effect::Store(release())), "{actions:?}");
    }
    // The resuming session may have failed. Then the slot still exists, and lingers.
    let resumed = || Event::Ended(EndReason::Resumed);
    let close = Some(CloseReason::Resumed);
    assert_eq!(SessionHarness::live(LINGER).handle(resumed()), Actions { close, ..store(linger(0)) });
}

#[test]
fn failed_renewal_with_object_is_detailed() {
    let by_token = |user| Identity { expires: Some(UnixSeconds::from_unix_seconds(100)), ..Identity::for_user(user) };
    let refused = |failure| reply(detailed_failure(failure));
    let mut harness = SessionHarness::new();
    drop(harness.authenticate("", by_token(user())));
    let _granted: Actions = harness.granted(false, Duration::ZERO);
    let renewal = Event::Text(r#"{"type":"AUTHENTICATE","payload":{"token":"a.b.c"}}"#);
    let expired = CredentialError::Token(TokenError::Expired);
    for (verdict, failure) in [
        (Ok(by_token(UserId::parse("eve").unwrap())), AuthenticateFailure::AnotherUser),
        (Err(expired), AuthenticateFailure::Credential(expired)),
    ] {
        drop(harness.handle(renewal.clone()));
        assert_eq!(harness.handle(Event::Verified(verdict)), refused(failure));
    }
    for (outcome, failure) in [
        (Outcome::Unknown, AuthenticateFailure::StoreTimedOut),
        (Outcome::Rejected(StoreError::Full), AuthenticateFailure::Store(StoreError::Full)),
        (Outcome::NotRenewed(RenewalDenied::AnotherDevice), AuthenticateFailure::AnotherDevice),
    ] {
        drop(harness.handle(renewal.clone()));
        drop(harness.handle(Event::Verified(Ok(by_token(user())))));
        assert_eq!(harness.handle(Event::Stored(outcome)), refused(failure));
    }
    drop(harness.handle(renewal));
    let of_phone = Identity { device: name("phone"), limit: Some(limit(0)), ..by_token(user()) };
    let Actions { effect: Some(Effect::Store(command)), .. } = harness.handle(Event::Verified(Ok(of_phone))) else {
        panic!("the store decides")
    };
    let (session, at) = (id(), at(0));
    let expected =
        ledger::StoreCommand::Renew { user: user(), session, limit: Some(limit(0)), device: name("phone"), at };
    assert_eq!(command, expected);
    let actions = harness.handle(Event::Stored(Outcome::NotRenewed(RenewalDenied::Banned)));
    // Who may hold no session has none from now on.
    let (effect, close) = (Some(Effect::Store(release())), Some(CloseReason::Evicted));
    let banned = AuthenticateFailureDetails {
        limit: Some(limit(0)),
        ..AuthenticateFailureDetails::new(AuthenticateFailure::Banned)
    };
    let banned = ServerMessage::AuthenticateFailureDetailed(Box::new(banned));
    assert_eq!(actions, Actions { effect, close, ..reply(banned) });
    assert!(harness.session.is_finished());
}

#[test]
fn pending_request_keeps_the_time_of_loss() {
    for question in [r#"{"type":"CHECK_CONNECTIONS"}"#, r#"{"type":"LIST_SESSIONS"}"#] {
        let mut harness = SessionHarness::live(LINGER);
        drop(harness.handle(Event::Text(question)));
        harness.second = 5;
        assert_eq!(harness.handle(Event::Disconnected), Actions::default());
        harness.second = 8;
        assert_eq!(harness.handle(Event::Stored(Outcome::Unknown)), store(linger(5)));
    }
}

#[test]
fn slot_resumed_then_lost_can_be_resumed() {
    let granted = |mut harness: SessionHarness, is_resumed, event: Event<'_>| {
        drop(harness.handle(event));
        harness.second = 4;
        harness.granted(is_resumed, LINGER)
    };
    assert_eq!(granted(SessionHarness::resuming(), true, Event::Disconnected), store(linger(4)));
    assert_eq!(granted(SessionHarness::resuming(), true, Event::Draining), store(linger(4)));
    // No client knows the token of a new slot.
    assert_eq!(granted(SessionHarness::resuming(), false, Event::Disconnected), store(release()));
    let mut anew = SessionHarness::new();
    drop(anew.authenticate("", identity()));
    assert_eq!(granted(anew, false, Event::Disconnected), store(release()));
    // A session that the server closed is not lost.
    assert_eq!(granted(SessionHarness::resuming(), true, Event::Violation(Violation::Protocol)), store(release()));
    assert_eq!(granted(SessionHarness::resuming(), true, Event::Ended(EndReason::ByOperator)), store(release()));
}

#[test]
fn eviction_before_the_grant_hides_the_grant() {
    let mut harness = SessionHarness::resuming();
    let message = "phone has taken the place of this session";
    let actions = harness.handle(Event::Ended(EndReason::TakenOver(SessionNames::new(name("phone").as_ref(), None))));
    let (message, code) = (message.into(), EvictedCode::Taken);
    let evicted = EvictedDetails { message, code, label: None, device: name("phone") };
    let evicted = ServerMessage::EvictedDetailed(Box::new(evicted));
    let expected = Actions { close: Some(CloseReason::Evicted), ..reply(evicted) };
    assert_eq!(actions, expected);
    assert!(harness.session.is_busy());
    assert_eq!(harness.granted(false, LINGER), store(release()));
    assert!(harness.session.is_finished());
    // A second one has no effect.
    assert_eq!(harness.handle(Event::Ended(EndReason::ByOperator)), Actions::default());
}

#[test]
fn any_live_session_lists_and_ends_sessions() {
    let list = r#"{"type":"LIST_SESSIONS"}"#;
    let other = NodeId::new(9).session(9);
    let end = format!(r#"{{"type":"END_SESSION","payload":"{other}"}}"#);
    let error = |error| reply(ServerMessage::ErrorDetailed(Box::new(ErrorDetails { error, sessions: None })));
    let mut harness = SessionHarness::new();
    for text in [list, &*end] {
        let expected = reply(ServerMessage::Error(RequestError::NotAuthenticated));
        assert_eq!(harness.handle(Event::Text(text)), expected);
    }

    let mut harness = SessionHarness::live(LINGER);
    harness.second = 3;
    let actions = harness.handle(Event::Text(list));
    let command = ledger::StoreCommand::ListSessions {
        user: user(),
        session: id(),
        limit: None,
        is_unbounded: false,
        watch: None,
        at: at(3),
    };
    assert_eq!(actions, store(command));
    let actions = harness.handle(Event::Stored(Outcome::Listed(Box::new(usage()))));
    let sessions = SessionList { limit: 1, connections: 1, waiting: 0, sessions: [info()].into() };
    assert_eq!(actions, reply(ServerMessage::ListSessionsSuccess(Box::new(sessions))));

    let actions = harness.handle(Event::Text(&end));
    let (target, reason) = (EndTarget::One(other), EndReason::ByUser(None));
    assert_eq!(
        actions,
        store(ledger::StoreCommand::EndSessions { user: user(), session: id(), target, reason, at: at(3) })
    );
    let actions = harness.handle(Event::Stored(Outcome::Ended { sessions: [other].into(), before: 2, slots: 1 }));
    assert_eq!(actions, reply(ServerMessage::EndSessionSuccess(user_summary(1))));
    drop(harness.handle(Event::Text(&end)));
    // Its list is old, so it gets the new one.
    let nothing = || Event::Stored(Outcome::Ended { sessions: [].into(), before: 1, slots: 1 });
    let list_again = ledger::StoreCommand::ListSessions {
        user: user(),
        session: id(),
        limit: None,
        is_unbounded: true,
        watch: None,
        at: at(3),
    };
    assert_eq!(harness.handle(nothing()), store(list_again));
    let gone = ErrorDetails { error: RequestError::NoSuchSession, sessions: Some([info()].into()) };
    let actions = harness.handle(Event::Stored(Outcome::Listed(Box::new(usage()))));
    assert_eq!(actions, reply(ServerMessage::ErrorDetailed(Box::new(gone))));
    // Its own slot has the name of the session that took it first.
    drop(harness.handle(Event::Text(&end)));
    drop(harness.handle(nothing()));
    let own = SessionRecord { slot: SlotId::new(other), ..SessionRecord::new(id(), at(0)) };
    // Its own session may be behind those that a client is shown.
    let others = (0..200).map(|number| SessionRecord::new(NodeId::new(8).session(number), at(0)));
    let own = SlotUsage { sessions: others.chain([own]).collect(), ..usage() };
    assert_eq!(harness.handle(Event::Stored(Outcome::Listed(Box::new(own)))), error(RequestError::OwnSession));
    for (text, outcome, expected) in [
        (list, Outcome::Rejected(StoreError::Overloaded), RequestError::Store(StoreError::Overloaded)),
        (list, Outcome::Unknown, RequestError::StoreTimedOut),
        (list, Outcome::Counted { slots: 1 }, RequestError::StoreTimedOut),
        (&end, Outcome::Listed(Box::new(usage())), RequestError::StoreTimedOut),
        (&end, Outcome::Rejected(StoreError::Failed), RequestError::Store(StoreError::Failed)),
    ] {
        drop(harness.handle(Event::Text(text)));
        assert_eq!(harness.handle(Event::Stored(outcome)), error(expected));
    }
    let own_session = format!(r#"{{"type":"END_SESSION","payload":"{}"}}"#, id());
    assert_eq!(harness.handle(Event::Text(&own_session)), error(RequestError::OwnSession));
}

#[test]
fn session_and_outcome_stay_small() {
    // A server may have a million plain sessions.
    assert!(size_of::<Session>() <= 192, "{}", size_of::<Session>());
    assert!(size_of::<Outcome>() <= 24, "{}", size_of::<Outcome>());
}
