//! A flood of SYNs at more than the sensor can take: the ledger accounts for every frame that was offered,
//! none is lost before the ring, and connections go on. `RSTSCOPE_FLOOD=8000000` for the long form.

use std::thread;
use std::time::{Duration, Instant};

use super::traffic::{assert_all, assert_ends_well, assert_prompt, count, during, ledger};
use crate::generator::Generator;
use crate::lab::{Lab, Rate, text};
use crate::support::inside;

/// Frames of a flood in every run of the tests: a second's worth.
const FRAMES: u32 = 500_000;

fn frames() -> u32 {
    std::env::var("RSTSCOPE_FLOOD").map_or(FRAMES, |text| text.parse().unwrap())
}

/// Sends so many SYNs of different flows to up0, as fast as they go, to a station that is not there.
/// Answers how many came as far as the interface, and how long it took.
fn flood(lab: &Lab, frames: u32) -> (u32, Duration) {
    let begun = Instant::now();
    let sent = inside(&format!("{}rt", lab.prefix), || {
        Generator::open("p-lb", 0).send(frames)
    });
    (sent, begun.elapsed())
}

#[test]
#[ignore = "needs root"]
fn a_flood_is_accounted_for_to_the_frame() {
    let lab = Lab::up();
    let mut sensor = lab.sensor(&[]);
    let (frames, took) = flood(&lab, frames());
    thread::sleep(Duration::from_millis(1500));
    let stats = lab.exec("lb", &[crate::lab::BINARY, "stats"]).output();
    assert_ends_well(&mut sensor, &["up0", "dn0"]);
    let line = ledger(&sensor, "up0");
    println!("{frames} frames offered in {} ms\n{line}", took.as_millis());
    // No connection was made: what was steered is what was offered.
    assert_eq!(count(&line, "steered"), u64::from(frames), "{line}");
    let (received, bypassed) = (count(&line, "received"), count(&line, "bypassed"));
    assert_eq!(received + bypassed, u64::from(frames), "{line}");
    assert_eq!(count(&line, "before the ring"), 0, "{line}");
    assert!(bypassed > 0, "the flood was no flood: {line}");
    assert!(
        received > u64::from(frames) / 100,
        "it never worked: {line}"
    );
    // And so it was in `rstscope stats`, while it ran.
    let said = text(&stats.unwrap().stdout);
    let shown = said.lines().find(|line| line.starts_with("up0: "));
    let shown = shown.unwrap_or_else(|| panic!("no ledger of up0: {said}"));
    assert!(shown.ends_with("the ledger balances"), "{shown}");
    for entry in ["steered", "received", "bypassed"] {
        assert_eq!(count(shown, entry), count(&line, entry), "{shown}\n{line}");
    }
    assert_eq!(count(shown, "under way"), 0, "{shown}");
}

#[test]
#[ignore = "needs root"]
fn a_flood_costs_no_connection() {
    let lab = Lab::up();
    let mut sensor = lab.sensor(&[]);
    assert_prompt("before", lab.rate(200));
    let (rate, beside) = during(&lab, 800, || {
        let beside = lab.requests(300);
        let (offered, _) = flood(&lab, frames());
        (Rate::of(beside), offered)
    });
    let (beside, offered) = beside;
    assert_all("a flood", rate);
    assert_all("beside it", beside);
    assert_prompt("after", lab.rate(200));
    assert_ends_well(&mut sensor, &["up0", "dn0"]);
    let line = ledger(&sensor, "up0");
    println!("{offered} frames offered among connections\n{line}");
    assert!(count(&line, "steered") > u64::from(offered), "{line}");
    assert_eq!(count(&line, "before the ring"), 0, "{line}");
}
