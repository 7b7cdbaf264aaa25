//! The post at one interface: the program that steers, the workers, and the way back. It is set up
//! so that at no step a frame can be taken that nobody would hand back, and taken down in the
//! opposite order.

mod counted;
mod inline;

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use counted::totals;
use inline::{Inline, Seat, trackers};

use super::coverage::Totals;
use super::error::Error;
use super::handover::{Heir, Predecessor};
use super::ledger::Ledger;
use super::lock::InterfaceLock;
use crate::config::RunConfig;
use crate::events::Events;
use crate::flow::{FlowKey, Sighting};
use crate::handback::{Live, Pair};
use crate::nic::{Interface, NextHops};
use crate::notice;
use crate::privilege::Jail;
use crate::sys::{Bell, Gates, UmemLayout};
use crate::time::Timestamp;
use crate::vantage::InterfaceId;
use crate::wire::FourTuple;
use crate::worker::{Finished, Health, Shared, WorkerConfig};
use crate::xdp::{self, Steer};

/// How late a worker's heartbeat may be before its queue is bypassed. A busy host deschedules a
/// thread for some milliseconds; a SYN that waits longer would be felt.
const HEARTBEAT_MAX_NS: u64 = 20_000_000;

/// The latest that an idle worker may be woken and still be in time: a slice of 3 ms that another thread
/// has, twice over.
const LATE_NS: u64 = 6_000_000;
const _: () = assert!(
    WorkerConfig::new(InterfaceId(0)).longest_rest_ns() + LATE_NS <= HEARTBEAT_MAX_NS,
    "a worker at rest would be passed by"
);

/// Connections that exist when the sensor starts.
pub(super) struct Older {
    /// `src` is this host.
    pub(super) connections: Vec<FourTuple>,
    /// Until when their next frames are copied.
    pub(super) until: Timestamp,
}

impl Older {
    pub(super) fn keys(&self) -> HashSet<FlowKey> {
        let keys = self.connections.iter().map(|tuple| FlowKey::of(*tuple).0);
        keys.collect()
    }
}

/// What all posts of a run begin with.
pub(super) struct Start<'a> {
    pub(super) config: &'a RunConfig,
    pub(super) hash_key: [u64; 2],
    pub(super) older: &'a Older,
    pub(super) jail: &'a Jail,
    /// At which the engine sleeps.
    pub(super) bell: &'a Arc<Bell>,
}

/// The right to watch an interface.
pub(super) enum Claim {
    /// It was free.
    Lock(InterfaceLock),
    /// It is another process's, which is asked for it when everything else is ready.
    Predecessor(Predecessor),
}

impl Claim {
    /// Turns the claim into the lock; from a predecessor, with the link of its `steer`.
    fn enter(self) -> Result<Entered, Error> {
        Ok(match self {
            Self::Lock(lock) => Entered {
                lock,
                link: None,
                predecessor: None,
            },
            Self::Predecessor(mut predecessor) => {
                let estate = predecessor.ask().map_err(Error::Handover)?;
                Entered {
                    lock: estate.lock,
                    link: estate.link,
                    predecessor: Some(predecessor),
                }
            }
        })
    }
}

/// A claim made good.
struct Entered {
    lock: InterfaceLock,
    link: Option<OwnedFd>,
    /// Waits to hear that this process stands.
    predecessor: Option<Predecessor>,
}

/// What remains of a post after it was taken down.
#[derive(Debug, Default)]
pub(super) struct Closed {
    pub(super) steer: Option<[u64; xdp::COUNTERS]>,
    pub(super) workers: Vec<Finished>,
    pub(super) warnings: Vec<String>,
    /// For the last coverage record; `None` when the counters could not be read.
    pub(super) totals: Option<Totals>,
}

/// One watched interface.
pub(super) struct Post {
    pub(super) id: InterfaceId,
    pub(super) name: String,
    pub(super) ifindex: u32,
    /// Inline only.
    inline: Option<Inline>,
    pub(super) is_gone: bool,
    /// `steer` was found off the interface, and that was said.
    pub(super) is_blind: bool,
    /// Another process has taken it over.
    pub(super) is_handed_over: bool,
    /// `None` once it is another process's: then that one alone holds it, however long this one goes on.
    lock: Option<InterfaceLock>,
}

impl Post {
    /// Takes up the post for mirror mode: nothing but the tc programs.
    pub(super) fn mirror(
        id: InterfaceId,
        interface: &Interface,
        older: &Older,
        events: &mut Events,
        claim: Claim,
    ) -> Result<Self, Error> {
        let (name, ifindex) = (interface.name().to_owned(), interface.ifindex());
        events
            .attach_mirror(&name, ifindex, &older.connections, older.until)
            .map_err(Error::Events)?;
        events
            .attach_egress(&name, ifindex)
            .map_err(Error::Events)?;
        let entered = claim.enter()?;
        Ok(Self::stands(id, (name, ifindex), None, entered))
    }

    /// Takes up the post inline: the way back first, then memory and sockets, then the workers, then
    /// egress, and `steer` last of all. From a predecessor, `steer` goes first: its gates are closed
    /// until the workers stand, so that it copies meanwhile, and the queues and the names of the pair
    /// are free only when the other process has let go of them.
    pub(super) fn inline(
        id: InterfaceId,
        interface: &Interface,
        start: &Start<'_>,
        events: &mut Events,
        claim: Claim,
    ) -> Result<Self, Error> {
        let (config, older) = (start.config, start.older);
        let (name, ifindex) = (interface.name().to_owned(), interface.ifindex());
        let queues = queues(interface, config);
        let layout = UmemLayout::default();
        let settings = xdp::Config {
            frame_bytes_max: layout.longest_frame(),
            heartbeat_max_ns: HEARTBEAT_MAX_NS,
            ..xdp::Config::default()
        };
        let mut steer = Steer::load(settings, events.ring_fd()).map_err(Error::Xdp)?;
        let classifier = events.load_handback().map_err(Error::Events)?;
        let gates = Gates::map(steer.gate_fd(), queues).map_err(Error::Sys)?;
        steer
            .watch_older(&older.connections, older.until)
            .and_then(|()| steer.set_routes_by_hash(NextHops::open().are_by_hash()))
            .map_err(Error::Xdp)?;
        let mut trackers = trackers(queues, start);
        let mut entered = claim.enter()?;
        let is_adopted = entered.link.is_some();
        // A predecessor may be mirroring still.
        if entered.predecessor.is_none() {
            events.take_off_left_mirror(&name, ifindex);
        }
        if let Some(link) = entered.link.take() {
            steer.adopt(&name, link).map_err(Error::Xdp)?;
        }
        let pair = Pair::create(&interface.link, queues, classifier.as_fd());
        let pair = pair.map_err(Error::Handback)?;
        let live = Live::open(
            ifindex,
            pair.transmit_ifindex(),
            queues,
            events.counters_fd(),
        )
        .inspect_err(|error| notice::warn(error))
        .ok();
        let mut inline = Inline::new(steer, pair, live);
        for (queue, tracker) in (0..queues).zip(trackers.drain(..)) {
            let seat = Seat {
                id,
                name: &name,
                queue,
                jail: start.jail,
                bell: start.bell,
            };
            inline.start_worker(&seat, layout, &gates, tracker)?;
        }
        events
            .attach_egress(&name, ifindex)
            .map_err(Error::Events)?;
        if !is_adopted {
            inline.steer.attach(&name, ifindex).map_err(Error::Xdp)?;
        }
        Ok(Self::stands(id, (name, ifindex), Some(inline), entered))
    }

    /// The post is taken up: a predecessor hears that it may go.
    fn stands(
        id: InterfaceId,
        (name, ifindex): (String, u32),
        inline: Option<Inline>,
        entered: Entered,
    ) -> Self {
        if let Some(predecessor) = entered.predecessor {
            predecessor.confirm();
        }
        Self {
            id,
            name,
            ifindex,
            inline,
            is_gone: false,
            is_blind: false,
            is_handed_over: false,
            lock: Some(entered.lock),
        }
    }

    /// Whether somebody took `steer` off the interface: nothing that comes in is seen.
    pub(super) fn is_cut_off(&self) -> bool {
        let inline = self.inline.as_ref();
        !self.is_handed_over && inline.is_some_and(|inline| inline.steer.is_cut_off())
    }

    /// What somebody did to the way back, so that frames which are taken do not come back.
    pub(super) fn misuse(&mut self) -> Option<String> {
        let inline = self.inline.as_mut().filter(|i| !i.workers.is_empty());
        inline?.pair.as_mut()?.misuse()
    }

    /// Takes no frame any more, after those under way went back: what comes in is looked at by copies.
    /// `false` where none was taken anyway.
    pub(super) fn take_no_more(&mut self) -> bool {
        let Some(inline) = self.inline.as_mut().filter(|i| !i.workers.is_empty()) else {
            return false;
        };
        let finished = inline.stop_workers();
        inline.finished.extend(finished);
        true
    }

    /// The interface is deleted, or in another network namespace. `steer` would go on there, with sockets that
    /// take nothing, and its copies would name an index that may be another interface's here.
    pub(super) fn let_go(&mut self) {
        self.is_gone = true;
        if let Some(inline) = &mut self.inline {
            inline.steer.detach();
        }
    }

    /// This host chooses next hops by a frame's hash from now on, or no longer.
    pub(super) fn set_routes_by_hash(&self, does: bool) -> Result<(), Error> {
        match self.inline.as_ref().filter(|_| !self.is_handed_over) {
            Some(inline) => inline.steer.set_routes_by_hash(does).map_err(Error::Xdp),
            None => Ok(()),
        }
    }

    /// Another process that asks for this post, if one does.
    pub(super) fn heir(&self) -> Option<Heir> {
        let lock = self.lock.as_ref().filter(|_| !self.is_gone)?;
        Heir::at(lock)
    }

    /// Hands the post over: every frame goes back to the host first, so that none of the next
    /// process's overtakes it; `steer` copies until the other program stands in its link. `false`
    /// when the heir did not come to stand: then this process goes on, by copies alone.
    ///
    /// # Errors
    ///
    /// When the program could not be put back into its link: then nobody watches.
    pub(super) fn hand_over(&mut self, heir: Heir) -> Result<bool, Error> {
        let Some(lock) = &self.lock else {
            return Ok(false);
        };
        let mut link = None;
        if let Some(inline) = &mut self.inline {
            let finished = inline.stop_workers();
            inline.finished.extend(finished);
            // A link that stays would be in the heir's way, who says so; nothing to do here.
            let _ = inline.pair.take().map(Pair::remove);
            link = inline.steer.link_fd();
        }
        self.is_handed_over = heir.give(lock, link);
        if self.is_handed_over {
            self.lock = None;
        }
        match &mut self.inline {
            // The program in it is the other process's, with which it shall end.
            Some(inline) if self.is_handed_over => inline.steer.detach(),
            Some(inline) => inline.steer.reclaim(&self.name).map_err(Error::Xdp)?,
            None => {}
        }
        Ok(self.is_handed_over)
    }

    /// The queues in which the workers leave what they saw.
    pub(super) fn sightings(&self) -> Vec<Arc<ArrayQueue<Sighting>>> {
        self.inline
            .as_ref()
            .map(|inline| inline.sightings.clone())
            .unwrap_or_default()
    }

    /// What each worker shows, and what waits for the engine, by queue.
    pub(super) fn queues(&self) -> impl Iterator<Item = (&Shared, &ArrayQueue<Sighting>)> {
        let inline = self.inline.iter();
        inline.flat_map(|inline| {
            let workers = inline.workers.iter().map(|worker| worker.shared.as_ref());
            workers.zip(inline.sightings.iter().map(Arc::as_ref))
        })
    }

    /// What `steer` did, by queue; nothing in mirror mode, or when it cannot be read now.
    pub(super) fn steered(&self) -> Vec<[u64; xdp::COUNTERS]> {
        let Some(inline) = &self.inline else {
            return Vec::new();
        };
        let queues = inline.sightings.len();
        inline.steer.queue_counters(queues).unwrap_or_default()
    }

    /// The workers, to tell them what the kernel says.
    pub(super) fn workers(&self) -> Vec<Arc<Shared>> {
        let workers = self.inline.as_ref().map(|inline| inline.workers.as_slice());
        let workers = workers.unwrap_or_default().iter();
        workers.map(|worker| Arc::clone(&worker.shared)).collect()
    }

    /// How the workers are.
    pub(super) fn health(&self) -> Vec<Health> {
        let workers = self.inline.as_ref().map(|inline| inline.workers.as_slice());
        workers
            .unwrap_or_default()
            .iter()
            .map(|worker| worker.shared.health())
            .collect()
    }

    /// Follows a change of the interface's MAC, without which handed-back frames would be taken for
    /// somebody else's.
    pub(super) fn follow_mac(&mut self, mac: crate::wire::Mac) -> Result<(), Error> {
        match self.inline.as_mut().and_then(|inline| inline.pair.as_mut()) {
            Some(pair) => pair.follow_mac(mac).map_err(Error::Handback),
            None => Ok(()),
        }
    }

    /// Running totals for the coverage record; `None` when they cannot be read now.
    pub(super) fn totals(&self) -> Option<Totals> {
        match &self.inline {
            Some(inline) => inline.totals(),
            None => Some(Totals::default()),
        }
    }

    /// Headers of SYN, FIN and RST that went past unseen so far; `None` in mirror mode, of which the engine knows,
    /// or when it cannot be told now.
    pub(super) fn copies_lost(&self) -> Option<u64> {
        self.inline.as_ref()?.copies_lost()
    }

    /// The ledger so far; `None` in mirror mode, or when it cannot be told now.
    pub(super) fn ledger(&self) -> Option<Ledger> {
        let credit = WorkerConfig::new(self.id).credit;
        self.inline.as_ref()?.ledger(credit)
    }

    /// Leaves the post. Workers first: each closes its gate, from when on the kernel passes frames,
    /// and hands back what it holds; then `steer` is detached and the pair removed.
    pub(super) fn close(mut self) -> Closed {
        let Some(mut inline) = self.inline.take() else {
            return Closed {
                totals: Some(Totals::default()),
                ..Closed::default()
            };
        };
        let mut workers = std::mem::take(&mut inline.finished);
        workers.extend(inline.stop_workers());
        let steer = inline.steer.counters().ok();
        let counters = workers.iter().map(|worker| worker.counters);
        let totals = steer.as_ref().map(|steer| totals(steer, counters));
        inline.steer.detach();
        inline.live = None;
        let mut warnings = Vec::new();
        if let Some(pair) = inline.pair.take()
            && let Err(error) = pair.remove()
        {
            warnings.push(format!("{}: {error}", self.name));
        }
        Closed {
            steer,
            workers,
            warnings,
            totals,
        }
    }
}

/// Receive queues to serve: all, or as many as were asked for. Frames of the others pass in the
/// kernel and are copied.
pub(super) fn queues(interface: &Interface, config: &RunConfig) -> u32 {
    let limit = config.queue_limit.map_or(u32::MAX, u32::from);
    interface
        .rx_queue_count
        .clamp(1, xdp::QUEUES_MAX)
        .min(limit.max(1))
}
