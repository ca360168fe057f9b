//! Operations in the simulation of several servers, with its invariants.
//!
//! `cargo fuzz run simulation`
#![no_main]

use libfuzzer_sys::fuzz_target;
use tests::simulation::{Scenario, Simulation};

fuzz_target!(|scenario: Scenario| {
    let _trace = Simulation::run(&scenario, false);
});
