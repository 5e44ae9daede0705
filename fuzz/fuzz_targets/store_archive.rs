//! A file that `store import` takes in.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| forebay_store::fuzzing::archive(bytes));
