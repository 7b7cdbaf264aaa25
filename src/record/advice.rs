//! What a verdict means and what a person does next: one sentence each, by the words of the record.

/// What the verdict and its cause mean.
pub(super) fn meaning(verdict: &str, cause: Option<&str>) -> &'static str {
    match (verdict, cause) {
        ("local", Some("process")) => {
            "An application on this host closed or aborted the connection."
        }
        ("local", Some("firewall")) => {
            "A packet filter on this host rejected it: a reset left without any socket sending it."
        }
        ("local", _) => {
            "This host's TCP answered by itself: no listener, or a segment of an unknown connection."
        }
        ("remote", Some("refused")) => "Nobody listens at the address and port that was asked.",
        ("remote", Some("answer")) => {
            "The peer's TCP answered a segment of a connection that it does not know any more."
        }
        ("remote", Some("consequence")) => {
            "The peer is honest and a victim: it answered what a forged reset had broken before."
        }
        ("remote", _) => "The peer itself aborted the connection; the network only carried it.",
        ("forwarded", Some("router")) => "This host routed the reset; neither end is here.",
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

/// What to do about it.
pub(super) fn next_step(verdict: &str, cause: Option<&str>, device: Option<&str>) -> String {
    if let Some(device) = device {
        return format!(
            "Look into the logs and session timers of your own device {device} at that time."
        );
    }
    let step = match (verdict, cause) {
        ("local", Some("process")) => {
            "Look into that process's log at that time; unread data at close, SO_LINGER 0 and time-outs are the usual reasons."
        }
        ("local", Some("firewall")) => {
            "Look for a reject rule: `nft list ruleset`, `iptables-save | grep REJECT`."
        }
        ("local", _) => {
            "See whether the service listens (`ss -ltn`) and did not restart while the connection was open."
        }
        ("remote", Some("refused")) => {
            "Ask the peer's owner whether the service ran at that time, and check address and port."
        }
        ("remote", Some("answer")) => {
            "Ask the peer's owner for a restart, a failover or a shorter idle time-out than yours."
        }
        ("remote", Some("consequence")) => {
            "Explain the related event: its forged reset came first and is the one to pursue."
        }
        ("remote", _) => {
            "Ask the owner of the peer's application why it aborts; its log at that time will tell, the network will not."
        }
        ("forwarded", Some("router")) => "Ask the ends; this host is not involved.",
        ("forwarded", _) => "Explain the other leg's event: the reason is there.",
        ("injected", Some("blind")) => {
            "Nothing needs repair unless the kernel took one; filter the guessing source upstream if it goes on."
        }
        ("injected", Some("adjacent")) => {
            "Find the switch port of that MAC address, and ask the station's owner."
        }
        ("injected", Some("middlebox")) => {
            "Count the hops from the reset's hop limit: the device stands that far from here; ask its owner for policy and idle timers, and compare them with the connection's idle time above."
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
    };
    step.to_owned()
}

#[cfg(test)]
mod tests {
    use super::{meaning, next_step};
    use crate::verdict::{Cause, Verdict};

    #[test]
    fn every_verdict_and_cause_has_a_meaning_and_a_step_of_its_own() {
        let pairs = [
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
        let said = |(verdict, cause): (Verdict, Option<Cause>)| {
            let cause = cause.map(Cause::name);
            (
                meaning(verdict.name(), cause),
                next_step(verdict.name(), cause, None),
            )
        };
        for (at, pair) in pairs.iter().enumerate() {
            let own = said(*pair);
            assert!(pairs.iter().take(at).all(|other| {
                let other = said(*other);
                other.0 != own.0 && other.1 != own.1
            }));
        }
        assert!(next_step("injected", Some("middlebox"), Some("fw1")).contains("fw1"));
    }
}
