//! What a storage service answers.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| forebay::fuzzing::bucket_answer(bytes));
