//! The archive that a container engine gives back.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| forebay::fuzzing::container_archive(bytes));
