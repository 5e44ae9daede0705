//! What `docker save` and its like write.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| forebay::fuzzing::saved_image(bytes));
