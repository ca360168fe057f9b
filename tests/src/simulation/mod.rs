//! A deterministic simulation of several servers over one store.

mod authenticator;
mod cluster;
mod faulty_store;
mod scenario;
mod socket;

pub use cluster::{Simulation, Trace};
pub use faulty_store::Fate;
pub use scenario::{History, Op};
