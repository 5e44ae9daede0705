//! What a wheel says of itself, in a sound archive.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| forebay::fuzzing::wheel_metadata(bytes));
