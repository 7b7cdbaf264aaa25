//! Rings in plain memory, with a kernel that tests play: it delivers, sends, and fails on order.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::rings::{Balance, Doubt, Rings};
use crate::sys::{FramePool, Gates, RxLosses, Wake};

/// A frame that owns its bytes.
#[derive(Debug)]
pub(super) struct MockFrame {
    pub(super) number: u32,
    pub(super) meta: Vec<u8>,
    pub(super) bytes: Vec<u8>,
}

/// What the played kernel does when it is woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernel {
    /// Sends up to so many frames.
    Sends(usize),
    /// Says EAGAIN and sends nothing.
    Refuses,
    /// Has no carrier: loses one frame a call.
    Drops,
    /// The interface is down.
    IsDown,
    /// The interface was removed.
    IsGone,
    /// Says something that nobody has foreseen, and sends nothing.
    Fails,
}

/// All four rings, the pool, and the host behind them.
#[derive(Debug)]
pub(super) struct MockRings {
    pub(super) pool: FramePool<MockFrame>,
    pub(super) fill: VecDeque<MockFrame>,
    pub(super) rx: VecDeque<MockFrame>,
    pub(super) tx: VecDeque<MockFrame>,
    pub(super) completion: VecDeque<MockFrame>,
    /// Packets that arrived at the host, in order.
    pub(super) host: Vec<Vec<u8>>,
    pub(super) kernel: Kernel,
    pub(super) tx_room: usize,
    pub(super) losses: RxLosses,
    pub(super) waits: Cell<u32>,
    /// The gate of the queue, and whether it was ever open while the worker slept.
    pub(super) gates: Option<Gates>,
    pub(super) was_open: Rc<Cell<bool>>,
    /// What a burst does; `None`: there are none.
    pub(super) bursts: Option<Result<(), Doubt>>,
    /// Frames that went back live.
    pub(super) live: u64,
}

impl MockRings {
    pub(super) fn new(frame_count: u32) -> Self {
        let frames = (0..frame_count)
            .map(|number| MockFrame {
                number,
                meta: Vec::new(),
                bytes: Vec::new(),
            })
            .collect();
        Self {
            pool: FramePool::new(frames),
            fill: VecDeque::new(),
            rx: VecDeque::new(),
            tx: VecDeque::new(),
            completion: VecDeque::new(),
            host: Vec::new(),
            kernel: Kernel::Sends(32),
            tx_room: frame_count as usize,
            losses: RxLosses::default(),
            waits: Cell::new(0),
            gates: None,
            was_open: Rc::default(),
            bursts: None,
            live: 0,
        }
    }

    /// The kernel receives one packet; answers whether it had a frame for it.
    pub(super) fn deliver(&mut self, bytes: &[u8], meta: &[u8]) -> bool {
        let Some(mut frame) = self.fill.pop_front() else {
            self.losses.dropped += 1;
            return false;
        };
        frame.bytes = bytes.to_vec();
        frame.meta = meta.to_vec();
        self.rx.push_back(frame);
        true
    }

    fn send(&mut self, limit: usize, arrives: bool) {
        for _ in 0..limit {
            let Some(frame) = self.tx.pop_front() else {
                break;
            };
            if arrives {
                self.host.push(frame.bytes.clone());
            }
            self.completion.push_back(frame);
        }
    }
}

impl Rings for MockRings {
    type Frame = MockFrame;

    fn reclaim(&mut self) -> u32 {
        let count = self.completion.len();
        for frame in self.completion.drain(..) {
            self.pool.put(frame);
        }
        u32::try_from(count).unwrap()
    }

    fn refill(&mut self) -> u32 {
        let mut count = 0;
        while let Some(frame) = self.pool.take() {
            self.fill.push_back(frame);
            count += 1;
        }
        count
    }

    fn receive(&mut self, batch: &mut Vec<MockFrame>) -> usize {
        let count = self.rx.len().min(batch.capacity() - batch.len());
        batch.extend(self.rx.drain(..count));
        count
    }

    fn bytes<'a>(&'a self, frame: &'a MockFrame) -> &'a [u8] {
        &frame.bytes
    }

    fn meta<'a>(&'a self, frame: &'a MockFrame, len: usize) -> Option<&'a [u8]> {
        (frame.meta.len() == len).then_some(frame.meta.as_slice())
    }

    fn clear_meta(&self, frame: &mut MockFrame) {
        frame.meta.clear();
    }

    fn transmit(&mut self, batch: &mut Vec<MockFrame>) -> usize {
        let count = batch.len();
        if self.tx.len() + count > self.tx_room {
            return 0;
        }
        self.tx.extend(batch.drain(..));
        count
    }

    fn can_burst(&self) -> bool {
        self.bursts.is_some()
    }

    fn give_live(&mut self, burst: &mut Vec<MockFrame>) -> Result<usize, Doubt> {
        self.bursts.ok_or(Doubt)??;
        let count = burst.len();
        for frame in burst.drain(..) {
            self.host.push(frame.bytes.clone());
            self.pool.put(frame);
        }
        self.live += count as u64;
        Ok(count)
    }

    fn unsent(&mut self) -> u32 {
        u32::try_from(self.tx.len()).unwrap()
    }

    fn wake(&mut self) -> Wake {
        match self.kernel {
            Kernel::Sends(limit) => {
                self.send(limit, true);
                if self.tx.is_empty() {
                    Wake::Done
                } else {
                    Wake::Again
                }
            }
            Kernel::Refuses => Wake::Again,
            Kernel::Drops => {
                self.send(1, false);
                Wake::Dropped
            }
            Kernel::IsDown => Wake::Down,
            Kernel::IsGone => Wake::Gone,
            Kernel::Fails => Wake::Failed(libc::EIO),
        }
    }

    fn is_ready(&self) -> bool {
        matches!(
            self.kernel,
            Kernel::Sends(_) | Kernel::Refuses | Kernel::Fails
        )
    }

    fn is_gone(&self) -> bool {
        self.kernel == Kernel::IsGone
    }

    fn waiting(&mut self) -> u32 {
        u32::try_from(self.rx.len()).unwrap()
    }

    fn wait(&self, _timeout_ns: u64) {
        self.waits.set(self.waits.get() + 1);
        if let Some(gates) = &self.gates {
            let (limit, _) = gates.seen_by_steer(0);
            self.was_open.set(self.was_open.get() || limit > 0);
        }
    }

    fn losses(&self) -> Option<RxLosses> {
        Some(self.losses)
    }

    fn balance(&self, held: usize) -> Balance {
        let count = |ring: &VecDeque<MockFrame>| u32::try_from(ring.len()).unwrap();
        Balance {
            free: self.pool.free(),
            receiving: count(&self.fill) + count(&self.rx),
            held: u32::try_from(held).unwrap(),
            sending: count(&self.tx) + count(&self.completion),
            frame_count: self.pool.frame_count(),
        }
    }
}
