//! The hand-back pair against the running kernel, in network namespaces of its own: what it
//! delivers, what it keeps out, and that nothing of it stays.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/namespace.rs"]
mod namespace;

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use libbpf_rs::{Object, ObjectBuilder};
use rstscope::handback::{Error, Names, Pair};
use rstscope::nic::{ChangeKind, Interface, Watch};
use rstscope::wire::Mac;

use namespace::{Namespace, run};

/// A namespace whose `nic0` is 10.9.0.1.
fn namespace() -> Namespace {
    let namespace = Namespace::enter(2);
    run("ip link set lo up");
    run("ip addr add 10.9.0.1/24 dev nic0");
    // Duplicate address detection changes what `ip addr` shows; let it end first.
    std::thread::sleep(Duration::from_millis(2500));
    namespace
}

/// Links, addresses, routes of both families, as the host has them.
fn state() -> String {
    [
        "ip -j link",
        "ip -j addr",
        "ip -j -4 route show table all",
        "ip -j -6 route show table all",
    ]
    .map(run)
    .join("\n")
}

static OBJECTS: AtomicU32 = AtomicU32::new(0);

/// A classifier that matches every frame, as the real one does after it has counted.
fn classifier() -> Object {
    let number = OBJECTS.fetch_add(1, Ordering::Relaxed);
    let stem = format!("rstscope-handback-{}-{number}", std::process::id());
    let source: PathBuf = std::env::temp_dir().join(format!("{stem}.c"));
    let object = source.with_extension("o");
    fs::write(
        &source,
        r#"__attribute__((section("tc"), used)) int give(void *skb) { return -1; }
           char _license[] __attribute__((section("license"), used)) = "GPL";"#,
    )
    .unwrap();
    let (from, to) = (source.to_str().unwrap(), object.to_str().unwrap());
    run(&format!("clang -O2 -g -target bpf -c {from} -o {to}"));
    let loaded = ObjectBuilder::default()
        .open_file(&object)
        .unwrap()
        .load()
        .unwrap();
    fs::remove_file(source).unwrap();
    fs::remove_file(object).unwrap();
    loaded
}

fn nic0() -> Interface {
    Interface::find("nic0").unwrap()
}

fn create(nic: &Interface, queues: u32) -> Result<Pair, Error> {
    let object = classifier();
    let program = object.progs().next().unwrap();
    Pair::create(&nic.link, queues, program.as_fd())
}

/// Sends `count` UDP frames to 10.9.0.1:9999 out of `device` and says how many a socket that is
/// bound to `nic0` got. With `bypass` they leave as AF_XDP's do, past the queueing discipline.
fn deliver(device: &str, to: Mac, count: u32, bypass: bool) -> u32 {
    const SENDER: &str = r#"
import socket, struct, sys
device, to, count, bypass = sys.argv[1], bytes.fromhex(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
def total(b):
    s = sum(struct.unpack('!%dH' % (len(b) // 2), b))
    while s >> 16: s = (s & 0xffff) + (s >> 16)
    return ~s & 0xffff
ends = socket.inet_aton('10.9.0.2') + socket.inet_aton('10.9.0.1')
udp = struct.pack('!HHHH', 4000, 9999, 12, 0) + b'ping'
ip = struct.pack('!BBHHHBBH', 0x45, 0, 32, 1, 0, 64, 17, 0) + ends
ip = ip[:10] + struct.pack('!H', total(ip)) + ip[12:]
frame = to + bytes.fromhex('020000000002') + b'\x08\x00' + ip + udp
listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'nic0')
listener.bind(('10.9.0.1', 9999))
listener.settimeout(0.5)
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
if bypass: raw.setsockopt(263, 20, 1)
raw.bind((device, 0))
got = 0
for _ in range(count):
    try: raw.send(frame)
    except OSError as e: print(e, file=sys.stderr)
try:
    while got < count:
        listener.recv(100)
        got += 1
except TimeoutError: pass
print(got)
"#;
    let to = to.to_string().replace('-', "");
    let output = Command::new("python3")
        .args([
            "-c",
            SENDER,
            device,
            &to,
            &count.to_string(),
            if bypass { "1" } else { "0" },
        ])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

#[test]
#[ignore = "needs root"]
fn a_frame_sent_into_the_pair_arrives_as_if_from_the_interface() {
    let _namespace = namespace();
    let nic = nic0();
    let mut pair = create(&nic, 2).unwrap();
    assert_eq!(
        deliver(&pair.names().transmit.clone(), nic.mac().unwrap(), 40, true),
        40
    );
    let statistics = pair.statistics().unwrap();
    assert_eq!(statistics.handed_back, 40, "{statistics:?}");
    assert_eq!(statistics.transmitted, 40, "{statistics:?}");
    assert_eq!(
        (
            statistics.lost_crossing,
            statistics.refused,
            statistics.lost_arriving
        ),
        (0, 0, 0),
        "{statistics:?}"
    );
}

#[test]
#[ignore = "needs root"]
fn what_the_hosts_own_stack_sends_into_the_pair_never_arrives() {
    let _namespace = namespace();
    let nic = nic0();
    let mut pair = create(&nic, 1).unwrap();
    assert_eq!(
        deliver(
            &pair.names().transmit.clone(),
            nic.mac().unwrap(),
            10,
            false
        ),
        0
    );
    assert_eq!(pair.statistics().unwrap().handed_back, 0);
}

#[test]
#[ignore = "needs root"]
fn frames_for_an_interface_that_is_down_are_counted() {
    let _namespace = namespace();
    let nic = nic0();
    let mut pair = create(&nic, 1).unwrap();
    run("ip link set nic0 down");
    assert_eq!(
        deliver(&pair.names().transmit.clone(), nic.mac().unwrap(), 7, true),
        0
    );
    let statistics = pair.statistics().unwrap();
    assert_eq!(
        (statistics.transmitted, statistics.refused),
        (7, 7),
        "{statistics:?}"
    );
}

#[test]
#[ignore = "needs root"]
fn the_pair_brings_no_address_and_no_route_and_leaves_nothing() {
    let _namespace = namespace();
    let (addresses, routes) = ("ip -o addr", "ip route show table all");
    let routes6 = "ip -6 route show table all";
    let (before, address_lines) = (state(), run(addresses));
    let (route_lines, route6_lines) = (run(routes), run(routes6));
    let pair = create(&nic0(), 4).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(run(addresses), address_lines);
    assert_eq!(run(routes), route_lines);
    assert_eq!(run(routes6), route6_lines);
    let link = run(&format!("ip -d link show {}", pair.names().transmit));
    assert!(link.contains("NOARP,UP,LOWER_UP"), "{link}");
    assert!(
        link.contains("addrgenmode none numtxqueues 4 numrxqueues 4"),
        "{link}"
    );
    assert!(link.contains("alias rstscope hand-back for nic0"), "{link}");
    pair.remove().unwrap();
    assert_eq!(state(), before);
    drop(create(&nic0(), 1).unwrap());
    assert_eq!(state(), before, "dropping the pair removes it too");
}

#[test]
#[ignore = "needs root"]
fn a_pair_left_by_a_dead_run_is_removed_at_the_next_start() {
    let _namespace = namespace();
    let before = state();
    let nic = nic0();
    // As after SIGKILL: the pair stays, nobody drops it.
    std::mem::forget(create(&nic, 1).unwrap());
    assert_ne!(state(), before);
    let pair = create(&nic, 2).unwrap();
    assert_eq!(
        deliver(&pair.names().transmit.clone(), nic.mac().unwrap(), 5, true),
        5
    );
    std::mem::forget(pair);
    assert!(Pair::remove_leftover(nic.ifindex()).unwrap());
    assert!(
        !Pair::remove_leftover(nic.ifindex()).unwrap(),
        "nothing is left to remove"
    );
    assert_eq!(state(), before);
}

/// As if it had died between the request that makes the pair and the one that gives it its alias.
#[test]
#[ignore = "needs root"]
fn a_pair_whose_maker_died_at_once_is_removed_at_the_next_start() {
    let _namespace = namespace();
    let before = state();
    let nic = nic0();
    let pair = create(&nic, 1).unwrap();
    for name in [&pair.names().transmit, &pair.names().inject] {
        run(&format!("ip link set {name} down alias "));
    }
    std::mem::forget(pair);
    assert_ne!(state(), before);
    create(&nic, 1).unwrap().remove().unwrap();
    assert_eq!(state(), before);
}

#[test]
#[ignore = "needs root"]
fn a_stranger_with_our_name_is_left_alone() {
    let _namespace = namespace();
    let nic = nic0();
    let names = Names::of(nic.ifindex());
    run(&format!(
        "ip link add {} type veth peer name stranger",
        names.transmit
    ));
    let before = state();
    let error = create(&nic, 1).unwrap_err();
    assert!(
        matches!(&error, Error::NameTaken { name } if *name == names.transmit),
        "{error}"
    );
    assert!(matches!(
        Pair::remove_leftover(nic.ifindex()),
        Err(Error::NameTaken { .. })
    ));
    assert_eq!(state(), before);
}

#[test]
#[ignore = "needs root"]
fn a_classifier_that_is_none_leaves_nothing_behind() {
    let _namespace = namespace();
    let before = state();
    let file = File::open("/dev/null").unwrap();
    let error = Pair::create(&nic0().link, 1, file.as_fd()).unwrap_err();
    assert!(
        error.to_string().starts_with("cannot redirect rsti"),
        "{error}"
    );
    assert_eq!(state(), before);
}

#[test]
#[ignore = "needs root"]
fn the_pair_follows_the_interfaces_address() {
    let _namespace = namespace();
    let nic = nic0();
    let mut pair = create(&nic, 1).unwrap();
    let transmit = pair.names().transmit.clone();
    let mut watch = Watch::new(&[nic.ifindex()]).unwrap();
    run("ip link set nic0 address 02:00:00:00:00:77");
    let mac = Mac([2, 0, 0, 0, 0, 0x77]);
    let kinds: Vec<ChangeKind> = watch
        .changes()
        .unwrap()
        .into_iter()
        .map(|change| change.kind)
        .collect();
    assert_eq!(kinds, [ChangeKind::Mac(Some(mac))]);
    assert_eq!(
        deliver(&transmit, mac, 5, true),
        0,
        "the pair does not know the address yet"
    );
    pair.follow_mac(mac).unwrap();
    assert_eq!(deliver(&transmit, mac, 5, true), 5);
}

#[test]
#[ignore = "needs root"]
fn a_watched_interface_tells_every_change_once() {
    let _namespace = namespace();
    let nic = nic0();
    let mut watch = Watch::new(&[nic.ifindex()]).unwrap();
    assert_eq!(watch.changes().unwrap(), []);
    assert_eq!(watch.refresh().unwrap(), []);
    // A carrier's notice may come late: the kernel's link watch runs about once a second.
    let kinds = |watch: &mut Watch| -> Vec<ChangeKind> {
        for _ in 0..30 {
            let changes = watch.changes().unwrap();
            if !changes.is_empty() {
                return changes.into_iter().map(|change| change.kind).collect();
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Vec::new()
    };
    run("ip link set nic0 mtu 1400");
    assert_eq!(kinds(&mut watch), [ChangeKind::Mtu(1400)]);
    run("ip link add mv0 link nic0 type macvlan");
    let told = kinds(&mut watch);
    let [ChangeKind::Upper(upper)] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(
        (upper.name.as_str(), upper.kind.as_deref()),
        ("mv0", Some("macvlan"))
    );
    run("ip link set mv0 mtu 1300");
    run("ip link del mv0");
    run("ip link set wire0 down");
    assert_eq!(kinds(&mut watch), [ChangeKind::Carrier(false)]);
    run("ip link set nic0 down");
    assert_eq!(kinds(&mut watch), [ChangeKind::Down]);
    run("ethtool -L nic0 rx 1 tx 1");
    assert_eq!(watch.changes().unwrap(), [], "channels make no notice");
    let found: Vec<ChangeKind> = watch
        .refresh()
        .unwrap()
        .into_iter()
        .map(|c| c.kind)
        .collect();
    assert_eq!(found, [ChangeKind::RxQueues(1)]);
    run("ip link set nic0 name nic1");
    assert_eq!(kinds(&mut watch), [ChangeKind::Renamed("nic1".to_owned())]);
    run("ip link del nic1");
    assert_eq!(kinds(&mut watch), [ChangeKind::Deleted]);
    assert_eq!(watch.refresh().unwrap(), []);
}

#[test]
#[ignore = "needs root"]
fn an_interface_whose_mtu_is_raised_later_gets_its_frames_back() {
    let _namespace = namespace();
    run("ip link set nic0 mtu 1280");
    let nic = nic0();
    let mut pair = create(&nic, 1).unwrap();
    run("ip link set nic0 mtu 1500");
    let Names { transmit, inject } = pair.names().clone();
    for end in [&transmit, &inject] {
        let mtu = Interface::find(end).unwrap().link.mtu;
        assert!(mtu >= 1500 + 8, "{end}, {mtu}: room for two tags");
    }
    assert_eq!(pair.misuse(), None);
}

#[test]
#[ignore = "needs root"]
fn what_somebody_does_to_the_pair_is_told() {
    let _namespace = namespace();
    let nic = nic0();
    let told = |deed: &str| {
        let mut pair = create(&nic, 1).unwrap();
        let Names { transmit, inject } = pair.names().clone();
        assert_eq!(pair.misuse(), None);
        run(&deed.replace("TX", &transmit).replace("RX", &inject));
        let said = pair.misuse().unwrap_or_default();
        said.replace(&transmit, "TX").replace(&inject, "RX")
    };
    let gone = "the filter of RX is gone";
    assert_eq!(told("tc qdisc del dev RX clsact"), gone);
    assert_eq!(told("tc filter del dev RX ingress"), gone);
    assert_eq!(told("ip link set TX mtu 1000"), "TX has an MTU of 1000");
    assert_eq!(told("ip link set RX mtu 1500"), "RX has an MTU of 1500");
    let moved = "ip link set RX address 02:00:00:00:00:77";
    assert_eq!(told(moved), "RX was given another address");
}
