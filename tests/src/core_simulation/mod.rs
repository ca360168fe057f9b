//! Sessions, the release tracker and a faulty store on a virtual clock.

mod scenario;
mod simulation;
mod messages;
mod commands;
mod connection;
mod store;
mod checks;

pub use scenario::{Message, Op, Scenario, StoreFault};
pub use simulation::CoreSimulation;
