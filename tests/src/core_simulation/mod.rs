//! Sessions, debts and a hostile store on a virtual clock.

mod scenario;
mod world;
mod messages;
mod commands;
mod connection;
mod store;
mod checks;

pub use scenario::{Fate, History, Message, Op};
pub use world::World;
