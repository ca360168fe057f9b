//! Operations over the simulation of several servers, with its invariants.
//!
//! `cargo fuzz run simulation`
#![no_main]

use libfuzzer_sys::fuzz_target;
use tests::simulation::{History, Simulation};

fuzz_target!(|history: History| {
    let _trace = Simulation::run(&history, false);
});
