#![no_main]
//! Raw frames and operations against the harness of the tests.
libfuzzer_sys::fuzz_target!(|_data: &[u8]| {});
