//! Sessions, debts and a hostile store on a virtual clock.

mod world;

pub use world::{Fate, History, Message, Op, World, terms};
