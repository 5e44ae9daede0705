//! `deployment_config.py` and `setup.py`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| forebay::fuzzing::deployment_config(bytes));
