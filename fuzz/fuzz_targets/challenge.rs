//! How a registry wants to be authenticated.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| forebay::fuzzing::challenge(bytes));
