//! libFuzzer's front of the target `kernel`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rstscope_fuzz::kernel::run(bytes));
