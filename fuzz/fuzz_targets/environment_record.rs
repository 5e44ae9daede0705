//! Generations, HEAD and plans.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| forebay::fuzzing::environment_record(bytes));
