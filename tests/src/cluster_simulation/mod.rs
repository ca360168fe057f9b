//! Several nodes of a cluster, run by the machines of the core, over shared stores that fail. One seed decides everything.

#![allow(clippy::print_stdout, reason = "it prints a history that breaks a rule")]

mod applied;
mod shard;
mod machine;
mod coverage;
mod world;
mod clients;
mod operator;
mod checks;
mod fault;
mod history;
mod scenarios;

pub(crate) use applied::{AppliedChecks, settled};
pub use coverage::{Coverage, Event, Summary};
pub use history::{History, Violation};
pub use scenarios::{
    failover_without_loss_undoes_nothing, lost_client_resumes_elsewhere, override_is_in_force_at_once,
    override_outlasts_the_store, released_slot_calls_the_first_in_line, shard_is_unreachable, store_forgets,
    stores_are_unreachable_for_a_while,
};
pub use world::{SplitGuard, World, WorldSettings};
