//! Resets that belong to no connection anybody knows, when there are many: a flood of backscatter, a
//! sweep over ports, this host's answers to a scan. Beyond a rate they are folded into one record that
//! counts them and shows a sample. A reset that meets a known flow or a local socket is never folded,
//! so that what is worth a verdict finds room: in the episodes, in the queue of records, on the disk.

mod record;

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use super::Engine;
use super::episode::Sent;
use super::facts;
use super::sketch::Distinct;
use crate::evidence::{KEPT, ResetSeen};
use crate::flow::{FlowFacts, FlowKey, HalfFlow, Side};
use crate::host::SocketView;
use crate::record::ResetRecord;
use crate::time::{SECOND, Timestamp};
use crate::vantage::{InterfaceId, Path};
use crate::wire::Network;
use record::compose;

/// Flows a second and network that get a record of their own: a person can look at some dozens, and
/// the everyday strays of a busy host (late answers, a scanner's few) stay below. With 3 KB a record,
/// one network's flood costs 150 KB of disk a second.
pub(super) const TOLD_A_SECOND: u32 = 50;

/// Networks told apart at once; what is beyond goes into one place an interface, so that a flood to
/// random addresses costs no more than this: 64 · 50 records a second, a tenth of what one CPU writes.
const NETWORKS_MAX: usize = 64;

/// A flood that goes on is told this often, as coverage is.
const TELL_NS: u64 = 10 * SECOND;

/// A flood is over when nothing was folded for this long.
const QUIET_NS: u64 = SECOND;

/// The event of a passive reset is microseconds before its frame, but both may wait in the kernel's
/// buffer while this thread is not scheduled; frames whose events were refused may come until then.
const EVENT_AHEAD_NS: u64 = SECOND;

/// A local network as operators cut them: IPv4 /24, IPv6 /64.
const fn prefix_len(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 24,
        IpAddr::V6(_) => 64,
    }
}

/// What such resets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    /// They came in, and nobody here knows what for.
    Stray,
    /// This host answered segments of no connection with them.
    Answer,
}

/// What is counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Place {
    kind: Kind,
    /// Where they came in; of answers not told, since the kernel's events do not name it.
    interface: Option<InterfaceId>,
    /// Where strays go, and answers come from.
    network: Network,
}

/// One place's resets.
#[derive(Debug)]
struct Flood {
    /// Since when [`TOLD_A_SECOND`] is counted.
    second: Timestamp,
    /// Flows that got a record of their own since then.
    told: u32,
    /// When a flow did last not get one.
    refused: Option<Timestamp>,
    /// The kernel's words on answers that opened no episode, whose frames are still to come.
    words: u64,
    folded: Option<Box<Folded>>,
}

/// What was folded since the last record.
#[derive(Debug)]
struct Folded {
    first: ResetSeen,
    last: Timestamp,
    /// Something was folded since the last look at it.
    is_stirred: bool,
    /// When it was first looked at, and when it had last been stirred: by the time of the looks, since
    /// the resets' own may be seconds old where many wait.
    looked: Option<Timestamp>,
    stirred: Timestamp,
    count: u64,
    /// Of these, seen leaving again by another interface.
    routed: u64,
    /// Of these, to addresses that are not this host's.
    elsewhere: u64,
    /// Answers that the kernel said it had sent.
    attested: u64,
    flows: Distinct,
    /// The first, and a random choice of the others (reservoir sampling, Vitter 1985).
    sample: Vec<ResetSeen>,
}

/// All floods under way.
#[derive(Debug)]
pub(super) struct Folding {
    floods: HashMap<Place, Flood>,
    /// When to look at them next.
    look: Timestamp,
    /// Nobody outside can choose flows that count as one.
    secret: [u64; 2],
}

impl Folding {
    pub(super) fn new(secret: [u64; 2]) -> Self {
        Self {
            floods: HashMap::new(),
            look: Timestamp::default(),
            secret,
        }
    }

    /// The flood of a place, or of all places beyond [`NETWORKS_MAX`].
    fn flood(
        &mut self,
        kind: Kind,
        interface: Option<InterfaceId>,
        at: IpAddr,
    ) -> (Place, &mut Flood) {
        let mut place = Place {
            kind,
            interface,
            network: Network::around(at, prefix_len(at)),
        };
        if self.floods.len() >= NETWORKS_MAX && !self.floods.contains_key(&place) {
            place.network = Network::around(at, 0);
        }
        let flood = self.floods.entry(place).or_insert_with(|| Flood {
            second: Timestamp::default(),
            told: 0,
            refused: None,
            words: 0,
            folded: None,
        });
        (place, flood)
    }

    /// The copy of a folded reset leaves this host: whether it was one.
    fn note_routed(&mut self, reset: &ResetSeen) -> bool {
        let to = reset.segment.tuple.dst;
        let folded = self.floods.iter_mut().find_map(|(place, flood)| {
            let is_it = place.kind == Kind::Stray && place.network.contains(to);
            flood.folded.as_mut().filter(|_| is_it)
        });
        folded.is_some_and(|folded| {
            folded.routed += 1;
            true
        })
    }
}

impl Flood {
    /// Whether a flow may have a record of its own now.
    fn admits(&mut self, time: Timestamp) -> bool {
        if time.since(self.second) >= SECOND {
            self.second = time;
            self.told = 0;
        }
        let admitted = self.told < TOLD_A_SECOND;
        if admitted {
            self.told += 1;
        }
        admitted
    }

    fn refused_lately(&self, time: Timestamp) -> bool {
        self.refused
            .is_some_and(|refused| time.since(refused) < EVENT_AHEAD_NS)
    }

    fn fold(&mut self, reset: &ResetSeen, hash: u64, elsewhere: bool) {
        let attested = self.words > 0 && self.refused_lately(reset.time);
        self.words = if attested { self.words - 1 } else { 0 };
        self.refused = Some(reset.time);
        let folded = self.folded.get_or_insert_with(|| {
            Box::new(Folded {
                first: *reset,
                last: reset.time,
                is_stirred: true,
                looked: None,
                stirred: reset.time,
                count: 0,
                routed: 0,
                elsewhere: 0,
                attested: 0,
                flows: Distinct::new(),
                sample: Vec::with_capacity(KEPT),
            })
        });
        folded.count += 1;
        folded.elsewhere += u64::from(elsewhere);
        folded.is_stirred = true;
        folded.attested += u64::from(attested);
        folded.last = folded.last.max(reset.time);
        folded.flows.note(hash);
        if folded.sample.len() < KEPT {
            folded.sample.push(*reset);
            return;
        }
        // The first stays. The hash is the flow's: another factor for each reset makes it a die.
        let die = hash.rotate_left(17).wrapping_mul(folded.count | 1) % (folded.count - 1);
        let place = usize::try_from(die).unwrap_or(usize::MAX).saturating_add(1);
        if let Some(old) = folded.sample.get_mut(place) {
            *old = *reset;
        }
    }
}

impl Folded {
    /// Whether the flood is over, or goes on for long.
    fn look(&mut self, now: Timestamp) -> bool {
        if std::mem::take(&mut self.is_stirred) {
            self.stirred = now;
        }
        let looked = *self.looked.get_or_insert(now);
        now.since(self.stirred) >= QUIET_NS || now.since(looked) >= TELL_NS
    }
}

impl Engine {
    /// Whether a reset is told in a record of many. Then nothing more is to be done with it.
    pub(super) fn folds(&mut self, key: &FlowKey, reset: &ResetSeen, flow: &FlowFacts) -> bool {
        // Nearly all of a capture, and nothing has to be looked up for it.
        if reset.vantage.path == Path::Capture && is_known(flow, Kind::Stray) {
            return false;
        }
        if self.episodes.contains(key) || self.has_past(key) {
            return false;
        }
        let tuple = reset.segment.tuple;
        let time = reset.time;
        let (kind, interface, at) = match reset.vantage.path {
            Path::Ingress | Path::Capture if self.is_stray(reset) => {
                (Kind::Stray, Some(reset.vantage.interface), tuple.dst)
            }
            Path::Egress { forwarded: false } if is_bare(reset) => (Kind::Answer, None, tuple.src),
            Path::Egress { forwarded: true } if !is_known(flow, Kind::Stray) => {
                let is_folded = self.folding.note_routed(reset);
                self.counters.folded += u64::from(is_folded);
                return is_folded;
            }
            _ => return false,
        };
        if is_known(flow, kind) || self.config.older.contains(key) {
            return false;
        }
        let (is_crowded, offline) = (self.is_crowded(), self.config.offline);
        let hash = self.hash(key);
        let own = self.config.own_addresses.as_ref();
        let is_elsewhere = own.is_some_and(|own| !own.contains(&at)) || flow.first_seen.is_some();
        let elsewhere = kind == Kind::Stray && is_elsewhere;
        let (_, flood) = self.folding.flood(kind, interface, at);
        // An answer without an episode may be one whose event opened none: alone it would look like a
        // packet filter's.
        let is_answered = kind == Kind::Answer && flood.refused_lately(time);
        if !is_crowded && !is_answered && (offline || flood.admits(time)) {
            return false;
        }
        flood.fold(reset, hash, elsewhere);
        self.counters.folded += 1;
        true
    }

    /// Whether the kernel's word on an answer of its own opens no episode: the answer's frame, which
    /// follows, will then be folded.
    pub(super) fn folds_answer(&mut self, key: &FlowKey, local: Side, sent: &Sent) -> bool {
        let is_answer = !sent.active && sent.state.is_none() && sent.caller().is_none();
        if !is_answer || self.episodes.contains(key) || self.has_past(key) {
            return false;
        }
        if is_known(&self.tracker.facts(key, local, sent.time), Kind::Answer) {
            return false;
        }
        let (is_crowded, at) = (self.is_crowded(), key.endpoint(local).address);
        let (_, flood) = self.folding.flood(Kind::Answer, None, at);
        if !is_crowded && flood.admits(sent.time) {
            return false;
        }
        flood.refused = Some(sent.time);
        flood.words += 1;
        true
    }

    /// A quarter of the episodes is kept for resets of connections that somebody knows.
    fn is_crowded(&self) -> bool {
        let capacity = self.config.episode_capacity;
        self.episodes.len() >= capacity - capacity / 4
    }

    /// An earlier record may have to be corrected, or explains what comes now.
    fn has_past(&self, key: &FlowKey) -> bool {
        self.judged.contains(key) || self.resting.holds(key)
    }

    fn is_stray(&self, reset: &ResetSeen) -> bool {
        match reset.vantage.path {
            Path::Capture => facts::incoming(reset, &self.config) != Some(false),
            _ => matches!(
                reset.socket,
                Some(SocketView::Absent | SocketView::Listener)
            ),
        }
    }

    fn hash(&self, key: &FlowKey) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.folding.secret, key).hash(&mut hasher);
        hasher.finish()
    }

    /// Tells of the floods that are over or have gone on for long; at the end (`None`) of all.
    #[inline]
    pub(super) fn unfold(&mut self, now: Option<Timestamp>, emit: &mut impl FnMut(ResetRecord)) {
        // Time passes with every packet, and there is hardly ever a flood.
        if self.folding.floods.is_empty() || now.is_some_and(|now| now < self.folding.look) {
            return;
        }
        self.unfold_some(now, emit);
    }

    #[inline(never)]
    fn unfold_some(&mut self, now: Option<Timestamp>, emit: &mut impl FnMut(ResetRecord)) {
        let mut due = Vec::new();
        self.folding.floods.retain(|place, flood| {
            let is_due = |folded: &mut Box<Folded>| now.is_none_or(|now| folded.look(now));
            due.extend(flood.folded.take_if(is_due).map(|folded| (*place, folded)));
            let is_idle = now.is_none_or(|now| now.since(flood.second) >= TELL_NS);
            flood.folded.is_some() || !is_idle
        });
        if let Some(now) = now {
            self.folding.look = now.plus_nanos(QUIET_NS / 10);
        }
        due.sort_by_key(|(_, folded)| folded.first.time);
        for (place, folded) in due {
            let record = compose(place, *folded, &self.config, self.sequence + 1);
            self.count_record(&record);
            self.counters.aggregates += 1;
            emit(record);
        }
    }
}

/// Something was heard of that connection. What this host answers with a reset opens none, be it a SYN
/// to a closed port or a FIN out of nowhere: of the peer's side both must have been heard.
fn is_known(flow: &FlowFacts, kind: Kind) -> bool {
    let is_more = |half: &HalfFlow| half.syn.is_some() && (half.has_data || half.fin.is_some());
    flow.sender.is_some()
        || flow.established
        || flow
            .receiver
            .as_ref()
            .is_some_and(|half| kind == Kind::Stray || is_more(half))
}

/// The form in which TCP answers a segment of no connection (RFC 9293 §3.5.2): a socket's own reset
/// carries its window or options.
const fn is_bare(reset: &ResetSeen) -> bool {
    reset.segment.window == 0 && reset.segment.options.len == 0
}
