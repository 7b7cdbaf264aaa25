//! The credit of frames that will not come: the kernel lost them after `steer` had redirected them, or
//! they were counted twice. Without this each such frame would narrow the gate, or widen it, for good.
//! It refuses to guess: only what the kernel says was lost is given up while anything moves.

use super::{Counters, Rings};
use crate::sys::Gate;

/// What was seen at the last care, to see whether all is quiet since.
#[derive(Debug, Default)]
pub(super) struct Credit {
    /// `steer`'s count of frames and the worker's.
    mark: (u64, u64),
}

impl Credit {
    /// Gives back the credit of frames that are lost. The worker holds `held`.
    pub(super) fn settle<R: Rings>(
        &mut self,
        rings: &mut R,
        gate: &Gate,
        counters: &mut Counters,
        held: usize,
    ) {
        if let Some(losses) = rings.losses() {
            let known = counters.losses;
            let lost =
                (losses.dropped + losses.ring_full).saturating_sub(known.dropped + known.ring_full);
            counters.losses = losses;
            write_off(lost, gate, counters);
        }
        let in_flight = gate.in_flight();
        let mark = (gate.produced(), counters.received);
        let is_quiet = mark == self.mark && rings.waiting() == 0;
        self.mark = mark;
        let Ok(in_flight) = u64::try_from(in_flight) else {
            counters.credit_resynced += 1;
            return gate.resync();
        };
        // Nothing was redirected and nothing came in since the last care: what is neither in our
        // hands nor on its way out will not come any more.
        let balance = rings.balance(held);
        let ours = u64::from(balance.free) + u64::from(balance.held) + u64::from(balance.sending);
        if is_quiet {
            write_off(in_flight.saturating_sub(ours), gate, counters);
        }
    }
}

fn write_off(frames: u64, gate: &Gate, counters: &mut Counters) {
    let frames = u32::try_from(frames).unwrap_or(u32::MAX);
    if frames > 0 {
        counters.credit_written_off += u64::from(frames);
        gate.consumed(frames);
    }
}
