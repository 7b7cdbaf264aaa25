//! The loop over played rings: every turn ends with every frame in exactly one place.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crossbeam::queue::ArrayQueue;

use super::mock::{Kernel, MockRings};
use super::veth::STUCK_NS;
use super::{
    CARE_NS, Health, META_BYTES, Observe, Rings, Shared, Worker, WorkerConfig, examine,
    monotonic_ns,
};
use crate::flow::{FlowFacts, Sighting};
use crate::host::SocketView;
use crate::sys::{Bell, Gates};
use crate::time::{MILLISECOND, Timestamp};
use crate::vantage::{InterfaceId, Path, Vantage};
use crate::wire::{Reject, Segment};

/// Answers every reset with a sighting.
#[derive(Debug, Default)]
pub(super) struct Resets {
    seen: u64,
}

impl Observe for Resets {
    fn observe(
        &mut self,
        time: Timestamp,
        vantage: Vantage,
        segment: &Segment,
        socket: Option<SocketView>,
    ) -> Option<Sighting> {
        self.seen += 1;
        let flow = FlowFacts::default();
        segment.flags.rst().then_some(Sighting {
            time,
            vantage,
            segment: *segment,
            socket,
            begins_anew: false,
            flow,
        })
    }
}

/// Ethernet, IPv4, TCP with `flags`; `id` stands in the IP ID, so that frames can be told apart.
pub(super) fn frame(flags: u8, id: u16) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
    bytes.extend([0x45, 0, 0, 40]);
    bytes.extend(id.to_be_bytes());
    bytes.extend([0x40, 0, 64, 6, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1]);
    bytes.extend([
        0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0,
    ]);
    bytes
}

pub(super) const SYN: u8 = 0x02;
const RST: u8 = 0x04;

/// `struct frame_meta` of `time_ns`, whose lookup found no socket.
fn meta(time_ns: u64) -> Vec<u8> {
    let mut bytes = vec![0; META_BYTES];
    bytes[0] = 1;
    bytes[72..80].copy_from_slice(&time_ns.to_ne_bytes());
    bytes[84..88].copy_from_slice(&0x5253_5431_u32.to_ne_bytes());
    bytes
}

pub(super) struct Bench {
    pub(super) worker: Worker<MockRings, Resets>,
    sightings: Arc<ArrayQueue<Sighting>>,
    pub(super) shared: Arc<Shared>,
    /// For who looks at the gate as `steer` does.
    pub(super) gates: Gates,
    now_ns: u64,
}

impl Bench {
    pub(super) fn new(frame_count: u32, sightings: usize) -> Self {
        Self::sharing(Shared::new(), frame_count, sightings)
    }

    fn sharing(shared: Shared, frame_count: u32, sightings: usize) -> Self {
        let gates: Gates = crate::sys::test_gates(1);
        let sightings = Arc::new(ArrayQueue::new(sightings));
        let shared = Arc::new(shared);
        let mut worker = Worker::new(
            WorkerConfig::new(InterfaceId(3)),
            MockRings::new(frame_count),
            gates.take(0).unwrap(),
            Resets::default(),
            Arc::clone(&sightings),
            Arc::clone(&shared),
        );
        worker.prepare(0);
        Self {
            worker,
            sightings,
            shared,
            gates,
            now_ns: 0,
        }
    }

    pub(super) fn deliver(&mut self, bytes: &[u8], meta: &[u8]) {
        self.worker.gate.pretend_produced(1);
        self.worker.rings.deliver(bytes, meta);
    }

    pub(super) fn turn(&mut self) -> usize {
        self.pass(MILLISECOND)
    }

    pub(super) fn pass(&mut self, nanos: u64) -> usize {
        self.now_ns += nanos;
        let received = self.worker.turn(self.now_ns);
        let balance = self.worker.rings.balance(self.worker.batch.len());
        assert!(balance.holds(), "{balance:?}");
        received
    }
}

#[test]
fn the_first_turn_opens_the_gate() {
    let mut bench = Bench::new(256, 8);
    assert_eq!(bench.worker.gate.limit(), 0);
    bench.turn();
    assert_eq!(bench.worker.gate.limit(), 512);
    assert_eq!(bench.shared.health(), Health::Running);
}

#[test]
fn every_frame_goes_back_in_order_and_unchanged_whatever_it_is() {
    let mut bench = Bench::new(256, 256);
    bench.turn();
    let mut sent = Vec::new();
    for id in 0..200_u16 {
        let bytes = match id % 4 {
            0 => frame(SYN, id),
            1 => frame(RST, id),
            2 => frame(RST, id)[..30].to_vec(),
            _ => vec![0xff; usize::from(id)],
        };
        bench.deliver(&bytes, &meta(u64::from(id)));
        sent.push(bytes);
    }
    for _ in 0..8 {
        bench.turn();
    }
    assert_eq!(bench.worker.rings.host, sent);
    let counters = bench.shared.counters();
    assert_eq!(
        (counters.received, counters.handed_back, counters.completed),
        (200, 200, 200)
    );
    assert_eq!(counters.sightings, 50);
    assert_eq!(counters.rejects[Reject::Truncated as usize], 53);
    assert_eq!(counters.rejects.iter().sum::<u64>(), 100);
    assert_eq!(bench.worker.gate.in_flight(), 0);
}

#[test]
fn a_sighting_has_the_time_and_socket_of_its_metadata() {
    let mut bench = Bench::new(64, 8);
    bench.deliver(&frame(RST, 7), &meta(123_456));
    bench.deliver(&frame(RST, 8), &[]);
    bench.turn();
    let first = bench.sightings.pop().unwrap();
    assert_eq!(first.time, Timestamp::from_nanos(123_456));
    assert_eq!(first.socket, Some(SocketView::Absent));
    assert_eq!(
        first.vantage,
        Vantage {
            interface: InterfaceId(3),
            path: Path::Ingress
        }
    );
    let second = bench.sightings.pop().unwrap();
    assert_eq!(second.time, Timestamp::from_nanos(MILLISECOND));
    assert_eq!(second.socket, None);
    assert_eq!(bench.shared.counters().without_meta, 1);
}

#[test]
fn metadata_is_not_read_again_with_the_next_packet() {
    let mut bench = Bench::new(1, 8);
    bench.deliver(&frame(RST, 1), &meta(5));
    bench.turn();
    bench.turn();
    let stale = bench.worker.rings.fill.front().unwrap();
    assert!(stale.meta.is_empty());
}

#[test]
fn a_full_queue_of_sightings_costs_sightings_and_no_frame() {
    let mut bench = Bench::new(64, 2);
    for id in 0..5 {
        bench.deliver(&frame(RST, id), &meta(1));
    }
    bench.turn();
    let counters = bench.shared.counters();
    assert_eq!((counters.sightings, counters.sightings_lost), (2, 3));
    assert_eq!(bench.worker.rings.host.len(), 5);
}

#[test]
#[cfg_attr(miri, ignore = "sleeps by ppoll, which Miri does not know")]
fn a_turn_that_leaves_a_sighting_wakes_who_takes_it_and_no_other_turn_does() {
    let (bell, quiet) = (Arc::new(Bell::new().unwrap()), silence());
    let mut bench = Bench::sharing(Shared::with_bell(Arc::clone(&bell)), 256, 8);
    bench.turn();
    let mut sleep = |flags, timeout: Duration| {
        let began_ns = monotonic_ns();
        // The work is left after it lay down, and not told of by `false`.
        bell.sleep(quiet.as_fd(), timeout, || {
            bench.deliver(&frame(flags, 1), &meta(1));
            bench.turn();
            false
        });
        Duration::from_nanos(monotonic_ns() - began_ns) < timeout
    };
    assert!(sleep(RST, Duration::from_secs(60)), "nobody rang");
    assert!(!sleep(SYN, Duration::from_millis(20)), "rung for nothing");
}

/// A descriptor on which nothing ever comes.
fn silence() -> OwnedFd {
    rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap()
}

#[test]
fn what_the_kernel_sends_in_small_steps_leaves_over_several_turns() {
    let mut bench = Bench::new(256, 8);
    bench.turn();
    bench.worker.rings.kernel = Kernel::Sends(2);
    for id in 0..40 {
        bench.deliver(&frame(SYN, id), &meta(1));
    }
    bench.turn();
    assert_eq!(bench.worker.rings.host.len(), 16);
    bench.turn();
    bench.turn();
    assert_eq!(bench.worker.rings.host.len(), 40);
    assert_eq!(bench.shared.health(), Health::Running);
}

#[test]
fn a_tx_ring_that_stands_still_closes_the_gate_and_opens_it_when_it_moves() {
    let mut bench = Bench::new(64, 8);
    bench.turn();
    bench.worker.rings.kernel = Kernel::Refuses;
    bench.deliver(&frame(SYN, 1), &meta(1));
    bench.turn();
    assert_eq!(bench.shared.health(), Health::Running);
    bench.pass(STUCK_NS);
    assert_eq!(bench.shared.health(), Health::Stuck);
    assert_eq!(bench.worker.gate.limit(), 0);
    bench.pass(STUCK_NS);
    assert_eq!(bench.shared.counters().handback_stuck, 1);
    bench.worker.rings.kernel = Kernel::Sends(32);
    bench.turn();
    assert_eq!(bench.shared.health(), Health::Running);
    assert_eq!(bench.worker.gate.limit(), 512);
    assert_eq!(bench.worker.rings.host.len(), 1);
}

#[test]
fn an_interface_that_is_down_keeps_its_frames_until_it_is_up() {
    let mut bench = Bench::new(64, 8);
    bench.turn();
    bench.worker.rings.kernel = Kernel::IsDown;
    bench.deliver(&frame(SYN, 1), &meta(1));
    bench.deliver(&frame(SYN, 2), &meta(1));
    bench.turn();
    assert_eq!(bench.shared.health(), Health::Stuck);
    bench.turn();
    assert_eq!(bench.worker.rings.unsent(), 2);
    bench.worker.rings.kernel = Kernel::Sends(32);
    bench.turn();
    assert_eq!(bench.worker.rings.host.len(), 2);
    assert_eq!(bench.shared.counters().lost(), 0);
}

#[test]
fn a_lost_carrier_costs_one_frame_and_not_the_whole_ring() {
    let mut bench = Bench::new(64, 8);
    bench.turn();
    bench.worker.rings.kernel = Kernel::Drops;
    for id in 0..10 {
        bench.deliver(&frame(SYN, id), &meta(1));
    }
    for _ in 0..5 {
        bench.turn();
    }
    assert_eq!(bench.shared.counters().handback_dropped, 1);
    assert_eq!(bench.shared.health(), Health::Stuck);
    bench.worker.rings.kernel = Kernel::Sends(32);
    bench.turn();
    assert_eq!(bench.worker.rings.host.len(), 9);
    assert_eq!(bench.worker.gate.limit(), 512);
}

#[test]
fn a_carrier_lost_while_nothing_comes_closes_the_gate_in_time() {
    let mut bench = Bench::new(64, 8);
    bench.turn();
    bench.worker.rings.kernel = Kernel::Drops;
    bench.pass(CARE_NS);
    assert_eq!(bench.worker.gate.limit(), 0);
    assert_eq!(bench.shared.counters().handback_dropped, 0);
}

#[test]
fn a_removed_interface_closes_the_gate_for_good() {
    let mut bench = Bench::new(64, 8);
    bench.turn();
    bench.worker.rings.kernel = Kernel::IsGone;
    bench.pass(CARE_NS);
    assert_eq!(bench.shared.health(), Health::Gone);
    bench.worker.rings.kernel = Kernel::Sends(32);
    bench.pass(CARE_NS);
    assert_eq!(bench.worker.gate.limit(), 0);
}

#[test]
fn a_tx_ring_without_room_holds_the_batch_and_takes_in_no_more() {
    let mut bench = Bench::new(64, 8);
    bench.turn();
    bench.worker.rings.tx_room = 0;
    bench.deliver(&frame(SYN, 1), &meta(1));
    bench.turn();
    bench.deliver(&frame(SYN, 2), &meta(1));
    assert_eq!(bench.turn(), 0);
    assert_eq!(bench.shared.balance().held, 1);
    assert_eq!(bench.shared.counters().tx_full, 2);
    bench.worker.rings.tx_room = 64;
    bench.turn();
    bench.turn();
    assert_eq!(bench.worker.rings.host.len(), 2);
}

#[test]
fn credit_of_frames_that_the_kernel_counted_as_lost_comes_back_at_once() {
    let mut bench = Bench::new(4, 8);
    bench.turn();
    for id in 0..7 {
        bench.deliver(&frame(SYN, id), &meta(1));
    }
    bench.turn();
    bench.turn();
    assert_eq!(bench.worker.gate.in_flight(), 3);
    bench.pass(CARE_NS);
    assert_eq!(bench.worker.gate.in_flight(), 0);
    assert_eq!(bench.shared.counters().credit_written_off, 3);
    assert_eq!(bench.shared.counters().lost(), 3);
}

#[test]
fn credit_of_frames_that_vanished_uncounted_comes_back_when_all_is_quiet() {
    let mut bench = Bench::new(4, 8);
    bench.turn();
    bench.worker.gate.pretend_produced(2);
    bench.pass(CARE_NS);
    assert_eq!(bench.worker.gate.in_flight(), 2);
    bench.pass(CARE_NS);
    assert_eq!(bench.worker.gate.in_flight(), 0);
}

#[test]
fn too_much_credit_is_set_right() {
    let mut bench = Bench::new(4, 8);
    bench.worker.gate.consumed(1);
    bench.pass(CARE_NS);
    assert_eq!(bench.worker.gate.in_flight(), 0);
    assert_eq!(bench.shared.counters().credit_resynced, 1);
}

#[test]
#[cfg_attr(
    miri,
    ignore = "asks the scheduler for a slice, which Miri does not know"
)]
fn stopping_hands_back_what_is_under_way_and_reports_it() {
    let mut bench = Bench::new(256, 8);
    bench.turn();
    bench.worker.rings.kernel = Kernel::Sends(1);
    for id in 0..100 {
        bench.deliver(&frame(SYN, id), &meta(1));
    }
    bench.shared.stop();
    let shared = Arc::clone(&bench.shared);
    let finished = bench.worker.run();
    assert!(finished.is_drained);
    assert_eq!((finished.abandoned, finished.in_flight), (0, 0));
    assert_eq!(shared.health(), Health::Stopped);
    assert_eq!(finished.counters, shared.counters());
}

#[test]
fn stopping_with_a_dead_hand_back_ends_and_counts_what_is_lost() {
    let mut bench = Bench::new(64, 8);
    bench.turn();
    bench.worker.rings.kernel = Kernel::Refuses;
    for id in 0..3 {
        bench.deliver(&frame(SYN, id), &meta(1));
    }
    let finished = bench.worker.finish();
    assert!(!finished.is_drained);
    assert_eq!(finished.abandoned, 3);
    assert_eq!(finished.counters.handed_back, 3);
    assert!(finished.balance.holds());
}

#[test]
fn frames_are_conserved_under_any_mix_of_load_and_failure() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut bench = Bench::new(128, 16);
    // Miri takes a second for what takes a millisecond else.
    let rounds: u64 = if cfg!(miri) { 8 } else { 20_000 };
    for _ in 0..rounds {
        for _ in 0..draw(100) {
            // As `steer` does: no credit, no frame.
            let gate = &bench.worker.gate;
            if gate.in_flight() < gate.limit().min(64).cast_signed() {
                let flags = u8::try_from(draw(256)).unwrap();
                bench.deliver(&frame(flags, 0), &meta(1));
            }
        }
        bench.worker.rings.kernel = match draw(12) {
            0 => Kernel::Refuses,
            1 => Kernel::IsDown,
            2 => Kernel::Drops,
            more => Kernel::Sends(usize::try_from(more * 4).unwrap()),
        };
        bench.worker.rings.tx_room = usize::try_from(draw(128)).unwrap();
        bench.pass(draw(2 * CARE_NS));
    }
    bench.worker.rings.kernel = Kernel::Sends(32);
    bench.worker.rings.tx_room = 128;
    for _ in 0..10 {
        bench.pass(CARE_NS);
    }
    let counters = bench.shared.counters();
    assert_eq!(counters.received, counters.handed_back);
    assert_eq!(counters.received, counters.completed);
    let arrived = bench.worker.rings.host.len() as u64;
    assert_eq!(counters.received, arrived + counters.handback_dropped);
    assert!(counters.received > 5 * rounds, "{}", counters.received);
    assert_eq!(bench.worker.gate.in_flight(), 0);
    assert_eq!(bench.shared.health(), Health::Running);
    // Each frame is in exactly one place, and all of them are with the kernel again.
    let mut numbers: Vec<u32> = bench.worker.rings.fill.iter().map(|f| f.number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..128).collect::<Vec<_>>());
}

#[test]
fn any_bytes_can_be_examined() {
    let vantage = Vantage {
        interface: InterfaceId(0),
        path: Path::Ingress,
    };
    let whole = frame(RST, 1);
    for len in 0..=whole.len() {
        for byte in 0..len {
            let mut bytes = whole[..len].to_vec();
            bytes[byte] ^= 0xff;
            let meta = Some(&whole[..byte]);
            let now = Timestamp::from_nanos(9);
            let examined = examine(&mut Resets::default(), now, vantage, &bytes, meta);
            assert!(!examined.had_meta);
        }
    }
}

/// A batch of 40 resets of different flows, and one FIN among them.
fn deliver_burst(bench: &mut Bench) -> Vec<Vec<u8>> {
    let mut sent = Vec::new();
    for port in 0..41_u16 {
        let flags = if port == 20 { 0x11 } else { RST };
        let mut bytes = frame(flags, port);
        bytes[34..36].copy_from_slice(&(1000 + port * 7).to_be_bytes());
        bench.deliver(&bytes, &meta(u64::from(port)));
        sent.push(bytes);
    }
    sent
}

#[test]
fn a_burst_goes_back_live_and_what_may_not_takes_the_veth() {
    let mut bench = Bench::new(256, 256);
    bench.worker.rings.bursts = Some(Ok(()));
    bench.turn();
    let mut sent = deliver_burst(&mut bench);
    bench.turn();
    bench.turn();
    let fin = sent.remove(20);
    sent.push(fin);
    assert_eq!(bench.worker.rings.host, sent);
    let counters = bench.shared.counters();
    assert_eq!((counters.live, counters.live_failed), (40, 0));
    assert_eq!(
        (counters.received, counters.handed_back, counters.completed),
        (41, 41, 41)
    );
}

#[test]
fn nothing_goes_live_while_frames_are_under_way_by_the_veth() {
    let mut bench = Bench::new(256, 256);
    bench.worker.rings.bursts = Some(Ok(()));
    bench.turn();
    bench.worker.rings.kernel = Kernel::Refuses;
    bench.deliver(&frame(SYN, 900), &meta(1));
    bench.turn();
    deliver_burst(&mut bench);
    bench.turn();
    assert_eq!(bench.shared.counters().live, 0);
}

#[test]
fn a_burst_that_fails_goes_by_the_veth_and_four_in_a_row_end_them() {
    let mut bench = Bench::new(256, 1024);
    bench.worker.rings.bursts = Some(Err(super::Doubt));
    bench.worker.rings.kernel = Kernel::Sends(64);
    bench.turn();
    for _ in 0..6 {
        deliver_burst(&mut bench);
        bench.turn();
        bench.turn();
    }
    let counters = bench.shared.counters();
    assert_eq!((counters.live, counters.live_failed), (0, 4));
    assert_eq!(counters.handed_back, 6 * 41);
    assert_eq!(bench.worker.rings.host.len(), 6 * 41);
}
