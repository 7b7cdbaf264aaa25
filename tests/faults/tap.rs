//! Another driver than veth: a tap, by which a virtual machine's frames come in, with and without checksums
//! that are left to the receiver. No fault at all; it is the only other driver with native XDP that needs
//! no hardware.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use super::traffic::{assert_ends_well, count, ledger};
use crate::lab::Lab;
use crate::lab::records::records;

/// Connections of each kind that `taps.py` makes.
const ROUNDS: u64 = 100;

/// Both taps, up, and the process that is the wire between them.
fn taps(lab: &Lab, more: &[&str]) -> (Child, BufReader<impl std::io::Read + use<>>) {
    let mut wire = lab.python("taps.py", more);
    let mut wire = wire
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(wire.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    for (host, address) in [("lb", "10.77.9.1"), ("cl", "10.77.9.2")] {
        lab.shell(
            host,
            &format!("ip addr add {address}/24 dev tap0; ip link set tap0 up"),
        );
    }
    (wire, said)
}

fn connections_over_a_tap(more: &[&str], is_partial: bool) {
    if !Path::new("/dev/net/tun").exists() {
        println!("skipped: no /dev/net/tun here");
        return;
    }
    let lab = Lab::up();
    let (mut wire, mut said) = taps(&lab, more);
    let mut sensor = lab.sensor(&["--iface", "tap0"]);
    wire.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let ended: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        ended,
        json!({"close": ROUNDS, "abort": ROUNDS, "wait": ROUNDS})
    );
    assert_ends_well(&mut sensor, &["tap0"]);
    let _ = wire.kill();
    let _ = wire.wait();
    let line = ledger(&sensor, "tap0");
    // A SYN of each connection, a FIN or a reset of two in three.
    let (taken, passed) = (count(&line, "handed back"), count(&line, "bypassed"));
    assert_eq!(taken + passed, count(&line, "steered"), "{line}");
    assert!(taken + passed >= 5 * ROUNDS, "{line}");
    assert_eq!(passed >= 4 * ROUNDS, is_partial, "{line}");
    assert_eq!(line.contains("checksum_partial "), is_partial, "{line}");
    let all = records(&lab.records_path());
    let told = |verdict: &str, cause: &str| {
        let is_told = |r: &&Value| {
            let scope = &r["rstscope"];
            (&scope["verdict"], &scope["cause"]) == (&json!(verdict), &json!(cause))
        };
        all.iter().filter(is_told).count() as u64
    };
    let found = (told("local", "process"), told("remote", "abort"));
    assert_eq!(found, (ROUNDS, ROUNDS), "{all:#?}");
}

#[test]
#[ignore = "needs root"]
fn a_tap_is_watched_as_a_veth_is() {
    connections_over_a_tap(&[], false);
}

#[test]
#[ignore = "needs root"]
fn a_guest_that_leaves_checksums_to_its_host_loses_nothing() {
    connections_over_a_tap(&["--virtio"], true);
}
