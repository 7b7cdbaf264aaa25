//! Real TCP between network namespaces, and what the kernel's events and the tc programs say of
//! it: which process reset, why, what was accepted, what was forwarded. Needs root and `ip`; the
//! test runs itself again inside the namespace that it looks at.

#![allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test that panics has failed, as it should; it may print and wait"
)]

#[path = "kernel_events/closers.rs"]
mod closers;
#[path = "kernel_events/ended.rs"]
mod ended;
#[path = "kernel_events/filters.rs"]
mod filters;
#[path = "support/namespace.rs"]
mod namespace;
#[path = "kernel_events/owners.rs"]
mod owners;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rstscope::events::{Config, Event, Events, FrameOrigin, own_netns};
use rstscope::host::{
    KernelEvent, KernelEventKind, KnownReason, ResetReason, SocketSequence, SocketView, TcpState,
};
use rstscope::time::Timestamp;
use rstscope::wire::{LinkLayer, Segment, parse};
use rstscope::xdp::{self, Steer};

const HOST: &str = "bpf_ev_host";
const CLIENT: &str = "bpf_ev_client";
const BACKEND: &str = "bpf_ev_backend";
const INSIDE: &str = "RSTSCOPE_TEST_INSIDE";

fn ip(arguments: &str) -> bool {
    let mut command = Command::new("ip");
    command.args(arguments.split(' ')).stderr(Stdio::null());
    command.status().expect("ip (iproute2)").success()
}

fn python(netns: &str, script: &str) -> std::process::Child {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", netns, "python3", "-c", script]);
    command.stdout(Stdio::piped()).spawn().expect("python3")
}

struct Network;

impl Network {
    fn new() -> Self {
        drop(Self);
        for line in [
            format!("netns add {HOST}"),
            format!("netns add {CLIENT}"),
            format!("netns add {BACKEND}"),
            format!("-n {HOST} link add h0 type veth peer name c0 netns {CLIENT}"),
            format!("-n {HOST} link add h1 type veth peer name b0 netns {BACKEND}"),
            format!("-n {HOST} addr add 10.77.0.1/24 dev h0"),
            format!("-n {HOST} addr add fd77::1/64 dev h0 nodad"),
            format!("-n {HOST} addr add 10.78.0.1/24 dev h1"),
            format!("-n {CLIENT} addr add 10.77.0.2/24 dev c0"),
            format!("-n {CLIENT} addr add fd77::2/64 dev c0 nodad"),
            format!("-n {BACKEND} addr add 10.78.0.2/24 dev b0"),
            format!("-n {HOST} link set h0 up"),
            format!("-n {HOST} link set h1 up"),
            format!("-n {CLIENT} link set c0 up"),
            format!("-n {BACKEND} link set b0 up"),
            format!("-n {CLIENT} route add default via 10.77.0.1"),
            format!("-n {BACKEND} route add default via 10.78.0.1"),
            format!("netns exec {HOST} sysctl -qw net.ipv4.ip_forward=1"),
        ] {
            assert!(ip(&line), "ip {line}");
        }
        Self
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for netns in [HOST, CLIENT, BACKEND] {
            ip(&format!("netns del {netns}"));
        }
    }
}

/// Everything that was seen while one scenario ran.
#[derive(Default, Debug)]
struct Seen {
    kernel: Vec<KernelEvent>,
    frames: Vec<(FrameOrigin, Segment, Option<SocketView>)>,
}

impl Seen {
    fn resets_of(&self, origin: FrameOrigin) -> Vec<&Segment> {
        let resets = self
            .frames
            .iter()
            .filter(|(o, s, _)| *o == origin && s.flags.rst());
        resets.map(|(_, segment, _)| segment).collect()
    }

    /// The first one that mirror mode copied, and the socket that it found.
    fn reset_that_met_a_socket(&self) -> (&Segment, &SocketSequence) {
        let is_reset = |(origin, segment, _): &&(FrameOrigin, Segment, _)| {
            *origin == FrameOrigin::Mirrored && segment.flags.rst()
        };
        let (_, segment, view) = self.frames.iter().find(is_reset).expect("mirrored");
        let sequence = view.as_ref().and_then(SocketView::sequence);
        (segment, sequence.expect("a full socket"))
    }

    fn sent(&self) -> Vec<&KernelEvent> {
        let is_sent = |e: &&KernelEvent| matches!(e.kind, KernelEventKind::ResetSent { .. });
        self.kernel.iter().filter(is_sent).collect()
    }
}

const LEAVING: FrameOrigin = FrameOrigin::Egress { forwarded: false };

/// Runs a server in the host and a client elsewhere, and collects until both have ended.
fn play(events: &mut Events, server: &str, client: &str) -> Seen {
    let prelude = "import socket,struct,time\nL=struct.pack('ii',1,0)\n\
        def listen(port):\n s=socket.socket();s.setsockopt(1,2,1);s.bind(('10.77.0.1',port));s.listen();print('listening',flush=True);return s\n";
    let mut seen = Seen::default();
    let mut running = Vec::new();
    if !server.is_empty() {
        let mut child = python(HOST, &format!("{prelude}{server}"));
        if server.contains("listen(") {
            let stdout = child.stdout.as_mut().expect("its words");
            let said = BufReader::new(stdout).lines().next();
            assert!(said.is_some(), "the server did not start");
        }
        running.push(child);
    }
    running.push(python(CLIENT, &format!("{prelude}{client}")));
    let end = Instant::now() + Duration::from_secs(10);
    let mut quiet = 0;
    while quiet < 3 && Instant::now() < end {
        let is_over = running
            .iter_mut()
            .all(|child| child.try_wait().expect("wait").is_some());
        quiet = if is_over { quiet + 1 } else { 0 };
        events
            .poll(Duration::from_millis(50), &mut |event| match event {
                Event::Kernel(kernel) => seen.kernel.push(kernel),
                Event::Frame(frame) => {
                    let segment = parse(LinkLayer::Ethernet, frame.frame).expect("a segment");
                    seen.frames.push((frame.origin, segment, frame.socket));
                }
            })
            .expect("poll");
    }
    seen
}

#[test]
#[ignore = "needs root"]
fn the_kernel_tells_who_reset_and_why() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    let _network = Network::new();
    let test = std::env::current_exe().expect("own path");
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", HOST])
        .arg(test)
        .env(INSIDE, "1");
    command.args([
        "--exact",
        "the_kernel_tells_who_reset_and_why",
        "--ignored",
        "--nocapture",
    ]);
    assert!(command.status().expect("ip netns exec").success());
}

fn inside() {
    let mut events = Events::open(Config::for_netns(own_netns().expect("/proc"))).expect("open");
    println!("missing on this kernel: {:?}", events.missing());
    for interface in ["h0", "h1"] {
        let index = fs::read_to_string(format!("/sys/class/net/{interface}/ifindex")).expect("sys");
        let index = index.trim().parse().expect("a number");
        events.attach_egress(interface, index).expect("egress");
        events
            .attach_mirror(interface, index, &[], Timestamp::default())
            .expect("mirror");
    }
    native_or_nothing(&events);
    closed_ports(&mut events);
    aborts(&mut events);
    a_timer_on_busy_cpus(&mut events);
    owners::a_thread_with_a_name_of_its_own(&mut events);
    closers::who_had_closed_what_is_answered(&mut events);
    ended::a_killed_process(&mut events);
    ended::for_lack_of_memory(&mut events);
    ended::a_connection_that_nobody_accepted(&mut events);
    a_stray_segment(&mut events);
    an_accepted_reset(&mut events);
    a_segment_out_of_order(&mut events);
    a_closing_after_a_reset(&mut events);
    a_closing_beside_a_reset_of_its_process(&mut events);
    a_refused_call_that_forgot_whom_it_called(&mut events);
    a_page_that_is_still_on_disk(&mut events);
    a_forwarded_reset(&mut events);
    a_firewall_reject(&mut events);
    let counters = events.host_counters().expect("counters");
    assert!(counters.egress_copied > 0 && counters.events > 0 && counters.mirrored > 0);
    assert_eq!(counters.lost(), 0, "{counters:?}");
}

/// `steer` attaches to a veth natively, once; never generically.
fn native_or_nothing(events: &Events) {
    let index = |interface: &str| {
        let index = fs::read_to_string(format!("/sys/class/net/{interface}/ifindex")).expect("sys");
        index.trim().parse().expect("a number")
    };
    let load = || Steer::load(xdp::Config::default(), events.ring_fd()).expect("load");
    let (mut first, mut second) = (load(), load());
    first.attach("h1", index("h1")).expect("native XDP on veth");
    assert!(first.link_id().is_some());
    let taken = second.attach("h1", index("h1"));
    assert!(matches!(taken, Err(xdp::Error::SlotTaken(_))), "{taken:?}");
    let gone = second.attach("none", 4_000);
    assert!(matches!(gone, Err(xdp::Error::Gone(_))), "{gone:?}");
    let generic = second.attach("lo", 1);
    assert!(
        matches!(generic, Err(xdp::Error::NoNativeMode(_))),
        "{generic:?}"
    );
    drop(first);
    second.attach("h1", index("h1")).expect("free again");
    assert!(second.counters().expect("counters").len() == xdp::COUNTERS);
    assert!(events.load_handback().is_ok());
}

/// Before Linux 6.10 the kernel tells of no reset but its sockets', and of none why.
fn closed_ports(events: &mut Events) {
    for (family, address) in [
        ("socket.AF_INET", "10.77.0.1"),
        ("socket.AF_INET6", "fd77::1"),
    ] {
        let seen = play(
            events,
            "",
            &format!("socket.socket({family}).connect_ex(('{address}',9))"),
        );
        let (sent, left) = (seen.sent(), seen.resets_of(LEAVING));
        assert_eq!(left.len(), 1, "{seen:?}");
        let from = (left[0].tuple.src.to_string(), left[0].tuple.src_port);
        assert_eq!(from, (address.to_owned(), 9));
        if !events.tells().answers {
            assert_eq!(sent.len(), 0, "{seen:?}");
            continue;
        }
        assert_eq!(sent.len(), 1, "{seen:?}");
        let KernelEventKind::ResetSent {
            active,
            reason,
            state,
            process,
            answered_len,
            ..
        } = sent[0].kind
        else {
            panic!()
        };
        assert_eq!(
            (active, state, process, answered_len),
            (false, None, None, Some(0))
        );
        assert_eq!(reason, Some(ResetReason::Known(KnownReason::NoSocket)));
        assert_eq!(left[0].tuple, sent[0].tuple);
    }
}

fn aborts(events: &mut Events) {
    let linger = "c,_=listen(81).accept();c.recv(9);c.setsockopt(1,13,L);c.close()";
    let unread = "c,_=listen(81).accept();time.sleep(.3);c.close()";
    let client = "s=socket.create_connection(('10.77.0.1',81));s.send(b'hello');time.sleep(.6)";
    for (server, known) in [
        (linger, None),
        (unread, Some(ResetReason::Known(KnownReason::AbortOnClose))),
    ] {
        let seen = play(events, server, client);
        let sent = seen.sent();
        assert_eq!(sent.len(), 1, "{seen:?}");
        let KernelEventKind::ResetSent {
            active,
            reason,
            process,
            counts,
            ..
        } = sent[0].kind
        else {
            panic!()
        };
        let counts = counts.expect("an abort is a socket's");
        assert_eq!((counts.bytes_received, counts.bytes_acked), (5, 0));
        let idle = counts.idle_ns.expect("the client was heard");
        assert!(idle < 2_000_000_000, "{idle}");
        assert!(
            active && process.expect("a process").name().starts_with("python"),
            "{sent:?}"
        );
        match (events.tells().answers, known) {
            (false, _) => assert_eq!(reason, None),
            (true, Some(_)) => assert_eq!(reason, known),
            // Which one it is differs between kernels.
            (true, None) => {}
        }
        let established = KernelEventKind::Established {
            process: None,
            originator: false,
        };
        let established = seen.kernel.iter().find(|event| event.kind == established);
        let established = established.expect("established");
        assert_eq!(established.tuple, sent[0].tuple);
        assert!(established.cookie.is_some() && established.cookie == sent[0].cookie);
        assert_eq!(seen.resets_of(LEAVING).len(), 1);
    }
}

/// A reset by a timer is no process's, though its interrupt breaks in on one that is busy.
fn a_timer_on_busy_cpus(events: &mut Events) {
    let is_over = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        for _ in 0..2 * std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop()
                }
            });
        }
        let server = "l=listen(85)\nfor _ in range(20):\n c,_=l.accept()\n for o in (4,5,6): c.setsockopt(6,o,1)\n \
            c.setsockopt(1,9,1);globals()[c.fileno()]=c\ntime.sleep(4)";
        let client = "import subprocess\nk=[socket.create_connection(('10.77.0.1',85)) for _ in range(20)]\n\
            subprocess.run('ip link set c0 down',shell=True);time.sleep(4)\n\
            for s in k: s.setsockopt(6,19,1);s.close()\n\
            subprocess.run('ip link set c0 up;ip addr add fd77::2/64 dev c0 nodad;\
            ip route add default via 10.77.0.1',shell=True)";
        let seen = play(events, server, client);
        is_over.store(true, Ordering::Relaxed);
        seen
    });
    let sent = seen.sent();
    assert_eq!(sent.len(), 20, "{seen:?}");
    for event in sent {
        let KernelEventKind::ResetSent { process, .. } = event.kind else {
            panic!()
        };
        assert_eq!(process, None, "{event:?}");
    }
}

/// A listener's socket does not know the peer: the tuple must come from the segment.
fn a_stray_segment(events: &mut Events) {
    let client = "r=socket.socket(2,3,6);a=socket.inet_aton\n\
        t=struct.pack('!HHIIBBHHH',4444,82,1000,7,80,16,99,0,0)\n\
        p=a('10.77.0.2')+a('10.77.0.1')+struct.pack('!HH',6,len(t))+t\n\
        s=sum(struct.unpack('!%dH'%(len(p)//2),p));s=(s&65535)+(s>>16);s=(s&65535)+(s>>16)\n\
        r.sendto(t[:16]+struct.pack('!H',~s&65535)+t[18:],('10.77.0.1',0))";
    let seen = play(events, "s=listen(82);time.sleep(3)", client);
    let sent = seen.sent();
    assert_eq!(sent.len(), 1, "{seen:?}");
    let tuple = sent[0].tuple;
    assert_eq!(
        (tuple.src.to_string().as_str(), tuple.src_port),
        ("10.77.0.1", 82)
    );
    assert_eq!(
        (tuple.dst.to_string().as_str(), tuple.dst_port),
        ("10.77.0.2", 4444)
    );
    let KernelEventKind::ResetSent {
        active,
        state,
        answered_seq,
        answered_len,
        process,
        ..
    } = sent[0].kind
    else {
        panic!()
    };
    assert_eq!(
        (active, state, process),
        (false, Some(TcpState::Listen), None)
    );
    assert_eq!(
        (answered_seq.map(|s| s.0), answered_len),
        (Some(1000), Some(0))
    );
}

fn an_accepted_reset(events: &mut Events) {
    let server = "c,_=listen(83).accept();c.recv(9);time.sleep(.8);c.close()";
    let client = "s=socket.create_connection(('10.77.0.1',83));s.send(b'hello');time.sleep(.2)\n\
        s.setsockopt(1,13,L);s.close()";
    let seen = play(events, server, client);
    let state = Some(TcpState::Established);
    let accepted = KernelEventKind::ResetAccepted { state };
    let accepted = seen
        .kernel
        .iter()
        .find(|event| event.kind == accepted)
        .expect("accepted");
    assert_eq!((accepted.tuple.src_port, seen.sent().len()), (83, 0));
    let owner = seen.kernel.iter().find_map(|event| match event.kind {
        KernelEventKind::OwnerKnown { process } => Some((process.name(), event.cookie)),
        _ => None,
    });
    let (name, cookie) = owner.expect("whose it was");
    assert!(
        name.starts_with("python") && cookie == accepted.cookie,
        "{name}"
    );
    let (segment, sequence) = seen.reset_that_met_a_socket();
    assert_eq!(sequence.rcv_nxt, segment.seq, "an exact reset");
    assert!(!sequence.has_reordered && sequence.rtt_deviation > 0);
    assert_eq!(
        (sequence.bytes_in, sequence.srtt_us.is_some()),
        (Some(5), true)
    );
    assert!(sequence.ts_recent.is_some() && sequence.segs_in >= Some(2));
    let idle = sequence.idle_ns.expect("idle");
    assert!(
        (100_000_000..2_000_000_000).contains(&idle),
        "the client slept 200 ms: {idle}"
    );
}

/// One of three segments is lost on its way and comes again behind the others.
fn a_segment_out_of_order(events: &mut Events) {
    let server = "c,_=listen(92).accept()\nfor _ in range(3): c.recv(9)\ntime.sleep(.5)";
    let client = format!(
        "import subprocess\n\
         nft=lambda w: subprocess.run(['ip','netns','exec','{HOST}','nft',w],check=True)\n\
         s=socket.create_connection(('10.77.0.1',92));s.setsockopt(6,1,1)\n\
         nft('add table t;add chain t i {{type filter hook input priority 0;}};add rule t i tcp dport 92 drop')\n\
         s.send(b'first');time.sleep(.01);nft('delete table t');s.send(b'second');time.sleep(.6)\n\
         s.send(b'third');time.sleep(.1);s.setsockopt(1,13,L);s.close()"
    );
    let seen = play(events, server, &client);
    let (_, sequence) = seen.reset_that_met_a_socket();
    assert!(sequence.has_reordered, "{sequence:?}");
}

/// One of three connections is closed before any reset, one is reset, and one is closed for that.
fn a_closing_after_a_reset(events: &mut Events) {
    let server = "l=listen(85);z,a,b=[l.accept()[0] for _ in range(3)];z.close();time.sleep(.5)\n\
        a.close();b.shutdown(1);b.close()";
    let client = "z,s,t=[socket.create_connection(('10.77.0.1',85)) for _ in range(3)]\n\
        time.sleep(.2);s.setsockopt(1,13,L);s.close();time.sleep(.8)";
    let seen = play(events, server, client);
    let (mut owner, mut closed) = (None, Vec::new());
    for event in &seen.kernel {
        match event.kind {
            KernelEventKind::OwnerKnown { process } => owner = Some((process, event.tuple)),
            KernelEventKind::Closed { process } => closed.push((process, event.tuple)),
            _ => {}
        }
    }
    let (owner, reset) = owner.expect("whose it was");
    assert_eq!(
        closed.len(),
        1,
        "only the one after the reset, once: {seen:?}"
    );
    assert_eq!((closed[0].0, closed[0].1.src_port), (owner, 85));
    assert_ne!(closed[0].1, reset);
}

/// Of five connections the first is closed long before a reset of their process's own, the second right before it, the
/// fourth right after, and the last long after.
fn a_closing_beside_a_reset_of_its_process(events: &mut Events) {
    let server = "l=listen(88);s=[l.accept()[0] for _ in range(5)];s[0].close();time.sleep(.3)\n\
        s[2].setsockopt(1,13,L);s[1].close();s[2].close();s[3].close();time.sleep(.3);s[4].close()";
    let client = "s=[socket.create_connection(('10.77.0.1',88)) for _ in range(5)];time.sleep(1)";
    let seen = play(events, server, client);
    let mut ends = Vec::new();
    for event in &seen.kernel {
        match event.kind {
            KernelEventKind::Closed { process } => ends.push((event.time, false, process)),
            KernelEventKind::ResetSent {
                process: Some(process),
                ..
            } => ends.push((event.time, true, process)),
            _ => {}
        }
    }
    ends.sort_by_key(|(time, ..)| *time);
    let by_reset: Vec<_> = ends.iter().map(|(_, by_reset, _)| *by_reset).collect();
    assert_eq!(by_reset, [false, true, false], "{seen:?}");
    let first = ends[0].2;
    assert!(
        ends.iter()
            .all(|(.., process)| process.is_in_turn_of(&first))
    );
}

/// A second `connect()` after the refusal makes the socket like new before it is closed.
fn a_refused_call_that_forgot_whom_it_called(events: &mut Events) {
    let server = "a=('10.77.0.2',9);s=socket.socket();s.setblocking(0);s.connect_ex(a)\n\
        time.sleep(.2);s.connect_ex(a);s.close()";
    let seen = play(events, server, "time.sleep(.2)");
    let owner = seen.kernel.iter().find_map(|event| match event.kind {
        KernelEventKind::OwnerKnown { .. } => Some(event.tuple),
        _ => None,
    });
    let owner = owner.expect("whose it was");
    assert_eq!(
        (owner.dst.to_string(), owner.dst_port),
        ("10.77.0.2".to_owned(), 9)
    );
}

/// A thread that waits for a page between two resets is in one turn of its loop; one that waits for
/// something else is not.
fn a_page_that_is_still_on_disk(events: &mut Events) {
    let cold = concat!(env!("CARGO_TARGET_TMPDIR"), "/cold-page");
    fs::write(cold, [1; 4096]).expect("a file");
    let kind = Command::new("stat").args(["-fc", "%T", cold]).output();
    let may_be_in_memory = |kind: &[u8]| kind.starts_with(b"tmpfs") || kind.starts_with(b"overlay");
    if kind.is_ok_and(|kind| may_be_in_memory(&kind.stdout)) {
        println!("skipped: a page on disk, since {cold} may be in memory");
        return;
    }
    let server = format!(
        "import mmap,os\nl=listen(86);a,b,c=[l.accept()[0] for _ in range(3)]\n\
        for s in (a,b,c): s.recv(9);s.setsockopt(1,13,L)\n\
        f=os.open('{cold}',0);os.fsync(f);m=mmap.mmap(f,0,prot=1)\n\
        os.posix_fadvise(f,0,0,4);a.close();m[0];b.close();time.sleep(.01);c.close()"
    );
    let client = "x=[socket.create_connection(('10.77.0.1',86)) for _ in range(3)]\n\
        for s in x: s.send(b'hello')\ntime.sleep(.8)";
    let seen = play(events, &server, client);
    let calls: Vec<_> = seen
        .sent()
        .iter()
        .map(|event| match event.kind {
            KernelEventKind::ResetSent { process, .. } => process.expect("a process"),
            _ => unreachable!(),
        })
        .collect();
    assert_eq!(calls.len(), 3, "{seen:?}");
    assert!(calls[0].major_faults < calls[1].major_faults, "{calls:?}");
    assert!(calls[0].is_in_turn_of(&calls[1]), "{calls:?}");
    assert!(!calls[1].is_in_turn_of(&calls[2]), "{calls:?}");
    let _ = fs::remove_file(cold);
}

fn a_forwarded_reset(events: &mut Events) {
    let seen = play(events, "", "socket.socket().connect_ex(('10.78.0.2',9))");
    let forwarded = seen.resets_of(FrameOrigin::Egress { forwarded: true });
    assert_eq!(forwarded.len(), 1, "{seen:?}");
    assert_eq!(forwarded[0].tuple.src.to_string(), "10.78.0.2");
    assert_eq!((seen.resets_of(LEAVING).len(), seen.kernel.len()), (0, 0));
}

fn a_firewall_reject(events: &mut Events) {
    let rules = "add table inet t; add chain inet t i { type filter hook input priority 0; }; \
        add rule inet t i tcp dport 84 reject with tcp reset";
    let nft = Command::new("nft").arg(rules).status();
    if !nft.is_ok_and(|status| status.success()) {
        println!("skipped: the firewall's reject, since nft is missing");
        return;
    }
    let seen = play(events, "", "socket.socket().connect_ex(('10.77.0.1',84))");
    assert_eq!(seen.resets_of(LEAVING).len(), 1, "{seen:?}");
    assert_eq!(seen.sent().len(), 0, "no socket sent it");
}
