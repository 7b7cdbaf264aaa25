//! libFuzzer's front of the target `capture`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rstscope_fuzz::capture::run(bytes));
