//! Histories of a cluster whose stores, nodes and connections fail, with what must hold in them.
//!
//! `cargo fuzz run cluster`
#![no_main]

use libfuzzer_sys::fuzz_target;
use tests::cluster_simulation::History;

fuzz_target!(|bytes: &[u8]| {
    if let Err(violation) = History::from_bytes(bytes).run() {
        panic!("{}, after {} steps: {:?}", violation.what, violation.history.steps.len(), violation.history);
    }
});
