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
//! - A session whose credential has expired is closed, unless the client showed a valid new one before.
//! - Nothing is sent after a close, and a finished session does nothing.
//! - No input from a client makes this crate panic. A panic means that an invariant of the crate itself is broken. Its
//!   message states the invariant.
//!
//! # Example
//!
//! A complete server, with a store of one record and a client that is a list of messages:
//!
//! ```
//! use core::time::Duration;
//! use session_core::ledger::{self, AdmissionPolicy, Liveness, Outcome, UserRecord};
//! use session_core::protocol::CredentialError;
//! use session_core::release_tracker::ReleaseTracker;
//! use session_core::session::{Actions, Effect, Event, Frame, Identity, Session, SessionSettings};
//! use session_core::{NodeId, Timestamp, UserId};
//!
//! let node = NodeId::new(0x5eed);
//! let mut record = UserRecord::default();
//! let mut tracker = ReleaseTracker::new(1000);
//! let mut session = Session::new(node.session(1), &SessionSettings::default(), Timestamp::default());
//! let mut sent = Vec::new();
//! let mut now = Timestamp::default();
//!
//! let client = [
//!     Event::Connected,
//!     Event::Text(r#"{"type":"AUTHENTICATE","payload":"ada"}"#),
//!     Event::Text(r#"{"type":"BYE","payload":null}"#),
//! ];
//! for event in client {
//!     now = now + Duration::from_millis(1);
//!     let mut next = Some(event);
//!     while let Some(event) = next.take() {
//!         let Actions { effect, send, close } = session.handle(event, now);
//!         match effect {
//!             None => {}
//!             // Open authentication: the credential is the user id.
//!             Some(Effect::Verify(credential)) => {
//!                 let user = credential.user().ok_or(CredentialError::NotText);
//!                 let user = user.and_then(|user| UserId::parse(user).map_err(CredentialError::UserId));
//!                 next = Some(Event::Verified(user.map(Identity::for_user)));
//!             }
//!             Some(Effect::Store(command)) => {
//!                 let outcome = match tracker.begin(&command) {
//!                     Ok(ticket) => {
//!                         let policy = AdmissionPolicy::default();
//!                         let result = ledger::apply(&mut record, &command, &policy, |_| Liveness::Alive);
//!                         assert!(result.ended.is_empty(), "there is no other session");
//!                         tracker.answered(&ticket, &result.outcome, now);
//!                         result.outcome
//!                     }
//!                     Err(error) => Outcome::Rejected(error),
//!                 };
//!                 if !command.is_release() {
//!                     next = Some(Event::Stored(outcome));
//!                 }
//!             }
//!         }
//!         match send {
//!             None => {}
//!             Some(Frame::Message(message)) => sent.push(message.encode()),
//!             Some(Frame::Ping) => sent.push("(ping)".into()),
//!         }
//!         if let Some(reason) = close {
//!             sent.push(reason.to_string());
//!         }
//!     }
//! }
//! assert_eq!(sent, [
//!     r#"{"type":"HELLO","payload":"message from server"}"#,
//!     r#"{"type":"AUTHENTICATE_SUCCESS","payload":{"id":"ada","connections":1}}"#,
//!     r#"{"type":"BYE_SUCCESS","payload":null}"#,
//!     "1000 Goodbye",
//! ]);
//! assert!(session.is_finished() && record.is_empty() && tracker.tracked() == 0);
//! ```
//!
//! In a real server the answers come later. Meanwhile the session still takes [`session::Event::Disconnected`],
//! [`session::Event::Draining`] and the other events; only messages wait while [`session::Session::is_busy`]. The server
//! also sends [`session::Event::Tick`] at [`session::Session::deadline`] and [`session::Event::Expired`] at
//! [`session::Session::expires_at`], and retries releases at [`release_tracker::ReleaseTracker::deadline`].

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod session;
pub mod protocol;
pub mod ledger;
pub mod release_tracker;
pub mod connection_limiter;
pub mod fair_queue;
mod token_bucket;
mod resume_token;
mod id;
mod time;

pub use id::{DisplayName, NodeId, SessionId, UserId, UserIdError};
pub use resume_token::{ResumeKey, ResumeToken};
pub use time::{Timestamp, UnixSeconds};
