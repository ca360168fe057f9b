//! Any bytes where a header of the PROXY protocol, or HTTP, is expected.
//!
//! `cargo fuzz run handshake`
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _reception = tests::handshake_harness::feed(bytes);
});
