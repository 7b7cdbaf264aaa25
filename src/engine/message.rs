//! The one sentence of a record: who sent the reset, and the strongest reason to say so. It holds
//! nothing that the wire chose but numbers, so that no reset can write into a log.

use crate::evidence::{Evidence, Favors};
use crate::flow::Endpoint;
use crate::host::{Process, ResetReason};
use crate::record::Related;
use crate::verdict::{Cause, Stage, Verdict};

/// How many pieces of evidence the sentence names; the record holds them all.
const NAMED: usize = 2;

/// What the sentence is made of.
pub(super) struct Told<'a> {
    pub(super) verdict: Verdict,
    pub(super) cause: Option<Cause>,
    pub(super) source: Endpoint,
    pub(super) destination: Endpoint,
    pub(super) stage: Stage,
    pub(super) process: Option<Process>,
    pub(super) reason: Option<ResetReason>,
    pub(super) related: Option<Related>,
    pub(super) evidence: &'a [Evidence],
    pub(super) missing: Option<&'static str>,
    /// Name of the user's own device that forged it.
    pub(super) device: Option<&'a str>,
}

/// The sentence.
pub(super) fn tell(told: &Told<'_>) -> String {
    let (source, destination) = (place(told.source), place(told.destination));
    match told.verdict {
        Verdict::Local => local(told, &source, &destination),
        Verdict::Forwarded => forwarded(told, &source, &destination),
        Verdict::Remote => {
            let what = match told.cause {
                Some(Cause::Refused) => "refused the connection from",
                Some(Cause::Answer) => "does not know the connection and reset",
                Some(Cause::Consequence) => "answered what a forged reset had broken, to",
                _ => "itself aborted the connection with",
            };
            format!(
                "{source} {what} {destination}{}",
                because(told, Favors::Remote)
            )
        }
        Verdict::Injected => {
            let own = told.device.map(|name| format!("your own device {name}"));
            let who = match told.cause {
                _ if own.is_some() => own.as_deref().unwrap_or_default(),
                Some(Cause::Blind) => "somebody who guesses sequence numbers",
                Some(Cause::Adjacent) => "another station on this network segment",
                Some(Cause::Middlebox) => "a device on the path",
                _ => "a third party on the path",
            };
            format!(
                "{source} did not send this reset to {destination}: {who} forged it{}",
                because(told, Favors::Injected)
            )
        }
        Verdict::Stray => {
            format!("a reset from {source} to {destination} belongs to no connection")
        }
        Verdict::Undetermined => {
            let missing = told.missing.map(|m| format!(": {m}")).unwrap_or_default();
            format!("who reset {destination} in the name of {source} cannot be told{missing}")
        }
    }
}

fn local(told: &Told<'_>, source: &str, destination: &str) -> String {
    let stage = match told.stage {
        Stage::Handshake => "the attempt from",
        _ => "the connection with",
    };
    let reason = told.reason.and_then(ResetReason::meaning);
    match told.cause {
        Some(Cause::Firewall) => format!(
            "a packet filter on this host rejected {destination} at {source}: no socket sent this \
             reset"
        ),
        Some(Cause::Process) => format!(
            "{} on this host reset {stage} {destination}{}",
            owner(told.process),
            reason
                .map(|reason| format!(": {reason}"))
                .unwrap_or_default()
        ),
        _ => format!(
            "the kernel of this host reset {stage} {destination} at {source}{}",
            reason
                .map(|reason| format!(": {reason}"))
                .unwrap_or_default()
        ),
    }
}

fn forwarded(told: &Told<'_>, source: &str, destination: &str) -> String {
    match (told.cause, told.related) {
        (Some(Cause::Proxy), Some(related)) => format!(
            "{} on this host passed a reset on to {destination}: {} had reset {} {:.3} ms before",
            owner(told.process),
            place(related.source),
            place(related.destination),
            related.delta_ns as f64 / 1e6
        ),
        _ => format!("this host routed a reset of {source} to {destination}"),
    }
}

fn owner(process: Option<Process>) -> String {
    process.map_or_else(
        || "a process".to_owned(),
        |process| format!("{} (pid {})", process.name(), process.pid),
    )
}

fn place(endpoint: Endpoint) -> String {
    std::net::SocketAddr::new(endpoint.address, endpoint.port).to_string()
}

/// The strongest evidence for the verdict, in words.
fn because(told: &Told<'_>, favors: Favors) -> String {
    let named: Vec<_> = told
        .evidence
        .iter()
        .filter(|evidence| evidence.favors == favors && evidence.weight_db > 0.0)
        .take(NAMED)
        .map(say)
        .collect();
    if named.is_empty() {
        String::new()
    } else {
        format!(": {}", named.join(", "))
    }
}

fn say(evidence: &Evidence) -> String {
    let name = evidence.name.replace('_', " ");
    match (&evidence.observed, &evidence.expected) {
        (Some(observed), Some(expected)) => format!("{name} ({observed}, expected {expected})"),
        (Some(observed), None) => format!("{name} ({observed})"),
        _ => name,
    }
}
