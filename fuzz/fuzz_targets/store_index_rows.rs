//! Rows of the store's index.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| forebay_store::fuzzing::index_rows(bytes));
