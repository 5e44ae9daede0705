//! `forebay.lock`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| forebay::fuzzing::lock_file(bytes));
