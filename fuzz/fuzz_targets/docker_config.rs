//! Docker's and podman's logins.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| forebay::fuzzing::docker_config(bytes));
