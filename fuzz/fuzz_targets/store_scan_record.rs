//! What the last scan of a directory knew.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| forebay_store::fuzzing::scan_record(bytes));
