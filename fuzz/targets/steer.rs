//! libFuzzer's front of the target `steer`. Needs root.
#![no_main]

use std::cell::RefCell;

#[path = "../src/steer.rs"]
mod steer;

thread_local! {
    static STEER: RefCell<steer::Steer> =
        RefCell::new(steer::Steer::load().expect("the kernel takes steer (root?)"));
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    STEER.with_borrow_mut(|steer| steer.decide(bytes));
});
