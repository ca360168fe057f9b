//! The ledger's rule for evictions, lingering slots and resumes.

mod one_user;
mod choice;
mod names;
mod lingering;
mod grace;
mod restart;
mod devices;
mod line_script;
mod line;
mod line_hints;
mod any_history;
mod public_calls;
