//! What a verdict means and what a person does next: one sentence each, by the words of the record.

use super::Manner;

/// What advice goes by, in the words of the record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judged<'a> {
    pub(super) verdict: &'a str,
    pub(super) cause: Option<&'a str>,
    /// Why the kernel sent it.
    pub(super) reason: Option<&'a str>,
    /// It answered a SYN.
    pub(super) answers_syn: bool,
    /// How the connection stood.
    pub(super) manner: Manner,
    /// Name of the user's own device that forged it.
    pub(super) device: Option<&'a str>,
}

impl Judged<'_> {
    /// What the verdict and its cause mean.
    pub(super) fn meaning(&self) -> &'static str {
        if let Some((meaning, _)) = by_manner(self.manner) {
            return meaning;
        }
        match (self.verdict, self.cause) {
            ("local", Some("process" | "kernel")) => self.by_reason().0,
            (verdict, cause) => meaning(verdict, cause),
        }
    }

    /// What to do about it.
    pub(super) fn next_step(&self) -> String {
        if let Some(device) = self.device {
            return format!(
                "Look into the logs and session timers of your own device {device} at that time."
            );
        }
        if let Some((_, step)) = by_manner(self.manner) {
            return step.to_owned();
        }
        match (self.verdict, self.cause) {
            ("local", Some("process" | "kernel")) => self.by_reason().1,
            (verdict, cause) => next_step(verdict, cause),
        }
        .to_owned()
    }

    /// Meaning and next step of a reset of this host's TCP. The kernel's reason says more than the cause: one that
    /// sends a person to the listeners of a service that runs costs him the night.
    fn by_reason(&self) -> (&'static str, &'static str) {
        match (self.cause, self.reason) {
            (_, Some("TCP_ABORT_ON_CLOSE")) => (
                "An application on this host closed the connection while data of the peer's was still to be read (or, with MPTCP, aborted it).",
                "Look into that process's log at that time for why it stopped reading: an answer that came before the whole request, a limit on its size, a crash; of a proxy, that its other leg was gone, or took no more for too long.",
            ),
            (Some("process"), _) => (
                "An application on this host aborted the connection.",
                "Look into that process's log at that time, and hold the connection's age and idle time against its time-outs: proxies abort so when a server or client is silent for too long, and when the other leg is gone.",
            ),
            (_, Some("NO_SOCKET")) if self.answers_syn => (
                "Nothing on this host listens at the address and port that was asked.",
                "See whether the service runs and listens there (`ss -ltnp`), and whether the client means this address and port.",
            ),
            (_, Some("NO_SOCKET" | "TCP_FLAGS")) => (
                "A segment came for a connection that this host has closed, or never had.",
                "See whether the process or the host was restarted, or an address moved here, while the connection was open; whether this host gave it up without a word (TCP_USER_TIMEOUT, `net.ipv4.tcp_retries2`, HAProxy's `silent-drop`); and, where it translates addresses for others (DNAT, IPVS, containers), whether it forgot that translation (`conntrack -L`; rules loaded anew, an entry that timed out). Otherwise the peer went on after this host had done with it, as where its idle time-out is the longer one.",
            ),
            (_, Some("TCP_ABORT_ON_DATA")) => (
                "The peer sent data after the application on this host had closed the connection: nobody would have read it.",
                "Compare idle and request time-outs: the application's is shorter than the peer's, or it answered before the request was complete.",
            ),
            (_, Some("TCP_TIMEWAIT_SOCKET")) => (
                "The peer sent something after the application on this host had closed the connection: nobody would have read it.",
                "Compare idle and request time-outs: the application's is shorter than the peer's, it answered before the request was complete, or, as a proxy, had lost its other leg.",
            ),
            (_, Some("INVALID_SYN")) if !self.answers_syn => (
                "The client had completed the handshake, but the listener had no room for the connection: its accept queue was full, and `net.ipv4.tcp_abort_on_overflow` has the kernel reset it then.",
                "See why the process does not accept fast enough (it hangs, or has no thread or file left): `ss -ltn` shows the queue (Recv-Q) and its limit (Send-Q: the process's backlog, at most `net.core.somaxconn`), `nstat -az TcpExtListenOverflows` how often. With `tcp_abort_on_overflow` 0 clients would be kept waiting, and try again.",
            ),
            (_, Some("TCP_KEEPALIVE_TIMEOUT")) => (
                "The peer answered no keepalive any more, and this host gave the connection up.",
                "See whether the peer died at that time, or a firewall or NAT between forgot the connection while it was idle: a shorter keepalive interval holds it open.",
            ),
            (_, Some("TCP_ABORT_ON_MEMORY")) => (
                "This host gave the connection up for lack of TCP memory, or for too many closed ones.",
                "See `ss -s`, `nstat -az TcpExtTCPAbortOnMemory`, and `net.ipv4.tcp_mem` and `tcp_max_orphans`.",
            ),
            _ => (
                "This host's TCP refused a segment, or gave the connection up, by itself: the message says why.",
                "Capture the connection on both sides with `tcpdump -s 96`, and hold the segment before the reset against what the other end sent.",
            ),
        }
    }
}

/// What to do about a process that ended.
const ENDED_STEP: &str = "See why it ended. The OOM killer: `journalctl -k | grep -i oom` says which limit was met, the host's or a cgroup's, and by whom. SIGKILL without it: a supervisor that had waited long enough (`TimeoutStopSec`, a container's grace period), systemd-oomd, or a person; SIGSEGV and SIGABRT: a crash (`coredumpctl list`, `journalctl -k`); another signal or an exit code: a stop, a restart, or an error of its own, which its log or its supervisor's has at that time.";

/// Meaning and next step where how the connection stood says more than verdict and reason.
const fn by_manner(manner: Manner) -> Option<(&'static str, &'static str)> {
    Some(match manner {
        Manner::Plain => return None,
        Manner::Probe => (
            "An application on this host opened the connection and aborted it without having used it.",
            "A health check does that (HAProxy's TCP check, a port probe), and then nothing needs repair. Otherwise see in that process's log why it gave up before it sent anything: a client that had gone, an error, a limit.",
        ),
        Manner::TurnedAway => (
            "An application on this host accepted the connection and aborted it before a byte came.",
            "Look for the rule or limit by which that process turns clients away (HAProxy's `tcp-request connection reject`, a limit of connections or of a rate), or for a listener that was closed while connections waited for it.",
        ),
        Manner::InUse => (
            "An application on this host aborted a connection that it had opened, and that was in use a moment before.",
            "Look into that process's log at that time: proxies abort so when the other leg is gone (a client that hung up), when a request took too long as a whole, and some as soon as they have the whole answer (HAProxy's `option http-server-close`, its health checks and agent checks), where nothing needs repair.",
        ),
        Manner::Rejected => (
            "An application on this host accepted the connection and aborted it as soon as the client had sent something, without a byte of an answer: this is no time-out.",
            "Look for the rule or limit by which that process turns requests away (nginx's `return 444` resets where `reset_timedout_connection` is on), for what it cannot read (TLS, or the PROXY protocol, on one side only), and for an error in its log; of a proxy, whether its other leg failed.",
        ),
        Manner::Interrupted => (
            "An application on this host aborted a connection that it had accepted and answered on, a moment after it had heard from the client: its silence was not why.",
            "Look into that process's log at that time for a rule or limit that turned a request away (nginx's `return 444`), an error in the middle of an answer, or a stop; of a proxy, whether its other leg was gone, or the request took too long as a whole.",
        ),
        Manner::Ended => (
            "The process ended while the connection was open, and the kernel closed what it had left: with data unread, or not yet accepted, that is a reset.",
            ENDED_STEP,
        ),
        Manner::Left => (
            "The process ended while the connection was open, and the kernel closed it for it; the peer went on, and nobody is left to read that.",
            ENDED_STEP,
        ),
        Manner::ClosedHere => (
            "The peer sent something after the process on this host had closed the connection: nobody would have read it.",
            "Hold the connection's age and idle time at the close against that process's time-outs and limits, and its log at that time; of a proxy, see whether its other leg had ended then. If the peer only went on a moment too long, as a server that was still answering, nothing needs repair.",
        ),
        Manner::Unaccepted => (
            "No application ever took the connection: it waited in the accept queue, where what the client sent goes unread, until its listener was closed.",
            "See why it was not accepted, if it had waited for long: a process that hung or was stopped, or had no thread or file left (`ss -ltn` shows the queue, `nstat -az TcpExtListenOverflows` those that found it full). If not, only the listener's closing is to blame, by a stop, restart or reload: hand the listener over to the next process, or take the host out of rotation before.",
        ),
        Manner::Unanswered => (
            "The server aborted the connection without having sent a byte.",
            "Ask its owner whether the process was stopped, restarted or killed at that time, or had hung before: what it had not read, and what waited in its accept queue, is reset then. Otherwise it turned this host away, by a rule or limit, or for what it got (TLS or the PROXY protocol on one side only): its log will tell, the network will not.",
        ),
        Manner::NotTaken => (
            "The server's TCP reset the connection, of which it had not acknowledged a byte.",
            "Ask its owner whether its accept queue was full (`nstat -az TcpExtListenOverflows`; with `net.ipv4.tcp_abort_on_overflow` 1 its kernel resets then), or its listener was closed or restarted at that moment; and whether something before it (a balancer, a SYN proxy) answers the SYN for a server that knows nothing of it.",
        ),
        Manner::Killed => (
            "Somebody on this host killed the socket; the application that owns it did not close it.",
            "Find out who: the process that is named did it (`ss -K`, a container runtime or an agent that destroys sockets when addresses or backends change). The owner of the socket is innocent.",
        ),
        Manner::Closed {
            is_opener: Some(true),
        } => (
            "The client had closed the connection in order; its TCP answered what this host still sent, since nobody was left to read it.",
            "Usual for clients that give up, or have what they wanted: hold the connection's age against the client's time-out, and against how long the answer took.",
        ),
        Manner::Closed {
            is_opener: Some(false),
        } => (
            "The server had closed the connection in order; its TCP answered what this host sent afterwards.",
            "Usual when a server ends an idle connection at the moment at which the next request goes out: let this host's idle time-out for it be shorter than the server's, or let the proxy send such a request again. Otherwise ask the server's owner why it closes while requests are under way.",
        ),
        Manner::Closed { is_opener: None } => (
            "The peer had closed the connection in order; its TCP answered what this host sent afterwards.",
            "Compare the idle and request time-outs of both ends: the peer's are the shorter ones.",
        ),
    })
}

/// What the verdict and its cause mean, where no reason tells more.
fn meaning(verdict: &str, cause: Option<&str>) -> &'static str {
    match (verdict, cause) {
        ("local", Some("firewall")) => {
            "A packet filter on this host rejected it: a reset left without any socket sending it."
        }
        ("local", _) => {
            "This host sent it; whether a process or its kernel, the kernel did not tell."
        }
        ("remote", Some("refused")) => {
            "Nobody listens at the address and port that was asked, or a packet filter there rejects it."
        }
        ("remote", Some("answer")) => {
            "The peer's TCP answered a segment of a connection that it does not know any more."
        }
        ("remote", Some("consequence")) => {
            "The peer is honest and a victim: it answered what a forged reset had broken before."
        }
        ("remote", _) => "The peer itself aborted the connection; the network only carried it.",
        ("forwarded", Some("router")) => {
            "This host routed the reset; neither end is in the network namespace that was watched."
        }
        ("forwarded", _) => {
            "One leg of this host's proxy was reset, and the proxy reset its other leg for it."
        }
        ("injected", Some("blind")) => {
            "Somebody who does not see the connection guesses its sequence numbers."
        }
        ("injected", Some("adjacent")) => {
            "A station on this very network segment sent it with somebody else's address."
        }
        ("injected", Some("middlebox")) => {
            "A device between the two ends sent it: its policy, its load or its idle timer."
        }
        ("injected", _) => {
            "Somebody who sees the connection sent it in the peer's name; the peer did not."
        }
        ("stray", _) => "It belongs to no connection that is known here: backscatter or a scan.",
        _ => "The evidence does not carry a verdict; the message names what was missing.",
    }
}

/// What to do about it, where no reason tells more.
fn next_step(verdict: &str, cause: Option<&str>) -> &'static str {
    match (verdict, cause) {
        ("local", Some("firewall")) => {
            "Look for a reject rule: `nft list ruleset`, `iptables-save | grep REJECT`."
        }
        ("local", _) => {
            "Look into the logs of the service at that port; newer kernels (6.10) tell the reason of each reset."
        }
        ("remote", Some("refused")) => {
            "Ask the peer's owner whether the service ran at that time and whether a packet filter rejects this host there, and check address and port."
        }
        ("remote", Some("answer")) => {
            "Ask the peer's owner for a restart, a failover or a shorter idle time-out than yours. Where this host translates the connection's addresses (DNAT, masquerading), see whether it forgot that (`conntrack -L`; rules loaded anew): its segments leave from an address or port then that the peer never heard of."
        }
        ("remote", Some("consequence")) => {
            "Explain the related event: its forged reset came first and is the one to pursue."
        }
        ("remote", _) => {
            "Ask the owner of the peer's application why it aborts; its log at that time will tell, the network will not. If the peer had been silent, hold the idle time against its idle time-out; if data was under way to it, its process may have been killed, or have closed without reading that."
        }
        ("forwarded", Some("router")) => {
            "Ask the end that sent it; where that is a container or a virtual machine of this host, see whether it was stopped then. The host itself only carried it."
        }
        ("forwarded", _) => "Explain the other leg's event: the reason is there.",
        ("injected", Some("blind")) => {
            "Nothing needs repair unless the kernel took one; filter the guessing source upstream if it goes on."
        }
        ("injected", Some("adjacent")) => {
            "Find the switch port of that MAC address, and ask the station's owner."
        }
        ("injected", Some("middlebox")) => {
            "Count the hops from the reset's hop limit: the device stands that far from here; ask its owner for policy and idle timers, and compare them with the connection's idle time."
        }
        ("injected", _) => {
            "Count the hops from the reset's hop limit (64, 128 or 255 less what arrived) and compare with a traceroute to the peer: ask its owner, or the provider, who stands there; encryption or another path tells whether it is content."
        }
        ("stray", _) => {
            "Nothing, unless there are many: then somebody uses your address for his scan."
        }
        _ => {
            "Leave the sensor running, so that it sees the connection's start, or capture both directions with `tcpdump -s 96`."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Judged, Manner};
    use crate::verdict::{Cause, Verdict};

    fn said(
        verdict: Verdict,
        cause: Option<Cause>,
        reason: Option<&str>,
    ) -> (&'static str, String) {
        let judged = Judged {
            verdict: verdict.name(),
            cause: cause.map(Cause::name),
            reason,
            answers_syn: false,
            manner: Manner::Plain,
            device: None,
        };
        (judged.meaning(), judged.next_step())
    }

    #[test]
    fn every_verdict_and_cause_has_a_meaning_and_a_step_of_its_own() {
        let pairs = [
            (Verdict::Local, None),
            (Verdict::Local, Some(Cause::Process)),
            (Verdict::Local, Some(Cause::Kernel)),
            (Verdict::Local, Some(Cause::Firewall)),
            (Verdict::Remote, Some(Cause::Abort)),
            (Verdict::Remote, Some(Cause::Refused)),
            (Verdict::Remote, Some(Cause::Answer)),
            (Verdict::Remote, Some(Cause::Consequence)),
            (Verdict::Forwarded, Some(Cause::Proxy)),
            (Verdict::Forwarded, Some(Cause::Router)),
            (Verdict::Injected, Some(Cause::OnPath)),
            (Verdict::Injected, Some(Cause::Blind)),
            (Verdict::Injected, Some(Cause::Adjacent)),
            (Verdict::Injected, Some(Cause::Middlebox)),
            (Verdict::Stray, None),
            (Verdict::Undetermined, None),
        ];
        for (at, (verdict, cause)) in pairs.iter().enumerate() {
            let own = said(*verdict, *cause, None);
            assert!(pairs.iter().take(at).all(|(verdict, cause)| {
                let other = said(*verdict, *cause, None);
                other.0 != own.0 && other.1 != own.1
            }));
        }
        let own_device = Judged {
            verdict: "injected",
            cause: Some("middlebox"),
            reason: None,
            answers_syn: false,
            manner: Manner::Plain,
            device: Some("fw1"),
        };
        assert!(own_device.next_step().contains("fw1"));
    }

    #[test]
    fn nobody_is_sent_to_the_listeners_of_a_service_that_closed_first() {
        let kernel = Some(Cause::Kernel);
        let (meaning, step) = said(Verdict::Local, kernel, Some("TCP_ABORT_ON_DATA"));
        assert!(meaning.contains("after the application on this host had closed"));
        assert!(step.contains("time-outs") && !step.contains("listens"));
        let (_, step) = said(Verdict::Local, kernel, Some("TCP_FLAGS"));
        assert!(!step.contains("listens"), "{step}");
        let asked = Judged {
            verdict: "local",
            cause: Some("kernel"),
            reason: Some("NO_SOCKET"),
            answers_syn: true,
            manner: Manner::Plain,
            device: None,
        };
        assert!(asked.next_step().contains("listens"));
    }

    #[test]
    fn who_found_the_accept_queue_full_is_not_said_to_have_sent_a_second_syn() {
        let (meaning, step) = said(Verdict::Local, Some(Cause::Kernel), Some("INVALID_SYN"));
        assert!(meaning.contains("accept queue was full"), "{meaning}");
        assert!(step.contains("ListenOverflows"), "{step}");
    }

    #[test]
    fn unread_data_and_an_abort_are_told_apart() {
        let process = Some(Cause::Process);
        let (unread, step) = said(Verdict::Local, process, Some("TCP_ABORT_ON_CLOSE"));
        assert!(unread.contains("still to be read") && step.contains("stopped reading"));
        let (_, step) = said(Verdict::Local, process, Some("TCP_STATE"));
        assert!(step.contains("time-outs"));
    }
}
