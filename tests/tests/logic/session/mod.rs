//! Transitions of one session: a row per (state, event), scenarios in words, and any history at all.

mod inputs;
mod specification;
mod scenarios;
mod invariants;
