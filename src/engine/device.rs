//! Devices that the user calls his own: a firewall whose resets he knows by their MAC, hop limit and
//! IP ID. A match gives an `injected` record the device's name and nothing else: whether a reset was
//! forged is decided before, and never here.

use crate::evidence::{Evidence, Favors, Group, ResetSeen};
use crate::flow::Endpoint;
use crate::wire::{Mac, Network, Segment};

/// The largest step between two resets of one device that still counts as its counter's: it answers
/// other connections in between.
const COUNTER_STEP: u16 = 1024;

/// What a device writes into the IP ID of its resets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IpIdMode {
    /// Not stated.
    #[default]
    Any,
    /// Always 0.
    Zero,
    /// A counter: never 0, and each reset a little above the one before.
    Counter,
}

/// How one device's resets look from here. What is not stated matches everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// What its owner calls it.
    pub name: String,
    /// Source MAC of its frames.
    pub mac: Option<Mac>,
    /// Lowest and highest hop limit with which they arrive.
    pub hop_limit: Option<(u8, u8)>,
    /// Their IP ID.
    pub ip_id: IpIdMode,
    /// Networks in whose name it speaks; all when empty.
    pub speaks_for: Vec<Network>,
}

impl Device {
    /// Whether the first of these resets, the one that was judged, bears this device's
    /// fingerprint in every stated field. The others are later resets with the same source.
    fn matches(&self, judged: &Segment, later: &[u16]) -> bool {
        let mac = judged.link.map(|link| link.src);
        let speaker = judged.tuple.src;
        self.mac.is_none_or(|own| mac == Some(own))
            && self
                .hop_limit
                .is_none_or(|(low, high)| (low..=high).contains(&judged.hop_limit))
            && self.ip_id.fits(judged.ip_id, later)
            && (self.speaks_for.is_empty()
                || self
                    .speaks_for
                    .iter()
                    .any(|network| network.contains(speaker)))
    }
}

impl IpIdMode {
    /// IPv6 has no IP ID, so that a stated one cannot be seen there and does not match.
    fn fits(self, first: Option<u16>, later: &[u16]) -> bool {
        match (self, first) {
            (Self::Any, _) => true,
            (_, None) => false,
            (Self::Zero, Some(id)) => id == 0 && later.iter().all(|id| *id == 0),
            (Self::Counter, Some(id)) => {
                let before = std::iter::once(&id).chain(later);
                id != 0
                    && before
                        .zip(later)
                        .all(|(one, next)| (1..=COUNTER_STEP).contains(&next.wrapping_sub(*one)))
            }
        }
    }
}

/// The device whose fingerprint the forged resets bear: the first in the user's order. `resets`
/// begins with the one that was judged.
pub(super) fn recognize<'a>(devices: &'a [Device], resets: &[ResetSeen]) -> Option<&'a Device> {
    let judged = resets.first()?;
    // The true peer may have reset the connection too: only what came from where the judged reset
    // came from is held against the counter.
    let later: Vec<u16> = resets
        .iter()
        .skip(1)
        .filter(|reset| reset.from_sender)
        .filter(|reset| reset.segment.hop_limit == judged.segment.hop_limit)
        .filter_map(|reset| reset.segment.ip_id)
        .collect();
    devices
        .iter()
        .find(|device| device.matches(&judged.segment, &later))
}

/// The evidence that names it. It weighs nothing: it answers who, not whether.
pub(super) fn evidence(device: &Device, sender: Endpoint) -> Evidence {
    Evidence {
        name: "own_device",
        group: Group::Context,
        favors: Favors::Injected,
        weight_db: 0.0,
        observed: Some(format!("{} in the name of {}", device.name, sender.address).into()),
        expected: None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Device, IpIdMode};
    use crate::evidence::testing::Scene;
    use crate::wire::{LinkAddresses, Mac, Segment};

    const OWN: Mac = Mac([2, 0, 0, 0, 0, 9]);

    fn device() -> Device {
        Device {
            name: "fw1".to_owned(),
            mac: None,
            hop_limit: None,
            ip_id: IpIdMode::Any,
            speaks_for: Vec::new(),
        }
    }

    fn reset() -> Segment {
        let mut segment = Scene::established().resets[0].segment;
        segment.hop_limit = 61;
        segment.ip_id = Some(7);
        segment.link = Some(LinkAddresses {
            src: OWN,
            dst: None,
        });
        segment
    }

    #[test]
    fn every_stated_field_must_match() {
        let whole = Device {
            mac: Some(OWN),
            hop_limit: Some((60, 62)),
            ip_id: IpIdMode::Counter,
            speaks_for: vec![format!("{}/32", reset().tuple.src).parse().unwrap()],
            ..device()
        };
        assert!(whole.matches(&reset(), &[8, 20]));
        let elsewhere = vec!["203.0.113.0/24".parse().unwrap()];
        for other in [
            Device {
                mac: Some(Mac([2, 0, 0, 0, 0, 8])),
                ..whole.clone()
            },
            Device {
                hop_limit: Some((62, 64)),
                ..whole.clone()
            },
            Device {
                ip_id: IpIdMode::Zero,
                ..whole.clone()
            },
            Device {
                speaks_for: elsewhere,
                ..whole.clone()
            },
        ] {
            assert!(!other.matches(&reset(), &[]), "{other:?}");
        }
    }

    #[test]
    fn a_field_that_cannot_be_seen_does_not_match() {
        let mut bare = reset();
        bare.link = None;
        bare.ip_id = None;
        let by_mac = Device {
            mac: Some(OWN),
            ..device()
        };
        let by_id = Device {
            ip_id: IpIdMode::Zero,
            ..device()
        };
        assert!(by_mac.matches(&reset(), &[]) && !by_mac.matches(&bare, &[]));
        assert!(!by_id.matches(&bare, &[]));
    }

    #[test]
    fn a_counter_goes_up_by_small_steps_and_wraps() {
        let counts = |first, later: &[u16]| IpIdMode::Counter.fits(Some(first), later);
        assert!(counts(7, &[]) && counts(7, &[8, 900]) && counts(65_530, &[3]));
        assert!(!counts(0, &[]) && !counts(7, &[7]) && !counts(7, &[6]) && !counts(7, &[5_000]));
        assert!(IpIdMode::Zero.fits(Some(0), &[0]) && !IpIdMode::Zero.fits(Some(0), &[1]));
    }
}
