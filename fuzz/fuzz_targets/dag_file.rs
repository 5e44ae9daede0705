//! A DAG file that another program has written.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| forebay::fuzzing::dag_file(bytes));
