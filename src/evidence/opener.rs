//! Who opened a connection: whether the SYN at hand need not be of whoever sent the reset, because a proxy, a
//! scanner or a stranger may have written it. Says nothing of who sent the reset; the tests that hold one against
//! the SYN ask.

use super::Case;
use super::basis::{may_be_one_way, receiver_isn};
use crate::flow::{HalfFlow, SynFacts};
use crate::host::{SocketView, TcpState};
use crate::wire::SeqNum;

/// What a client acknowledges within the moments after its handshake at most: some seventy initial windows
/// (RFC 6928). A guessed number lies in it once in 4096 times.
const NEAR_ISN: u32 = 1 << 20;

/// Whether the SYN at hand may be of another one than whoever sent the reset, and nothing but SYNs was heard in
/// that name: neither its hop limit nor its header says anything of the reset's sender.
pub(super) fn is_syn_anothers(case: &Case<'_>) -> bool {
    is_opened_by_proxy(case) || is_denied(case)
}

/// Whether the SYN at hand may be a proxy's, and nothing but SYNs was heard of its client: what that one sends
/// itself comes by its own hop limit, IP IDs and stack. Such a proxy opens connections to this host; or the SYN
/// bears an echo, which there is nothing for yet (RFC 7323 §3.2), as Linux' SYNPROXY writes it
/// (`synproxy_send_server_syn`; known in captures only, live the echo of a SYN is not kept).
pub(super) fn is_opened_by_proxy(case: &Case<'_>) -> bool {
    let (mut is_alone, mut has_echo) = (true, false);
    if let Some(sender) = case.sender() {
        let syn = lone_syn(sender);
        is_alone = syn.is_some();
        let stamps = syn.and_then(|syn| syn.options.timestamps);
        has_echo = stamps.is_some_and(|stamps| stamps.echo != 0);
    }
    is_alone && (has_echo || case.flow.path.is_some_and(|path| path.is_opened_by_proxy))
}

/// Whether the reset is what a kernel sends to a SYN-ACK that it did not ask for (RFC 9293 §3.10.7.1), so that
/// the SYN may have been written past it: by a scanner on that host, with a hop limit and header of its own
/// (nmap's are 37 to 59, without Don't Fragment), or by anybody in its name, for a flood or to have answers sent
/// there. Firewalls before that host deny it with RST+ACK, for the SYN-ACK's ISN and with its window. An address is
/// proven by who knows this host's ISN: a handshake that was completed, be it after the reset.
fn is_denied(case: &Case<'_>) -> bool {
    let (Some(first), Some(sender)) = (case.first(), case.sender()) else {
        return false;
    };
    let segment = &first.segment;
    let is_bare = !segment.flags.ack() && segment.window == 0;
    let acknowledges = match receiver_isn(case) {
        Some(isn) => segment.ack == isn.plus(1),
        // Who acknowledges nothing saw no SYN-ACK, whatever its number was.
        None => segment.ack != SeqNum(0),
    };
    let denies = is_bare || (segment.flags.ack() && acknowledges);
    let is_of_syn = lone_syn(sender).is_some_and(|syn| segment.seq == syn.isn.plus(1));
    let state = first.socket.as_ref().and_then(SocketView::state);
    let is_open =
        case.flow.established || state.is_some_and(|s| s.is_connection() && s != TcpState::SynRecv);
    denies && is_of_syn && !is_open && !is_completed_later(case, sender)
}

/// Whether somebody who stands where the SYN came from acknowledges this host's ISN after the reset.
fn is_completed_later(case: &Case<'_>, sender: &HalfFlow) -> bool {
    let acknowledges = |ack: SeqNum| {
        let known = receiver_isn(case);
        known.is_none_or(|isn| (1..=NEAR_ISN).contains(&ack.bytes_since(isn)))
    };
    case.after.iter().any(|after| {
        let segment = &after.segment;
        let near = sender.hop_limits.nearest(segment.hop_limit);
        let is_there = near.is_some_and(|near| may_be_one_way(near, segment.hop_limit));
        segment.flags.ack() && !segment.flags.syn() && is_there && acknowledges(segment.ack)
    })
}

/// The SYN of an end of which nothing else was heard.
fn lone_syn(sender: &HalfFlow) -> Option<SynFacts> {
    let syn = sender.syn.filter(|syn| !syn.is_syn_ack);
    syn.filter(|syn| sender.segments <= u32::from(syn.count))
}

#[cfg(test)]
mod tests {
    use crate::evidence::hop_limit::{distance, steady};
    use crate::evidence::testing::{Scene, name};
    use crate::evidence::{ip_id, stamps};

    #[test]
    fn a_syn_that_a_proxy_sent_tells_nothing_of_its_client() {
        let opened = |is_by_proxy: bool, more: u32| {
            let mut scene = Scene::well_known(31)
                .sender(|s| s.segments = 1 + more)
                .reset(|r| (r.ip_id, r.dont_fragment) = (Some(4_660), Some(false)))
                .reset(|r| r.options.timestamps = None);
            scene.flow.path.as_mut().unwrap().is_opened_by_proxy = is_by_proxy;
            [
                scene.check(distance),
                scene.check(steady),
                scene.check(ip_id::counter),
                scene.check(ip_id::dont_fragment),
                scene.check(stamps::timestamps_missing),
            ]
        };
        let all = [
            "hop_limit_mismatch",
            "hop_limit_steady",
            "ip_id_off_counter",
            "dont_fragment_flip",
            "timestamps_missing",
        ];
        assert_eq!(opened(false, 0), all.map(name));
        let weaker = name("timestamps_missing_unknown_stack");
        assert_eq!(opened(true, 0), [None, None, None, None, weaker]);
        // A segment that the client sent itself is a base.
        assert_eq!(opened(true, 1), all.map(name));
        let echoing = Scene::well_known(31).sender(|s| {
            let stamps = &mut s.syn.as_mut().unwrap().options.timestamps;
            (s.segments, stamps.as_mut().unwrap().echo) = (1, 84_844_826);
        });
        assert_eq!(echoing.check(distance), None);
        let syn_ack = Scene::well_known(31).sender(|s| s.syn.as_mut().unwrap().is_syn_ack = true);
        assert_eq!(syn_ack.check(distance), name("hop_limit_mismatch"));
    }
}
