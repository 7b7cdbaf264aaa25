//! The ledger of frames: every frame that `steer` judged was redirected or passed by, and every one that
//! was redirected is back with the host (docs/operations.md). One for each interface, printed at the end
//! and shown while the sensor runs. It only adds up: what it is given was counted elsewhere.

use std::fmt::Write;

use crate::amount::counted;
use crate::metrics::{Family, Kind, Value};
use crate::worker::{Counters, Finished};
use crate::xdp::{self, BYPASSED};

/// Name of the family that holds the entries.
const FAMILY: &str = "rstscope_ledger_frames";

/// Label of an entry's name, and of its interface.
const ENTRY: &str = "entry";
const INTERFACE: &str = "interface";

/// Entries by name; the seven reasons of a bypass follow them.
const NAMES: [&str; 10] = [
    "redirected",
    "copied",
    "copies_lost",
    "received",
    "lost_before_ring",
    "handed_back",
    "abandoned",
    "dropped_at_veth",
    "under_way",
    "under_way_max",
];

/// The way of all steered frames of one interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Ledger {
    redirected: u64,
    copied: u64,
    copies_lost: u64,
    received: u64,
    lost_before_ring: u64,
    handed_back: u64,
    abandoned: u64,
    dropped_at_veth: u64,
    /// Frames that may be under way while workers run; 0 at the end.
    under_way_max: u64,
    /// By reason, in the order of [`BYPASSED`].
    bypassed: [u64; BYPASSED.len()],
}

impl Ledger {
    /// Adds what a worker that has ended leaves.
    pub(super) fn add(&mut self, worker: &Finished) {
        self.count(&worker.counters);
        self.abandoned += worker.abandoned;
    }

    /// Adds a worker that runs, and may have `credit` frames under way.
    pub(super) fn add_running(&mut self, counters: &Counters, credit: u32) {
        self.count(counters);
        // Once more, for those that came in while the counters were read.
        self.under_way_max += 2 * u64::from(credit);
    }

    fn count(&mut self, counters: &Counters) {
        self.received += counters.received;
        self.lost_before_ring += counters.losses.dropped + counters.losses.ring_full;
        self.handed_back += counters.handed_back;
        self.dropped_at_veth += counters.handback_dropped;
    }

    /// Sets what `steer` counted. Its counters are to be read after the workers', since nothing is received
    /// before it is redirected.
    pub(super) fn set_steered(&mut self, steer: &[u64; xdp::COUNTERS]) {
        let named = |name: &str| {
            let at = xdp::COUNTER_NAMES.iter().position(|known| *known == name);
            at.and_then(|at| steer.get(at)).copied().unwrap_or_default()
        };
        self.redirected = named("redirected");
        self.copied = named("copied");
        self.copies_lost = named("copy_lost");
        self.bypassed = BYPASSED.map(named);
    }

    /// Frames that its workers took.
    pub(super) const fn received(&self) -> u64 {
        self.received
    }

    /// Frames that its workers gave back, less those that are known to be lost on their way.
    pub(super) const fn given(&self) -> u64 {
        self.handed_back.saturating_sub(self.dropped_at_veth)
    }

    /// Frames that were redirected and are neither back nor lost; negative where more came back than were
    /// taken.
    fn under_way(&self) -> i128 {
        let gone = self.lost_before_ring + self.handed_back + self.abandoned;
        i128::from(self.redirected) - i128::from(gone)
    }

    /// Whether every frame is accounted for, and none is lost to the host.
    pub(super) fn balances(&self) -> bool {
        (0..=i128::from(self.under_way_max)).contains(&self.under_way())
            && self.handed_back + self.abandoned <= self.received
            && self.received + self.lost_before_ring <= self.redirected
            && self.lost_before_ring + self.abandoned + self.dropped_at_veth == 0
    }

    /// The whole of it in one line.
    pub(super) fn line(&self, name: &str) -> String {
        let bypassed: u64 = self.bypassed.iter().sum();
        let mut line = format!(
            "{name}: {} steered, {} redirected, {} received, {} handed back, {bypassed} bypassed",
            self.redirected + bypassed,
            self.redirected,
            self.received,
            self.handed_back,
        );
        let mut before = " (";
        for (reason, count) in BYPASSED.iter().zip(self.bypassed) {
            if count > 0 {
                // Writing to a string does not fail.
                let _ = write!(line, "{before}{reason} {count}");
                before = ", ";
            }
        }
        if bypassed > 0 {
            line.push(')');
        }
        if self.under_way_max > 0 {
            let _ = write!(line, ", {} under way", self.under_way());
        }
        let balance = if self.balances() {
            "balances"
        } else {
            "DOES NOT BALANCE"
        };
        let _ = write!(
            line,
            ", {} copied, {} copies lost; lost to the host: {} before the ring, {} in the worker, {} at \
             the veth; the ledger {balance}",
            self.copied,
            self.copies_lost,
            self.lost_before_ring,
            self.abandoned,
            self.dropped_at_veth,
        );
        line
    }

    fn entries(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let under_way = u64::try_from(self.under_way()).unwrap_or_default();
        let plain = [
            self.redirected,
            self.copied,
            self.copies_lost,
            self.received,
            self.lost_before_ring,
            self.handed_back,
            self.abandoned,
            self.dropped_at_veth,
            under_way,
            self.under_way_max,
        ];
        let bypassed = BYPASSED.into_iter().zip(self.bypassed);
        NAMES.into_iter().zip(plain).chain(bypassed)
    }

    fn set(&mut self, entry: &str, number: u64) {
        if let Some(at) = BYPASSED.iter().position(|name| *name == entry) {
            self.bypassed[at] = number;
        }
        match entry {
            "redirected" => self.redirected = number,
            "copied" => self.copied = number,
            "copies_lost" => self.copies_lost = number,
            "received" => self.received = number,
            "lost_before_ring" => self.lost_before_ring = number,
            "handed_back" => self.handed_back = number,
            "abandoned" => self.abandoned = number,
            "dropped_at_veth" => self.dropped_at_veth = number,
            "under_way_max" => self.under_way_max = number,
            // A sum of others.
            _ => {}
        }
    }
}

/// The ledgers as numbers: their entries, and whether they balance.
pub(super) fn families<'a>(ledgers: impl Iterator<Item = (&'a str, Ledger)>) -> [Family; 2] {
    let mut entries = Family::new(
        Kind::Gauge,
        FAMILY,
        "The ledger of frames, by interface and entry.",
    );
    let mut balances = Family::new(
        Kind::Gauge,
        "rstscope_ledger_balances",
        "Whether every frame is accounted for and none was lost to the host: 1, or 0.",
    );
    for (interface, ledger) in ledgers {
        for (entry, number) in ledger.entries() {
            entries.number(&[(INTERFACE, interface), (ENTRY, entry)], number);
        }
        balances.number(&[(INTERFACE, interface)], u64::from(ledger.balances()));
    }
    [entries, balances]
}

/// The lines of the ledgers that [`families`] made numbers of.
pub(super) fn lines(families: &[Family]) -> Vec<String> {
    let mut found: Vec<(&str, Ledger)> = Vec::new();
    let samples = families.iter().filter(|family| family.name == FAMILY);
    for sample in samples.flat_map(|family| &family.samples) {
        let label = |wanted| {
            let mut labels = sample.labels.iter();
            labels.find_map(|(name, value)| (*name == wanted).then_some(value.as_str()))
        };
        let (Some(interface), Some(entry), Value::Number(number)) =
            (label(INTERFACE), label(ENTRY), &sample.value)
        else {
            continue;
        };
        if found.last().is_none_or(|(last, _)| *last != interface) {
            found.push((interface, Ledger::default()));
        }
        if let Some((_, ledger)) = found.last_mut() {
            ledger.set(entry, *number);
        }
    }
    found
        .iter()
        .map(|(name, ledger)| ledger.line(name))
        .collect()
}

/// What the host's side says of all interfaces: `arrived` frames were taken in, of those that `ledgers`
/// gave. `doubled` are those that may have come twice, since a burst of them failed halfway.
pub(super) fn arrivals<'a>(
    ledgers: impl Iterator<Item = &'a Ledger>,
    arrived: u64,
    doubled: u64,
) -> String {
    let given: u64 = ledgers.map(Ledger::given).sum();
    let balance = if (given..=given + doubled).contains(&arrived) {
        "balances"
    } else {
        "DOES NOT BALANCE"
    };
    format!(
        "{} given back, {arrived} taken in by the host, which {balance}",
        counted(given, "frame")
    )
}

#[cfg(test)]
mod tests {
    use super::{BYPASSED, Ledger, NAMES, arrivals, families, lines};
    use crate::flow::TableCounters;
    use crate::sys::RxLosses;
    use crate::worker::{Balance, Counters, Finished, LatencySummary};
    use crate::xdp;

    /// Nothing that a worker or `steer` counted may be left out on the way into the ledger.
    #[test]
    fn all_that_was_counted_comes_into_the_ledger() {
        let worker = Finished {
            counters: Counters {
                received: 1000,
                handed_back: 900,
                handback_dropped: 30,
                losses: RxLosses {
                    dropped: 4,
                    ring_full: 5,
                    ..RxLosses::default()
                },
                ..Counters::default()
            },
            balance: Balance::default(),
            abandoned: 100,
            in_flight: 0,
            is_drained: false,
            latency: LatencySummary::default(),
            table: TableCounters::default(),
            news_lost: 0,
        };
        let mut ledger = Ledger::default();
        ledger.add(&worker);
        ledger.add(&worker);
        let steer = std::array::from_fn(|at| 1 << at);
        ledger.set_steered(&steer);
        let of = |name: &str| {
            let at = xdp::COUNTER_NAMES.iter().position(|known| *known == name);
            steer[at.unwrap()]
        };
        let wanted = Ledger {
            redirected: of("redirected"),
            copied: of("copied"),
            copies_lost: of("copy_lost"),
            received: 2000,
            lost_before_ring: 18,
            handed_back: 1800,
            abandoned: 200,
            dropped_at_veth: 60,
            under_way_max: 0,
            bypassed: BYPASSED.map(of),
        };
        assert_eq!(ledger, wanted);
        assert_eq!(ledger.given(), 1740);
    }

    fn whole() -> Ledger {
        Ledger {
            redirected: 10,
            received: 10,
            handed_back: 10,
            copied: 5,
            bypassed: [0, 0, 0, 0, 0, 2, 0, 3, 0, 0],
            ..Ledger::default()
        }
    }

    #[test]
    fn a_ledger_with_a_frame_missing_says_so() {
        let whole = whole();
        assert_eq!(
            whole.line("eth0"),
            "eth0: 15 steered, 10 redirected, 10 received, 10 handed back, 5 bypassed (bypass_credit 2, \
             bypass_draining 3), 5 copied, 0 copies lost; lost to the host: 0 before the ring, 0 in the \
             worker, 0 at the veth; the ledger balances"
        );
        for broken in [
            Ledger {
                received: 9,
                handed_back: 9,
                ..whole
            },
            Ledger {
                handed_back: 9,
                ..whole
            },
            Ledger {
                handed_back: 9,
                abandoned: 1,
                ..whole
            },
            Ledger {
                dropped_at_veth: 1,
                ..whole
            },
            Ledger {
                received: 9,
                handed_back: 9,
                lost_before_ring: 1,
                ..whole
            },
            Ledger {
                redirected: 9,
                ..whole
            },
            Ledger {
                received: 11,
                ..whole
            },
        ] {
            assert!(!broken.balances(), "{broken:?}");
            assert!(broken.line("eth0").ends_with("DOES NOT BALANCE"));
        }
    }

    #[test]
    fn while_it_runs_as_many_may_be_under_way_as_there_is_credit() {
        let running = Ledger {
            under_way_max: 4,
            handed_back: 8,
            received: 9,
            redirected: 12,
            ..whole()
        };
        assert!(running.balances());
        assert!(
            running.line("eth0").contains(", 4 under way,"),
            "{}",
            running.line("eth0")
        );
        assert!(
            !Ledger {
                redirected: 13,
                ..running
            }
            .balances()
        );
        assert!(
            !Ledger {
                handed_back: 10,
                ..running
            }
            .balances(),
            "more back than came"
        );
    }

    #[test]
    fn what_the_numbers_hold_is_the_whole_ledger() {
        let mut every = Ledger {
            under_way_max: 1,
            ..Ledger::default()
        };
        for (number, entry) in (1..).zip(NAMES.iter().chain(&BYPASSED)) {
            every.set(entry, number);
        }
        let given = [("eth0", every), ("eth1", whole())];
        let families = families(given.into_iter());
        assert_eq!(
            lines(&families),
            given.map(|(name, ledger)| ledger.line(name))
        );
        let entries: Vec<u64> = every.entries().map(|(_, number)| number).collect();
        let distinct: std::collections::HashSet<&u64> = entries.iter().collect();
        assert_eq!(
            distinct.len(),
            entries.len(),
            "two entries are one: {entries:?}"
        );
    }

    #[test]
    fn what_the_host_took_in_is_held_against_what_was_given() {
        let (one, two) = (
            whole(),
            Ledger {
                dropped_at_veth: 3,
                ..whole()
            },
        );
        let said = |arrived, doubled| arrivals([&one, &two].into_iter(), arrived, doubled);
        assert_eq!(
            said(17, 0),
            "17 frames given back, 17 taken in by the host, which balances"
        );
        for (arrived, doubled, balances) in [
            (16, 0, false),
            (18, 0, false),
            (18, 1, true),
            (16, 1, false),
        ] {
            assert_eq!(said(arrived, doubled).ends_with("which balances"), balances);
        }
    }
}
