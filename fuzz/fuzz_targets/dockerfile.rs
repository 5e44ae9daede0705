//! A Dockerfile and `.dockerignore`, read and planned.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| forebay::fuzzing::dockerfile(bytes));
