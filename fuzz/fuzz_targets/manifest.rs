//! Manifests, indexes and lists of a registry or a layout.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| forebay::fuzzing::manifest(bytes));
