//! The way back by the veth, and the gate of the queue, which is open only while that way works: frames
//! that cannot go back must not come in. What the TX ring does not take waits in the batch, in order;
//! nothing is given up while the interfaces are there.

use super::{Health, Observe, Rings, Worker};
use crate::sys::Wake;
use crate::time::MILLISECOND;

/// Wake-ups of the TX ring in one turn: a batch of 64 needs two where the kernel sends 32 at a
/// time, and what was left from earlier turns is caught up with four times as fast as it comes.
const WAKES_PER_TURN: u32 = 8;
/// How long the TX ring may stand still before the gate is closed: longer than a softirq storm,
/// shorter than TCP's first retransmission (200 ms).
pub(super) const STUCK_NS: u64 = 50 * MILLISECOND;

impl<R: Rings, O: Observe> Worker<R, O> {
    pub(super) fn hand_back(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let sent = self.rings.transmit(&mut self.batch);
        self.counters.handed_back += sent as u64;
        if !self.batch.is_empty() {
            self.counters.tx_full += 1;
        }
    }

    /// Makes the kernel send what is in the TX ring, as far as this turn allows.
    pub(super) fn push_out(&mut self, now_ns: u64) {
        let mut before = self.rings.unsent();
        if before == 0 {
            self.progress_ns = now_ns;
            return;
        }
        // Without a carrier, each wake-up would cost a frame.
        let is_waiting = self.health != Health::Running && !self.is_stopping;
        if self.health == Health::Gone || (is_waiting && !self.rings.is_ready()) {
            return;
        }
        for _ in 0..WAKES_PER_TURN {
            self.counters.wakes += 1;
            let wake = self.rings.wake();
            let after = self.rings.unsent();
            if after < before {
                self.progress_ns = now_ns;
            }
            match wake {
                Wake::Done | Wake::Again => {}
                Wake::Dropped => {
                    self.counters.handback_dropped += 1;
                    if !self.rings.is_ready() {
                        return self.jam();
                    }
                }
                Wake::Down => return self.jam(),
                Wake::Gone => return self.part(),
                Wake::Failed(_) => self.counters.handback_errors += 1,
            }
            if after == 0 || after >= before {
                break;
            }
            before = after;
        }
        if self.rings.unsent() > 0 && now_ns.saturating_sub(self.progress_ns) >= STUCK_NS {
            self.jam();
        }
    }

    /// Frames cannot go back: no more may come in.
    pub(super) fn jam(&mut self) {
        self.gate.close();
        if self.health == Health::Running {
            self.counters.handback_stuck += 1;
        }
        if self.health != Health::Gone {
            self.set_health(Health::Stuck);
        }
    }

    /// An interface was removed; its socket cannot be bound again.
    pub(super) fn part(&mut self) {
        self.gate.close();
        self.set_health(Health::Gone);
    }

    /// Opens the gate at the start, and again once everything that was stuck has gone out.
    pub(super) fn try_open(&mut self) {
        let is_shut = matches!(self.health, Health::Starting | Health::Stuck);
        if !is_shut || self.is_stopping || !self.batch.is_empty() || self.rings.unsent() > 0 {
            return;
        }
        if !self.rings.is_ready() {
            return self.set_health(Health::Stuck);
        }
        self.gate.open(self.config.credit);
        self.set_health(Health::Running);
    }

    fn set_health(&mut self, health: Health) {
        if self.health != health {
            self.health = health;
            self.shared.set_health(health);
        }
    }
}
