//! The one sentence of a record: who sent the reset, and the strongest reason to say so. It holds
//! nothing that the wire chose but numbers, so that no reset can write into a log.

use crate::amount::span;
use crate::evidence::{Circumstances, Evidence, Favors, Value};
use crate::flow::Endpoint;
use crate::host::{Process, ResetReason};
use crate::record::{Manner, Related, digits, silence};
use crate::verdict::{Cause, Stage, Verdict};

/// How many pieces of evidence the sentence names; the record holds them all.
const NAMED: usize = 2;

/// From here on the other leg that a process ended of itself is named.
const SURE: f32 = 0.9;

/// What the sentence is made of.
pub(super) struct Told<'a> {
    pub(super) verdict: Verdict,
    pub(super) cause: Option<Cause>,
    pub(super) source: Endpoint,
    pub(super) destination: Endpoint,
    pub(super) stage: Stage,
    pub(super) process: Option<Process>,
    pub(super) reason: Option<ResetReason>,
    /// The reset answered a SYN.
    pub(super) answers_syn: bool,
    pub(super) idle_ns: Option<u64>,
    /// How the connection stood.
    pub(super) manner: Manner,
    pub(super) related: Option<Related>,
    /// A flow as likely as `related`.
    pub(super) rival: Option<Related>,
    pub(super) evidence: &'a [Evidence],
    pub(super) missing: Option<&'static str>,
    /// Name of the user's own device that forged it.
    pub(super) device: Option<&'a str>,
}

/// Bytes of a usual sentence.
const USUAL_BYTES: usize = 256;

/// The sentence.
pub(super) fn tell(told: &Told<'_>) -> String {
    let mut out = Sentence(Vec::with_capacity(USUAL_BYTES));
    match told.verdict {
        Verdict::Local => local(&mut out, told),
        Verdict::Forwarded => forwarded(&mut out, told),
        Verdict::Remote if matches!(told.manner, Manner::Closed { .. }) => {
            out.place(told.source)
                .say(" had closed the connection and reset ");
            out.place(told.destination).say(", which still sent");
            out.because(told, Favors::Remote);
        }
        Verdict::Remote => remote(&mut out, told),
        Verdict::Injected => {
            out.place(told.source).say(" did not send this reset to ");
            out.place(told.destination).say(": ");
            match (told.device, told.cause) {
                (Some(name), _) => out.say("your own device ").say(name),
                (None, Some(Cause::Blind)) => out.say("somebody who guesses sequence numbers"),
                (None, Some(Cause::Adjacent)) => out.say("another station on this network segment"),
                (None, Some(Cause::Middlebox)) => out.say("a device on the path"),
                (None, _) => out.say("a third party on the path"),
            };
            out.say(" forged it").because(told, Favors::Injected);
        }
        Verdict::Stray => {
            out.say("a reset from ").place(told.source).say(" to ");
            out.place(told.destination).say(" belongs to no connection");
        }
        Verdict::Undetermined => {
            out.say("who reset ").place(told.destination);
            out.say(" in the name of ").place(told.source);
            out.say(" cannot be told");
            if let Some(missing) = told.missing {
                out.say(": ").say(missing);
            }
        }
    }
    digits::into_text(out.0)
}

fn remote(out: &mut Sentence, told: &Told<'_>) {
    let what = match told.cause {
        _ if told.manner == Manner::NotTaken => " reset the connection from ",
        Some(Cause::Refused) => " refused the connection from ",
        Some(Cause::Answer) => " does not know the connection and reset ",
        Some(Cause::Consequence) => " answered what a forged reset had broken, to ",
        _ => " itself aborted the connection with ",
    };
    out.place(told.source).say(what).place(told.destination);
    match told.manner {
        Manner::NotTaken => out.say(" before it had taken a byte"),
        Manner::Unanswered => out.say(" before it had sent a byte"),
        _ => out,
    };
    if let (Some(Cause::Abort), Some(silence)) = (told.cause, silence(told.idle_ns)) {
        out.say(", having been ").say(&silence);
    }
    out.because(told, Favors::Remote);
}

fn local(out: &mut Sentence, told: &Told<'_>) {
    let stood = Circumstances::of(told.evidence);
    let stage = match told.stage {
        Stage::Handshake => " reset the attempt from ",
        _ => " reset the connection with ",
    };
    match told.cause {
        Some(Cause::Firewall) => {
            out.say("a packet filter on this host rejected ");
            out.place(told.destination).say(" at ").place(told.source);
            out.say(": no socket sent this reset");
            return;
        }
        Some(Cause::Process) => {
            out.owner(told.process).say(" on this host");
            match told.manner {
                Manner::Probe => {
                    out.say(" opened a connection to ").place(told.destination);
                    out.say(" and aborted it unused, as a health check does");
                    return;
                }
                Manner::Killed => {
                    out.say(" killed the socket of the connection with ");
                    out.place(told.destination).say(", as `ss -K` does");
                    return;
                }
                _ => out.ending(stood).say(stage).place(told.destination),
            };
            if stood.is_unaccepted {
                out.say(", which nobody had accepted");
            }
            match told.manner {
                Manner::TurnedAway => out.say(" before a byte came"),
                Manner::Rejected => out.say(" without having answered a byte"),
                _ => out,
            };
            if let Some(silence) = silence(told.idle_ns) {
                out.say(", ").say(&silence);
            }
            if let Some(other) = told.related.filter(|other| other.confidence >= SURE) {
                let closes = other.join == "closing";
                out.say(if closes {
                    ", and closed"
                } else {
                    ", and reset"
                });
                out.say(" that with ").place(other.destination);
            }
        }
        cause => {
            let who = match cause {
                Some(_) => "the kernel of this host",
                None => "this host",
            };
            out.say(who).say(stage).place(told.destination);
            out.say(" at ").place(told.source);
            out.closed_before(told, stood);
        }
    }
    let meaning = |reason: ResetReason| reason.meaning(told.answers_syn);
    // Nobody aborted what waited for its turn.
    let reason = told.reason.filter(|_| !stood.is_unaccepted);
    if let Some(reason) = reason.and_then(meaning) {
        out.say(": ").say(reason);
    }
}

fn forwarded(out: &mut Sentence, told: &Told<'_>) {
    match (told.cause, told.related) {
        (Some(Cause::Proxy), Some(related)) => {
            out.owner(told.process);
            out.say(" on this host passed a reset on to ");
            out.place(told.destination).say(": ").place(related.source);
            out.say(" had reset ").place(related.destination);
            out.say(&format!(" {} before", span(related.delta_ns)));
            if let Some(rival) = told.rival {
                out.say(", or ").place(rival.source).say(" had reset ");
                out.place(rival.destination).say(": which cannot be told");
            }
        }
        _ => {
            out.say("this host routed a reset of ").place(told.source);
            out.say(" to ").place(told.destination);
        }
    }
}

/// The sentence as far as it is written.
struct Sentence(Vec<u8>);

impl Sentence {
    fn say(&mut self, words: &str) -> &mut Self {
        self.0.extend_from_slice(words.as_bytes());
        self
    }

    fn place(&mut self, endpoint: Endpoint) -> &mut Self {
        digits::endpoint(&mut self.0, endpoint);
        self
    }

    fn owner(&mut self, process: Option<Process>) -> &mut Self {
        match process {
            None => self.say("a process"),
            Some(process) => {
                let thread = process.thread_name();
                let thread = thread.map_or_else(String::new, |name| format!(", thread {name}"));
                self.say(&format!("{} (pid {}{thread})", process.name(), process.pid))
            }
        }
    }

    /// Who had closed the connection in order, when, and for what.
    fn closed_before(&mut self, told: &Told<'_>, stood: Circumstances<'_>) -> &mut Self {
        let Some(before) = stood.closed else {
            return self;
        };
        self.say(", which ").owner(told.process);
        match stood.ending {
            Some(how) => self.say(" left open when it ended (").say(how).say(") "),
            None => self.say(" had closed "),
        };
        self.say(before);
        if let Some(other) = told.related.filter(|other| other.confidence >= SURE) {
            self.say(", as ").place(other.source).say(" had reset ");
            self.place(other.destination);
        }
        self
    }

    /// What its process did, where the reset only came of that.
    fn ending(&mut self, stood: Circumstances<'_>) -> &mut Self {
        match stood.ending {
            Some(how) => self.say(" ended (").say(how).say(") and so"),
            None if stood.is_unaccepted => self.say(" closed its listener and so"),
            None => self,
        }
    }

    /// The strongest evidence for the verdict, in words.
    fn because(&mut self, told: &Told<'_>, favors: Favors) {
        let speaks = |item: &&Evidence| item.favors == favors && item.weight_db > 0.0;
        let named = told.evidence.iter().filter(speaks).take(NAMED);
        for (at, item) in named.enumerate() {
            self.say(if at == 0 { ": " } else { ", " });
            let start = self.0.len();
            self.say(item.name);
            for byte in self.0.get_mut(start..).unwrap_or_default() {
                *byte = if *byte == b'_' { b' ' } else { *byte };
            }
            if let Some(observed) = &item.observed {
                self.say(" (").value(observed);
                match &item.expected {
                    Some(expected) if expected == observed => self.say(", as expected"),
                    Some(expected) => self.say(", expected ").value(expected),
                    None => self,
                };
                self.say(")");
            }
        }
    }

    fn value(&mut self, value: &Value) -> &mut Self {
        match value {
            Value::Number(number) => digits::signed(&mut self.0, *number),
            Value::Text(text) => self.0.extend_from_slice(text.as_bytes()),
        }
        self
    }
}
