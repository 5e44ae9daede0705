//! A wheel, spliced into a layer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| forebay::fuzzing::splice(bytes));
