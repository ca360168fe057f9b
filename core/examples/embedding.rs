//! A complete server, as small as one can be. Its store is one record, its clients are lists of messages, and a socket is a
//! list of the texts that were sent. It writes close frames late, as to a slow client. `ada` may hold one slot, and a new
//! session replaces the old one.
//!
//! The page `embedding` of `cargo doc -p session-core --open` shows it, and says what changes in a real server.

use core::time::Duration;
use session_core::leaving_tracker::LeavingTracker;
use session_core::ledger::{self, AdmissionPolicy, Liveness, Outcome, SlotLimit, StoreCommand, UserRecord, WhenFull};
use session_core::protocol::{CloseReason, CredentialError};
use session_core::release_tracker::ReleaseTracker;
use session_core::session::{Actions, Effect, Event, Frame, Identity, Session, SessionSettings};
use session_core::{NodeId, SessionId, Timestamp, UserId};
use std::collections::BTreeMap;

struct Connection {
    session: Session,
    /// The user of the slot that the session has or asks for.
    user: Option<UserId>,
    /// A grant that the client must not be told yet.
    held: Option<Outcome>,
    /// When to cut the socket if the client has not been told by then that it is out.
    cut_at: Option<Timestamp>,
}

struct Server {
    now: Timestamp,
    policy: AdmissionPolicy,
    record: UserRecord,
    releases: ReleaseTracker,
    leaving: LeavingTracker,
    connections: BTreeMap<SessionId, Connection>,
    sent: Vec<String>,
    /// The close frames that are not written yet.
    unsent: Vec<(SessionId, CloseReason)>,
}

impl Server {
    fn connect(&mut self, id: SessionId) {
        let session = Session::new(id, &SessionSettings::default(), self.now);
        self.connections.insert(id, Connection { session, user: None, held: None, cut_at: None });
        self.handle(id, Event::Connected);
    }

    fn handle(&mut self, id: SessionId, event: Event<'_>) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let Some(connection) = self.connections.get_mut(&id) else { return };
            let Actions { effect, send, close } = connection.session.handle(event, self.now);
            // The server closes, and the client does not know yet. Before the effect, which may give the slot up.
            if close.is_some_and(|reason| !reason.is_by_client())
                && let Some(user) = &connection.user
            {
                connection.cut_at = Some(self.leaving.slot_lost(user, id, self.now));
            }
            match effect {
                None => {}
                // Open authentication: the credential is the user id.
                Some(Effect::Verify(credential)) => {
                    let user = credential.user().ok_or(CredentialError::NotText);
                    let user = user.and_then(|user| UserId::parse(user).map_err(CredentialError::UserId));
                    next = Some(Event::Verified(user.map(Identity::for_user)));
                }
                Some(Effect::Store(command)) => {
                    if matches!(command, StoreCommand::Acquire { .. }) {
                        connection.user = Some(command.user().clone());
                    }
                    next = self.submit(&command).map(Event::Stored);
                }
            }
            match send {
                None => {}
                Some(Frame::Message(message)) => self.sent.push(format!("{} {}", id.number(), message.encode())),
                Some(Frame::Ping) => self.sent.push(format!("{} (ping)", id.number())),
            }
            self.unsent.extend(close.map(|reason| (id, reason)));
        }
    }

    /// The sockets take the close frames. From now on their clients know that they are out.
    fn write_close_frames(&mut self) {
        for (id, reason) in std::mem::take(&mut self.unsent) {
            self.sent.push(format!("{} {reason}", id.number()));
            for ready in self.leaving.gone(id) {
                let held = self.connections.get_mut(&ready).and_then(|connection| connection.held.take());
                self.handle(ready, Event::Stored(held.expect("its grant is held")));
            }
        }
    }

    /// The store. Returns the answer for the session, if there is one now.
    fn submit(&mut self, command: &StoreCommand) -> Option<Outcome> {
        let ticket = match self.releases.begin(command) {
            Ok(ticket) => ticket,
            Err(error) => return Some(Outcome::Rejected(error)),
        };
        let result = ledger::apply(command.user(), &mut self.record, command, &self.policy, |_| Liveness::Alive);
        self.releases.answered(&ticket, &result.outcome, self.now);
        for ended in &result.ended {
            self.leaving.slot_lost(command.user(), ended.session, self.now);
        }
        let is_grant = matches!(result.outcome, Outcome::Granted { .. });
        let must_wait = is_grant && self.leaving.must_wait(command.user(), command.session());
        let mut answer = Some(result.outcome).filter(|_| !command.is_release());
        if must_wait && let Some(connection) = self.connections.get_mut(&command.session()) {
            connection.held = answer.take();
        }
        for ended in result.ended {
            self.handle(ended.session, Event::Ended(ended.reason));
        }
        for hinted in result.hints {
            self.handle(hinted.session, Event::Hinted(hinted.hint));
        }
        answer
    }
}

fn main() {
    let one_slot = AdmissionPolicy::new(SlotLimit::new(1).expect("1 is a limit"));
    let mut server = Server {
        now: Timestamp::default(),
        policy: AdmissionPolicy { when_full: WhenFull::EvictOldest, ..one_slot },
        record: UserRecord::default(),
        releases: ReleaseTracker::new(1000),
        leaving: LeavingTracker::default(),
        connections: BTreeMap::new(),
        sent: Vec::new(),
        unsent: Vec::new(),
    };
    let node = NodeId::new(0x5eed);
    for number in 1..=3 {
        server.connect(node.session(number));
        server.now = server.now + Duration::from_millis(1);
        server.handle(node.session(number), Event::Text(r#"{"type":"AUTHENTICATE","payload":"ada"}"#));
    }
    // The second client lost its slot before it was told of it. So only the first one believes that it is in.
    let told = |server: &Server| server.sent.iter().any(|text| text.starts_with("3 {\"type\":\"AUTHENTICATE_SUCCESS"));
    assert!(!told(&server), "the first client may still believe that it is in");
    server.write_close_frames();
    assert!(told(&server));
    server.handle(node.session(3), Event::Text(r#"{"type":"BYE","payload":null}"#));
    server.write_close_frames();

    assert_eq!(
        server.sent,
        [
            r#"1 {"type":"HELLO","payload":"message from server"}"#,
            r#"1 {"type":"AUTHENTICATE_SUCCESS","payload":{"id":"ada","connections":1}}"#,
            r#"2 {"type":"HELLO","payload":"message from server"}"#,
            r#"1 {"type":"EVICTED","payload":"Another session of this user has taken the place of this one"}"#,
            r#"3 {"type":"HELLO","payload":"message from server"}"#,
            r#"2 {"type":"EVICTED","payload":"Another session of this user has taken the place of this one"}"#,
            // The first two clients are told that they are out, and only then the third that it is in.
            "1 4409 The slot of this session was taken away",
            "2 4409 The slot of this session was taken away",
            r#"3 {"type":"AUTHENTICATE_SUCCESS","payload":{"id":"ada","connections":1}}"#,
            r#"3 {"type":"BYE_SUCCESS","payload":null}"#,
            "3 1000 Goodbye",
        ]
    );
    assert!(server.connections.values().all(|connection| connection.session.is_finished()));
    assert!(server.record.is_empty() && server.releases.tracked() == 0 && server.leaving.is_empty());
}
