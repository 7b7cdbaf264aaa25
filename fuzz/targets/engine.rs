//! libFuzzer's front of the target `engine`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rstscope_fuzz::engine::run(bytes));
