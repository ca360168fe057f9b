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
//! The page [`embedding`] has a whole server that does so, and lists what always holds.

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

pub use id::{DisplayName, NodeId, SessionId, SlotId, UserId, UserIdError};
pub use resume_token::{ResumeKey, ResumeToken};
pub use time::{Timestamp, UnixSeconds};

/// How to embed this crate: a whole server, what you must do, and what always holds.
///
/// # What a server does
///
/// | when | it calls |
/// |---|---|
/// | a client connects, sends, is silent, leaves | [`Session::handle`], and carries out the actions that come back: effect, frame, close |
/// | a session submits a command | [`ReleaseTracker::begin`], then the store |
/// | the store answers | [`ReleaseTracker::answered`], then [`Event::Stored`] |
/// | the store takes a session's slot, or the server closes the session itself | [`LeavingTracker::slot_lost`] before anything else |
/// | the store grants a slot | [`LeavingTracker::must_wait`], and holds the answer back if it says so |
/// | a client is told that it is out, or its socket is gone | [`LeavingTracker::gone`], and passes on the answers that were held back for it |
///
/// # A whole server
///
/// `core/examples/embedding.rs`, which `cargo run -p session-core --example embedding` runs:
///
/// ```
#[doc = include_str!("../examples/embedding.rs")]
/// ```
///
/// # What changes in a real server
///
/// - The answers come later. Meanwhile the session still takes [`Event::Disconnected`], [`Event::Draining`] and the other
///   events; only messages wait while [`Session::is_busy`].
/// - The server sends [`Event::Tick`] at [`Session::deadline`], and [`Event::Expired`] at [`Session::expires_at`].
/// - It retries releases at [`ReleaseTracker::deadline`].
/// - A socket takes data later, or never. So the server calls [`LeavingTracker::gone`] once the close frame is written or the
///   socket is gone. It cuts a socket that is not gone at the time that [`LeavingTracker::slot_lost`] returned.
///
/// # What always holds
///
/// - An acquire never adds a slot if the user holds as many as the limit allows. It may evict other sessions. Then they lose
///   their slots and it gets one in a single step, or nothing changes.
/// - A count is the number of slots. So it is never negative and never drifts.
/// - A session has one user, and at most one slot, whatever credentials the client shows.
/// - A resume token moves one slot from a session to another. So it never adds a slot.
/// - A session has at most one command under way.
/// - A session that was granted a slot submits exactly one release, or one [`StoreCommand::Linger`].
/// - A client is told of a slot only after the store has confirmed it. If the client left, or lost the slot, before its
///   grant arrived, it is never told of the grant.
/// - A client is told that it is in only after each session of its user that lost its slot before, and had been told, has been
///   told so or has lost its socket. So at no moment have more clients of a user been told that they are in, and are served,
///   than the limit allows. (A limit that is lowered under live sessions ends none of them by itself.)
/// - A session whose credential has expired is closed, unless the client showed a valid new one before.
/// - Nothing is sent after a close, and a finished session does nothing.
/// - No input from a client makes this crate panic. A panic means that an invariant of the crate itself is broken. Its
///   message states the invariant.
///
/// [`Event::Disconnected`]: crate::session::Event::Disconnected
/// [`Event::Draining`]: crate::session::Event::Draining
/// [`Event::Expired`]: crate::session::Event::Expired
/// [`Event::Stored`]: crate::session::Event::Stored
/// [`Event::Tick`]: crate::session::Event::Tick
/// [`LeavingTracker::gone`]: crate::leaving_tracker::LeavingTracker::gone
/// [`LeavingTracker::must_wait`]: crate::leaving_tracker::LeavingTracker::must_wait
/// [`LeavingTracker::slot_lost`]: crate::leaving_tracker::LeavingTracker::slot_lost
/// [`ReleaseTracker::answered`]: crate::release_tracker::ReleaseTracker::answered
/// [`ReleaseTracker::begin`]: crate::release_tracker::ReleaseTracker::begin
/// [`ReleaseTracker::deadline`]: crate::release_tracker::ReleaseTracker::deadline
/// [`Session::deadline`]: crate::session::Session::deadline
/// [`Session::expires_at`]: crate::session::Session::expires_at
/// [`Session::handle`]: crate::session::Session::handle
/// [`Session::is_busy`]: crate::session::Session::is_busy
/// [`StoreCommand::Linger`]: crate::ledger::StoreCommand::Linger
pub mod embedding {}
