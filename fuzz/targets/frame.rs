//! libFuzzer's front of the target `frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rstscope_fuzz::frame::run(bytes));
