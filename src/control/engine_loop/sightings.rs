//! The order in which the engine hears of what reaches it by two ways: by the kernel's ring buffer
//! (events, what leaves this host, what passed by a closed gate) and by the workers' queues (resets
//! that came in, and what followed them). A SYN that left must be known before the refusal that came
//! for it, or the record would not know who had called whom. Nothing is sorted here by its time, and
//! nothing waits for what may still come.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use crate::flow::Sighting;

/// Sightings of one worker that are taken in a turn, so that no queue keeps the engine from another.
/// A queue that held as many has more, most likely: then the next turn comes without a rest, or no
/// more than 25,600 resets a second would be heard of.
pub(super) const SIGHTINGS_A_TURN: usize = 256;

/// Takes what waits in the workers' queues now, after `hear` took from the ring buffer: whatever led
/// to a sighting that waits was in that buffer before. What joins a queue meanwhile is left for the
/// next time, since what led to it may not be heard yet. Answers how many there were.
pub(super) fn take_waiting<T>(
    taker: &mut T,
    queues: &[Arc<ArrayQueue<Sighting>>],
    hear: impl FnOnce(&mut T),
    mut sight: impl FnMut(&mut T, &Sighting),
) -> usize {
    let waiting: Vec<usize> = queues
        .iter()
        .map(|queue| queue.len().min(SIGHTINGS_A_TURN))
        .collect();
    if waiting.iter().all(|count| *count == 0) {
        return 0;
    }
    hear(taker);
    let mut taken = 0;
    for (queue, count) in queues.iter().zip(waiting) {
        for sighting in std::iter::from_fn(|| queue.pop()).take(count) {
            sight(taker, &sighting);
            taken += 1;
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crossbeam::queue::ArrayQueue;

    use super::{SIGHTINGS_A_TURN, take_waiting};
    use crate::evidence::testing::Scene;
    use crate::flow::{FlowFacts, Sighting};
    use crate::wire::SeqNum;

    fn sighting(number: u32) -> Sighting {
        let reset = Scene::established().resets[0];
        let mut segment = reset.segment;
        segment.seq = SeqNum(number);
        Sighting {
            time: reset.time,
            vantage: reset.vantage,
            segment,
            socket: None,
            begins_anew: false,
            flow: FlowFacts::default(),
        }
    }

    fn numbers(queues: &[Arc<ArrayQueue<Sighting>>], late: &Sighting) -> Vec<u32> {
        let mut heard = Vec::new();
        take_waiting(
            &mut heard,
            queues,
            |heard| {
                heard.push(0);
                queues[0].push(*late).unwrap();
            },
            |heard, sighting| heard.push(sighting.segment.seq.0),
        );
        heard
    }

    #[test]
    fn the_ring_buffer_is_heard_after_a_sighting_waits_and_before_it_is_taken() {
        let queues = [1, 2].map(|_| Arc::new(ArrayQueue::new(8)));
        queues[0].push(sighting(1)).unwrap();
        queues[1].push(sighting(2)).unwrap();
        // The third joins while the ring buffer is heard: what led to it may still be in there.
        assert_eq!(numbers(&queues, &sighting(3)), [0, 1, 2]);
        assert_eq!(numbers(&queues, &sighting(4)), [0, 3]);
    }

    #[test]
    fn where_nothing_waits_nothing_is_asked() {
        let queues = [Arc::new(ArrayQueue::new(8))];
        assert!(numbers(&queues, &sighting(3)).is_empty());
    }

    #[test]
    fn no_queue_is_taken_from_without_end() {
        let queues = [1, 2].map(|_| Arc::new(ArrayQueue::new(SIGHTINGS_A_TURN + 8)));
        for number in 0..SIGHTINGS_A_TURN + 1 {
            let number = u32::try_from(number).unwrap();
            queues[0].push(sighting(number)).unwrap();
        }
        queues[1].push(sighting(7_000)).unwrap();
        let heard = numbers(&queues, &sighting(9_000));
        assert_eq!(heard.len(), 1 + SIGHTINGS_A_TURN + 1);
        assert_eq!(heard.last(), Some(&7_000));
        assert_eq!(queues[0].len(), 2);
    }
}
