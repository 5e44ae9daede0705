//! A RUN line of a Dockerfile.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| forebay::fuzzing::run_line(bytes));
