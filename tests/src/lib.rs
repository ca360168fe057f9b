//! What the session manager is tested with.
//!
//! - [`core_simulation`]: sessions, debts and a hostile store on a virtual clock, with the invariants checked after every step.
//!   Proptest and the fuzz targets drive the same operations over it.
//! - [`simulation`]: several servers, run by the real code, over one hostile store; one seed decides everything.
//! - [`rule_oracle`]: holds the ledger's rule to its promises; both of these ask it about every command.
//! - [`handshake_harness`]: any bytes before the first frame, read by the real code.
//! - [`test_ca`]: an authority of a test's own.
//! - [`small_disk`]: a disk that is small enough to be filled.
//! - [`test_server`], [`test_process`]: a server on a port of its own, in the process of the test or as its own process.
//! - [`raw_client`]: a socket that sends any bytes.
//! - [`waiting`]: waits with a time limit.
//! - [`policies`]: admission policies of both simulations.

#![allow(clippy::missing_panics_doc, reason = "a harness panics where a test fails, everywhere")]
#![allow(clippy::wildcard_enum_match_arm, reason = "whatever is not expected fails the test")]

pub mod core_simulation;
pub mod simulation;
pub mod policies;
pub mod rule_oracle;
pub mod handshake_harness;
pub mod test_server;
pub mod test_process;
pub mod raw_client;
pub mod waiting;
pub mod small_disk;
pub mod test_ca;
