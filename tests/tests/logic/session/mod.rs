//! Transitions of one session: a row per (state, input), scenarios, and any history.

mod inputs;
mod line;
mod specification;
mod scenarios;
mod invariants;
mod slot_after_end;
