//! Flags, window, options and payload of the reset itself. A genuine Linux reset has one of two
//! shapes (`tcp_v4_send_reset`, `tcp_send_active_reset`); what is neither was made by something
//! else. Never held against a reset: a missing timestamp as such, window 0, IP ID 0.

use super::basis::{
    Stack, answers_syn, is_of_no_socket, receiver_isn, sender_stack, timestamps_in_use,
};
use super::opener::is_syn_anothers;
use super::{Case, Evidence, Group, Kind};
use crate::flow::HalfFlow;
use crate::wire::{Flags, Segment, SeqNum};

/// RST without ACK, with a window.
pub const WINDOW_ON_BARE: Kind = Kind::injected("window_on_bare_reset", Group::Shape);
/// The same from the link, where nothing tells that its sender stands elsewhere.
pub const WINDOW_ON_BARE_LINK: Kind = Kind::injected("window_on_bare_reset_on_link", Group::Shape);
/// Neither of the two shapes that the sender's stack has.
pub const HYBRID: Kind = Kind::injected("reset_shape_hybrid", Group::Shape);
/// The receiver's own window, copied.
pub const WINDOW_MIRRORED: Kind = Kind::injected("window_mirrored", Group::Shape);
/// Payload that a known injector writes.
pub const PAYLOAD_KNOWN: Kind = Kind::injected("payload_known_injector", Group::Shape);
/// Payload in which a device gives its name.
pub const PAYLOAD_DEVICE: Kind = Kind::injected("payload_names_device", Group::Shape);
/// Other payload.
pub const PAYLOAD: Kind = Kind::injected("payload_in_reset", Group::Shape);
/// Flags that no stack sets together with RST.
pub const FLAGS_ODD: Kind = Kind::injected("flags_odd", Group::Shape);
/// Reserved header bits are set.
pub const RESERVED: Kind = Kind::injected("reserved_bits_set", Group::Shape);
/// Options that no reset carries.
pub const OPTIONS_ODD: Kind = Kind::injected("options_odd", Group::Shape);
/// An acknowledgement number that no ACK flag makes valid.
pub const ACK_NO_FLAG: Kind = Kind::injected("ack_without_flag", Group::Shape);
/// The shape of a kernel's answer to a segment of an unknown connection.
pub const PASSIVE: Kind = Kind::remote("reset_shape_passive", Group::Shape);
/// The shape of a kernel's answer to a SYN for a closed port.
pub const REFUSAL: Kind = Kind::remote("reset_shape_refusal", Group::Shape);

/// E-H9: RST without ACK has a window.
///
/// Linux and the BSDs send window 0 (`tcp_v4_send_reset`). Measured: 92 of 94 injected, 2 of 246
/// genuine flows. INTANG's GFW type 1. False positives: old stacks (Cisco IOS). passt of Debian 12, which ends a virtual
/// machine's or container's connections for all the world, aborts and refuses so: lighter with a hop limit of 255, which
/// no router has touched (RFC 5082), unless the sender was heard from elsewhere.
#[must_use]
pub fn window_on_bare_reset(case: &Case<'_>) -> Option<Evidence> {
    let segment = &case.first()?.segment;
    let is_of_link = segment.hop_limit == u8::MAX && is_of_the_link(case) != Some(false);
    let kind = match is_of_link {
        true => WINDOW_ON_BARE_LINK,
        false => WINDOW_ON_BARE,
    };
    (!segment.flags.ack() && segment.window != 0).then(|| kind.found(segment.window, 0_i64))
}

/// Whether the reset's sender stands on this link by its other segments in this flow, or else by those of its address:
/// they all came with a hop limit of 255. `None`: nothing is known of it.
pub(super) fn is_of_the_link(case: &Case<'_>) -> Option<bool> {
    let own = case.sender().map(|sender| sender.hop_limits);
    let known = own.or(case.flow.path.map(|path| path.hop_limits))?;
    let mut seen = known.modes().map(|mode| mode.hop_limit).peekable();
    seen.peek()?;
    Some(seen.all(|hop_limit| hop_limit == u8::MAX))
}

/// RST+ACK without window, timestamps or SEQ 0, in a connection of a Linux sender that uses
/// timestamps: an answer to a segment with ACK would be bare, one to a segment without would have
/// SEQ 0 (`tcp_v4_send_reset`), and an abort would bear timestamps (`tcp_send_active_reset`).
///
/// False positives: Windows aborts look like this: silent unless the sender's SYN is Linux'; a
/// firewall that rejects sends one of the two shapes of an answer.
#[must_use]
pub fn hybrid(case: &Case<'_>) -> Option<Evidence> {
    let segment = &case.first()?.segment;
    let is_hybrid = segment.flags.ack()
        && segment.window == 0
        && segment.seq != SeqNum(0)
        && segment.options.timestamps.is_none()
        && !answers_syn(case)
        && timestamps_in_use(case) == Some(true)
        && sender_stack(case) == Some(Stack::Linux);
    is_hybrid.then(|| HYBRID.found("RA, window 0", "R, or timestamps"))
}

/// E-H12: the receiver's own window stands in the reset: a device turned a packet around.
///
/// Measured: 40 % of injected, 3 % of genuine flows. False positives: both ends use one value
/// (8192, 65535; two Linux hosts, 502 once it is scaled): silent unless the sender is known to use quite another,
/// also by the scale of its SYN, which may be all that was heard of it; window 0.
#[must_use]
pub fn window_mirrored(case: &Case<'_>) -> Option<Evidence> {
    let window = case.first()?.segment.window;
    let (sender, receiver) = (case.sender()?, case.receiver()?);
    let shows =
        |half: &HalfFlow| half.window == window || half.syn.is_some_and(|syn| syn.window == window);
    // A window moves by a little from segment to segment.
    let is_near = |own: u16| own.abs_diff(window) <= own / 8;
    let near_own = is_near(sender.window) || scaled(sender, receiver).is_some_and(is_near);
    (window != 0 && window != u16::MAX && shows(receiver) && !shows(sender) && !near_own)
        .then(|| WINDOW_MIRRORED.found(window, sender.window))
}

/// The window of the sender's SYN as its later segments say it (RFC 7323 §2.2: the SYN's own is not scaled).
fn scaled(sender: &HalfFlow, receiver: &HalfFlow) -> Option<u16> {
    let syn = sender.syn?;
    receiver.syn?.options.window_scale?;
    Some(syn.window >> syn.options.window_scale?.min(14))
}

/// The ten bytes that the Henan firewall writes (Wu et al., S&P 2025).
const HENAN: [u8; 10] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 0];
/// How F5's BIG-IP begins the cause that it writes into its resets.
const BIG_IP: &[u8] = b"BIG-IP:";

/// E-H13: the reset carries payload. 0 of 655 genuine ones did.
///
/// False positives: RFC 9293 §3.5.3 allows it; Cisco quotes data, old Mac OS, HP-UX and SunOS write
/// text, draft-boucadair-tcpm-rst-diagnostic-payload writes CBOR (first byte 0xa0 to 0xbf): silent
/// for the last. A BIG-IP ends connections in the name of those between whom it stands, but its virtual servers' and those
/// that it opens as a proxy are its own: what comes from where the sender's SYN or SYN-ACK came from, which is
/// its own stack's then, tells of no third party: silent.
#[must_use]
pub fn payload(case: &Case<'_>) -> Option<Evidence> {
    let segment = &case.first()?.segment;
    if segment.payload_len == 0 || is_diagnostic(&segment.payload_head) {
        return None;
    }
    let kind = if segment.payload_len == 10 && segment.payload_head.starts_with(&HENAN) {
        PAYLOAD_KNOWN
    } else if segment.payload_head.starts_with(BIG_IP) {
        if is_of_the_senders_stack(case) {
            return None;
        }
        PAYLOAD_DEVICE
    } else {
        PAYLOAD
    };
    Some(kind.found(segment.payload_len, 0_i64))
}

/// Whether the reset came from as far as the sender's SYN or SYN-ACK. A device on the way hands on that of a server,
/// with its hop limit, and begins its own resets at 255.
fn is_of_the_senders_stack(case: &Case<'_>) -> bool {
    let reset = case.first().map(|first| first.segment.hop_limit);
    let own = case.sender().filter(|_| !is_syn_anothers(case));
    let opened = own.and_then(|sender| sender.syn).map(|syn| syn.hop_limit);
    matches!((reset, opened), (Some(reset), Some(opened)) if reset.abs_diff(opened) <= 1)
}

/// A CBOR map, definite or not (draft-boucadair-tcpm-rst-diagnostic-payload §3), after the magic
/// cookie or without.
fn is_diagnostic(head: &[u8]) -> bool {
    let map = |byte: Option<&u8>| byte.is_some_and(|b| (0xa0..=0xbf).contains(b));
    map(head.first()) || map(head.get(4))
}

/// E-H14: SYN, FIN, PSH or URG beside RST, or ECE or CWR in a bare one. Linux sends only R and RA.
///
/// False positives: crafted segments of scanners; some old stacks set PSH. ECE and CWR beside RST and ACK
/// are the connection's own congestion marks, which an abort bears like any other segment
/// (`tcp_ecn_send` for whatever has no SYN; RFC 9768 §3.2.2: ACE stands in every one): silent.
#[must_use]
pub fn flags(case: &Case<'_>) -> Option<Evidence> {
    let flags = case.first()?.segment.flags;
    let usual = match flags.ack() {
        true => Flags::RST | Flags::ACK | Flags::ECE | Flags::CWR,
        false => Flags::RST,
    };
    (flags.0 & !usual != 0).then(|| FLAGS_ODD.found(flags.letters(), "R or RA"))
}

/// E-H14: reserved bits (RFC 9293 §3.1: must be zero). Set by the devices at nifty.org and in
/// Zeek's `rst-inject-rae`.
///
/// False positives: the lowest is AE of Accurate ECN (RFC 9768): not counted.
#[must_use]
pub fn reserved(case: &Case<'_>) -> Option<Evidence> {
    let bits = case.first()?.segment.reserved;
    (bits & 0b1110 != 0).then(|| RESERVED.found(bits, 0_i64))
}

/// E-H14: options other than timestamps, signatures (RFC 2385, RFC 5925) and MPTCP (RFC 8684 §3.6).
///
/// False positives: an experimental option. Blocks of a selective acknowledgement are what an abort bears
/// whose sender lacks data, or got some twice (`tcp_established_options`: for whatever has no SYN): silent beside ACK, where both SYNs permitted them or one of them was not seen.
#[must_use]
pub fn options(case: &Case<'_>) -> Option<Evidence> {
    let segment = &case.first()?.segment;
    let options = &segment.options;
    let odd = options.mss.is_some()
        || options.window_scale.is_some()
        || options.sack_permitted
        || (options.sack_right_edge.is_some() && !may_bear_sack(case, segment))
        || options.malformed;
    odd.then(|| {
        OPTIONS_ODD.found(
            if options.malformed {
                "malformed"
            } else {
                "others"
            },
            "timestamps at most",
        )
    })
}

/// Whether a connection's own abort may acknowledge selectively (RFC 2018 §3: by leave of the other's SYN;
/// a stack gives it only where it asks for it).
fn may_bear_sack(case: &Case<'_>, segment: &Segment) -> bool {
    let halves = [case.sender(), case.receiver()];
    let mut syns = halves.into_iter().flatten().filter_map(|half| half.syn);
    segment.flags.ack() && syns.all(|syn| syn.options.sack_permitted)
}

/// E-V9: RST without ACK has an acknowledgement number. Linux and the BSDs send 0.
///
/// False positives: Windows does it (p0f's quirk), OpenBSD too: silent unless the sender's SYN shows
/// Linux, FreeBSD or Apple; old stacks repeat SEQ there: silent.
#[must_use]
pub fn ack_without_flag(case: &Case<'_>) -> Option<Evidence> {
    let segment = &case.first()?.segment;
    if segment.flags.ack() || segment.ack == SeqNum(0) || segment.ack == segment.seq {
        return None;
    }
    let known = matches!(
        sender_stack(case),
        Some(Stack::Linux | Stack::FreeBsd | Stack::Apple)
    );
    known.then(|| ACK_NO_FLAG.found(segment.ack.0, 0_i64))
}

/// The shape in which a kernel answers a segment of an unknown connection: R, window 0, ACK field
/// 0, no options, no payload (`tcp_v4_send_reset`).
///
/// It lies for a firewall that rejects (`nf_send_reset` has the very same shape) and for a forger
/// who knows it. Silent where Don't Fragment differs from the sender's, but for that of a SYN which may be
/// another's.
#[must_use]
pub fn passive(case: &Case<'_>) -> Option<Evidence> {
    let segment = &case.first()?.segment;
    let plain = segment.flags.0 == Flags::RST
        && segment.window == 0
        && segment.ack == SeqNum(0)
        && segment.options.len == 0
        && segment.options.timestamps.is_none()
        && segment.payload_len == 0
        && segment.reserved == 0;
    let own = case.sender().filter(|_| !is_syn_anothers(case));
    let usual_df = is_of_no_socket(case)
        || own.is_none_or(|s| match (segment.dont_fragment, s.dont_fragment) {
            (Some(true), (set, clear)) => set || !clear,
            (Some(false), (set, clear)) => clear || !set,
            (None, _) => true,
        });
    // RFC 9293 §3.10.7.1 gives such an answer only to a segment with ACK.
    (plain && usual_df && !answers_syn(case)).then(|| PASSIVE.found("R, window 0", "R, window 0"))
}

/// The only valid answer to a SYN for a closed port: RST+ACK, SEQ 0, ACK = ISN + 1 (RFC 9293
/// §3.10.7.1), plus the data that the SYN carried (RFC 7413).
///
/// It lies for a firewall that rejects.
#[must_use]
pub fn refusal(case: &Case<'_>) -> Option<Evidence> {
    let segment = &case.first()?.segment;
    let valid = answers_syn(case)
        && segment.flags.0 == Flags::RST | Flags::ACK
        && segment.seq == SeqNum(0)
        && segment.window == 0
        && segment.reserved == 0
        && receiver_isn(case)
            .is_some_and(|isn| (1..=1_461).contains(&segment.ack.bytes_since(isn)));
    valid.then(|| REFUSAL.found("RA, SEQ 0", "RA, SEQ 0"))
}

#[cfg(test)]
mod tests {
    use super::{
        ack_without_flag, flags, hybrid, options, passive, payload, refusal, reserved,
        window_mirrored, window_on_bare_reset,
    };
    use crate::evidence::sequence::syn_answer;
    use crate::evidence::testing::{RECEIVER_ISN, Scene, name};
    use crate::flow::SynFacts;
    use crate::wire::{Flags, Options, SeqNum};

    fn unstamped() -> Scene {
        Scene::established().reset(|r| r.options = Options::default())
    }

    #[test]
    fn a_window_belongs_to_an_active_reset_only() {
        let bare = Scene::established().passive();
        assert_eq!(bare.check(window_on_bare_reset), None);
        assert_eq!(
            bare.reset(|r| r.window = 8_192).check(window_on_bare_reset),
            name("window_on_bare_reset")
        );
        assert_eq!(Scene::established().check(window_on_bare_reset), None);
    }

    /// passt's: bare, with a window, at a hop limit of 255.
    fn of_passt(scene: Scene) -> Scene {
        scene.reset(|r| {
            (r.flags, r.window, r.hop_limit) = (Flags(Flags::RST), 256, 255);
            (r.ack, r.ip_id, r.options) = (SeqNum(0), Some(0), Options::default());
        })
    }

    #[test]
    fn a_stack_on_the_link_may_write_a_window_into_a_bare_reset() {
        let light = name("window_on_bare_reset_on_link");
        let full = name("window_on_bare_reset");
        let open = of_passt(Scene::established().hop_limit(255));
        assert_eq!(open.check(window_on_bare_reset), light);
        let refused = of_passt(Scene::refused());
        assert_eq!(refused.check(window_on_bare_reset), light);
        assert_eq!(refused.check(syn_answer), name("syn_answer_bare"));
        let known = of_passt(Scene::refused()).path_hop_limit(255);
        assert_eq!(known.check(window_on_bare_reset), light);
        assert_eq!(known.check(syn_answer), None);
        // A sender that was heard from elsewhere, and a reset that a router has touched.
        let elsewhere = of_passt(Scene::established());
        assert_eq!(elsewhere.check(window_on_bare_reset), full);
        let beyond = of_passt(Scene::established().hop_limit(254)).reset(|r| r.hop_limit = 254);
        assert_eq!(beyond.check(window_on_bare_reset), full);
        let other = of_passt(Scene::refused()).path_hop_limit(64);
        assert_eq!(other.check(window_on_bare_reset), full);
        assert_eq!(other.check(syn_answer), name("syn_answer_bare"));
    }

    #[test]
    fn a_shape_between_the_two_is_not_linux() {
        let scene = unstamped().reset(|r| r.window = 0);
        assert_eq!(scene.check(hybrid), name("reset_shape_hybrid"));
        let windows = scene.clone().hop_limit(128);
        assert_eq!(windows.check(hybrid), None);
        assert_eq!(scene.clone().passive().check(hybrid), None);
        assert_eq!(
            scene.clone().reset(|r| r.seq = SeqNum(0)).check(hybrid),
            None
        );
        let plain = scene.receiver(|r| r.syn.as_mut().unwrap().options.timestamps = None);
        assert_eq!(plain.check(hybrid), None);
        assert_eq!(
            Scene::established().reset(|r| r.window = 0).check(hybrid),
            None
        );
        assert_eq!(Scene::refused().check(hybrid), None);
    }

    #[test]
    fn the_receivers_window_in_the_reset_is_a_mirror() {
        let mirrored = Scene::established()
            .sender(|s| s.window = 500)
            .reset(|r| r.window = 65_160);
        assert_eq!(mirrored.check(window_mirrored), name("window_mirrored"));
        for own in [65_160, 64_000] {
            let scene = mirrored.clone().sender(|s| s.window = own);
            assert_eq!(scene.check(window_mirrored), None);
        }
        // Of one Linux host only the SYN was heard, of the other a FIN too; each has the window of the other.
        let scaled = |window, shift| {
            let scene = Scene::established().sender(|s| {
                s.window = 64_240;
                let syn = s.syn.as_mut().unwrap();
                (syn.window, syn.options.window_scale) = (64_240, shift);
            });
            let scene = scene.receiver(|r| {
                r.window = window;
                r.syn.as_mut().unwrap().options.window_scale = Some(7);
            });
            scene.reset(|r| r.window = window).check(window_mirrored)
        };
        assert_eq!(scaled(502, Some(7)), None);
        assert_eq!(scaled(502, None), name("window_mirrored"));
        assert_eq!(scaled(2_000, Some(7)), name("window_mirrored"));
        let zero = Scene::established()
            .reset(|r| r.window = 0)
            .receiver(|r| r.window = 0);
        assert_eq!(zero.check(window_mirrored), None);
    }

    fn with_payload(bytes: &[u8]) -> Scene {
        Scene::established().reset(|r| {
            r.payload_len = u32::try_from(bytes.len()).unwrap();
            r.payload_head[..bytes.len()].copy_from_slice(bytes);
        })
    }

    #[test]
    fn payload_is_named_where_it_is_known() {
        assert_eq!(Scene::established().check(payload), None);
        assert_eq!(
            with_payload(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 0]).check(payload),
            name("payload_known_injector")
        );
        let big_ip = with_payload(b"BIG-IP: [0x11c");
        let far = big_ip.clone().reset(|r| r.hop_limit = 241);
        assert_eq!(far.check(payload), name("payload_names_device"));
        assert_eq!(
            big_ip.clone().no_sender().check(payload),
            name("payload_names_device")
        );
        // Its own virtual server's.
        assert_eq!(big_ip.check(payload), None);
        assert_eq!(
            with_payload(b"go away").check(payload),
            name("payload_in_reset")
        );
        assert_eq!(with_payload(&[0xa1, 1, 2]).check(payload), None);
    }

    #[test]
    fn only_r_and_ra_are_resets_of_a_stack() {
        assert_eq!(Scene::established().check(flags), None);
        let odd = Scene::established().reset(|r| r.flags = Flags(Flags::RST | Flags::PSH));
        assert_eq!(odd.check(flags), name("flags_odd"));
    }

    #[test]
    fn an_abort_bears_the_congestion_marks_of_its_connection() {
        let marked = |marks: u8| {
            let scene = Scene::established().reset(|r| r.flags.0 |= marks);
            scene.check(flags)
        };
        assert_eq!(marked(Flags::ECE), None);
        assert_eq!(marked(Flags::ECE | Flags::CWR), None);
        assert_eq!(marked(Flags::ECE | Flags::URG), name("flags_odd"));
        let bare = Scene::established().passive();
        let marked = bare.reset(|r| r.flags.0 |= Flags::ECE);
        assert_eq!(marked.check(flags), name("flags_odd"));
    }

    #[test]
    fn an_abort_acknowledges_selectively_where_both_ends_do() {
        let permits = |syn: &mut Option<SynFacts>, may: bool| {
            syn.as_mut().unwrap().options.sack_permitted = may;
        };
        let aborted = |theirs: bool| {
            let scene = Scene::established().receiver(|r| permits(&mut r.syn, true));
            let scene = scene.sender(|s| permits(&mut s.syn, theirs));
            scene.reset(|r| r.options.sack_right_edge = Some(SeqNum(9)))
        };
        assert_eq!(aborted(true).check(options), None);
        assert_eq!(aborted(false).check(options), name("options_odd"));
        let bare = aborted(true).reset(|r| r.flags = Flags(Flags::RST));
        assert_eq!(bare.check(options), name("options_odd"));
    }

    #[test]
    fn reserved_bits_tell_and_accurate_ecn_does_not() {
        assert_eq!(
            Scene::established()
                .reset(|r| r.reserved = 0b1111)
                .check(reserved),
            name("reserved_bits_set")
        );
        assert_eq!(
            Scene::established()
                .reset(|r| r.reserved = 1)
                .check(reserved),
            None
        );
    }

    #[test]
    fn an_mptcp_or_signed_reset_is_no_oddity() {
        assert_eq!(
            Scene::established()
                .reset(|r| r.options.mptcp = true)
                .check(options),
            None
        );
        assert_eq!(
            Scene::established()
                .reset(|r| r.options.is_signed = true)
                .check(options),
            None
        );
        assert_eq!(
            Scene::established()
                .reset(|r| r.options.mss = Some(1460))
                .check(options),
            name("options_odd")
        );
    }

    #[test]
    fn windows_fills_the_ack_field_of_a_bare_reset() {
        let scene = Scene::established().passive().reset(|r| r.ack = SeqNum(77));
        assert_eq!(scene.check(ack_without_flag), name("ack_without_flag"));
        assert_eq!(scene.clone().hop_limit(120).check(ack_without_flag), None);
        let openbsd = scene
            .clone()
            .sender(|s| s.syn.as_mut().unwrap().options.order = 0x211_4131);
        assert_eq!(openbsd.check(ack_without_flag), None);
        assert_eq!(scene.reset(|r| r.ack = r.seq).check(ack_without_flag), None);
        assert_eq!(Scene::established().passive().check(ack_without_flag), None);
    }

    #[test]
    fn the_passive_shape_of_a_kernel_is_known() {
        assert_eq!(
            Scene::established().passive().check(passive),
            name("reset_shape_passive")
        );
        assert_eq!(
            Scene::established().passive().v6().check(passive),
            name("reset_shape_passive")
        );
        let clear = Scene::established()
            .passive()
            .reset(|r| r.dont_fragment = Some(false));
        assert_eq!(clear.check(passive), None);
        let sockets_clear = Scene::established()
            .passive()
            .sender(|s| s.dont_fragment = (false, true));
        assert_eq!(sockets_clear.check(passive), name("reset_shape_passive"));
        assert_eq!(Scene::refused().passive().check(passive), None);
    }

    #[test]
    fn a_refusal_acknowledges_the_syn_and_nothing_else() {
        assert_eq!(Scene::refused().check(refusal), name("reset_shape_refusal"));
        assert_eq!(
            Scene::refused()
                .reset(|r| r.ack = RECEIVER_ISN)
                .check(refusal),
            None
        );
        assert_eq!(
            Scene::refused().reset(|r| r.seq = SeqNum(9)).check(refusal),
            None
        );
        assert_eq!(Scene::established().check(refusal), None);
    }
}
