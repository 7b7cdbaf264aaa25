//! What is fuzzed: functions from bytes to nothing that panic when a promise is broken. The fronts
//! in `targets/` give them to libFuzzer; tests/fuzz.rs gives them the corpus and its mutations on
//! every test run. They use the crate as anybody could, and refuse no input.

pub mod capture;
pub mod engine;
pub mod frame;
pub mod kernel;
