//! Every weight that a verdict rests on, in one table: decibans (10·log10 of the likelihood ratio
//! between a third party and the endpoint), the reason, and the numbers it came from. Flows are
//! those of labeled captures, "fires / applies". Weights are deliberately below what was measured:
//! the labels lean on some of the same fields, and flows of one capture are no independent sample.

use crate::evidence::{
    Group, Kind, acceptance, guesses, heard_again, hop_limit, injectors, ip_id, link, next_door,
    own_reset, race, sequence, shape, siblings, stamps, timing, train,
};

/// One kind of fact and what it is worth.
#[derive(Debug, Clone, Copy)]
pub struct Weight {
    /// The fact.
    pub kind: Kind,
    /// Strength in decibans, in the direction that the kind favors.
    pub db: f32,
    /// Why that much.
    pub reason: &'static str,
}

const fn weight(kind: Kind, db: f32, reason: &'static str) -> Weight {
    Weight { kind, db, reason }
}

/// The table.
pub const WEIGHTS: &[Weight] = &[
    // Hop limit.
    weight(
        hop_limit::MISMATCH,
        20.0,
        "injected 154/163, genuine 0/303: 20 dB by the rule of three; Cloudflare: under 1 % of normal flows jump",
    ),
    weight(
        hop_limit::STEADY,
        12.0,
        "by choice: of the genuine jumps, routes and fronts with several distances would have shown before",
    ),
    weight(
        hop_limit::PATH_MISMATCH,
        8.0,
        "another flow may have ended at another machine: far less than the above",
    ),
    weight(
        hop_limit::CLASS_NEAR,
        10.0,
        "middlebox 21/26, genuine 3/303, those at equal hops",
    ),
    weight(
        hop_limit::HANDSHAKE_ONLY,
        12.0,
        "middlebox 3/33, genuine 0/136: 14 dB by the half-count rule; a socket may set its own TTL",
    ),
    weight(
        hop_limit::CLASS_SAME,
        4.0,
        "the 3 genuine flows are all of this kind (front ends with two stacks)",
    ),
    weight(
        next_door::NO_HOPS,
        12.0,
        "by the rule that routers decrement; user-mode NAT is left out; below that for NAT which does not",
    ),
    weight(
        next_door::ADJACENT,
        5.0,
        "on top of the mismatch: gateways and NAT next to the sensor; no genuine flow",
    ),
    weight(
        hop_limit::MATCH,
        7.0,
        "an injector with random hop limit hits within one at 3.9 % (14 dB); devices that copy it always",
    ),
    weight(hop_limit::PATH_MATCH, 4.0, "the same with a weaker base"),
    weight(
        hop_limit::PREFIX_MISMATCH,
        5.0,
        "no capture has it: hosts of one /24 share the way, but a proxy among them need not",
    ),
    weight(
        hop_limit::PREFIX_MATCH,
        2.0,
        "half of what its own address would say",
    ),
    // IP ID and Don't Fragment.
    weight(
        ip_id::OFF_COUNTER,
        13.0,
        "injected 59/63, genuine 0/75: over 13 dB by the rule of three",
    ),
    weight(
        ip_id::OFF_EXACT,
        17.0,
        "a random ID lies in a range of 80 at 0.1 %; the socket has counted, only renumbering NAT is left",
    ),
    weight(
        ip_id::OFF_RANGE,
        7.0,
        "the same where the sender may have random IDs",
    ),
    weight(
        ip_id::SKIPPED,
        15.0,
        "the counter itself shows the gap; chance 1 in 1000",
    ),
    weight(
        ip_id::MIRRORED,
        15.0,
        "chance 3 in 65536; seen only at devices that turn packets around",
    ),
    weight(
        ip_id::KNOWN,
        20.0,
        "Airtel 7/7 flows, published fingerprints; no genuine flow",
    ),
    weight(
        ip_id::DF_FLIP,
        11.0,
        "injected 46 %, middlebox 77 %, genuine 2.6 % of flows: 12 to 15 dB",
    ),
    weight(
        ip_id::ON_COUNTER,
        12.0,
        "a random ID hits a range of 16 at 0.02 %; a copied counter always",
    ),
    weight(
        ip_id::IN_RANGE,
        7.0,
        "a random ID hits a range of 2000 at 3 %",
    ),
    weight(
        siblings::COUNTER,
        15.0,
        "no two networks' hosts share one; two witnesses by chance at 0.01 %; held down for hosts of many addresses",
    ),
    // Shape.
    weight(
        shape::WINDOW_ON_BARE,
        15.0,
        "injected 92/94, genuine 2/246: 20 dB; old routers do it",
    ),
    weight(
        shape::WINDOW_ON_BARE_LINK,
        5.0,
        "passt of Debian 12 does it; no captured injector stands on the link",
    ),
    weight(
        stamps::TS_MISSING,
        15.0,
        "injected 8/8, genuine 0/12, and by the source of Linux and FreeBSD",
    ),
    weight(
        shape::HYBRID,
        10.0,
        "by the source of Linux; the captures hold it from Windows only, which is left out",
    ),
    weight(
        stamps::TS_MISSING_ANY,
        5.0,
        "Windows and proxies were not measured",
    ),
    weight(
        stamps::TS_WRONG,
        15.0,
        "no stack's clock jumps; no genuine flow",
    ),
    weight(
        stamps::TS_MATCH,
        12.0,
        "an injector must track the clock to the millisecond",
    ),
    weight(
        shape::WINDOW_MIRRORED,
        7.0,
        "injected 40 %, genuine 3 %, most of one device: 11 dB",
    ),
    weight(shape::PAYLOAD_KNOWN, 25.0, "ten fixed bytes"),
    weight(shape::PAYLOAD_DEVICE, 20.0, "the device says so itself"),
    weight(
        shape::PAYLOAD,
        7.0,
        "genuine 0/655 resets; old stacks write text",
    ),
    weight(
        shape::FLAGS_ODD,
        7.0,
        "no stack in use; scanners craft them",
    ),
    weight(shape::RESERVED, 15.0, "two injectors, no genuine flow"),
    weight(
        shape::OPTIONS_ODD,
        7.0,
        "no genuine flow; few injected ones",
    ),
    weight(
        shape::ACK_NO_FLAG,
        7.0,
        "two CenTrace devices; Windows is left out",
    ),
    weight(
        shape::PASSIVE,
        7.0,
        "genuine 244/246, injected 2/94 bare resets, but a rejecting firewall looks the same",
    ),
    weight(
        shape::REFUSAL,
        2.0,
        "genuine 6, middlebox 7 of the captured refusals: a rejecting firewall or NAT looks the same",
    ),
    // Trains.
    weight(
        train::RISING,
        25.0,
        "Weaver et al.: a compliant stack never does; no genuine flow once bare resets are left out",
    ),
    weight(
        train::ACK_STEPS,
        15.0,
        "seen only at the GFW, where the sender's stack answers by bare resets or stands elsewhere",
    ),
    weight(
        train::ACK_STEPS_ANY,
        5.0,
        "lwIP's answers look the same, and one injector in twenty-five copies the hop limit",
    ),
    weight(
        train::REPEATS,
        8.0,
        "two or more: injected 57 %, genuine 9.4 %",
    ),
    weight(
        train::COPIES,
        18.0,
        "one ID: injected 18 %, genuine 1.4 %, that a capture with doubled frames",
    ),
    weight(
        train::LOCK_STEP,
        20.0,
        "73/73 resets of the GFW; two packets of one path have one hop limit",
    ),
    weight(
        train::FALLING,
        7.0,
        "genuine pairs go down, injected ones up",
    ),
    weight(
        injectors::SEEN_BEFORE,
        10.0,
        "one of two residues in 73/73 resets of the GFW; chance 1 in 200 for each that is remembered",
    ),
    weight(
        injectors::REPEATS,
        18.0,
        "a residue that came back already: few of those are remembered of one network",
    ),
    weight(
        siblings::ONE_PLACE,
        12.0,
        "by estimate: several distances that become one within a second are no route's; never captured",
    ),
    // Validity.
    weight(
        sequence::EXACT,
        2.0,
        "against guessing only; whoever sees the traffic is exact too",
    ),
    weight(sequence::IN_WINDOW, 4.0, "lost data gives it too"),
    weight(
        sequence::OUT_OF_WINDOW,
        7.0,
        "old duplicates and peers that restarted give it too",
    ),
    weight(
        sequence::AHEAD,
        23.0,
        "by the source of Linux: it answers with an ACK that it was sent; this one never was",
    ),
    weight(
        sequence::AHEAD_ANY,
        13.0,
        "the same where the stack may abort with a bare reset",
    ),
    weight(guesses::GUESSES, 20.0, "genuine aborts miss once or twice"),
    weight(guesses::STEPS, 25.0, "a scan"),
    weight(
        sequence::ACK_IMPOSSIBLE,
        13.0,
        "RFC 9293: ACK is RCV.NXT; p0f knows broken stacks",
    ),
    weight(sequence::SYN_ACKS_ISN, 25.0, "no stack's answer"),
    weight(
        sequence::SYN_BARE,
        8.0,
        "RFC 9293 §3.10.7.1 asks for an ACK; stateless devices leave it out",
    ),
    weight(sequence::SYN_SEQ, 7.0, "one device of CenTrace"),
    weight(
        sequence::UNPROVOKED,
        23.0,
        "by the source of Linux; genuine 0 of some 400 bare resets once the round-trip is known",
    ),
    weight(
        sequence::UNPROVOKED_ANY,
        13.0,
        "the same where the stack may abort with a bare reset",
    ),
    // Race.
    weight(
        race::SENDS_ON,
        25.0,
        "impossible for the sender of the reset; of 43 resets followed by data 42 were far by hop limit",
    ),
    weight(
        race::SENDS_ON_SOON,
        17.0,
        "the network would have to reorder it, and the peer to lose its state at that moment",
    ),
    weight(race::ACKS_NEW, 20.0, "nobody is left to acknowledge"),
    weight(
        race::ACKS_ON,
        18.0,
        "the same, but without proof that the segment is new",
    ),
    weight(
        race::ACKS_NEW_SOON,
        17.0,
        "the network would have to reorder it, and the peer to lose its state at that moment",
    ),
    weight(race::ACKS_ON_SOON, 7.0, "the network may have reordered it"),
    weight(
        race::ANSWERED_NEW,
        20.0,
        "the kernel met new data of a sender that is said to be gone",
    ),
    weight(race::ANSWERED, 15.0, "the same without data"),
    weight(
        heard_again::AGAIN,
        12.0,
        "not by chance, but two segments of one machine share causes",
    ),
    weight(race::SYN_ACK, 25.0, "the port was open after all"),
    weight(
        own_reset::OWN_FOLLOWS,
        15.0,
        "the true peer's own answer, half a round-trip later",
    ),
    // Link.
    weight(
        link::MAC,
        12.0,
        "the way to an address does not change for one frame",
    ),
    weight(
        link::MAC_STEADY,
        27.0,
        "one injector in twenty is a neighbor; a reset in 10,000 comes by a router that carried no handshake yet while the old one still talks",
    ),
    weight(link::MAC_FEW, 5.0, "several routers may share the way"),
    weight(link::VLAN, 5.0, "several links may share the way"),
    weight(
        link::FLOW_LABEL,
        5.0,
        "by the source of Linux; no IPv6 injector was captured",
    ),
    // Context.
    weight(timing::FIRST_FLIGHT, 2.0, "clients give up too"),
    weight(timing::IDLE_TIMER, 3.0, "applications have timers too"),
    weight(
        injectors::RESIDUAL,
        3.0,
        "clients try again what fails for other reasons too",
    ),
    // The kernel.
    weight(acceptance::ACCEPTED, 1.0, "against guessing only"),
    weight(acceptance::REFUSED, 2.0, "goes with an inexact SEQ"),
];

/// The most that one group may add, either way: its members share causes (evidence notes §4).
#[must_use]
pub const fn cap_db(group: Group) -> f32 {
    match group {
        // Above the notes' 20: a steady distance is seen by two witnesses, and a jump off it must
        // outweigh all that a forger can copy, who cannot copy how far away he is.
        Group::HopLimit => 35.0,
        Group::IpId | Group::Shape | Group::Validity => 25.0,
        Group::Train => 30.0,
        // Above the notes' 30: two witnesses of a living peer must outweigh a perfect likeness.
        Group::Race => 40.0,
        Group::Context | Group::Origin => 10.0,
        // Above the notes' 15, where the flow and the address's others are two witnesses.
        Group::Link => 30.0,
    }
}

/// The most that all likeness together may say for the endpoint: one injector in ten is taken to
/// be careful enough to copy whatever it sees.
pub const LIKENESS_CAP_DB: f32 = 10.0;

/// The same where the reset is a stranger by what cannot be copied ([`STRANGER`]): of those who
/// stand elsewhere or lack the router's MAC one in three is taken to copy all the rest.
pub const STRANGER_LIKENESS_CAP_DB: f32 = 5.0;

/// Facts in which two witnesses agree that the reset came another way than all that the sender
/// sent: each convicts without a second group.
pub const STRANGER: [&str; 2] = [hop_limit::STEADY.name, link::MAC_STEADY.name];

/// Odds of a third party before anything is known of a reset: 3 % (evidence notes §4).
pub const PRIOR_DB: f32 = -15.0;

/// A group counts as speaking for a third party from here on.
pub const GROUP_COUNTS_DB: f32 = 4.0;

/// Sum from which a verdict is `injected`, given two groups: odds of 4 to 1.
pub const INJECTED_DB: f32 = 6.0;

/// Sum up to which a verdict is `remote`: odds of 4 to 1.
pub const REMOTE_DB: f32 = -6.0;

/// Places of the index: several times as many as weights, so that most names stand where they belong.
const PLACES: usize = 256;

/// Where to look for a name first: its length and three letters are enough.
const fn place(name: &str) -> usize {
    let bytes = name.as_bytes();
    match bytes {
        [first, .., last] => {
            let middle = bytes[bytes.len() / 2];
            (bytes.len() * 7 + *first as usize * 3 + *last as usize * 31 + middle as usize * 11)
                % PLACES
        }
        _ => 0,
    }
}

/// Which weight is at a place, counted from 1; each fact that is found is looked up, and there are
/// sixty to compare it with.
static INDEX: [u8; PLACES] = {
    let mut index = [0; PLACES];
    let mut at = 0;
    while at < WEIGHTS.len() {
        let mut place = place(WEIGHTS[at].kind.name);
        while index[place] != 0 {
            place = (place + 1) % PLACES;
        }
        at += 1;
        assert!(at <= u8::MAX as usize);
        [index[place], ..] = at.to_le_bytes();
    }
    index
};

/// Which of [`WEIGHTS`] a kind of fact has; `None` for one that is not in the table.
#[must_use]
pub fn weight_number(name: &str) -> Option<usize> {
    let mut at = place(name);
    loop {
        let number = usize::from(*INDEX.get(at)?).checked_sub(1)?;
        if WEIGHTS.get(number)?.kind.name == name {
            return Some(number);
        }
        at = (at + 1) % PLACES;
    }
}

/// What a kind of fact is worth; 0 for one that is not in the table.
#[must_use]
pub fn db_of(name: &str) -> f32 {
    let weight = weight_number(name).and_then(|number| WEIGHTS.get(number));
    weight.map_or(0.0, |weight| weight.db)
}

#[cfg(test)]
mod tests {
    use super::{WEIGHTS, cap_db, db_of};
    use crate::evidence::Favors;

    /// The sources of all tests: what they can find is declared there and nowhere else.
    const SOURCES: [&str; 16] = [
        include_str!("../evidence/siblings.rs"),
        include_str!("../evidence/injectors.rs"),
        include_str!("../evidence/hop_limit.rs"),
        include_str!("../evidence/ip_id.rs"),
        include_str!("../evidence/shape.rs"),
        include_str!("../evidence/stamps.rs"),
        include_str!("../evidence/train.rs"),
        include_str!("../evidence/sequence.rs"),
        include_str!("../evidence/guesses.rs"),
        include_str!("../evidence/race.rs"),
        include_str!("../evidence/heard_again.rs"),
        include_str!("../evidence/own_reset.rs"),
        include_str!("../evidence/link.rs"),
        include_str!("../evidence/next_door.rs"),
        include_str!("../evidence/timing.rs"),
        include_str!("../evidence/acceptance.rs"),
    ];

    #[test]
    fn every_kind_that_a_test_can_find_has_a_weight() {
        let declared: usize = SOURCES.iter().map(|s| s.matches("pub const").count()).sum();
        let kinds: usize = SOURCES.iter().map(|s| s.matches(": Kind =").count()).sum();
        assert_eq!(declared, kinds);
        assert_eq!(kinds, WEIGHTS.len());
    }

    #[test]
    fn names_are_unique_and_weights_lie_below_the_cap() {
        for (at, weight) in WEIGHTS.iter().enumerate() {
            assert!(
                WEIGHTS
                    .iter()
                    .skip(at + 1)
                    .all(|w| w.kind.name != weight.kind.name)
            );
            let cap = cap_db(weight.kind.group);
            assert!(weight.db > 0.0 && weight.db <= cap, "{}", weight.kind.name);
            assert!(!weight.reason.is_empty());
        }
    }

    #[test]
    fn the_document_lists_every_weight_as_it_is() {
        let document = include_str!("../../docs/evidence.md");
        for weight in WEIGHTS {
            let sign = if weight.kind.favors == Favors::Injected {
                '+'
            } else {
                '−'
            };
            let row = format!("| `{}` | {sign}{} |", weight.kind.name, weight.db);
            assert!(document.contains(&row), "docs/evidence.md lacks {row}");
        }
    }

    #[test]
    fn a_name_that_is_not_in_the_table_weighs_nothing() {
        assert!(db_of("no_such_fact").abs() < f32::EPSILON);
        for weight in WEIGHTS {
            assert!((db_of(weight.kind.name) - weight.db).abs() < f32::EPSILON);
        }
    }
}
