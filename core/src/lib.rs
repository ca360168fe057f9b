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
//! | share one limit among several servers | [`cluster::Bucket`] | bucket of users |
//! | limit connections before authentication | [`connection_limiter::ConnectionLimiter`] | process |
//! | share the processor among clients | [`fair_queue::FairQueue`] | process |
//! | parse and write messages, on either side | [`protocol`] | |
//!
//! One client signs in:
//!
//! ```
//! use session_core::ledger::{self, AdmissionPolicy, Liveness, SlotLimit, UserRecord};
//! use session_core::session::{Effect, Event, Frame, Identity, Session, SessionSettings};
//! use session_core::{NodeId, Timestamp, UserId};
//!
//! let (ada, now) = (UserId::parse("ada").unwrap(), Timestamp::default());
//! let mut session = Session::new(NodeId::new(7).session(1), &SessionSettings::default(), now);
//! let hello = session.handle(Event::Connected, now).send;
//!
//! // A message arrives. The session asks whose credential that is.
//! let actions = session.handle(Event::Text(r#"{"type":"AUTHENTICATE","payload":"ada"}"#), now);
//! assert!(matches!(actions.effect, Some(Effect::Verify(_))));
//!
//! // It is Ada's. The session asks the store for a slot.
//! let actions = session.handle(Event::Verified(Ok(Identity::for_user(ada.clone()))), now);
//! let Some(Effect::Store(command)) = actions.effect else { panic!("it needs a slot") };
//!
//! // The store applies the rule to her record, and the session answers its client.
//! let (mut record, policy) = (UserRecord::default(), AdmissionPolicy::new(SlotLimit::new(1).unwrap()));
//! let result = ledger::apply(&ada, &mut record, &command, &policy, |_| Liveness::Alive);
//! let Some(Frame::Message(answer)) = session.handle(Event::Stored(result.outcome), now).send else { panic!("no answer") };
//! assert_eq!(answer.encode(), r#"{"type":"AUTHENTICATE_SUCCESS","payload":{"id":"ada","connections":1}}"#);
//! # assert!(hello.is_some() && result.ended.is_empty());
//! ```
//!
//! **A grant may have to wait.** If it takes the slot of another session, that session's client still believes that it is in.
//! Hold [`Event::Stored`](session::Event::Stored) back until that client is told or cut, as the
//! [`LeavingTracker`](leaving_tracker::LeavingTracker) says. Otherwise more clients than the limit are in for a moment.
//!
//! The page [`embedding`] has two servers that do so, says in which order to tell whom, which calls may be given up and all
//! defaults, and lists what always holds. An application that has sessions of its own reads [`ledger`].

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
pub mod cluster;
pub mod connection_limiter;
pub mod fair_queue;
mod token_bucket;
mod id;
mod time;

pub use id::{DisplayName, NodeId, ResumeKey, ResumeToken, SessionId, SlotId, UserId, UserIdError};
pub use time::{Timestamp, UnixSeconds};

#[doc = include_str!("../docs/embedding.md")]
///
/// # A small server
///
/// `core/examples/embedding.rs`, which `cargo run -p session-core --example embedding` runs:
///
/// ```
#[doc = include_str!("../examples/embedding.rs")]
/// ```
///
/// # A server on axum
///
/// `core/examples/axum/main.rs`. Beside it lies the test in which 200 clients of one user sign in at once.
///
/// ```ignore
#[doc = include_str!("../examples/axum/main.rs")]
/// ```
pub mod embedding {}
