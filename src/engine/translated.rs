//! The kernel's last words on each peer. Where this host translates addresses (DNAT, SNAT), the tuple
//! of a socket is not that of its frames, but the peer's end is the same in both. Joins nothing that has
//! its own frame or event.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use super::episode::{Accepted, Episode, Sent, here};
use crate::flow::FlowKey;
use crate::time::{SECOND, Timestamp};
use crate::vantage::Path;
use crate::wire::FourTuple;

/// Peers remembered; the oldest goes. A proxy host with a thousand resets a second hears of so many in
/// four, and an episode asks after one.
const PEERS_MAX: usize = 4096;

/// Words of one moment that are kept of a peer: of more the first ones and the last. What ended a connection is
/// among the first; each segment that comes after it is answered, with an event of its own.
const WORDS_MAX: usize = 4;

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

impl Word {
    const fn time(&self) -> Timestamp {
        match self {
            Self::Sent(sent, _) => sent.time,
            Self::Accepted(accepted) => accepted.time,
        }
    }
}

/// The memory of it.
#[derive(Debug, Default)]
pub(super) struct Translated {
    words: HashMap<Peer, Vec<(FourTuple, Word)>>,
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
        // Its place in `order` goes when its time comes.
        if let Some(words) = self.words.get_mut(&peer) {
            words.retain(|(of, _)| of != tuple);
        }
    }

    /// A socket took a reset; `tuple` begins with this host's end.
    pub(super) fn note_accepted(&mut self, tuple: FourTuple, accepted: Accepted) {
        self.note(tuple, Word::Accepted(accepted));
    }

    fn note(&mut self, tuple: FourTuple, word: Word) {
        let peer = (tuple.dst, tuple.dst_port);
        let words = self.words.entry(peer).or_insert_with(|| {
            self.order.push_back(peer);
            Vec::new()
        });
        words.retain(|(_, before)| before.time().distance(word.time()) <= NEAR_NS);
        words.truncate(WORDS_MAX - 1);
        words.push((tuple, word));
        if self.order.len() > PEERS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.words.remove(&oldest);
        }
    }

    /// Gives a settled episode the events that its first reset lacks.
    pub(super) fn complete(&self, episode: &mut Episode) {
        let Some(first) = episode.first() else {
            return;
        };
        let (tuple, time) = (first.segment.tuple, first.time);
        // Which end is this host's goes by the names of the frame.
        let local = here(FlowKey::of(tuple).1, first);
        match first.vantage.path {
            Path::Egress { forwarded: false } => {
                let cookie = first.socket.and_then(|socket| socket.sender());
                // A socket's number is sure. Whose an answer is, is not: it counts where there is no other.
                let has_event = !episode.sent.is_empty();
                let sent = self.sent(&tuple, time, cookie);
                let sent = sent.filter(|sent| sent.active || !has_event);
                let sent = sent.map(|sent| Sent { local, ..sent });
                episode.sent.extend(sent);
            }
            Path::Ingress if episode.accepted.is_none() => {
                let accepted = self.accepted(&tuple, time);
                episode.accepted = accepted.map(|accepted| Accepted { local, ..accepted });
            }
            _ => {}
        }
    }

    /// The events of resets that this host sent to the end of `tuple` near that time, from the socket of that
    /// number: its own, and TCP's answers to what came once it was gone.
    fn sent(
        &self,
        tuple: &FourTuple,
        time: Timestamp,
        cookie: Option<u64>,
    ) -> impl Iterator<Item = Sent> + use<'_> {
        let of_peer = self.near((tuple.dst, tuple.dst_port), time);
        of_peer.filter_map(move |word| match word {
            // TCP's own answers belong to a socket of the kernel's or, by IPv6, to none.
            Word::Sent(sent, of) => {
                (!sent.active || (cookie.is_some() && *of == cookie)).then_some(*sent)
            }
            Word::Accepted(_) => None,
        })
    }

    /// Whether a socket took a reset from the end at which `tuple` begins.
    fn accepted(&self, tuple: &FourTuple, time: Timestamp) -> Option<Accepted> {
        let mut of_peer = self.near((tuple.src, tuple.src_port), time);
        of_peer.find_map(|word| match word {
            Word::Accepted(accepted) => Some(*accepted),
            Word::Sent(..) => None,
        })
    }

    fn near(&self, peer: Peer, time: Timestamp) -> impl Iterator<Item = &Word> {
        let words = self.words.get(&peer).map_or(&[][..], Vec::as_slice);
        let words = words.iter().map(|(_, word)| word);
        words.filter(move |word| word.time().distance(time) <= NEAR_NS)
    }
}

#[cfg(test)]
mod tests {
    use super::{PEERS_MAX, Translated};
    use crate::engine::episode::{Accepted, Sent};
    use crate::flow::Side;
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
            local: Side::Low,
            active,
            reason: None,
            state: None,
            process: None,
            closed: None,
            answered_seq: None,
            answered_len: None,
            counts: None,
        }
    }

    fn accepted(time: Timestamp) -> Accepted {
        Accepted {
            time,
            local: Side::Low,
            state: None,
        }
    }

    #[test]
    fn another_port_of_this_host_is_the_same_peer() {
        let mut words = Translated::default();
        words.note_sent(tuple(80, 4000), sent(true), Some(7));
        let near = Timestamp::from_nanos(SECOND + 5);
        assert!(
            words
                .sent(&tuple(8000, 4000), near, Some(7))
                .next()
                .is_some()
        );
        assert!(
            words
                .sent(&tuple(8000, 4000), near, Some(8))
                .next()
                .is_none()
        );
        assert!(
            words
                .sent(&tuple(8000, 4001), near, Some(7))
                .next()
                .is_none()
        );
        let late = Timestamp::from_nanos(3 * SECOND);
        assert!(
            words
                .sent(&tuple(8000, 4000), late, Some(7))
                .next()
                .is_none()
        );
    }

    #[test]
    fn an_answer_of_the_kernel_bears_no_number() {
        let mut words = Translated::default();
        words.note_sent(tuple(80, 4000), sent(false), None);
        assert!(
            words
                .sent(&tuple(8000, 4000), Timestamp::from_nanos(SECOND), Some(99))
                .next()
                .is_some()
        );
    }

    #[test]
    fn an_event_with_its_own_frame_is_no_others() {
        let mut words = Translated::default();
        words.note_sent(tuple(80, 4000), sent(false), None);
        words.forget(&tuple(81, 4000));
        let time = Timestamp::from_nanos(SECOND);
        assert!(words.sent(&tuple(8000, 4000), time, None).next().is_some());
        words.forget(&tuple(80, 4000));
        assert!(words.sent(&tuple(8000, 4000), time, None).next().is_none());
    }

    #[test]
    fn a_reset_that_was_taken_is_found_from_the_peers_side() {
        let mut words = Translated::default();
        let time = Timestamp::from_nanos(SECOND);
        words.note_accepted(tuple(80, 4000), accepted(time));
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
    fn what_comes_after_a_word_of_the_same_moment_does_not_take_its_place() {
        let mut words = Translated::default();
        let later = |ns| Timestamp::from_nanos(SECOND + ns);
        words.note_accepted(tuple(80, 4000), accepted(later(0)));
        words.note_sent(tuple(80, 4000), sent(true), Some(7));
        for ns in 1..9 {
            let answer = Sent {
                time: later(ns),
                ..sent(false)
            };
            words.note_sent(tuple(80, 4000), answer, None);
        }
        let of = tuple(8000, 4000);
        let told: Vec<_> = words.sent(&of, later(0), Some(7)).collect();
        let told: Vec<_> = told.iter().map(|s| (s.active, s.time)).collect();
        assert_eq!(
            told,
            [(true, later(0)), (false, later(1)), (false, later(8))]
        );
        assert!(words.accepted(&of.reversed(), later(0)).is_some());
        // Of another moment nothing is left.
        let much_later = Sent {
            time: later(9 * SECOND),
            ..sent(false)
        };
        words.note_sent(tuple(80, 4000), much_later, None);
        assert_eq!(words.sent(&of, later(0), Some(7)).count(), 0);
        assert_eq!(words.words.values().map(Vec::len).sum::<usize>(), 1);
    }

    #[test]
    fn the_oldest_peer_goes() {
        let mut words = Translated::default();
        for port in 0..=u16::try_from(PEERS_MAX).unwrap() {
            words.note_sent(tuple(80, port), sent(true), Some(1));
        }
        let time = Timestamp::from_nanos(SECOND);
        assert!(words.sent(&tuple(80, 0), time, Some(1)).next().is_none());
        assert!(words.sent(&tuple(80, 1), time, Some(1)).next().is_some());
        assert_eq!(words.words.len(), PEERS_MAX);
    }
}
