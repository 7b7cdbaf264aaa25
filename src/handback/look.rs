//! What became of a pair while it was in use: what it carried, and whether somebody else did something to it.
//! Looks, and changes nothing.

use std::io;

use super::message::{self, ActionCounts};
use super::{Error, MTU_MIN, Names, Pair, refused};
use crate::sys::netlink::{Link, Refusal, uapi};

/// What the pair carried since it was made. A ledger balances when
/// `transmitted == handed_back` and the three losses are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Frames that the transmitting end sent across.
    pub transmitted: u64,
    /// Frames lost on the way across: the CPU's backlog was full (`net.core.netdev_max_backlog`)
    /// or the injecting end was down.
    pub lost_crossing: u64,
    /// Frames that the mirred action took for the interface.
    pub handed_back: u64,
    /// Of these, frames that it could not give: the interface was down or gone.
    pub refused: u64,
    /// Frames dropped at the injecting end before its filter.
    pub lost_arriving: u64,
}

impl Statistics {
    /// From the links, the one that transmits first, and from what the filter's action counted.
    fn of([transmit, inject]: &[Link; 2], action: ActionCounts) -> Self {
        Self {
            transmitted: transmit.packets.sent,
            lost_crossing: transmit.packets.send_dropped,
            handed_back: action.packets,
            refused: action.overlimits,
            lost_arriving: inject.packets.receive_dropped,
        }
    }

    /// Frames that went across before this look and by `now` neither came to the filter nor were lost: somebody
    /// else has them. To cross takes microseconds.
    fn taken_by(&self, now: &Self) -> u64 {
        let told = now.handed_back + now.lost_arriving;
        self.transmitted.saturating_sub(told)
    }
}

impl Pair {
    /// Why frames do not come back to the interface although both ends are up: what somebody else did to the
    /// pair. `None` where nothing is wrong, or nobody can tell; an end that is gone is the workers' to see. To be
    /// asked once a second: what crossed by the last time must have come by this one.
    pub fn misuse(&mut self) -> Option<String> {
        let Names { transmit, inject } = self.names.clone();
        let ends = self.ends().ok()?;
        for (link, name) in ends.iter().zip([&transmit, &inject]) {
            if link.mtu < MTU_MIN {
                return Some(format!("{name} has an MTU of {}", link.mtu));
            }
        }
        if ends[1].mac != Some(self.inject_mac) {
            return Some(format!("{inject} was given another address"));
        }
        let Some(action) = self.action_counts().ok()? else {
            return Some(format!("the filter of {inject} is gone"));
        };
        self.is_diverted(Statistics::of(&ends, action)).then(|| {
            format!("a program that somebody else put on {inject} keeps frames from its filter")
        })
    }

    /// Whether more frames went elsewhere than came to the filter since the last look: an agent's tc program
    /// before ours (on tcx, or at the head of the chain) that ends the matter.
    fn is_diverted(&mut self, now: Statistics) -> bool {
        let (before, known) = self.looked;
        let taken = before.taken_by(&now);
        self.looked = (now, taken);
        let came = now.handed_back.saturating_sub(before.handed_back);
        taken.saturating_sub(known) > came
    }

    /// Both ends as they are now: the one that transmits, then the one that injects.
    fn ends(&mut self) -> Result<[Link; 2], Refusal> {
        let gone = || Refusal::from(io::Error::from_raw_os_error(libc::ENODEV));
        let mut end = |ifindex| Link::indexed(&mut self.route, ifindex)?.ok_or_else(gone);
        Ok([end(self.transmit_ifindex)?, end(self.inject_ifindex)?])
    }

    fn action_counts(&mut self) -> Result<Option<ActionCounts>, Refusal> {
        let ask = message::ask_filters(self.inject_ifindex);
        let filters = self
            .route
            .ask(uapi::RTM_GETTFILTER, uapi::NLM_F_DUMP, &ask)?;
        let mut counts = filters.iter().map(|one| message::action_counts(&one.body));
        Ok(counts.find_map(|found| found))
    }

    /// What the pair carried so far.
    ///
    /// # Errors
    ///
    /// [`Error::Kernel`] when the kernel refuses, or a link of the pair is gone.
    pub fn statistics(&mut self) -> Result<Statistics, Error> {
        let what = format!("read the counters of {}", self.names.inject);
        let asked = self.ends().and_then(|ends| {
            let action = self.action_counts()?;
            Ok(Statistics::of(&ends, action.unwrap_or_default()))
        });
        asked.map_err(refused(what))
    }
}
