//! What a test asks of a case before it can find anything. Forty-eight tests are run over every reset, and
//! most of them are of trains, sockets or later segments that are not there. Decides nothing: a test that
//! is passed over would have found nothing.

use super::Case;
use super::basis::answers_syn;
use super::train::is_train;
use crate::wire::hop_limit::hops;

/// Things that a case may have, a bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs(u16);

impl Needs {
    /// None of these.
    pub const NOTHING: Self = Self(0);
    /// A segment of the purported sender before the reset.
    pub const SENDER: Self = Self(1);
    /// A second reset that bears the sender's address.
    pub const SEVERAL: Self = Self(1 << 1);
    /// A later segment of the sender.
    pub const AFTER: Self = Self(1 << 2);
    /// A later segment of the sender that this host's kernel answered.
    pub const ANSWERED: Self = Self(1 << 3);
    /// A local socket with sequence numbers, which the first reset met.
    pub const SOCKET: Self = Self(1 << 4);
    /// The first reset has the flag ACK.
    pub const ACK: Self = Self(1 << 5);
    /// It has not.
    pub const BARE: Self = Self(1 << 6);
    /// It has a window.
    pub const WINDOW: Self = Self(1 << 7);
    /// It has an IP ID that is not 0.
    pub const ID: Self = Self(1 << 8);
    /// It has timestamps.
    pub const TIMESTAMPS: Self = Self(1 << 9);
    /// It has a payload.
    pub const PAYLOAD: Self = Self(1 << 10);
    /// It came over no hop, by its hop limit.
    pub const NO_HOPS: Self = Self(1 << 11);
    /// It answers a SYN, or would.
    pub const REFUSAL: Self = Self(1 << 12);
    /// Resets of other flows that bear on it.
    pub const OTHERS: Self = Self(1 << 13);

    /// Two resets of the sender that a stack sends once at most.
    pub const TRAIN: Self = Self(1 << 14);
    /// The kernel's word on whether it accepted the first reset.
    pub const TOLD: Self = Self(1 << 15);

    /// These and those.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of these are among those that a case has.
    #[must_use]
    pub const fn are_within(self, has: Self) -> bool {
        self.0 & !has.0 == 0
    }

    const fn if_so(self, so: bool) -> Self {
        if so { self } else { Self::NOTHING }
    }

    /// What a case has; `None` for one without a reset.
    #[must_use]
    pub fn met_by(case: &Case<'_>) -> Option<Self> {
        let first = case.first()?;
        let segment = &first.segment;
        let has_ack = segment.flags.ack();
        let socket = first.socket.as_ref().and_then(|s| s.sequence());
        let others = case.injectors.same_residue > 0
            || case.injectors.blocked_ns.is_some()
            || case.siblings.on_counter > 0
            || case.siblings.is_wave();
        let has_several = case.from_sender().nth(1).is_some();
        let refuses = answers_syn(case);
        let all = [
            Self::SENDER.if_so(case.sender().is_some()),
            Self::SEVERAL.if_so(has_several),
            Self::TRAIN.if_so(has_several && !refuses && is_train(case)),
            Self::AFTER.if_so(!case.after.is_empty()),
            Self::ANSWERED.if_so(!case.answered.is_empty()),
            Self::SOCKET.if_so(socket.is_some()),
            if has_ack { Self::ACK } else { Self::BARE },
            Self::WINDOW.if_so(segment.window != 0),
            Self::ID.if_so(segment.ip_id.is_some_and(|id| id != 0)),
            Self::TIMESTAMPS.if_so(segment.options.timestamps.is_some()),
            Self::PAYLOAD.if_so(segment.payload_len != 0),
            Self::NO_HOPS.if_so(hops(segment.hop_limit) == 0),
            Self::REFUSAL.if_so(refuses),
            Self::OTHERS.if_so(others),
            Self::TOLD.if_so(case.accepted.is_some()),
        ];
        Some(all.into_iter().fold(Self::NOTHING, Self::and))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::Needs;
    use crate::evidence::testing::Scene;
    use crate::evidence::{SiblingFacts, TESTS};
    use crate::wire::{Flags, LinkAddresses, Mac, Options, Segment, SeqNum};

    /// Numbers from a fixed start.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, sides: u32) -> u32 {
            self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            u32::try_from(self.0 >> 33).unwrap() % sides
        }

        fn one<T: Copy>(&mut self, of: &[T]) -> T {
            of[self.below(u32::try_from(of.len()).unwrap()) as usize]
        }
    }

    fn altered(dice: &mut Dice, r: &mut Segment) {
        let [seq, ack] = [r.seq, r.ack];
        for _ in 0..dice.below(4) {
            match dice.below(12) {
                0 => r.flags = Flags(dice.one(&[Flags::RST, Flags::RST | Flags::ACK, 0x16, 0xff])),
                1 => r.window = dice.one(&[0, 16, 502, 1_980]),
                2 => r.hop_limit = dice.one(&[50, 51, 64, 100, 128, 237, 255]),
                3 => r.ip_id = dice.one(&[None, Some(0), Some(1), Some(242), Some(30_224)]),
                4 => r.dont_fragment = dice.one(&[None, Some(true), Some(false)]),
                5 => r.options = Options::default(),
                6 => r.payload_len = dice.one(&[0, 10, 100]),
                7 => {
                    r.seq = dice.one(&[SeqNum(0), seq.plus(1), seq.plus(1_460), seq.plus(1 << 24)])
                }
                8 => {
                    r.ack = dice.one(&[SeqNum(0), ack.plus(1), ack.plus(1_424), ack.plus(1 << 31)])
                }
                9 => (r.reserved, r.options.malformed) = (dice.one(&[0, 2, 15]), true),
                10 => (r.vlan, r.flow_label) = (Some(7), dice.one(&[None, Some(9)])),
                _ => {
                    r.link = Some(LinkAddresses {
                        src: Mac([2, 0, 0, 0, 0, 9]),
                        dst: None,
                    });
                }
            }
        }
    }

    fn scene(dice: &mut Dice) -> Scene {
        let mut scene = match dice.below(7) {
            0 => Scene::refused(),
            1 => Scene::established().passive(),
            2 => Scene::established().forged(),
            3 => Scene::established().v6(),
            _ => Scene::established(),
        };
        scene = scene.reset(|r| altered(dice, r));
        if dice.below(2) == 0 {
            let (rtt, idle) = (dice.one(&[100, 100_000]), dice.one(&[100, 2_000_000_000]));
            scene = scene.socket(|s| {
                s.srtt_us = Some(rtt);
                (s.idle_ns, s.sent_ago_ns) = (Some(idle), Some(idle));
            });
        }
        for _ in 0..dice.below(4) {
            let us = dice.one(&[1, 90, 900, 40_000]);
            scene = scene.again(us, |r| altered(dice, r));
        }
        for _ in 0..dice.below(3) {
            let ms = dice.one(&[1, 50, 200]);
            scene = scene.after(ms, |r| {
                r.flags = Flags(dice.one(&[Flags::ACK, Flags::SYN | Flags::ACK]));
                altered(dice, r);
            });
        }
        if dice.below(3) == 0 {
            let (ms, seq) = (dice.one(&[1, 50]), scene.resets[0].segment.seq);
            scene = scene.answered(ms, seq, dice.one(&[0, 100]));
        }
        if dice.below(4) == 0 {
            scene = scene.no_sender();
        }
        if dice.below(3) == 0 {
            scene = scene.path_hop_limit(dice.one(&[50, 100]));
        }
        scene.accepted = dice.one(&[None, Some(true), Some(false)]);
        scene.injectors.same_residue = dice.below(3);
        scene.injectors.blocked_ns = dice.one(&[None, Some(5)]);
        scene.siblings = SiblingFacts {
            on_counter: dice.below(4),
            at_once: dice.one(&[0, 1, 20]),
            networks: dice.one(&[1, 9]),
            is_one_place: dice.below(2) == 0,
        };
        scene
    }

    #[test]
    fn a_test_that_is_passed_over_would_have_found_nothing() {
        let dice = &mut Dice(7);
        let mut found = HashSet::new();
        for _ in 0..20_000 {
            let scene = scene(dice);
            let has = Needs::met_by(&scene.case()).unwrap();
            for (needs, test) in TESTS {
                if let Some(fact) = scene.evidence(*test) {
                    assert!(needs.are_within(has), "{} with {has:?}", fact.name);
                    found.insert(fact.name);
                }
            }
        }
        // A test that never spoke was not tried.
        assert!(found.len() >= 45, "{} kinds: {found:?}", found.len());
    }

    #[test]
    fn of_no_reset_nothing_is_said() {
        let mut scene = Scene::established();
        scene.resets.clear();
        assert_eq!(Needs::met_by(&scene.case()), None);
    }
}
