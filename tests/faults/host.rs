//! The host: no memory at start, by each limit that there is. Either it starts, or it says in one
//! sentence why not; in any case the interfaces are as they were.

use super::traffic::{assert_ends_well, assert_prompt, during};
use crate::lab::records::assert_one_sentence;
use crate::lab::{BINARY, Lab, Sensor, text};

/// Starts the sensor by a shell script in which `RUN` stands for it; if it starts, ends it. Answers
/// whether it started, and what it said.
fn start(lab: &Lab, script: &str) -> (bool, String) {
    let state = lab.state();
    assert_prompt("before", lab.rate(100));
    let run = format!(
        "{BINARY} run --iface up0 --iface dn0 --output {} --spool {}",
        lab.output(),
        lab.spool()
    );
    let script = script.replace("RUN", &run);
    let mut sensor = Sensor::spawn(lab.exec("lb", &["sh", "-c", &script]));
    let (rate, started) = during(lab, 300, || {
        let started = sensor.await_line("rstscope: ready");
        if started {
            assert_ends_well(&mut sensor, &["up0", "dn0"]);
        } else {
            sensor.end();
        }
        started
    });
    println!("started: {started}; said: {}", sensor.said());
    assert_prompt("during the start", rate);
    assert_prompt("after", lab.rate(100));
    assert!(!sensor.said().contains("panicked"), "{}", sensor.said());
    // Died of it: the pair may be left, and goes at the next start; a program may not.
    let xdp = lab.shell("lb", "ip link | grep -c xdp");
    assert_eq!(xdp.trim(), "0", "a program is left");
    let mut next = lab.sensor(&[]);
    assert_ends_well(&mut next, &["up0", "dn0"]);
    assert_eq!(lab.state(), state, "something is left");
    (started, sensor.said())
}

#[test]
#[ignore = "needs root"]
fn a_limit_of_address_space_never_harms_the_host() {
    let lab = Lab::up();
    let mut refused = 0;
    for kib in [40_000, 60_000, 80_000, 120_000, 200_000] {
        let (started, said) = start(&lab, &format!("ulimit -v {kib}; exec RUN"));
        refused += u32::from(!started);
        assert!(
            started || !said.is_empty(),
            "{kib} KiB: it ended without a word"
        );
    }
    assert!(refused > 0, "the limits were none");
}

/// Root may lock as much as it likes; without CAP_IPC_LOCK the limit counts.
#[test]
#[ignore = "needs root"]
fn a_limit_of_locked_memory_is_said() {
    let lab = Lab::up();
    let script = "ulimit -l 1024; exec setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock RUN";
    let (started, said) = start(&lab, script);
    assert!(
        started || said.contains("memory") || said.contains("lock"),
        "{said}"
    );
}

/// Services begin with 1024, which 240 queues use up.
#[test]
#[ignore = "needs root"]
fn a_limit_of_open_files_is_lifted_where_it_may_be_and_said_where_not() {
    let lab = Lab::up();
    let (started, said) = start(&lab, "ulimit -Sn 40; exec RUN");
    assert!(started, "{said}");
    let (started, said) = start(&lab, "ulimit -n 40; exec RUN");
    assert!(!started, "{said}");
    assert_one_sentence(&said, "ulimit -n");
}

/// A container may have a clock of its own (time_namespaces(7)). Its heartbeats would look fresh to `steer`
/// for ever, stopped or not.
#[test]
#[ignore = "needs root"]
fn a_clock_that_is_not_the_kernels_is_refused_with_a_word() {
    let lab = Lab::up();
    let state = lab.state();
    assert_prompt("before", lab.rate(100));
    for mode in ["inline", "mirror"] {
        let script = format!(
            "exec timeout 20 unshare --time --monotonic 86400 --fork {BINARY} run --mode {mode} \
             --iface up0 --output {} --spool {}",
            lab.output(),
            lab.spool()
        );
        let (rate, done) = during(&lab, 200, || {
            lab.exec("lb", &["sh", "-c", &script]).output().unwrap()
        });
        let said = text(&done.stderr);
        assert_eq!(done.status.code(), Some(4), "{said}");
        assert_one_sentence(&said, "time namespace");
        assert_prompt("the start is refused", rate);
    }
    assert_prompt("after", lab.rate(100));
    assert_eq!(lab.state(), state, "something is left");
}

/// Makes a memory cgroup at $group with the limit $limit, of either version of the hierarchy, which
/// is mounted in the mount namespace of the script alone.
const GROUP: &str = "mount=$dir/memory; group=$mount/$name; mkdir -p $mount; \
    if mount -t cgroup -o memory none $mount 2>/dev/null; then \
        mkdir $group && echo $limit > $group/memory.limit_in_bytes; \
    else \
        mount -t cgroup2 none $mount && mkdir $group && echo $limit > $group/memory.max; \
    fi 2>/dev/null";

#[test]
#[ignore = "needs root"]
fn a_memory_cgroup_never_harms_the_host() {
    let lab = Lab::up();
    let name = format!("name={}memory; dir={}", lab.prefix, lab.dir.display());
    let probe = format!("{name}; limit=8M; {GROUP}; code=$?; rmdir $group; exit $code");
    let probe = lab.exec("lb", &["sh", "-c", &probe]).output().unwrap();
    if !probe.status.success() {
        println!("skipped: no memory cgroup here: {}", text(&probe.stderr));
        return;
    }
    let mut refused = 0;
    for limit in ["8M", "24M", "60M", "400M"] {
        let script = format!(
            "{name}; limit={limit}; {GROUP}; \
             trap 'rmdir $group' EXIT; trap : TERM; \
             (echo 0 > $group/cgroup.procs; exec RUN) & \
             sensor=$!; trap 'kill -TERM $sensor' TERM; wait $sensor; code=$?; \
             [ $code -le 128 ] || wait $sensor; code=$?; sleep 0.1; exit $code"
        );
        let (started, _) = start(&lab, &script);
        println!("limit {limit}: started: {started}");
        refused += u32::from(!started);
    }
    assert!((1..4).contains(&refused), "{refused} of 4 were refused");
}
