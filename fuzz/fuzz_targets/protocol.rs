//! Raw frames and operations over the hostile world, with the invariants of the tests.
//!
//! `cargo fuzz run protocol`
#![no_main]

use libfuzzer_sys::arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use session_core::Limit;
use tests::world::{Op, World};

/// A limit and a history. The derived [`Op`] does the rest.
#[derive(Debug)]
struct History {
    limit: Limit,
    ops: Vec<Op>,
}

impl<'a> Arbitrary<'a> for History {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Result<Self> {
        let limit = Limit::new(bytes.int_in_range(0..=4)?).expect("four is below the ceiling");
        Ok(Self { limit, ops: bytes.arbitrary_iter()?.take(400).collect::<Result<_>>()? })
    }
}

fuzz_target!(|history: History| {
    World::run(history.limit, &history.ops);
});
