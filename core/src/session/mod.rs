//! The session machine, one per connection: events go in, actions come out.
//!
//! # States
//!
//! A session keeps three facts:
//!
//! | fact | values |
//! |---|---|
//! | slot | none, held (while an acquire is pending: asked for) |
//! | pending call | none, verify (by the authenticator), acquire (by the store), query (by the store) |
//! | connection | open, ended |
//!
//! While the connection is open, the slot and the pending call change like this. *Idle* means that no call is pending.
//!
//! ```text
//!                   no slot                            ║                     slot held
//!                                                      ║
//!       AUTHENTICATE          valid            granted ║       AUTHENTICATE         valid
//! idle ─────────────► verify ───────► acquire ─────────╫─► idle ─────────────► verify ───────► query
//!  ▲                    │                │             ║   ▲ ▲ │                 │              ▲ │
//!  ├──── not valid ─────┘                │             ║   │ └─┼─── not valid ───┘              │ │
//!  └────────────────── denied ───────────┘             ║   │   └── CHECK_CONNECTIONS, … ────────┘ │
//!                                                      ║   └─────────────── answer ───────────────┘
//! ```
//!
//! Without a slot the session may *wait in line*, if its client asked to and the store says that it waits. It is idle then,
//! answers messages and sends pings. It acquires again when the store says that it is its turn ([`Event::Hinted`]), when a slot
//! becomes free by itself, every [`Session::LINE_INTERVAL`], and a last time when its client does not want to wait any longer.
//! With a slot it may *watch*: after a hint it lists the user's sessions, and tells its client if they have changed.
//!
//! With a slot, `AUTHENTICATE` renews a token that expires. The new token is valid only if it is of the same user. The store
//! then decides ([`ledger::renew`](crate::ledger::renew)): it must name the device of the slot, if it names one. Otherwise the
//! session keeps the token that it has, until that expires. If the limit in force with the new token is 0, the session ends.
//!
//! The connection can end at any time: `BYE`, a lost socket, a timeout, a violation, an eviction, a failing store, a
//! shutdown. The session then waits for the answer to its pending call, if there is one. After that it gives up its
//! slot, if it has one, or its place in line, and is finished. It gives up the slot with one of two commands:
//!
//! - *Release*: the slot is free at once.
//! - *Linger*: the store keeps the slot for its grace period, if it has one, so that the client can resume it. The session
//!   sends this if the client has the slot's resume token and the connection ended by a lost socket, a silent peer, a
//!   shutdown, an expired token, or a resume on another connection.
//!
//! If the store grants a slot after the connection ended, the session gives it up in the same way. The client never
//! learns of the grant.

mod machine;
mod acquire;
mod interest;
mod state;
mod replies;
mod io;
mod settings;

pub use io::{Actions, Effect, Event, Frame, Identity, Violation};
pub use machine::Session;
pub use settings::SessionSettings;
