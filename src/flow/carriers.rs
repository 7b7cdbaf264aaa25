//! Which MACs carry the handshakes of a link, whatever their network: who carries several networks is a router.
//! Learned from SYN, SYN-ACK and FIN only, never from a reset or from what follows one; fixed size, and who is not
//! heard again is forgotten. What one network looks like is told by `prefix`.

use super::learned::Learned;
use super::prefix::{MACS_OF_LINK, MacSet, MacWord, STALE_AFTER_NS, network};
use crate::time::Timestamp;
use crate::wire::{Link, Mac};

/// A MAC that carried this many networks is a router's. A neighbor of its own has fewer: one of
/// IPv4, and for IPv6 one that is global and one that is local (RFC 4193).
const NETWORKS_OF_ROUTER: usize = 4;

#[derive(Debug, Clone, Copy)]
struct Carrier {
    mac: MacWord,
    networks: [Option<u64>; NETWORKS_OF_ROUTER],
    last_seen: Timestamp,
}

/// The MACs that carry handshakes on this link, whatever their network.
#[derive(Debug, Default)]
pub(super) struct Carriers {
    known: [Option<Carrier>; MACS_OF_LINK],
    /// The one that was heard last: most frames come from one router.
    recent: Option<Recent>,
}

/// A MAC that was heard last, and for whom that is all there is to learn of a segment: but when.
#[derive(Debug, Clone, Copy)]
struct Recent {
    mac: MacWord,
    /// The network that it carried, one of those that are known of it; any, where it is a router's.
    network: Option<u64>,
    /// When it was heard: later than its place knows.
    last_seen: Timestamp,
}

impl Carriers {
    /// Learns from one segment of a connection's start or end.
    #[inline]
    pub(super) fn learn(&mut self, learned: Learned<'_>) {
        if let Some(recent) = &mut self.recent
            && recent.mac.is(learned.mac)
            && recent.last_seen >= learned.fresh_from
            && recent
                .network
                .is_none_or(|known| known == network(learned.source()))
        {
            recent.last_seen = learned.now;
            return;
        }
        self.learn_any(learned);
    }

    /// Writes down when the one was heard that was heard last.
    fn settle(&mut self) {
        if let Some(recent) = self.recent.take()
            && let Some(carrier) = self
                .known
                .iter_mut()
                .flatten()
                .find(|c| c.mac == recent.mac)
        {
            carrier.last_seen = recent.last_seen;
        }
    }

    #[inline(never)]
    fn learn_any(&mut self, learned: Learned<'_>) {
        let Some(mac) = learned.mac else {
            return;
        };
        self.settle();
        let now = learned.now;
        let network = network(learned.source());
        if let Some(carrier) = self.known.iter_mut().flatten().find(|c| c.mac == mac) {
            if now.since(carrier.last_seen) >= STALE_AFTER_NS {
                carrier.networks = [None; NETWORKS_OF_ROUTER];
            }
            carrier.last_seen = now;
            let free = carrier
                .networks
                .iter_mut()
                .find(|known| known.is_none_or(|known| known == network));
            if let Some(place) = free {
                *place = Some(network);
            }
            self.recent = Some(Recent {
                mac,
                network: (!carrier.is_router()).then_some(network),
                last_seen: now,
            });
            return;
        }
        let rank = |carrier: &Option<Carrier>| carrier.map(|c| (c.is_router(), c.last_seen));
        if let Some(place) = self.known.iter_mut().min_by_key(|carrier| rank(carrier)) {
            let mut networks = [None; NETWORKS_OF_ROUTER];
            networks[0] = Some(network);
            *place = Some(Carrier {
                mac,
                networks,
                last_seen: now,
            });
        }
    }

    /// The MACs of routers: those that carried [`NETWORKS_OF_ROUTER`] networks or more.
    pub(super) fn routers(&self, now: Timestamp) -> MacSet {
        let mut set = MacSet::default();
        let fresh = |c: &&Carrier| now.since(self.heard(c)) < STALE_AFTER_NS && c.is_router();
        self.known
            .iter()
            .flatten()
            .filter(fresh)
            .for_each(|c| set.insert(c.mac.mac()));
        set
    }

    /// When a MAC was heard last.
    pub(super) fn last_seen(&self, mac: Mac) -> Option<Timestamp> {
        let mac = MacWord::of(Link::new(Some(mac), None))?;
        let carrier = self.known.iter().flatten().find(|c| c.mac == mac)?;
        Some(self.heard(carrier))
    }

    /// When a carrier was heard last, be it just now.
    fn heard(&self, carrier: &Carrier) -> Timestamp {
        let recent = self.recent.filter(|recent| recent.mac == carrier.mac);
        recent.map_or(carrier.last_seen, |recent| recent.last_seen)
    }
}

impl Carrier {
    fn is_router(&self) -> bool {
        // They are filled from the front.
        matches!(self.networks, [.., Some(_)])
    }
}

#[cfg(test)]
mod tests {
    use super::{Carrier, Carriers};
    use crate::flow::learned::Learned;
    use crate::flow::tests::Dice;
    use crate::time::{SECOND, Timestamp};
    use crate::wire::{FourTuple, Glance, Link, Mac};

    #[test]
    fn carriers_learn_by_the_short_way_what_they_learn_by_the_long_one() {
        let mut dice = Dice::new(77);
        let (mut quick, mut full) = (Carriers::default(), Carriers::default());
        let macs = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map(|last| Mac([2, 0, 0, 0, 0, last]));
        let mut now = Timestamp::from_nanos(SECOND);
        let (mut mac, mut short) = (macs[0], 0);
        // Under Miri a round takes a second.
        let (rounds, least) = if cfg!(miri) { (60, 5) } else { (20_000, 50) };
        for _ in 0..rounds {
            let bits = dice.byte();
            if bits & 3 == 0 {
                mac = macs[usize::from(dice.byte()) % macs.len()];
            }
            now = now.plus_nanos(if bits >> 2 == 0 { 500 * SECOND } else { SECOND });
            let segment = Glance {
                tuple: FourTuple {
                    src: [192, 0, dice.byte() % 6, 1].into(),
                    ..Glance::BLANK.tuple
                },
                link: Link::new((bits != 255).then_some(mac), None),
                ..Glance::BLANK
            };
            let learned = Learned::new(&segment, now);
            quick.learn(learned);
            full.learn_any(learned);
            // Then its place does not know of it yet.
            let lags = |c: &Carrier| Some(c.mac) == learned.mac && c.last_seen != now;
            short += u32::from(quick.known.iter().flatten().any(lags));
            assert_eq!(quick.routers(now), full.routers(now));
            assert_eq!(
                macs.map(|mac| quick.last_seen(mac)),
                macs.map(|mac| full.last_seen(mac))
            );
        }
        assert!(short > least, "{short} by the short way");
    }
}
