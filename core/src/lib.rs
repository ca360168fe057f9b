//! How many live sessions one user may hold, as pure state machines.
//!
//! This crate decides; it does nothing. It has no sockets, no clock, no threads, no randomness and no log: what
//! happens is told to it as an event, with the time, and what is to be done comes back as data. A thin shell carries
//! that out. So every decision can be tested, simulated and replayed, and any server can embed it.
//!
//! Four machines:
//!
//! - [`ConnectionLimiter`]: one per process. Which connections come in at all.
//! - [`Session`]: one per connection. Events in, [`Actions`] out.
//! - [`ledger::apply`]: one rule per user's record. The only place where anyone is admitted.
//! - [`ReleaseTracker`]: one per process. Sees every slot back into the store when answers are lost.
//!
//! # The states of a session
//!
//! ```text
//!            AUTHENTICATE             verified               granted             CHECK_CONNECTIONS
//! Anonymous ─────────────► Verifying ──────────► Acquiring ──────────► Live ─────────────────► Asking
//!   │    ▲                  │      │              │     │               │ ▲                     │  │
//!   │    └──── not so ──────┘      │              │     │               │ └──────── found ──────┘  │
//!   │    └────────── denied ───────┼──────────────┘     │               │                          │
//!   │                              │                    │               │                          │
//!   │ ◄──────────────── BYE, drop, silence, drain, violation can come at any time ───────────────► │
//!   │                              ▼                    ▼               │                          ▼
//!   │                            Leaving, until the answer comes        │ release               Leaving
//!   ▼                              │ granted: release                   ▼                          │ release
//! Drained ◄────────────────────────┴────────────────────────────────────┴──────────────────────────┘
//! ```
//!
//! A session that was let in by a credential that runs out has one state more: `Renewing`, while the authenticator has a
//! fresh one. If that is good and of the same user, the store is asked as above, and its answer is told as the answer to
//! `AUTHENTICATE`. `LIST_SESSIONS` and `END_SESSION` are asked as `CHECK_CONNECTIONS` is.
//!
//! Others can take a session's slot away ([`Event::EndedSession`]): one that has it, or waits for it, is told, and closed.
//!
//! A client that authenticates with an object ([`AuthenticateOptions`]) is told how to take its session up again. Where slots linger, one
//! whose session is lost is not released but kept for it, for so long.
//!
//! # What always holds
//!
//! - No acquire adds a slot while the user holds as many as the limit in force; if others lose theirs for it, that is one
//!   step: they go and it comes, or neither.
//! - A count is the number of slots, so it is never negative and never drifts.
//! - A session has a hold on one slot at most. A resume token moves one hold at most, admits nobody, and leaves one live
//!   session to it.
//! - At most one command of a session is under way.
//! - A session that was granted a slot submits exactly one release, or one [`ledger::Command::Linger`]. If it left before
//!   the grant was told, the grant is never told.
//! - A slot is told only after the store said it is there. Whoever was told so is in the record until told otherwise.
//! - A session that loses its slot before its own grant arrives is told so, and never of the grant.
//! - A session has one user, and one slot at most, whatever credentials it is shown.
//! - Once a session's credential has run out it is closed, unless the client was told that a fresh one is good.
//! - Nothing is sent after a close, and a drained session does nothing.
//! - Nothing a client sends makes any of this panic.
//!
//! # Driving it
//!
//! A complete shell, with a store that is one record and a peer that is a list of messages:
//!
//! ```
//! use core::time::Duration;
//! use session_core::*;
//!
//! let node = NodeId::new(0x5eed);
//! let mut record = UserRecord::default();
//! let mut debts = Debts::new(1000);
//! let mut session = Session::new(node.session(1), &Limits::default(), Time::default());
//! let mut sent = Vec::new();
//! let mut now = Time::default();
//!
//! let peer = [
//!     Event::Connected,
//!     Event::Text(r#"{"type":"AUTHENTICATE","payload":"ada"}"#),
//!     Event::Text(r#"{"type":"BYE","payload":null}"#),
//! ];
//! for event in peer {
//!     now = now + Duration::from_millis(1);
//!     let mut next = Some(event);
//!     while let Some(event) = next.take() {
//!         let Actions { command, send, close } = session.handle(event, now);
//!         match command {
//!             None => {}
//!             // Open authentication: the credential is the user id.
//!             Some(Command::Verify(credential)) => {
//!                 let user = credential.user().ok_or(Rejection::NotText);
//!                 let user = user.and_then(|user| UserId::parse(user).map_err(Rejection::UserId));
//!                 next = Some(Event::Verified(user.map(Identity::of)));
//!             }
//!             Some(Command::Store(command)) => {
//!                 let outcome = match debts.before(&command) {
//!                     Ok(()) => {
//!                         let applied = ledger::apply(&mut record, &command, &Terms::default(), |_| Liveness::Alive);
//!                         assert!(applied.ended.is_empty(), "there is nobody else");
//!                         debts.after(&command, &applied.outcome, now);
//!                         applied.outcome
//!                     }
//!                     Err(cause) => Outcome::Rejected(cause),
//!                 };
//!                 if !command.gives_up() {
//!                     next = Some(Event::Stored(outcome));
//!                 }
//!             }
//!         }
//!         match send {
//!             None => {}
//!             Some(Frame::Reply(reply)) => sent.push(reply.encode()),
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
//! assert!(session.is_drained() && record.is_empty() && debts.held() == 0);
//! ```
//!
//! A real shell differs in that answers come later. Meanwhile the session still takes [`Event::Disconnected`],
//! [`Event::Draining`] and the rest; only messages wait, while [`Session::is_busy`]. And it ticks: the session at
//! [`Session::deadline`], the debts at [`ReleaseTracker::deadline`]. And it tells a session when the wall clock has come to
//! [`Session::expires_at`], which [`Timestamp`] does not follow.
//!
//! # Panics
//!
//! Nothing here panics on input. What may panic is a broken invariant of this crate itself, with a text that states it.

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
mod token_bucket;
mod resume_token;
mod id;
mod time;

pub use id::{DisplayName, NodeId, SessionId, UserId, UserIdError};
pub use resume_token::{ResumeKey, ResumeToken};
pub use time::{Timestamp, UnixSeconds};
