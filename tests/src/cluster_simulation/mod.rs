//! Several nodes of a cluster, run by the machines of the core, over shared stores that fail. One seed decides everything.

mod bucket_data;
mod shard;
mod machine;
mod coverage;
mod world;
mod fault;
mod history;

pub use coverage::{Coverage, Event, Summary};
pub use history::{History, Violation};
pub use world::{World, WorldSettings};

thread_local! { static TRACE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) }; }
pub fn trace(on: bool) { TRACE.set(on) }
pub(crate) fn log(text: impl FnOnce() -> String) { if TRACE.get() { println!("    {}", text()) } }
