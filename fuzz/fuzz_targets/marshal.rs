//! What an interpreter's compiler writes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| forebay::fuzzing::marshal(bytes));
