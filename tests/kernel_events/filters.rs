//! The tc programs by filters of clsact, as before Linux 6.6, on whatever kernel this is: what somebody takes off is
//! missed, and what a killed sensor left is taken off.

use std::process::Command;

use rstscope::events::{Config, Events, own_netns};
use rstscope::time::Timestamp;

use super::namespace;

/// That of `nic0`, as the kernel says; /sys shows another namespace still.
fn ifindex() -> u32 {
    let link = namespace::run("ip -o link show nic0");
    link.split(':').next().unwrap().parse().unwrap()
}

/// As on a kernel without tcx.
fn by_filter() -> Config {
    Config {
        by_filter: true,
        ..Config::for_netns(own_netns().unwrap())
    }
}

#[test]
#[ignore = "needs root"]
fn a_program_that_somebody_takes_off_is_missed_be_it_a_link_or_a_filter() {
    let _namespace = namespace::Namespace::enter(1);
    let (ifindex, config) = (ifindex(), by_filter());
    let attached = || {
        let mut events = Events::open(config).expect("open");
        events.attach_egress("nic0", ifindex).expect("a filter");
        let listed = namespace::run("tc filter show dev nic0 egress");
        assert!(listed.contains("pref 49000"), "{listed}");
        assert_eq!(events.cut_off().count(), 0);
        events
    };
    for command in [
        "tc filter del dev nic0 egress pref 49000",
        "tc qdisc del dev nic0 clsact",
    ] {
        let events = attached();
        namespace::run(command);
        assert_eq!(events.cut_off().collect::<Vec<_>>(), [ifindex], "{command}");
    }
    let (replaced, ours) = (attached(), attached());
    assert_eq!(replaced.cut_off().collect::<Vec<_>>(), [ifindex]);
    drop(replaced);
    assert_eq!(
        ours.cut_off().count(),
        0,
        "who was replaced takes nothing off"
    );
    drop(ours);
    let listed = namespace::run("tc filter show dev nic0 egress");
    assert!(!listed.contains("pref 49000"), "{listed}");
    let mut events = Events::open(Config::for_netns(own_netns().unwrap())).expect("open");
    events
        .attach_egress("nic0", ifindex)
        .expect("a link or a filter");
    assert_eq!(events.cut_off().count(), 0);
    namespace::run("ip link del nic0");
    assert_eq!(events.cut_off().collect::<Vec<_>>(), [ifindex]);
}

/// What is no link outlives its process. Inline nothing else would take it off.
#[test]
#[ignore = "needs root"]
fn the_filter_of_a_killed_mirror_is_taken_off_and_nobody_elses_is() {
    let _namespace = namespace::Namespace::enter(1);
    let (ifindex, config) = (ifindex(), by_filter());
    let events = Events::open(config).expect("open");
    let listed = || namespace::run("tc filter show dev nic0 ingress");
    events.take_off_left_mirror("nic0", ifindex);
    assert_eq!(namespace::run("tc qdisc show dev nic0 clsact"), "");
    namespace::run("tc qdisc add dev nic0 clsact");
    events.take_off_left_mirror("nic0", ifindex);

    let mut killed = Events::open(config).expect("open");
    let never = Timestamp::default();
    killed
        .attach_mirror("nic0", ifindex, &[], never)
        .expect("a filter");
    std::mem::forget(killed);
    assert!(listed().contains("report_ingress"), "{}", listed());
    events.take_off_left_mirror("nic0", ifindex);
    assert_eq!(listed(), "");

    let mut theirs = Command::new("tc");
    theirs.args("filter add dev nic0 ingress pref 49000 handle 1 bpf bytecode".split(' '));
    assert!(theirs.arg("1,6 0 0 0").status().unwrap().success());
    events.take_off_left_mirror("nic0", ifindex);
    assert!(listed().contains("pref 49000"), "{}", listed());
}
