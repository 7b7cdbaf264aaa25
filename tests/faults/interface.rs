//! The watched interface: down and up, with another number of queues, with somebody else's XDP
//! program, with ours taken off.

use std::fs;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::traffic::{assert_all, assert_ends_well, assert_prompt, count, during, ledger};
use crate::lab::records::{assert_kept, assert_one_sentence, records, resets};
use crate::lab::{INTERFACES, Lab, command};

/// An XDP program that passes everything, as an object file in the lab's directory.
fn foreign_program(lab: &Lab) -> String {
    let source = lab.dir.join("foreign.bpf.c");
    let object = lab.dir.join("foreign.bpf.o");
    fs::write(
        &source,
        "struct xdp_md;\n__attribute__((section(\"xdp\"), used))\n\
         int foreign(struct xdp_md *ctx) { return 2; }\n\
         char gpl[] __attribute__((section(\"license\"), used)) = \"GPL\";\n",
    )
    .unwrap();
    let done = command("clang", &["-O2", "-g", "-target", "bpf", "-c"])
        .arg(&source)
        .arg("-o")
        .arg(&object)
        .status();
    assert!(done.unwrap().success(), "clang");
    object.display().to_string()
}

#[test]
#[ignore = "needs root"]
fn an_interface_down_and_up_is_said_and_serves_again() {
    let lab = Lab::up();
    let mut sensor = lab.sensor(&[]);
    assert_prompt("before", lab.rate(200));
    // Its routes go with it, and come back with it.
    let routes = lab.shell("lb", "ip route show default; ip -6 route show default");
    let gateway = routes.lines().next().unwrap().to_owned();
    // What is sent meanwhile TCP sends again, with a sensor or without.
    let (rate, ()) = during(&lab, 400, || {
        lab.shell("lb", "ip link set up0 down");
        thread::sleep(Duration::from_millis(300));
        lab.shell(
            "lb",
            &format!("ip link set up0 up; ip route replace {gateway}"),
        );
    });
    assert_all("down for 300 ms", rate);
    assert!(sensor.await_line("up0 was set down"), "{}", sensor.said());
    assert!(sensor.await_line("up0 is up again"), "{}", sensor.said());
    assert_prompt("after", lab.rate(300));
    assert_ends_well(&mut sensor, &["up0", "dn0"]);
    let line = ledger(&sensor, "up0");
    assert!(
        count(&line, "received") >= 800,
        "its queue is not served: {line}"
    );
    let all = records(&lab.records_path());
    let incomplete = all
        .iter()
        .filter(|r| r["event"]["dataset"] == "rstscope.coverage")
        .filter(|r| r["observer"]["ingress"]["interface"]["name"] == "up0")
        .any(|r| r["rstscope"]["coverage"]["complete"] == false);
    assert!(
        incomplete,
        "the gap is not in the coverage records: {all:#?}"
    );
}

#[test]
#[ignore = "needs root"]
fn peers_that_leave_checksums_to_their_interface_lose_nothing() {
    let lab = Lab::up();
    // As every veth and most virtual machines have it; the lab switches it off.
    for (host, link) in [("cl", "c0"), ("rt", "p-lb"), ("rt", "br0"), ("be", "b0")] {
        lab.shell(host, &format!("ethtool -K {link} tx on tso on gso on"));
    }
    let mut sensor = lab.sensor(&[]);
    assert_prompt("with partial checksums", lab.rate(200));
    lab.play(&["client_abort"]);
    assert_ends_well(&mut sensor, &["up0", "dn0"]);
    for interface in ["up0", "dn0"] {
        let line = ledger(&sensor, interface);
        assert!(count(&line, "bypassed") >= 200, "{line}");
        assert!(line.contains("checksum_partial "), "{line}");
    }
    let all = records(&lab.records_path());
    let remote = |r: &&serde_json::Value| r["rstscope"]["verdict"] == "remote";
    assert_eq!(all.iter().filter(remote).count(), 1, "{all:#?}");
}

#[test]
#[ignore = "needs root"]
fn more_queues_while_it_runs_cost_no_connection() {
    let lab = Lab::up();
    let set = |count: u32| lab.shell("lb", &format!("ethtool -L up0 rx {count} tx {count} 2>&1"));
    // So that more are possible later: the peer of a veth with XDP may not have fewer.
    assert_eq!(set(1), "");
    let mut sensor = lab.sensor(&[]);
    assert_prompt("before", lab.rate(200));
    let (rate, said) = during(&lab, 800, || set(2));
    assert_eq!(said, "", "ethtool -L");
    assert_all("ethtool -L", rate);
    assert!(
        sensor.await_line("up0 has 2 receive queues"),
        "{}",
        sensor.said()
    );
    assert_prompt("with a queue more", lab.rate(300));
    let (rate, _) = during(&lab, 500, || set(1));
    assert_all("with a queue less", rate);
    assert_prompt("after", lab.rate(200));
    assert_ends_well(&mut sensor, &["up0", "dn0"]);
}

#[test]
#[ignore = "needs root"]
fn a_foreign_program_that_is_there_already_is_named_and_kept() {
    let lab = Lab::up();
    let object = foreign_program(&lab);
    let said = lab.shell(
        "lb",
        &format!("ip link set dev up0 xdpdrv obj {object} sec xdp 2>&1"),
    );
    assert_eq!(said, "");
    let before = lab.state();
    assert_prompt("before", lab.rate(100));
    let mut words = INTERFACES.to_vec();
    let output = lab.output();
    words.extend(["--output", &output]);
    let (requests, (code, said)) = during(&lab, 300, || lab.refused(&words));
    assert_eq!(code, Some(4), "{said}");
    assert_one_sentence(&said, "up0");
    assert_prompt("the start is refused", requests);
    assert_prompt("after", lab.rate(100));
    assert_eq!(lab.state(), before, "the foreign program was touched");
}

#[test]
#[ignore = "needs root"]
fn a_foreign_program_while_we_run_finds_the_slot_taken() {
    let lab = Lab::up();
    let object = foreign_program(&lab);
    let mut sensor = lab.sensor(&[]);
    assert_prompt("before", lab.rate(200));
    for way in ["xdpdrv", "xdp", "xdpgeneric"] {
        let (rate, said) = during(&lab, 200, || {
            lab.shell(
                "lb",
                &format!("ip link set dev up0 {way} obj {object} sec xdp 2>&1"),
            )
        });
        assert!(!said.is_empty(), "{way}: the kernel let it in");
        assert_prompt(way, rate);
    }
    // Nor does it go off by what takes programs off that are no links.
    let said = lab.shell("lb", "ip link set dev up0 xdp off 2>&1");
    assert!(!said.is_empty(), "the slot is not held by a link");
    assert_prompt("after", lab.rate(200));
    assert_ends_well(&mut sensor, &["up0", "dn0"]);
}

#[test]
#[ignore = "needs root"]
fn our_program_taken_off_costs_no_connection_and_is_said() {
    let lab = Lab::up();
    let mut sensor = lab.sensor(&[]);
    assert_prompt("before", lab.rate(200));
    let (rate, said) = during(&lab, 500, || {
        lab.shell(
            "lb",
            "index=$(cat /sys/class/net/up0/ifindex); \
             program=$(ip -d link show up0 | sed -n 's/.*prog\\/xdp id \\([0-9]*\\).*/\\1/p'); \
             link=$(bpftool link | sed -n \"s/^\\([0-9]*\\): xdp  *prog $program .*/\\1/p\"); \
             bpftool link detach id $link 2>&1",
        )
    });
    assert_eq!(said, "");
    assert_all("the program is taken off", rate);
    assert!(
        sensor.await_line("up0: somebody took the XDP program off"),
        "not a word: {}",
        sensor.said()
    );
    assert_prompt("after", lab.rate(200));
    assert_ends_well(&mut sensor, &["up0", "dn0"]);
    let all = records(&lab.records_path());
    let last = all.iter().rfind(|r| {
        r["event"]["dataset"] == "rstscope.coverage"
            && r["observer"]["ingress"]["interface"]["name"] == "up0"
    });
    let last = last.expect("a coverage record");
    assert_eq!(last["rstscope"]["coverage"]["complete"], false, "{last}");
}

#[test]
#[ignore = "needs root"]
fn an_interface_that_is_removed_is_said_and_the_last_one_ends_the_sensor() {
    let lab = Lab::up();
    let mut sensor = lab.sensor(&[]);
    assert_prompt("before", lab.rate(200));
    lab.shell("lb", "ip link del dn0");
    assert!(sensor.await_line("dn0 is gone"), "{}", sensor.said());
    // What comes in by the other one is answered as before: there is no backend any more.
    thread::sleep(Duration::from_millis(300));
    let promises = lab.play(&["closed_port"]);
    assert!(sensor.child.try_wait().unwrap().is_none(), "it ended");
    lab.shell("lb", "ip link del up0");
    assert_eq!(sensor.end(), Some(1), "{}", sensor.said());
    assert!(sensor.said().contains("up0 is gone"), "{}", sensor.said());
    let line = ledger(&sensor, "up0");
    let seen = count(&line, "received") + count(&line, "bypassed");
    assert!(seen >= 400, "{line}");
    let all = records(&lab.records_path());
    assert_kept(&promises, &resets(&all));
}

#[test]
#[ignore = "needs root"]
fn an_interface_that_moves_to_another_namespace_is_let_go() {
    let lab = Lab::up();
    let mut sensor = lab.sensor(&[]);
    assert_prompt("before", lab.rate(200));
    let there = format!("{}nb", lab.prefix);
    lab.shell("lb", &format!("ip link set dn0 netns {there}"));
    assert!(sensor.await_line("dn0 is gone"), "{}", sensor.said());
    // Longer than the engine rests, which takes the tc program off.
    thread::sleep(Duration::from_millis(300));
    let link = lab.shell(
        "nb",
        "ip link set dn0 up; ip address add 10.77.3.1/24 dev dn0; ip link show dn0",
    );
    assert!(link.contains("dn0") && !link.contains("xdp"), "{link}");
    // Its resets are another host's now: both what comes in by it and what leaves.
    lab.shell("be", "timeout 5 bash -c '</dev/tcp/10.77.3.1/9'");
    lab.shell("nb", "timeout 5 bash -c '</dev/tcp/10.77.3.2/9'");
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(sensor.stop(), Some(0), "{}", sensor.said());
    let all = records(&lab.records_path());
    let told = all
        .iter()
        .find(|r| r["destination"]["port"] == 9 || r["source"]["port"] == 9);
    assert!(told.is_none(), "{told:?}");
}

#[test]
#[ignore = "needs root"]
fn an_interface_that_is_renamed_is_told_of_under_its_new_name() {
    let lab = Lab::up();
    let mut sensor = lab.sensor(&[]);
    assert_prompt("before", lab.rate(200));
    let refused = lab.shell("lb", "ip link set up0 name wan0 2>&1");
    if refused.contains("busy") {
        println!("skipped: this kernel renames no link that is up");
        return;
    }
    lab.shell("lb", "ip link set dn0 name up0");
    for said in ["up0 is called wan0 now", "dn0 is called up0 now"] {
        assert!(sensor.await_line(said), "{}", sensor.said());
    }
    let promises = lab.play(&["closed_port"]);
    assert_prompt("after", lab.rate(200));
    assert_ends_well(&mut sensor, &["wan0", "up0"]);
    let all = records(&lab.records_path());
    let told = resets(&all);
    assert_kept(&promises, &told);
    let of_the_client =
        |r: &&&Value| r["source"]["ip"] == "10.77.1.2" || r["destination"]["ip"] == "10.77.1.2";
    let of_the_client: Vec<_> = told.iter().filter(of_the_client).collect();
    let is_by_wan0 = |r: &&Value| {
        let interface = |way: &str| r["observer"][way]["interface"]["name"].clone();
        [interface("ingress"), interface("egress")].contains(&"wan0".into())
    };
    assert!(!of_the_client.is_empty(), "{told:#?}");
    assert!(of_the_client.into_iter().all(is_by_wan0), "{told:#?}");
}
