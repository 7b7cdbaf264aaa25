//! `steer` against the parser: the program in the kernel, by BPF_PROG_RUN, and the one in user space must
//! decide alike on every frame. Needs root; touches no interface. A file by itself, since the other
//! targets need no kernel: the front in `targets/` and tests/steer.rs take it in.

use std::mem::MaybeUninit;

use libbpf_rs::ProgramInput;
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use rstscope::bpf::steer::{SteerSkel, SteerSkelBuilder};
use rstscope::wire::{LinkLayer, parse};
use rstscope::xdp::COUNTER_NAMES;

/// Bytes of an Ethernet and an IPv4 header: the kernel runs no less.
const FRAME_MIN: usize = 34;

/// Bytes of the longest frame: more does not fit the kernel's page.
const FRAME_MAX: usize = 3000;

/// What both made of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// SYN, FIN or RST.
    Control,
    /// TCP without them.
    Passed,
    /// No TCP segment that is whole.
    Rejected,
    /// It cannot be run, or has labels that only user space follows.
    NotAsked,
}

/// The program, loaded with its gates closed.
pub struct Steer {
    skel: SteerSkel<'static>,
}

impl Steer {
    /// Loads it for the rest of the process.
    pub fn load() -> Result<Self, libbpf_rs::Error> {
        let place = Box::leak(Box::new(MaybeUninit::uninit()));
        let mut open = SteerSkelBuilder::default().open(place)?;
        if let Some(rodata) = open.maps.rodata_data.as_mut() {
            // What it copies after a reset is another question.
            rodata.watch_budget = 0;
        }
        Ok(Self { skel: open.load()? })
    }

    fn counters(&self) -> [u64; COUNTER_NAMES.len()] {
        let mut counts = [0; COUNTER_NAMES.len()];
        let data = self.skel.maps.data_counters_data.as_ref();
        counts.copy_from_slice(&data.expect("mapped").counters[0].count[..COUNTER_NAMES.len()]);
        counts
    }

    /// The first counter that a frame moves, by its name.
    fn counted(&mut self, frame: &[u8]) -> &'static str {
        let before = self.counters();
        let output = self.skel.progs.steer.test_run(ProgramInput {
            data_in: Some(frame),
            ..ProgramInput::default()
        });
        output.expect("BPF_PROG_RUN");
        let moved = before
            .iter()
            .zip(self.counters())
            .position(|(b, a)| *b != a);
        moved.map_or("nothing", |at| COUNTER_NAMES[at])
    }

    /// Asks both, and insists that they agree.
    pub fn decide(&mut self, frame: &[u8]) -> Decision {
        if !(FRAME_MIN..=FRAME_MAX).contains(&frame.len()) || !is_for_both(frame) {
            return Decision::NotAsked;
        }
        let counted = self.counted(frame);
        let ours = parse(LinkLayer::Ethernet, frame);
        let is_control = ours.is_ok_and(|s| s.flags.syn() || s.flags.fin() || s.flags.rst());
        assert_eq!(
            counted == "bypass_closed",
            is_control,
            "{frame:02x?} {ours:?}"
        );
        match ours {
            Ok(_) if is_control => Decision::Control,
            Ok(_) => {
                assert_eq!(counted, "passed", "{frame:02x?}");
                Decision::Passed
            }
            // A frame without control flags passes whatever its data offset says.
            Err(_) if counted == "passed" => Decision::Passed,
            Err(reason) => {
                assert_eq!(counted, reason.name(), "{frame:02x?}");
                Decision::Rejected
            }
        }
    }
}

/// Labels, and more tags than two, are followed by user space only.
fn is_for_both(frame: &[u8]) -> bool {
    let kind = |at| {
        frame
            .get(at..at + 2)
            .map_or(0, |b| u16::from_be_bytes([b[0], b[1]]))
    };
    let kinds = [12, 16, 20].map(kind);
    let is_tag = |kind: &&u16| matches!(**kind, 0x8100 | 0x88a8);
    let tags = kinds.iter().take_while(is_tag).count();
    kinds
        .get(tags)
        .is_some_and(|kind| !matches!(kind, 0x9100 | 0x8847 | 0x8864))
}
