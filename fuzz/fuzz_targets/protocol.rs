//! Raw messages and operations in the core simulation, with its invariants.
//!
//! `cargo fuzz run protocol`
#![no_main]

use libfuzzer_sys::fuzz_target;
use tests::core_simulation::{CoreSimulation, Scenario};

fuzz_target!(|scenario: Scenario| {
    CoreSimulation::run(scenario.policy, &scenario.ops);
});
