//! What the session manager is tested with.
//!
//! - [`world`]: sessions, debts and a hostile store on a virtual clock, with the invariants checked after every step.
//!   Proptest and the fuzz targets drive the same operations over it.
//! - [`simulation`]: several servers, run by the real code, over one hostile store; one seed decides everything.
//! - [`referee`]: holds the ledger's rule to its promises; both of these ask it about every command.
//! - [`edge`]: any bytes before the first frame, read by the real code.
//! - [`certificates`]: an authority of a test's own.
//! - [`disk`]: a disk that is small enough to be filled.
//! - [`peer`]: a server on a port of its own, in this process or as a process, and raw sockets to maltreat it with.

#![allow(clippy::missing_panics_doc, reason = "a harness panics where a test fails, everywhere")]
#![allow(clippy::wildcard_enum_match_arm, reason = "whatever is not expected fails the test")]

pub mod certificates;
pub mod disk;
pub mod edge;
pub mod peer;
pub mod referee;
pub mod simulation;
pub mod world;
