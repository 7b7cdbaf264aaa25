//! Whether connections are closed from as far as they were opened from. A proxy that answers SYNs with cookies
//! (SYNPROXY, a scrubber) opens each connection itself, once its client has answered: what this host hears of
//! a client is then the proxy's SYN, and from there on the client's own segments, by their own hop limit.
//! Learned from SYN and FIN only; fixed size; decides nothing about any one connection.

use super::learned::Learned;
use super::prefix::{STALE_AFTER_NS, network};
use crate::time::Timestamp;
use crate::wire::hop_limit::is_far;

/// So many networks must be heard closing from elsewhere: the route of one or two may have changed.
const NETWORKS: usize = 3;
/// And so many connections, of which a client behind an address that several share may be one.
const CONNECTIONS: u32 = 6;
/// And of all that closed at least every third: a proxy that cookies leave out while it is calm hands on
/// some SYNs as they are, and a route that changes does so for few networks.
const SHARE: u32 = 3;
/// What was counted weighs half from so many connections on: a busy host learns of a new proxy, and that one is
/// gone, within a hundred of them.
const WINDOW: u32 = 256;

/// Connections that were closed, by whether that came from about where they were opened.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Closings {
    alike: u32,
    elsewhere: u32,
    networks: [Option<u64>; NETWORKS],
    /// When one came from elsewhere.
    last_seen: Timestamp,
}

impl Closings {
    /// Takes in a FIN from an address whose last SYN had the hop limit `opened_at`; 0 where none was heard.
    #[inline]
    pub(super) fn note(&mut self, opened_at: u8, learned: Learned<'_>) {
        if opened_at == learned.hop_limit() {
            self.alike += 1;
        } else if opened_at != 0 {
            self.note_other(opened_at, learned);
        }
        if self.alike + self.elsewhere >= WINDOW {
            self.alike /= 2;
            self.elsewhere /= 2;
        }
    }

    #[inline(never)]
    fn note_other(&mut self, opened_at: u8, learned: Learned<'_>) {
        // Where only the initial values differ, they are of two machines behind one address, side by side.
        if !is_far(opened_at, learned.hop_limit()) {
            self.alike += 1;
            return;
        }
        if learned.now.since(self.last_seen) >= STALE_AFTER_NS {
            self.elsewhere = 0;
            self.networks = [None; NETWORKS];
        }
        self.elsewhere += 1;
        self.last_seen = learned.now;
        let network = network(learned.source());
        let mut places = self.networks.iter_mut();
        let free = places.find(|known| known.is_none_or(|known| known == network));
        if let Some(place) = free {
            *place = Some(network);
        }
    }

    /// Whether so many are closed from elsewhere, of late, that openings tell of a proxy.
    pub(super) fn are_elsewhere(&self, now: Timestamp) -> bool {
        self.elsewhere >= CONNECTIONS
            && self.elsewhere >= self.alike / (SHARE - 1)
            && self.networks.iter().all(Option::is_some)
            && now.since(self.last_seen) < STALE_AFTER_NS
    }
}

#[cfg(test)]
mod tests {
    use super::Closings;
    use crate::flow::learned::Learned;
    use crate::time::{SECOND, Timestamp};
    use crate::wire::{FourTuple, Glance};

    fn at(second: u64) -> Timestamp {
        Timestamp::from_nanos(second * SECOND)
    }

    /// `count` connections, each of another of `networks` networks, opened and closed with these hop limits.
    fn close(
        closings: &mut Closings,
        count: u8,
        networks: u8,
        (opened, closed): (u8, u8),
        now: u64,
    ) {
        for host in 0..count {
            let segment = Glance {
                tuple: FourTuple {
                    src: [192, 0, host % networks, host].into(),
                    ..Glance::BLANK.tuple
                },
                hop_limit: closed,
                ..Glance::BLANK
            };
            let learned = Learned::new(&segment, at(now));
            closings.note(opened, learned);
        }
    }

    #[test]
    fn what_several_networks_close_from_elsewhere_a_proxy_had_opened() {
        let mut closings = Closings::default();
        close(&mut closings, 5, 5, (64, 52), 1_000);
        assert!(!closings.are_elsewhere(at(1_000)));
        close(&mut closings, 1, 1, (64, 49), 1_001);
        assert!(closings.are_elsewhere(at(1_001)));
        assert!(!closings.are_elsewhere(at(1_901)), "long ago");
    }

    #[test]
    fn a_route_that_changed_for_one_network_is_no_proxy() {
        let mut closings = Closings::default();
        close(&mut closings, 60, 2, (50, 45), 1_000);
        assert!(!closings.are_elsewhere(at(1_000)));
    }

    #[test]
    fn a_few_of_many_or_two_stacks_side_by_side_are_no_proxy() {
        let mut closings = Closings::default();
        close(&mut closings, 200, 200, (50, 50), 1_000);
        close(&mut closings, 9, 9, (64, 52), 1_000);
        assert!(!closings.are_elsewhere(at(1_000)));
        let mut stacks = Closings::default();
        close(&mut stacks, 60, 30, (116, 52), 1_000);
        close(&mut stacks, 60, 30, (50, 48), 1_000);
        assert!(!stacks.are_elsewhere(at(1_000)));
    }

    #[test]
    fn a_busy_host_learns_within_a_few_hundred_connections_that_a_proxy_came_and_went() {
        let mut closings = Closings::default();
        for _ in 0..9 {
            close(&mut closings, 200, 200, (50, 50), 1_000);
        }
        close(&mut closings, 128, 128, (64, 52), 1_001);
        assert!(closings.are_elsewhere(at(1_001)));
        close(&mut closings, 200, 200, (50, 50), 1_002);
        close(&mut closings, 200, 200, (50, 50), 1_002);
        assert!(!closings.are_elsewhere(at(1_002)));
    }
}
