//! The invariants of a session, in any history.

use std::time::Duration;

use proptest::prelude::*;
use session_core::ledger::{self, Outcome, StoreError};
use session_core::protocol::{Credential, ServerMessage};
use session_core::session::{Actions, Effect, Event, Frame, Identity, Session};
use session_core::{Timestamp, UserId};

use super::inputs::Input::*;
use super::inputs::*;

/// A session with the invariants that hold after each event.
struct InvariantChecker {
    session: Session,
    now: Timestamp,
    under_way: Option<PendingQuery>,
    grants: u32,
    releases: u32,
    /// The authenticated user, and the expiry of the token, if any.
    identity: Option<Identity>,
    /// The identity from a fresh token, while the store counts.
    renewal: Option<Identity>,
    /// The session closed, or its client disconnected.
    is_over: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PendingQuery {
    Verify,
    Acquire,
    Lookup,
}

impl InvariantChecker {
    fn new() -> Self {
        Self {
            session: session(),
            now: at(0),
            under_way: None,
            grants: 0,
            releases: 0,
            identity: None,
            renewal: None,
            is_over: false,
        }
    }

    fn handle(&mut self, event: &Event<'_>) {
        let answered = match (event, self.under_way) {
            (Event::Verified(_) | Event::VerifyTimedOut, Some(PendingQuery::Verify))
            | (Event::Stored(_), Some(PendingQuery::Acquire | PendingQuery::Lookup))
            | (Event::TooManyConnections, Some(PendingQuery::Acquire)) => self.under_way.take(),
            _ => None,
        };
        // Whoever waits in line has to leave it, as whoever has a slot has to give it up.
        if let (Event::Stored(Outcome::Granted { .. } | Outcome::Waiting(_)), Some(PendingQuery::Acquire)) =
            (event, answered)
        {
            self.grants += 1;
        }
        if let (Event::Verified(Ok(identity)), Some(PendingQuery::Verify)) = (event, answered) {
            if !self.has_slot() {
                self.identity = Some(identity.clone());
            } else if self.identity.as_ref().is_some_and(|known| known.user == identity.user) {
                self.renewal = Some(identity.clone());
            }
        }
        let was_finished = self.session.is_finished();
        let Actions { effect: command, send, close } = self.session.handle(event.clone(), self.now);

        assert!(!was_finished || (&command, &send, close) == (&None, &None, None), "a finished session acts");
        assert!(!self.is_over || (&send, close) == (&None, None), "nothing is sent after a close");
        self.is_over |= close.is_some() || *event == Event::Disconnected;

        if let Some(Frame::Message(ServerMessage::AuthenticateSuccess(user))) = send {
            let slots = match (event, answered, &self.renewal) {
                (&Event::Stored(Outcome::Granted { slots, .. }), Some(PendingQuery::Acquire), None) => slots,
                (&Event::Stored(Outcome::Counted { slots }), Some(PendingQuery::Lookup), Some(renewal)) => {
                    self.identity = Some(renewal.clone());
                    slots
                }
                _ => panic!("success without a grant or a renewal"),
            };
            assert_eq!((Some(user.id), user.connections), (self.user(), slots));
        }
        if answered == Some(PendingQuery::Lookup) {
            self.renewal = None;
        }
        if answered == Some(PendingQuery::Acquire) && !self.has_slot() {
            self.identity = None;
        }
        let query = match command {
            None => None,
            Some(Effect::Verify(credential)) => {
                assert!([Credential::new("ada's token"), Credential::None].contains(&credential));
                let renewable = self.identity.as_ref().is_none_or(|known| known.expires.is_some());
                assert!(renewable, "only a token that expires can be renewed");
                Some(PendingQuery::Verify)
            }
            Some(Effect::Store(command)) => {
                assert_eq!((Some(command.user()), command.session()), (self.user().as_ref(), id()));
                match command {
                    ledger::StoreCommand::Acquire { limit, at, .. } => {
                        assert!(!self.has_slot(), "an acquire with a slot");
                        assert_eq!(limit, self.identity.as_ref().and_then(|identity| identity.limit));
                        assert_eq!(at, self.now);
                        Some(PendingQuery::Acquire)
                    }
                    ledger::StoreCommand::CountSlots { at, .. } => {
                        assert_eq!((at, &self.renewal), (self.now, &None));
                        Some(PendingQuery::Lookup)
                    }
                    ledger::StoreCommand::Renew { at, limit, device, .. } => {
                        let renewal = self.renewal.as_ref().expect("a renewal needs a credential");
                        assert_eq!((at, limit, &device), (self.now, renewal.limit, &renewal.device));
                        Some(PendingQuery::Lookup)
                    }
                    ledger::StoreCommand::Linger { .. }
                    | ledger::StoreCommand::ListSessions { .. }
                    | ledger::StoreCommand::EndSessions { .. } => {
                        panic!("no input asks for that")
                    }
                    ledger::StoreCommand::Release { .. } => {
                        self.releases += 1;
                        None
                    }
                }
            }
        };
        if query.is_some() {
            assert_eq!(self.under_way, None, "two queries at a time");
            assert!(!self.is_over, "a query after the end");
            self.under_way = query;
        }
        assert_eq!(self.session.is_busy(), self.under_way.is_some());
        let current = self.renewal.as_ref().or(self.identity.as_ref());
        let is_asked = self.is_over || self.under_way == Some(PendingQuery::Verify);
        let expires = current.filter(|_| !is_asked).and_then(|identity| identity.expires);
        assert_eq!(self.session.expires_at(), expires);
        assert_eq!(self.session.deadline().is_none(), self.session.is_busy() || self.session.is_finished());
        assert_eq!(self.session.is_finished(), self.is_over && self.under_way.is_none());
        assert!(self.releases <= self.grants, "more releases than grants");
        assert!(!self.session.is_finished() || self.releases == self.grants, "fewer releases than grants");
    }

    fn has_slot(&self) -> bool {
        self.grants > self.releases
    }

    fn user(&self) -> Option<UserId> {
        self.identity.as_ref().map(|identity| identity.user.clone())
    }

    fn feed(&mut self, input: Input) {
        self.now = self.now.max(input.time(&self.session, self.now));
        self.handle(&input.event());
    }

    /// Answers the pending query, if there is one.
    fn answer(&mut self, outcome: Outcome) {
        match self.under_way {
            Some(PendingQuery::Verify) => self.feed(Verified),
            Some(PendingQuery::Acquire | PendingQuery::Lookup) => self.handle(&Event::Stored(outcome)),
            None => {}
        }
    }

    /// Disconnects the client and answers the pending query.
    fn end(mut self) {
        self.feed(Disconnected);
        self.answer(Outcome::granted(1));
        assert!(self.session.is_finished());
        assert_eq!(self.releases, self.grants);
    }
}

#[test]
fn invariants_hold_after_two_inputs_in_any_state() {
    for history in State::ALL.iter().flat_map(|state| state.histories()) {
        for &first in Input::ALL {
            for &second in Input::ALL {
                let mut checker = InvariantChecker::new();
                for &(time, ref event) in &history {
                    checker.now = at(time);
                    checker.handle(event);
                }
                checker.feed(first);
                checker.feed(second);
                checker.end();
            }
        }
    }
}

/// One step of a history.
#[derive(Debug, Clone)]
enum Step {
    /// Any input, even an answer without a query.
    Input(Input),
    Answer(Outcome),
    Pause(Duration),
}

fn step() -> impl Strategy<Value = Step> {
    const ENDS: &[Input] =
        &[Bye, Protocol, Utf8, Size, Binary, Evicted, ResumedElsewhere, Expired, Draining, Disconnected, LateTick];
    let goes_on: Vec<_> = Input::ALL.iter().copied().filter(|input| !ENDS.contains(input)).collect();
    let outcome = prop_oneof![
        4 => (1..9_u32).prop_map(Outcome::granted),
        2 => (0..9_u32).prop_map(|slots| Outcome::Counted { slots }),
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
    fn invariants_hold_in_any_history(steps in prop::collection::vec(step(), 0..40)) {
        let mut checker = InvariantChecker::new();
        for step in steps {
            match step {
                Step::Input(input) => checker.feed(input),
                Step::Answer(outcome) => checker.answer(outcome),
                Step::Pause(pause) => checker.now = checker.now + pause,
            }
        }
        checker.end();
    }

    #[test]
    fn no_message_panics_or_acquires_a_slot(
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
