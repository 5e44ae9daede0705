//! A layer of a base image, or one that a container engine gives back.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| forebay::fuzzing::base_layer(bytes));
