//! An entry of a shared cache, and its keys.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| forebay::fuzzing::cache_entry(bytes));
