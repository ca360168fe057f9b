//! A deterministic simulation of several servers over one store, like those of FoundationDB and TigerBeetle.
//!
//! It runs the code of the real server: connections, the store client with its retries, the registry, the session machine
//! and the ledger's rule. Only the sockets, the store and the clocks are simulated. There are no threads and nothing
//! sleeps. The same seed gives the same trace, byte for byte.

mod scenario;
mod cluster;
mod lifecycle;
mod schedule;
mod checks;
mod minimise;
mod server;
mod client;
mod socket;
mod authenticator;
mod faulty_store;
mod trace;

pub use cluster::Simulation;
pub use faulty_store::StoreFault;
pub use scenario::{Op, Scenario};
pub use trace::Trace;
