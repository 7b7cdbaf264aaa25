//! Which sightings may wait for the engine when many do. A storm of resets that belong to nothing, or
//! of guesses at one connection, must not push out the one reset that ends a connection; nobody waits
//! here for room. bpf/room.h has the same order for what goes by the ring buffer.

use crossbeam::queue::ArrayQueue;

use crate::flow::Sighting;
use crate::host::{SocketView, TcpState};

/// Eighths of the queue for resets that meet no flow and no socket: they are folded when there are
/// many, so that a lost one costs a count.
const FOR_STRAYS: usize = 6;

/// Eighths for resets outside the window of the connection that they meet, which the kernel ignores:
/// a few thousand of a blind sweep prove it as well as all.
const FOR_GUESSES: usize = 7;

/// Puts a sighting into the engine's queue; `false` where there is no room for its like.
pub(super) fn enqueue(queue: &ArrayQueue<Sighting>, sighting: Sighting) -> bool {
    let eighths = if is_of_nothing(&sighting) {
        FOR_STRAYS
    } else if is_guess(&sighting) {
        FOR_GUESSES
    } else {
        8
    };
    if eighths < 8 && queue.len() * 8 >= queue.capacity() * eighths {
        return false;
    }
    queue.push(sighting).is_ok()
}

const fn is_of_nothing(sighting: &Sighting) -> bool {
    let flow = &sighting.flow;
    matches!(
        sighting.socket,
        Some(SocketView::Absent | SocketView::Listener)
    ) && flow.sender.is_none()
        && flow.receiver.is_none()
        && !flow.established
}

/// RFC 5961 §3.2, and `tcp_reset_check`, which also takes the number before RCV.NXT.
fn is_guess(sighting: &Sighting) -> bool {
    let Some(SocketView::Full { state, sequence }) = &sighting.socket else {
        return false;
    };
    let seq = sighting.segment.seq;
    sighting.segment.flags.rst()
        && *state != TcpState::SynSent
        && seq.offset_from(sequence.rcv_nxt) != -1
        && !sequence.allows(seq)
}

#[cfg(test)]
mod tests {
    use crossbeam::queue::ArrayQueue;

    use super::enqueue;
    use crate::evidence::testing::Scene;
    use crate::flow::{FlowFacts, Sighting};
    use crate::host::SocketView;
    use crate::wire::SeqNum;

    fn sighting(socket: SocketView, flow: FlowFacts) -> Sighting {
        let reset = Scene::established().resets[0];
        Sighting {
            time: reset.time,
            vantage: reset.vantage,
            segment: reset.segment,
            socket: Some(socket),
            begins_anew: false,
            flow,
        }
    }

    #[test]
    fn strays_and_guesses_leave_room_to_the_resets_that_end_connections() {
        let queue = ArrayQueue::new(16);
        let stray = sighting(SocketView::Absent, FlowFacts::default());
        assert_eq!((0..50).filter(|_| enqueue(&queue, stray)).count(), 12);

        let scene = Scene::established().socket(|_| ());
        let exact = Sighting {
            socket: scene.resets[0].socket,
            ..stray
        };
        let rcv_nxt = exact.socket.unwrap().sequence().unwrap().rcv_nxt;
        let at = |offset: u32| {
            let mut guess = exact;
            guess.segment.seq = SeqNum(rcv_nxt.0.wrapping_add(offset));
            guess
        };
        let guess = at(0x4000_0000);
        assert_eq!((0..50).filter(|_| enqueue(&queue, guess)).count(), 2);
        assert!(!enqueue(&queue, stray));
        let known = sighting(SocketView::Absent, Scene::established().flow);
        assert!(enqueue(&queue, known));
        assert!(enqueue(&queue, at(0)));
        assert!(!enqueue(&queue, at(0)), "full is full");
    }

    #[test]
    fn what_the_kernel_may_act_on_is_no_guess() {
        let queue = ArrayQueue::new(8);
        let mut scene = Scene::established().socket(|_| ());
        let reset = &mut scene.resets[0];
        let rcv_nxt = reset.socket.unwrap().sequence().unwrap().rcv_nxt;
        let with = |offset: i32| {
            let mut sighting = sighting(reset.socket.unwrap(), FlowFacts::default());
            sighting.segment.seq = SeqNum(rcv_nxt.0.wrapping_add_signed(offset));
            sighting
        };
        while enqueue(&queue, with(-5_000)) {}
        assert_eq!(queue.len(), 7, "seven eighths are for guesses");
        for offset in [-1, 0, 1] {
            assert!(enqueue(&queue, with(offset)), "{offset}");
            queue.pop();
        }
        let time_wait = sighting(SocketView::TimeWait, FlowFacts::default());
        assert!(enqueue(&queue, time_wait));
    }
}
