//! The kernel's last word on each peer. Where this host translates addresses (DNAT, SNAT), the tuple
//! of a socket is not that of its frames, but the peer's end is the same in both. Joins nothing that has
//! its own frame or event.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use super::episode::{Accepted, Episode, Sent};
use crate::time::{SECOND, Timestamp};
use crate::vantage::Path;
use crate::wire::FourTuple;

/// Peers remembered; the oldest goes. A proxy host with a thousand resets a second hears of so many in
/// four, and an episode asks after one.
const PEERS_MAX: usize = 4096;

/// Event and frame of one reset are microseconds apart, and a virtual CPU that rests in between makes it
/// some hundred milliseconds.
const NEAR_NS: u64 = SECOND;

type Peer = (IpAddr, u16);

/// What the kernel said.
#[derive(Debug, Clone, Copy)]
enum Word {
    Sent(Sent, Option<u64>),
    Accepted(Accepted),
}

/// The memory of it.
#[derive(Debug, Default)]
pub(super) struct Translated {
    words: HashMap<Peer, (FourTuple, Word)>,
    order: VecDeque<Peer>,
}

impl Translated {
    /// A socket, or TCP itself, sent a reset; `tuple` begins with this host's end.
    pub(super) fn note_sent(&mut self, tuple: FourTuple, sent: Sent, cookie: Option<u64>) {
        self.note(tuple, Word::Sent(sent, cookie));
    }

    /// A frame of this very tuple, which begins with this host's end, has come: the event is its own.
    pub(super) fn forget(&mut self, tuple: &FourTuple) {
        let peer = (tuple.dst, tuple.dst_port);
        if self.words.get(&peer).is_some_and(|(of, _)| of == tuple) {
            // Its place in `order` goes when its time comes.
            self.words.remove(&peer);
        }
    }

    /// A socket took a reset; `tuple` begins with this host's end.
    pub(super) fn note_accepted(&mut self, tuple: FourTuple, accepted: Accepted) {
        self.note(tuple, Word::Accepted(accepted));
    }

    fn note(&mut self, tuple: FourTuple, word: Word) {
        let peer = (tuple.dst, tuple.dst_port);
        if self.words.insert(peer, (tuple, word)).is_none() {
            self.order.push_back(peer);
        }
        if self.order.len() > PEERS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.words.remove(&oldest);
        }
    }

    /// Gives a settled episode the event that its first reset lacks.
    pub(super) fn complete(&self, episode: &mut Episode) {
        let Some(first) = episode.first() else {
            return;
        };
        let (tuple, time) = (&first.segment.tuple, first.time);
        match first.vantage.path {
            Path::Egress { forwarded: false } if episode.sent.is_empty() => {
                let cookie = first.socket.and_then(|socket| socket.sender());
                let sent = self.sent(tuple, time, cookie);
                episode.sent.extend(sent);
            }
            Path::Ingress if episode.accepted.is_none() => {
                episode.accepted = self.accepted(tuple, time);
            }
            _ => {}
        }
    }

    /// The event of a reset that this host sent to the end of `tuple`, from the socket of that number.
    fn sent(&self, tuple: &FourTuple, time: Timestamp, cookie: Option<u64>) -> Option<Sent> {
        match &self.words.get(&(tuple.dst, tuple.dst_port))?.1 {
            Word::Sent(sent, of) => {
                // TCP's own answers belong to a socket of the kernel's or, by IPv6, to none.
                let is_same = !sent.active || (cookie.is_some() && *of == cookie);
                (is_same && sent.time.distance(time) <= NEAR_NS).then_some(*sent)
            }
            Word::Accepted(_) => None,
        }
    }

    /// Whether a socket took a reset from the end at which `tuple` begins.
    fn accepted(&self, tuple: &FourTuple, time: Timestamp) -> Option<Accepted> {
        match &self.words.get(&(tuple.src, tuple.src_port))?.1 {
            Word::Accepted(accepted) => {
                (accepted.time.distance(time) <= NEAR_NS).then_some(*accepted)
            }
            Word::Sent(..) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{PEERS_MAX, Translated};
    use crate::engine::episode::{Accepted, Sent};
    use crate::time::{SECOND, Timestamp};
    use crate::wire::FourTuple;

    fn tuple(port: u16, peer_port: u16) -> FourTuple {
        FourTuple {
            src: "10.0.0.2".parse().unwrap(),
            src_port: port,
            dst: "10.0.0.1".parse().unwrap(),
            dst_port: peer_port,
        }
    }

    fn sent(active: bool) -> Sent {
        Sent {
            time: Timestamp::from_nanos(SECOND),
            active,
            reason: None,
            state: None,
            process: None,
            answered_seq: None,
            answered_len: None,
        }
    }

    #[test]
    fn another_port_of_this_host_is_the_same_peer() {
        let mut words = Translated::default();
        words.note_sent(tuple(80, 4000), sent(true), Some(7));
        let near = Timestamp::from_nanos(SECOND + 5);
        assert!(words.sent(&tuple(8000, 4000), near, Some(7)).is_some());
        assert!(words.sent(&tuple(8000, 4000), near, Some(8)).is_none());
        assert!(words.sent(&tuple(8000, 4001), near, Some(7)).is_none());
        let late = Timestamp::from_nanos(3 * SECOND);
        assert!(words.sent(&tuple(8000, 4000), late, Some(7)).is_none());
    }

    #[test]
    fn an_answer_of_the_kernel_bears_no_number() {
        let mut words = Translated::default();
        words.note_sent(tuple(80, 4000), sent(false), None);
        assert!(
            words
                .sent(&tuple(8000, 4000), Timestamp::from_nanos(SECOND), Some(99))
                .is_some()
        );
    }

    #[test]
    fn an_event_with_its_own_frame_is_no_others() {
        let mut words = Translated::default();
        words.note_sent(tuple(80, 4000), sent(false), None);
        words.forget(&tuple(81, 4000));
        let time = Timestamp::from_nanos(SECOND);
        assert!(words.sent(&tuple(8000, 4000), time, None).is_some());
        words.forget(&tuple(80, 4000));
        assert!(words.sent(&tuple(8000, 4000), time, None).is_none());
    }

    #[test]
    fn a_reset_that_was_taken_is_found_from_the_peers_side() {
        let mut words = Translated::default();
        let time = Timestamp::from_nanos(SECOND);
        words.note_accepted(tuple(80, 4000), Accepted { time, state: None });
        assert!(
            words
                .accepted(&tuple(8000, 4000).reversed(), time)
                .is_some()
        );
        assert!(
            words
                .accepted(&tuple(8000, 4001).reversed(), time)
                .is_none()
        );
    }

    #[test]
    fn the_oldest_peer_goes() {
        let mut words = Translated::default();
        for port in 0..=u16::try_from(PEERS_MAX).unwrap() {
            words.note_sent(tuple(80, port), sent(true), Some(1));
        }
        let time = Timestamp::from_nanos(SECOND);
        assert!(words.sent(&tuple(80, 0), time, Some(1)).is_none());
        assert!(words.sent(&tuple(80, 1), time, Some(1)).is_some());
        assert_eq!(words.words.len(), PEERS_MAX);
    }
}
