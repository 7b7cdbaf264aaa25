//! Real connections around a fault, and what a sensor that lived to tell must have said.

#![allow(
    dead_code,
    reason = "two test programs share it, and one uses not all of it"
)]

use std::thread;
use std::time::Duration;

use crate::lab::{Lab, Rate, Sensor};

/// Prints how many requests succeeded, and insists on all of them.
pub fn assert_all(phase: &str, rate: Rate) {
    println!(
        "{phase}: {} of {} new connections succeeded, the slowest in {} ms, {} SYNs sent again",
        rate.succeeded, rate.made, rate.slowest_ms, rate.syns_again
    );
    assert_eq!(rate.succeeded, rate.made, "{phase}: {}", rate.said);
}

/// The same, and none had to send its SYN twice.
pub fn assert_prompt(phase: &str, rate: Rate) {
    let syns_again = rate.syns_again;
    assert_all(phase, rate);
    assert_eq!(syns_again, 0, "{phase}: a SYN was lost");
}

/// Requests, with the fault happening among them.
pub fn during<T>(lab: &Lab, count: u32, fault: impl FnOnce() -> T) -> (Rate, T) {
    let requests = lab.requests(count);
    thread::sleep(Duration::from_millis(200));
    let result = fault();
    (Rate::of(requests), result)
}

/// Ends a sensor as an operator would: it must have done well, with a balanced ledger for each of
/// `interfaces`.
pub fn assert_ends_well(sensor: &mut Sensor, interfaces: &[&str]) {
    assert_eq!(sensor.stop(), Some(0), "{}", sensor.said());
    assert_ledgers(sensor, interfaces);
}

/// The ledger of each interface was printed and balances.
pub fn assert_ledgers(sensor: &Sensor, interfaces: &[&str]) {
    for interface in interfaces {
        let line = ledger(sensor, interface);
        assert!(line.ends_with("the ledger balances"), "{line}");
    }
}

/// The line of an interface's ledger.
pub fn ledger(sensor: &Sensor, interface: &str) -> String {
    let said = sensor.said();
    let line = said.lines().find(|line| {
        line.starts_with(&format!("rstscope: {interface}: ")) && line.contains("ledger")
    });
    line.unwrap_or_else(|| panic!("no ledger of {interface}: {said}"))
        .to_owned()
}

/// The number before `word` in a ledger.
pub fn count(ledger: &str, word: &str) -> u64 {
    let words: Vec<&str> = ledger.split([' ', ',', ';']).collect();
    let phrase: Vec<&str> = word.split(' ').collect();
    let at = words
        .windows(phrase.len())
        .position(|found| found == phrase);
    let at = at.unwrap_or_else(|| panic!("no {word} in {ledger}"));
    words[at - 1].parse().unwrap()
}
