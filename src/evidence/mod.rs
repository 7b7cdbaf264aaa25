//! One file a kind of test. Each test is a pure function of a [`Case`] that answers with one
//! measured fact, or with nothing when it does not apply. A test never decides and does not know
//! what its fact weighs: `verdict` has the weights in one table, and the sum decides.

pub mod acceptance;
mod basis;
mod circumstances;
pub mod guesses;
pub mod heard_again;
mod held_back;
pub mod hop_limit;
pub mod injectors;
pub mod ip_id;
pub mod link;
mod moment;
mod needs;
pub mod next_door;
mod opener;
pub mod overtaken;
pub mod own_reset;
pub mod race;
mod reordering;
pub mod sequence;
pub mod shape;
pub mod siblings;
pub mod stamps;
#[cfg(test)]
pub(crate) mod testing;
pub mod timing;
pub mod train;
mod ways;

pub use basis::Stack;
pub use circumstances::{ALREADY_CLOSED, Circumstances, NEVER_ACCEPTED, PROCESS_ENDED};
pub use injectors::{InjectorFacts, InjectorMemory};
pub use needs::Needs;
pub use reordering::ReorderingMemory;
pub use siblings::{SiblingFacts, SiblingMemory};

use std::borrow::Cow;
use std::fmt;

use crate::flow::{FlowFacts, HalfFlow};
use crate::host::SocketView;
use crate::time::Timestamp;
use crate::vantage::Vantage;
use crate::wire::{Mac, Segment, SeqNum};

/// Tests that share a cause and so must not be added up without bound (evidence notes §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// Hop limit.
    HopLimit,
    /// IP ID and Don't Fragment.
    IpId,
    /// Flags, window, options and payload of the reset itself.
    Shape,
    /// Several resets: their number, order and steps.
    Train,
    /// Whether SEQ and ACK fit the connection.
    Validity,
    /// What came after the reset.
    Race,
    /// Timing and circumstance.
    Context,
    /// MAC and VLAN.
    Link,
    /// What the kernel of this host said.
    Origin,
}

impl Group {
    /// Every group.
    pub const ALL: [Self; 9] = [
        Self::HopLimit,
        Self::IpId,
        Self::Shape,
        Self::Train,
        Self::Validity,
        Self::Race,
        Self::Context,
        Self::Link,
        Self::Origin,
    ];

    /// The word in a record.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HopLimit => "hop_limit",
            Self::IpId => "ip_id",
            Self::Shape => "shape",
            Self::Train => "train",
            Self::Validity => "validity",
            Self::Race => "race",
            Self::Context => "context",
            Self::Link => "link",
            Self::Origin => "origin",
        }
    }
}

/// Whom a fact speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Favors {
    /// The endpoint whose address the reset bears.
    Remote,
    /// Somebody else with that address.
    Injected,
    /// This host.
    Local,
    /// Another reset that this one passes on.
    Forwarded,
}

impl Favors {
    /// Every side.
    pub const ALL: [Self; 4] = [Self::Remote, Self::Injected, Self::Local, Self::Forwarded];

    /// The word in a record.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Remote => "remote",
            Self::Injected => "injected",
            Self::Local => "local",
            Self::Forwarded => "forwarded",
        }
    }
}

/// A measured or expected value, as a record shows it.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A number.
    Number(i64),
    /// Words, or a list of values.
    Text(Cow<'static, str>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<u8> for Value {
    fn from(number: u8) -> Self {
        Self::Number(i64::from(number))
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(i64::from(number))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(i64::from(number))
    }
}

/// What a test can find, once for all: its name in records, the cap that it shares, and whom it
/// speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Its stable name, `snake_case`.
    pub name: &'static str,
    /// The group whose cap it shares.
    pub group: Group,
    /// Whom it speaks for.
    pub favors: Favors,
}

impl Kind {
    const fn injected(name: &'static str, group: Group) -> Self {
        Self {
            name,
            group,
            favors: Favors::Injected,
        }
    }

    const fn remote(name: &'static str, group: Group) -> Self {
        Self {
            name,
            group,
            favors: Favors::Remote,
        }
    }

    /// The fact, with what was measured and what a genuine reset would show. Not yet weighed.
    fn found(self, observed: impl Into<Value>, expected: impl Into<Value>) -> Evidence {
        Evidence {
            name: self.name,
            group: self.group,
            favors: self.favors,
            weight_db: 0.0,
            observed: Some(observed.into()),
            expected: Some(expected.into()),
        }
    }
}

/// A test: a pure function of one case.
pub type Test = fn(&Case<'_>) -> Option<Evidence>;

/// Every test, in the order of the evidence notes, each behind what a case must have for it to say
/// anything: most cases lack most of it, and a look is cheaper than a test.
pub const TESTS: &[(Needs, Test)] = &[
    (Needs::NOTHING, hop_limit::distance),
    (Needs::NOTHING, hop_limit::steady),
    (Needs::NOTHING, next_door::adjacent),
    (Needs::NO_HOPS, next_door::no_hops),
    (Needs::ID.and(Needs::ACK).and(Needs::SENDER), ip_id::counter),
    (Needs::ID.and(Needs::AFTER), ip_id::skipped),
    (Needs::ID, ip_id::mirror),
    (Needs::ID.and(Needs::ACK), ip_id::known),
    (Needs::SENDER, ip_id::dont_fragment),
    (Needs::BARE.and(Needs::WINDOW), shape::window_on_bare_reset),
    (Needs::ACK.and(Needs::WINDOW), stamps::timestamps_missing),
    (Needs::ACK.and(Needs::SENDER), shape::hybrid),
    (Needs::TIMESTAMPS, stamps::timestamps),
    (Needs::WINDOW.and(Needs::SENDER), shape::window_mirrored),
    (Needs::PAYLOAD, shape::payload),
    (Needs::NOTHING, shape::flags),
    (Needs::NOTHING, shape::reserved),
    (Needs::NOTHING, shape::options),
    (Needs::BARE.and(Needs::SENDER), shape::ack_without_flag),
    (Needs::BARE, shape::passive),
    (Needs::ACK.and(Needs::REFUSAL), shape::refusal),
    (Needs::TRAIN, train::rising),
    (Needs::TRAIN, train::ack_steps),
    (Needs::TRAIN.and(Needs::SENDER), train::repeats),
    (Needs::TRAIN, train::lock_step),
    (Needs::SEVERAL.and(Needs::ACK), train::falling),
    (Needs::OTHERS, injectors::residue_repeats),
    (Needs::OTHERS, siblings::counter),
    (Needs::OTHERS, siblings::one_place),
    (Needs::SOCKET, sequence::exact),
    (Needs::SOCKET, sequence::inexact),
    (Needs::SEVERAL, guesses::guesses),
    (Needs::ACK, sequence::ack),
    (Needs::REFUSAL, sequence::syn_answer),
    (Needs::SOCKET.and(Needs::BARE), sequence::unprovoked),
    (Needs::AFTER, race::sends_on),
    (Needs::AFTER, race::acks_on),
    (Needs::AFTER, heard_again::heard_again),
    (Needs::ANSWERED, race::answered),
    (Needs::AFTER.and(Needs::REFUSAL), race::syn_ack),
    (Needs::SEVERAL, own_reset::own_reset_follows),
    (Needs::NOTHING, link::mac),
    (Needs::SENDER, link::vlan),
    (Needs::SENDER.and(Needs::ACK), link::flow_label),
    (Needs::SENDER.and(Needs::ACK), timing::first_flight),
    (Needs::NOTHING, timing::idle_timer),
    (Needs::OTHERS, injectors::residual),
    (Needs::TOLD, acceptance::kernel),
];

/// Facts that a usual case has room for.
const USUAL_FACTS: usize = 8;

/// Runs every test over `case`. The facts are not weighed yet.
#[must_use]
pub fn gather(case: &Case<'_>) -> Vec<Evidence> {
    let mut found = Vec::with_capacity(USUAL_FACTS);
    let Some(has) = Needs::met_by(case) else {
        return found;
    };
    for (needs, test) in TESTS {
        if !needs.are_within(has) {
            debug_assert_eq!(test(case), None, "asks for more than it needs: {needs:?}");
        } else if let Some(fact) = test(case) {
            found.push(fact);
        }
    }
    found
}

/// One measured fact and its weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// Its stable name in records, `snake_case`.
    pub name: &'static str,
    /// The group whose cap it shares.
    pub group: Group,
    /// Whom it speaks for.
    pub favors: Favors,
    /// 10·log10 of the likelihood ratio, always as strength (≥ 0) in the direction of `favors`.
    /// A test leaves it 0; `verdict` fills it from its table.
    pub weight_db: f32,
    /// What was measured.
    pub observed: Option<Value>,
    /// What a genuine reset would show.
    pub expected: Option<Value>,
}

impl Evidence {
    /// What was measured, where that is words.
    #[must_use]
    pub fn words(&self) -> Option<&str> {
        match &self.observed {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }
}

/// How a reset's SEQ fits RCV.NXT of its receiver, as RFC 5961 §3 sorts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SequenceFit {
    /// Exactly the next one: the receiver accepts it.
    Exact,
    /// Inside the window, not exact: the receiver answers with a challenge ACK.
    InWindow,
    /// Outside: the receiver drops it.
    OutOfWindow,
    /// Nothing to compare with.
    Unknown,
}

/// One reset of an episode, with the circumstances of its arrival.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ResetSeen {
    /// When.
    pub time: Timestamp,
    /// Where and on which way.
    pub vantage: Vantage,
    /// The segment.
    pub segment: Segment,
    /// Sent by the same end as the episode's first reset.
    pub from_sender: bool,
    /// The socket that it met.
    pub socket: Option<SocketView>,
    /// How its SEQ fits.
    pub fit: SequenceFit,
    /// SEQ minus the expected one, where that is known.
    pub offset: Option<i32>,
}

/// A segment that is not a reset, from the purported sender, after the first reset.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AfterReset {
    /// When.
    pub time: Timestamp,
    /// The segment.
    pub segment: Segment,
}

/// A reset that this host's kernel sent in answer to a segment of the purported sender, after the
/// first reset: the sender still talks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AnsweredAfterReset {
    /// When.
    pub time: Timestamp,
    /// SEG.SEQ of the answered segment, from the kernel, or from its copy.
    pub seq: Option<SeqNum>,
    /// Its payload length.
    pub len: Option<u32>,
    /// Its SEG.ACK, which is the answer's SEQ (RFC 9293 §3.10.7.1); only where the kernel does not tell of
    /// the answer, and its frame alone is there.
    pub ack: Option<SeqNum>,
}

/// How many resets and later segments of one episode are kept in full (design §4: the first 16).
pub const KEPT: usize = 16;

/// Everything that is known of one episode, for the tests to read.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// The episode's resets in order of time, both directions; at least one. The first is judged.
    pub resets: &'a [ResetSeen],
    /// The flow before the first reset; `sender` is the purported sender.
    pub flow: &'a FlowFacts,
    /// What the purported sender sent after the first reset, resets excluded, in order of time.
    pub after: &'a [AfterReset],
    /// Segments of the purported sender that this host's kernel answered with a reset afterwards.
    pub answered: &'a [AnsweredAfterReset],
    /// The kernel accepted the first reset (`tcp_receive_reset`); `None` when it cannot be known.
    pub accepted: Option<bool>,
    /// A SYN opened the same four-tuple anew after the first reset: what follows belongs to
    /// another connection, and is neither in `resets` nor in `after`.
    pub reopened: bool,
    /// The frames come from a capture file: checksums, duplicates and clock are the capture's.
    pub from_capture: bool,
    /// MAC of this host's own network interface, which a forged frame may bear by accident.
    pub own_mac: Option<Mac>,
    /// What forged resets of other flows have in common with the first one.
    pub injectors: InjectorFacts,
    /// What resets of other flows about that time have in common with the first one.
    pub siblings: SiblingFacts,
    /// Other connections with the first one's network had segments come out of order of late.
    pub path_reorders: bool,
}

impl<'a> Case<'a> {
    /// The first reset, which is judged.
    #[must_use]
    pub fn first(&self) -> Option<&'a ResetSeen> {
        self.resets.first()
    }

    /// The purported sender before the reset.
    #[must_use]
    pub fn sender(&self) -> Option<&'a HalfFlow> {
        self.flow.sender.as_ref()
    }

    /// The receiver before the reset.
    #[must_use]
    pub fn receiver(&self) -> Option<&'a HalfFlow> {
        self.flow.receiver.as_ref()
    }

    /// The resets that bear the first one's source address.
    pub fn from_sender(&self) -> impl Iterator<Item = &'a ResetSeen> + '_ {
        self.resets.iter().filter(|reset| reset.from_sender)
    }
}
