//! Names, in the record of a reset that ended a local socket, the connection that its process ended
//! for it: a proxy turns an upstream's reset into a FIN or an error page for its client, and a
//! client's into a FIN for the upstream. That is not forwarded, and changes no verdict.

use super::episode::Settled;
use super::legs::{Answer, Legs};
use crate::record::Related;

/// The other leg of an episode whose reset the kernel accepted; `None` when its process is not
/// known, or ended nothing near.
pub(super) fn of(settled: &Settled<'_>, legs: &Legs) -> Option<Related> {
    let episode = &settled.episode;
    let accepted = episode.accepted.filter(|_| episode.owner.is_some())?;
    let own = (episode.key, accepted.local);
    legs.answer_to(&own, accepted.time)
        .map(|answer| named(&answer))
}

/// A connection that a process of this host ended, as a record names it: this host's end first.
pub(super) fn named(answer: &Answer) -> Related {
    let (key, local) = (answer.passed.key, answer.passed.local);
    Related {
        record: None,
        source: key.endpoint(local),
        destination: key.endpoint(local.other()),
        delta_ns: answer.delta_ns,
        confidence: answer.confidence,
        join: if answer.by_reset {
            "process"
        } else {
            "closing"
        },
    }
}
