//! Networks from which segments came out of order of late (RFC 4737). A path that reorders does so to each of its connections, and
//! most are too short to show it themselves before a reset overtakes what was sent before it. Bounded memory; no
//! evidence by itself: `basis` asks it how long to wait.

use std::net::IpAddr;

use crate::flow::network;
use crate::host::SocketView;
use crate::time::{SECOND, Timestamp};

/// Networks that are remembered, 24 KiB of them: with more at once some are forgotten, whose connections then speak for
/// themselves.
const NETWORKS: usize = 1024;
/// Paths change. Whoever has reordered for a minute has either gone on, and was seen again, or has stopped.
const REMEMBERED_NS: u64 = 60 * SECOND;

/// Of late, direct-mapped: the network, and when its last one came whose socket had seen reordering.
#[derive(Debug)]
pub struct ReorderingMemory(Box<[Option<(u64, Timestamp)>]>);

impl Default for ReorderingMemory {
    fn default() -> Self {
        Self(vec![None; NETWORKS].into_boxed_slice())
    }
}

impl ReorderingMemory {
    /// Takes in a reset that came from there and met this socket.
    pub fn learn(&mut self, source: IpAddr, socket: Option<&SocketView>, time: Timestamp) {
        let sequence = socket.and_then(SocketView::sequence);
        if !sequence.is_some_and(|socket| socket.has_reordered) {
            return;
        }
        let network = network(source);
        if let Some(slot) = self.0.get_mut(slot(network)) {
            *slot = Some((network, time));
        }
    }

    /// Whether segments from there came out of order within the last minute.
    #[must_use]
    pub fn path_reorders(&self, source: IpAddr, time: Timestamp) -> bool {
        let network = network(source);
        let known = self.0.get(slot(network)).and_then(Option::as_ref);
        known.is_some_and(|(of, last)| *of == network && time.distance(*last) <= REMEMBERED_NS)
    }
}

fn slot(network: u64) -> usize {
    // Fibonacci hashing: the upper bits depend on all of them.
    let mixed = network.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    usize::try_from(mixed).unwrap_or_default() % NETWORKS
}

#[cfg(test)]
mod tests {
    use super::ReorderingMemory;
    use crate::host::{SocketSequence, SocketView, TcpState};
    use crate::time::{SECOND, Timestamp};

    #[test]
    fn a_network_is_remembered_for_a_minute_after_the_last_that_showed_it() {
        let at = |seconds: u64| Timestamp::from_nanos(seconds * SECOND);
        let socket = |has_reordered| SocketView::Full {
            state: TcpState::Established,
            sequence: SocketSequence {
                has_reordered,
                ..SocketSequence::BLANK
            },
        };
        let [near, beside, far] = ["192.0.2.1", "192.0.2.200", "198.51.100.1"];
        let mut memory = ReorderingMemory::default();
        let source = |address: &str| address.parse().unwrap();
        assert!(!memory.path_reorders(source("0.0.0.0"), at(0)), "blank");
        memory.learn(source(near), Some(&socket(false)), at(100));
        memory.learn(source(near), None, at(100));
        assert!(!memory.path_reorders(source(near), at(100)));
        memory.learn(source(near), Some(&socket(true)), at(100));
        memory.learn(source(near), Some(&socket(false)), at(150));
        assert!(memory.path_reorders(source(near), at(101)));
        assert!(memory.path_reorders(source(beside), at(160)), "one path");
        assert!(!memory.path_reorders(source(beside), at(161)));
        assert!(!memory.path_reorders(source(far), at(101)));
    }
}
