//! What a worker is told while it runs: connections whose handshake the kernel calls complete, and
//! resets that went past it. A worker sees neither the answer that leaves this host nor the bare ACK
//! that ends a handshake, so that to it a connection looks like any lone SYN of a flood; and after a
//! reset that a closed gate let by, it would not know that what follows is evidence. Who tells does
//! not know whose a connection is, and tells all workers; those that do not know it pay for a lookup.
//!
//! Bounded, without a lock, and nobody waits: what finds no room is counted.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;

use super::{Observe, Shared};
use crate::flow::{Confirmed, PassedFlow, PassedReset};

/// News that may wait: at an idle worker's rest of 12 ms 340,000 handshakes a second, at 6 ms twice as many.
const NEWS_WAITING: usize = 4096;

/// News taken in a turn: as many as frames, so that they cost a frame no more than another frame.
/// What is left is for the next turn, which then follows without a rest.
pub(super) const NEWS_A_TURN: usize = 64;

/// Answers that may wait: those of a turn, four times over. The engine takes them each turn of its own.
const ANSWERS_WAITING: usize = 4 * NEWS_A_TURN;

/// One thing to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewsItem {
    /// A handshake is complete.
    Confirmed(Confirmed),
    /// A reset went past the worker.
    Passed(PassedReset),
}

/// The queue of one worker.
#[derive(Debug)]
pub(super) struct News {
    queue: ArrayQueue<NewsItem>,
    answers: ArrayQueue<PassedFlow>,
    lost: AtomicU64,
}

impl Default for News {
    fn default() -> Self {
        Self {
            queue: ArrayQueue::new(NEWS_WAITING),
            answers: ArrayQueue::new(ANSWERS_WAITING),
            lost: AtomicU64::new(0),
        }
    }
}

impl Shared {
    /// Tells the worker. Never waits.
    pub fn tell(&self, item: NewsItem) {
        if !self.is_stopping() && self.news.queue.push(item).is_err() {
            self.news.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What the worker knew of the connection of a reset that it was told of.
    #[must_use]
    pub fn answer(&self) -> Option<PassedFlow> {
        self.news.answers.pop()
    }

    /// News and answers that found their queue full so far.
    #[must_use]
    pub fn news_lost(&self) -> u64 {
        self.news.lost.load(Ordering::Relaxed)
    }

    /// Whether there is something to be told.
    pub(super) fn has_news(&self) -> bool {
        !self.news.queue.is_empty()
    }

    /// Passes on to the observer what the worker was told, as much as a turn allows.
    pub(super) fn pass_news(&self, observer: &mut impl Observe) {
        for _ in 0..NEWS_A_TURN {
            match self.news.queue.pop() {
                Some(NewsItem::Confirmed(confirmed)) => observer.confirm(&confirmed),
                Some(NewsItem::Passed(reset)) => {
                    if let Some(flow) = observer.note_passed(&reset)
                        && self.news.answers.push(flow).is_err()
                    {
                        self.news.lost.fetch_add(1, Ordering::Relaxed);
                    }
                }
                None => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{NEWS_A_TURN, NEWS_WAITING, NewsItem};
    use crate::flow::{Confirmed, FlowKey, Sighting};
    use crate::host::SocketView;
    use crate::time::Timestamp;
    use crate::vantage::Vantage;
    use crate::wire::{FourTuple, Segment};
    use crate::worker::{Observe, Shared};

    #[derive(Default)]
    struct Ports(Vec<u16>);

    impl Observe for Ports {
        fn observe(
            &mut self,
            _: Timestamp,
            _: Vantage,
            _: &Segment,
            _: Option<SocketView>,
        ) -> Option<Sighting> {
            None
        }

        fn confirm(&mut self, confirmed: &Confirmed) {
            self.0.push(confirmed.key.high.port);
        }
    }

    fn confirmed(port: u16) -> NewsItem {
        let (key, _) = FlowKey::of(FourTuple {
            src: "203.0.113.9".parse().unwrap(),
            src_port: port,
            dst: "192.0.2.1".parse().unwrap(),
            dst_port: 443,
        });
        NewsItem::Confirmed(Confirmed {
            key,
            time: Timestamp::from_nanos(1),
        })
    }

    #[test]
    fn news_arrive_in_order_a_bounded_number_a_turn_and_what_is_too_much_is_counted() {
        let shared = Shared::new();
        for port in 0..u16::try_from(NEWS_WAITING).unwrap() + 3 {
            shared.tell(confirmed(port));
        }
        assert_eq!(shared.news_lost(), 3);
        let mut ports = Ports::default();
        shared.pass_news(&mut ports);
        assert_eq!(ports.0.len(), NEWS_A_TURN);
        assert!(shared.has_news());
        while shared.has_news() {
            shared.pass_news(&mut ports);
        }
        assert!(ports.0.iter().copied().eq(0..4096));
    }

    #[test]
    fn a_worker_that_stops_is_told_nothing_and_loses_nothing() {
        let shared = Shared::new();
        shared.stop();
        shared.tell(confirmed(1));
        assert!(!shared.has_news());
        assert_eq!(shared.news_lost(), 0);
    }
}
