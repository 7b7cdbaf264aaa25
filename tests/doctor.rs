//! The doctor against the running kernel: what it says of links made for the purpose, and what it
//! says without privileges.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that cannot go on fails"
)]

#[path = "support/namespace.rs"]
mod namespace;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rstscope::control::diagnose::{self, Check, Mode, Outcome, Refusal};
use rstscope::control::doctor::doctor;
use rstscope::control::lock::{InterfaceLock, LockError};
use rstscope::nic::Interface;

use namespace::{Namespace, run};

fn find(checks: &[Check], name: &str) -> Check {
    checks
        .iter()
        .find(|check| check.name == name)
        .cloned()
        .unwrap_or_else(|| {
            panic!("no check {name} in {checks:#?}");
        })
}

fn report(interfaces: &[&str]) -> (u8, String) {
    let interfaces: Vec<String> = interfaces.iter().map(|name| (*name).to_owned()).collect();
    let mut out = Vec::new();
    let code = doctor(&interfaces, Mode::Inline, &mut out).unwrap();
    (code, String::from_utf8(out).unwrap())
}

#[test]
#[ignore = "needs root"]
fn a_veth_is_fit_whatever_its_peer_does_with_checksums() {
    let _namespace = Namespace::enter(3);
    let checks = diagnose::interface("nic0", Mode::Inline);
    assert_eq!(Refusal::of(&checks), None, "{checks:#?}");
    assert!(
        find(&checks, "interface")
            .sentence
            .starts_with("nic0: veth, 3 RX queues, MTU 1500")
    );
    assert_eq!(find(&checks, "native xdp").outcome, Outcome::Good);
    let checksums = find(&checks, "checksums");
    assert_eq!(checksums.outcome, Outcome::Good);
    assert!(
        checksums.sentence.contains("judged by copies"),
        "{checksums:?}"
    );
    let (code, text) = report(&["nic0"]);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.lines()
            .any(|line| line.starts_with("ok      native xdp")),
        "{text}"
    );
}

#[test]
#[ignore = "needs root"]
fn without_names_the_doctor_finds_the_links_that_are_up() {
    let _namespace = Namespace::enter(3);
    let (code, text) = report(&[]);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("— nic0: veth") && text.contains("— wire0: veth"),
        "{text}"
    );
    assert!(!text.contains("loopback"), "{text}");
}

#[test]
#[ignore = "needs root"]
fn features_of_a_real_link_are_read_as_ethtool_shows_them() {
    let _namespace = Namespace::enter(3);
    run("ethtool -K nic0 rxvlan off gro on");
    let features = Interface::find("nic0").unwrap().features;
    assert_eq!((features.rx_vlan, features.gro), (Some(false), Some(true)));
    run("ethtool -K nic0 rxvlan on gro off");
    let nic = Interface::find("nic0").unwrap();
    assert_eq!(
        (nic.features.rx_vlan, nic.features.gro),
        (Some(true), Some(false))
    );
    assert_eq!(nic.features.lro, Some(false));
    assert_eq!(nic.channels.unwrap().rx_queue_count(), 3);
    run("ethtool -L nic0 rx 2 tx 2");
    assert_eq!(Interface::find("nic0").unwrap().rx_queue_count, 2);
}

#[test]
#[ignore = "needs root"]
fn a_bridge_is_refused_with_its_ports_as_the_remedy() {
    let _namespace = Namespace::enter(3);
    run("ip link add br0 type bridge");
    run("ip link set br0 up");
    run("ip link set nic0 master br0");
    let (code, text) = report(&["br0"]);
    assert_eq!(code, 4, "{text}");
    let line = "not ok  link";
    assert!(
        text.lines()
            .any(|l| l.starts_with(line) && l.ends_with("use --iface nic0")),
        "{text}"
    );
    let port = find(&diagnose::interface("nic0", Mode::Inline), "link");
    assert_eq!(
        port.outcome,
        Outcome::Good,
        "a port of a bridge can be watched"
    );
}

#[test]
#[ignore = "needs root and bonding in the kernel"]
fn a_bond_is_refused_with_its_slaves_as_the_remedy() {
    let _namespace = Namespace::enter(3);
    let made = Command::new("ip")
        .args(["link", "add", "bond0", "type", "bond"])
        .output()
        .unwrap();
    if !made.status.success() {
        eprintln!("skipped: this kernel has no bonding");
        return;
    }
    run("ip link set nic0 down");
    run("ip link set nic0 master bond0");
    run("ip link set bond0 up");
    let (code, text) = report(&["bond0"]);
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("use --iface nic0"), "{text}");
}

#[test]
#[ignore = "needs root"]
fn the_port_of_a_bridge_is_warned_of_tags_that_guests_would_miss() {
    let _namespace = Namespace::enter(3);
    run("ip link add br0 type bridge");
    run("ip link set nic0 master br0");
    let check = find(&diagnose::interface("nic0", Mode::Inline), "vlan");
    assert_eq!(check.outcome, Outcome::Warn, "{check}");
    assert!(check.to_string().contains("guests behind br0"), "{check}");
}

#[test]
#[ignore = "needs root"]
fn a_macvlan_points_to_the_link_below() {
    let _namespace = Namespace::enter(3);
    run("ip link add mv0 link nic0 type macvlan");
    run("ip link set mv0 up");
    let check = find(&diagnose::interface("mv0", Mode::Inline), "link");
    assert!(
        check.is_bad() && check.to_string().ends_with("use --iface nic0"),
        "{check}"
    );
    assert_eq!(
        Interface::find("nic0").unwrap().macvlan_uppers()[0].name,
        "mv0"
    );
    assert_eq!(Refusal::of(&diagnose::interface("mv0", Mode::Mirror)), None);
}

#[test]
#[ignore = "needs root"]
fn a_taken_xdp_slot_is_refused_inline_and_told_in_mirror_mode() {
    let _namespace = Namespace::enter(3);
    let object = pass_all();
    let to = object.to_str().unwrap();
    for (word, mode) in [("xdpgeneric", "generic"), ("xdpdrv", "native")] {
        run(&format!("ip link set dev nic0 {word} obj {to} sec xdp"));
        let checks = diagnose::interface("nic0", Mode::Inline);
        let slot = find(&checks, "xdp slot");
        assert!(
            slot.sentence
                .starts_with(&format!("nic0 has a {mode} XDP program (id ")),
            "{slot}"
        );
        assert!(slot.to_string().contains("or use --mode mirror"), "{slot}");
        let (_, text) = report(&["nic0", "wire0"]);
        let last: Vec<&str> = text.lines().rev().take(3).collect();
        assert_eq!(
            last,
            [
                "`rstscope run --iface nic0` would refuse: not ok above; with `--mode mirror` it can start",
                "`rstscope run --iface wire0` can start",
                "",
            ]
        );
        assert_eq!(Refusal::of(&checks).unwrap().exit_code(), 4);
        assert_eq!(
            Refusal::of(&diagnose::interface("nic0", Mode::Mirror)),
            None
        );
        run(&format!("ip link set dev nic0 {word} off"));
    }
    fs::remove_file(object).unwrap();
    assert_eq!(
        Refusal::of(&diagnose::interface("nic0", Mode::Inline)),
        None
    );
}

/// Where it is there first, the kernel refuses ours; one that comes later it lets in.
#[test]
#[ignore = "needs root"]
fn a_program_on_the_bridge_above_is_named() {
    let _namespace = Namespace::enter(3);
    run("ip link add br0 type bridge");
    run("ip link set nic0 master br0");
    let object = pass_all();
    let to = object.to_str().unwrap();
    run(&format!("ip link set dev br0 xdpgeneric obj {to} sec xdp"));
    let checks = diagnose::interface("nic0", Mode::Inline);
    let check = find(&checks, "xdp above");
    assert!(check.is_bad(), "{check}");
    assert!(
        check
            .sentence
            .starts_with("br0, which is on nic0, has an XDP program"),
        "{check}"
    );
    let refused = Command::new("ip")
        .args([
            "link", "set", "dev", "nic0", "xdpdrv", "obj", to, "sec", "xdp",
        ])
        .output()
        .unwrap();
    assert!(!refused.status.success(), "the kernel lets one in below");
    run("ip link set dev br0 xdpgeneric off");
    fs::remove_file(object).unwrap();
    assert_eq!(
        Refusal::of(&diagnose::interface("nic0", Mode::Inline)),
        None
    );
}

/// A program that passes all, compiled to a file of the caller's.
fn pass_all() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("rstscope-doctor-{}-{number}.c", std::process::id());
    let source = std::env::temp_dir().join(name);
    let object = source.with_extension("o");
    fs::write(
        &source,
        r#"__attribute__((section("xdp"), used)) int pass(void *ctx) { return 2; }
           char _license[] __attribute__((section("license"), used)) = "GPL";"#,
    )
    .unwrap();
    let (from, to) = (source.to_str().unwrap(), object.to_str().unwrap());
    run(&format!("clang -O2 -g -target bpf -c {from} -o {to}"));
    fs::remove_file(source).unwrap();
    object
}

#[test]
#[ignore = "needs root"]
fn a_veth_with_fewer_queues_than_its_peer_cannot_have_native_xdp() {
    let _namespace = Namespace::enter(3);
    run("ethtool -L nic0 rx 1");
    let checks = diagnose::interface("nic0", Mode::Inline);
    let check = find(&checks, "native xdp");
    if Interface::find("nic0").unwrap().xdp_features.is_none() {
        // A kernel that does not tell (before 6.3): the start does.
        assert!(!check.is_bad(), "{check}");
        let mut sensor = Command::new(env!("CARGO_BIN_EXE_rstscope"));
        let said = sensor.args(["run", "--iface", "nic0"]).output().unwrap();
        let text = String::from_utf8(said.stderr).unwrap();
        assert_eq!(said.status.code(), Some(4), "{text}");
        assert!(text.contains("ethtool -L nic0 rx N"), "{text}");
        return;
    }
    assert!(check.is_bad(), "{check}");
    assert!(check.remedy.unwrap().contains("ethtool -L nic0 rx N"));
    assert_eq!(
        Refusal::of(&diagnose::interface("nic0", Mode::Mirror)),
        None
    );
}

#[test]
#[ignore = "needs root"]
fn a_link_that_is_down_is_refused() {
    let _namespace = Namespace::enter(3);
    run("ip link set nic0 down");
    let (code, text) = report(&["nic0"]);
    assert_eq!(code, 4, "{text}");
    assert!(
        text.contains("nic0 is down; ip link set dev nic0 up"),
        "{text}"
    );
}

#[test]
#[ignore = "needs root"]
fn the_lock_belongs_to_the_network_namespace() {
    let first = Namespace::enter(3);
    let ifindex = Interface::find("nic0").unwrap().ifindex();
    let _lock = InterfaceLock::take(ifindex, "nic0").unwrap();
    let error = InterfaceLock::take(ifindex, "nic0").unwrap_err();
    assert!(matches!(error, LockError::Held { .. }), "{error}");
    let (code, text) = report(&["nic0"]);
    assert_eq!(code, 0, "a sensor that runs is no fault: {text}");
    assert!(text.contains("a rstscope watches nic0 now"), "{text}");
    assert!(text.ends_with("\n\nnic0: watched already\n"), "{text}");
    let _second = Namespace::enter(3);
    let same_index = Interface::find("nic0").unwrap().ifindex();
    assert_eq!(same_index, ifindex, "both namespaces number alike");
    assert!(InterfaceLock::take(same_index, "nic0").is_ok());
    drop(first);
}

/// Run by the next test as another user; by itself it only shows what it found.
#[test]
#[ignore = "run by the next test"]
fn print_the_report_of_this_user() {
    let (code, text) = report(&["lo"]);
    println!("{text}exit code {code}");
}

#[test]
#[ignore = "needs root"]
fn without_privileges_each_missing_capability_is_named() {
    // The test binary may lie where another user cannot go: a copy can be read by all.
    let binary = std::env::temp_dir().join(format!("rstscope-doctor-test-{}", std::process::id()));
    fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&binary)
        .args([
            "--ignored",
            "--exact",
            "--nocapture",
            "print_the_report_of_this_user",
        ])
        .output()
        .unwrap();
    fs::remove_file(&binary).unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let line = text
        .lines()
        .find(|line| line.starts_with("not ok  capabilities"))
        .unwrap();
    for name in ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF", "CAP_PERFMON"] {
        assert!(line.contains(name), "{line}");
    }
    assert!(text.contains("exit code 3"), "{text}");
}
