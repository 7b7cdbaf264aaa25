//! The way of a frame through the flow table takes no memory from the allocator: after start, a
//! counting allocator must see nothing, whatever comes.

use rstscope::flow::{FlowKey, Side, Sighting, Tracker, TrackerConfig};
use rstscope::time::Timestamp;
use rstscope::vantage::{InterfaceId, Path, Vantage};
use rstscope::wire::Reject;
use rstscope::worker::{Batch, Parsed, take_in};

const VANTAGE: Vantage = Vantage {
    interface: InterfaceId(0),
    path: Path::Ingress,
};

/// Ethernet, IPv4, TCP of host `number` with these flags.
fn write_frame(bytes: &mut [u8; 54], number: u32, flags: u8) {
    let [a, b, c, d] = number.to_be_bytes();
    bytes[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
    bytes[12..26].copy_from_slice(&[8, 0, 0x45, 0, 0, 40, c, d, 0x40, 0, 57 + (d & 3), 6, 0, 0]);
    bytes[26..34].copy_from_slice(&[100, b, c, d, 10, 0, 0, 1]);
    bytes[34..46].copy_from_slice(&[0x9c, 0x40 | a, 1, 0xbb, b, c, d, 1, 0, 0, 0, 0]);
    bytes[46..54].copy_from_slice(&[0x50, flags, c, d, 0, 0, 0, 0]);
}

struct Frames {
    frames: Vec<[u8; 54]>,
    sightings: u32,
}

impl Batch for Frames {
    fn frame(&self, at: usize) -> (&[u8], Option<&[u8]>) {
        (&self.frames[at], None)
    }

    fn told(&mut self, _: &Parsed, told: Result<(), Reject>) {
        assert_eq!(told, Ok(()));
    }

    fn found(&mut self, _: Sighting) {
        self.sightings += 1;
    }
}

#[test]
fn no_frame_makes_the_flow_table_allocate() {
    let mut tracker = Tracker::new(TrackerConfig {
        capacity: 1024,
        key: [5, 7],
    });
    let mut parsed = vec![Parsed::BLANK; 64];
    let mut batch = Frames {
        frames: vec![[0; 54]; 64],
        sightings: 0,
    };
    let counted = allocation_counter::measure(|| {
        for start in (0..200_000_u32).step_by(16) {
            let time = Timestamp::from_nanos(u64::from(start) * 1_000_000);
            let mut slots = batch.frames.iter_mut();
            for number in start..start + 16 {
                for flags in [0x02, 0x11, 0x12, 0x04] {
                    let slot = slots.next().expect("64 frames");
                    write_frame(slot, number % 50_000, flags);
                }
            }
            take_in(&mut tracker, (time, VANTAGE), &mut batch, &mut parsed);
            for frame in &parsed {
                let Some(headers) = frame.headers() else {
                    continue;
                };
                let (key, side) = FlowKey::of(*headers.tuple);
                tracker.note_established(&key, Side::Low, time);
                let _facts = tracker.facts(&key, side, time);
            }
        }
    });
    let sightings = batch.sightings;
    assert!(sightings >= 200_000, "{sightings}");
    assert_eq!(counted.count_total, 0, "{counted:?}");
    let counters = tracker.counters();
    assert!(
        counters.inserted > 40_000 && counters.live <= 1024,
        "{counters:?}"
    );
}
