//! Limits how many live sessions one user may hold, with pure state machines.
//!
//! This crate decides and does nothing else. It has no sockets, clock, threads, randomness or log. Events and times go in;
//! replies and commands come out as data, and the application carries them out. So every decision can be tested,
//! simulated and replayed, and any server can embed it.
//!
//! | to | use | one per |
//! |---|---|---|
//! | drive a session | [`session::Session`] | connection |
//! | admit users and count their slots | [`ledger`] | user (a record) |
//! | release slots although answers were lost | [`release_tracker::ReleaseTracker`] | process |
//! | tell clients that they are in, but never too many | [`leaving_tracker::LeavingTracker`] | process |
//! | limit connections before authentication | [`connection_limiter::ConnectionLimiter`] | process |
//! | parse and write messages, on either side | [`protocol`] | |
//!
//! # What always holds
//!
//! - An acquire never adds a slot if the user holds as many as the limit allows. It may evict other sessions. Then they lose
//!   their slots and it gets one in a single step, or nothing changes.
//! - A count is the number of slots. So it is never negative and never drifts.
//! - A session has one user, and at most one slot, whatever credentials the client shows.
//! - A resume token moves one slot from a session to another. So it never adds a slot.
//! - A session has at most one command under way.
//! - A session that was granted a slot submits exactly one release, or one [`ledger::StoreCommand::Linger`].
//! - A client is told of a slot only after the store has confirmed it. If the client left, or lost the slot, before its
//!   grant arrived, it is never told of the grant.
//! - A client is told that it is in only after each session of its user that lost its slot before, and had been told, has been
//!   told so or has lost its socket. So at no moment have more clients of a user been told that they are in, and are served,
//!   than the limit allows. (A limit that is lowered under live sessions ends none of them by itself.)
//! - A session whose credential has expired is closed, unless the client showed a valid new one before.
//! - Nothing is sent after a close, and a finished session does nothing.
//! - No input from a client makes this crate panic. A panic means that an invariant of the crate itself is broken. Its
//!   message states the invariant.
//!
//! # Example
//!
//! A complete server. Its store is one record, its clients are lists of messages, and a socket is a list of the texts that
//! were sent. `ada` may hold one slot, and a new session replaces the old one:
//!
//! ```
//! use core::time::Duration;
//! use session_core::leaving_tracker::LeavingTracker;
//! use session_core::ledger::{self, AdmissionPolicy, Liveness, Outcome, SlotLimit, StoreCommand, UserRecord, WhenFull};
//! use session_core::protocol::CredentialError;
//! use session_core::release_tracker::ReleaseTracker;
//! use session_core::session::{Actions, Effect, Event, Frame, Identity, Session, SessionSettings};
//! use session_core::{NodeId, SessionId, Timestamp, UserId};
//! use std::collections::BTreeMap;
//!
//! struct Connection {
//!     session: Session,
//!     /// The user of the slot that the session has or asks for.
//!     user: Option<UserId>,
//!     /// A grant that the client must not be told yet.
//!     held: Option<Outcome>,
//!     /// When to cut the socket if the client has not been told by then that it is out.
//!     cut_at: Option<Timestamp>,
//! }
//!
//! struct Server {
//!     now: Timestamp,
//!     policy: AdmissionPolicy,
//!     record: UserRecord,
//!     releases: ReleaseTracker,
//!     leaving: LeavingTracker,
//!     connections: BTreeMap<SessionId, Connection>,
//!     sent: Vec<String>,
//! }
//!
//! impl Server {
//!     fn connect(&mut self, id: SessionId) {
//!         let session = Session::new(id, &SessionSettings::default(), self.now);
//!         self.connections.insert(id, Connection { session, user: None, held: None, cut_at: None });
//!         self.handle(id, Event::Connected);
//!     }
//!
//!     fn handle(&mut self, id: SessionId, event: Event<'_>) {
//!         let mut next = Some(event);
//!         while let Some(event) = next.take() {
//!             let Some(connection) = self.connections.get_mut(&id) else { return };
//!             let Actions { effect, send, close } = connection.session.handle(event, self.now);
//!             // The server closes, and the client does not know yet. Before the effect, which may give the slot up.
//!             if close.is_some_and(|reason| !reason.is_by_client())
//!                 && let Some(user) = &connection.user
//!             {
//!                 connection.cut_at = Some(self.leaving.slot_lost(user, id, self.now));
//!             }
//!             match effect {
//!                 None => {}
//!                 // Open authentication: the credential is the user id.
//!                 Some(Effect::Verify(credential)) => {
//!                     let user = credential.user().ok_or(CredentialError::NotText);
//!                     let user = user.and_then(|user| UserId::parse(user).map_err(CredentialError::UserId));
//!                     next = Some(Event::Verified(user.map(Identity::for_user)));
//!                 }
//!                 Some(Effect::Store(command)) => {
//!                     if matches!(command, StoreCommand::Acquire { .. }) {
//!                         connection.user = Some(command.user().clone());
//!                     }
//!                     next = self.submit(&command).map(Event::Stored);
//!                 }
//!             }
//!             match send {
//!                 None => {}
//!                 Some(Frame::Message(message)) => self.sent.push(format!("{} {}", id.number(), message.encode())),
//!                 Some(Frame::Ping) => self.sent.push(format!("{} (ping)", id.number())),
//!             }
//!             if let Some(reason) = close {
//!                 self.sent.push(format!("{} {reason}", id.number()));
//!                 // This socket takes all data at once. Other sockets take a while, or have to be cut.
//!                 self.gone(id);
//!             }
//!         }
//!     }
//!
//!     /// The client of this session was told that it is out, or its socket is gone.
//!     fn gone(&mut self, id: SessionId) {
//!         for ready in self.leaving.gone(id) {
//!             let held = self.connections.get_mut(&ready).and_then(|connection| connection.held.take());
//!             self.handle(ready, Event::Stored(held.expect("its grant is held")));
//!         }
//!     }
//!
//!     /// The store. Returns the answer for the session, if there is one now.
//!     fn submit(&mut self, command: &StoreCommand) -> Option<Outcome> {
//!         let ticket = match self.releases.begin(command) {
//!             Ok(ticket) => ticket,
//!             Err(error) => return Some(Outcome::Rejected(error)),
//!         };
//!         let result = ledger::apply(command.user(), &mut self.record, command, &self.policy, |_| Liveness::Alive);
//!         self.releases.answered(&ticket, &result.outcome, self.now);
//!         for ended in &result.ended {
//!             self.leaving.slot_lost(command.user(), ended.session, self.now);
//!         }
//!         let is_grant = matches!(result.outcome, Outcome::Granted { .. });
//!         let must_wait = is_grant && self.leaving.must_wait(command.user(), command.session());
//!         let mut answer = Some(result.outcome).filter(|_| !command.is_release());
//!         if must_wait && let Some(connection) = self.connections.get_mut(&command.session()) {
//!             connection.held = answer.take();
//!         }
//!         for ended in result.ended {
//!             self.handle(ended.session, Event::Ended(ended.reason));
//!         }
//!         answer
//!     }
//! }
//!
//! let one_slot = AdmissionPolicy::new(SlotLimit::new(1).unwrap());
//! let mut server = Server {
//!     now: Timestamp::default(),
//!     policy: AdmissionPolicy { when_full: WhenFull::EvictOldest, ..one_slot },
//!     record: UserRecord::default(),
//!     releases: ReleaseTracker::new(1000),
//!     leaving: LeavingTracker::default(),
//!     connections: BTreeMap::new(),
//!     sent: Vec::new(),
//! };
//! let node = NodeId::new(0x5eed);
//! for number in 1..=2 {
//!     server.connect(node.session(number));
//!     server.now = server.now + Duration::from_millis(1);
//!     server.handle(node.session(number), Event::Text(r#"{"type":"AUTHENTICATE","payload":"ada"}"#));
//! }
//! server.handle(node.session(2), Event::Text(r#"{"type":"BYE","payload":null}"#));
//!
//! assert_eq!(server.sent, [
//!     r#"1 {"type":"HELLO","payload":"message from server"}"#,
//!     r#"1 {"type":"AUTHENTICATE_SUCCESS","payload":{"id":"ada","connections":1}}"#,
//!     r#"2 {"type":"HELLO","payload":"message from server"}"#,
//!     // The first client is told that it is out, and only then the second that it is in.
//!     r#"1 {"type":"EVICTED","payload":"Another session of this user has taken the place of this one"}"#,
//!     "1 4409 The slot of this session was taken away",
//!     r#"2 {"type":"AUTHENTICATE_SUCCESS","payload":{"id":"ada","connections":1}}"#,
//!     r#"2 {"type":"BYE_SUCCESS","payload":null}"#,
//!     "2 1000 Goodbye",
//! ]);
//! assert!(server.connections.values().all(|connection| connection.session.is_finished()));
//! assert!(server.record.is_empty() && server.releases.tracked() == 0 && server.leaving.is_empty());
//! ```
//!
//! In a real server the answers come later. Meanwhile the session still takes [`session::Event::Disconnected`],
//! [`session::Event::Draining`] and the other events; only messages wait while [`session::Session::is_busy`]. The server
//! also sends [`session::Event::Tick`] at [`session::Session::deadline`] and [`session::Event::Expired`] at
//! [`session::Session::expires_at`], and retries releases at [`release_tracker::ReleaseTracker::deadline`]. A socket takes
//! data later, or never. So the server calls [`leaving_tracker::LeavingTracker::gone`] once the close frame is written or the
//! socket is gone, and cuts a socket that is not gone at the time that
//! [`slot_lost`](leaving_tracker::LeavingTracker::slot_lost) returned.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod session;
pub mod protocol;
pub mod ledger;
pub mod release_tracker;
pub mod leaving_tracker;
pub mod connection_limiter;
pub mod fair_queue;
mod token_bucket;
mod resume_token;
mod id;
mod time;

pub use id::{DisplayName, NodeId, SessionId, UserId, UserIdError};
pub use resume_token::{ResumeKey, ResumeToken};
pub use time::{Timestamp, UnixSeconds};
