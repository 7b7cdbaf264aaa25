//! Faults: what goes wrong with the sensor, its interfaces, its outputs or its host, each with real
//! connections before, during and after. The share of requests that succeeded is printed and must
//! be 100 %. Needs root and the lab (docs/testing.md). What the sensor says of the traffic is
//! `tests/live.rs`'s business.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may panic, prints what it measured, and waits by the clock"
)]

#[path = "../benches/support/sensor.rs"]
mod generator;
mod lab;
#[path = "../benches/support/mod.rs"]
mod support;

/// One file a kind of fault.
mod faults {
    mod clock;
    mod coverage;
    mod fast_open;
    mod flood;
    mod host;
    mod interface;
    mod mirror;
    mod next_hops;
    mod output;
    mod process;
    mod replace;
    mod slow;
    mod tap;
    mod traffic;
    mod way_back;
}
