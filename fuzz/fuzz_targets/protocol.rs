//! Raw frames and operations over the hostile world, with the invariants of the tests.
//!
//! `cargo fuzz run protocol`
#![no_main]

use libfuzzer_sys::fuzz_target;
use tests::core_simulation::{History, World};

fuzz_target!(|history: History| {
    World::run(history.terms, &history.ops);
});
