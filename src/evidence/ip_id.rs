//! IPv4 identification and Don't Fragment: whether the reset was numbered by the counter that
//! numbered the sender's other packets. Silent for IPv6, which has neither; silent for ID 0, which
//! every modern Linux gives its answers to segments of unknown connections.

use super::basis::{Stack, is_of_no_socket, receiver_isn, sender_isn, sender_stack};
use super::opener::is_syn_anothers;
use super::{Case, Evidence, Group, Kind};
use crate::flow::HalfFlow;
use crate::host::SocketSequence;
use crate::time::SECOND;
use crate::wire::hop_limit::hops;

/// Off the sender's counter, and the sender is known to count.
pub const OFF_COUNTER: Kind = Kind::injected("ip_id_off_counter", Group::IpId);
/// Off the sender's counter by the local socket's own count of its segments.
pub const OFF_EXACT: Kind = Kind::injected("ip_id_off_counter_exact", Group::IpId);
/// Far from the sender's SYN; whether the sender counts is not known.
pub const OFF_RANGE: Kind = Kind::injected("ip_id_off_range", Group::IpId);
/// Where the sender's counter must be by the segments that were counted.
pub const ON_COUNTER: Kind = Kind::remote("ip_id_on_counter", Group::IpId);
/// In the range where the sender's counter may be.
pub const IN_RANGE: Kind = Kind::remote("ip_id_in_range", Group::IpId);
/// The sender's counter goes on after the reset as if there had been none.
pub const SKIPPED: Kind = Kind::injected("ip_id_counter_skips_reset", Group::IpId);
/// Copied from the receiver's own packet.
pub const MIRRORED: Kind = Kind::injected("ip_id_mirrored", Group::IpId);
/// The ID of a known injector, with what else that injector always does.
pub const KNOWN: Kind = Kind::injected("ip_id_known_injector", Group::IpId);
/// Don't Fragment differs from all that the sender sent.
pub const DF_FLIP: Kind = Kind::injected("dont_fragment_flip", Group::IpId);

/// IDs that a sender may use beyond what its bytes account for: handshake, pure ACKs, lost ones.
const SPARE_IDS: u32 = 2_000;
/// The smallest mean segment that a transfer is taken to have.
const SMALL_SEGMENT: u32 = 500;
/// Small segments come one by one, and bytes do not tell of them: keystrokes, messages, keep-alives. So many a
/// second are allowed for.
const IDS_A_SECOND: u64 = 100;
/// Steps of a counter that were seen one by one lie within this.
const NEAR: u16 = 64;

/// The reset's ID where the counter test applies: an active reset (RST and ACK) with an ID.
/// Passive ones have 0 or, on older Linux, a counter of their own.
fn counted_id(case: &Case<'_>) -> Option<u16> {
    let segment = &case.first()?.segment;
    segment.ip_id.filter(|id| *id != 0 && segment.flags.ack())
}

/// The most IDs that the sender can have used since its SYN, by the bytes that SEQ and ACK of the
/// reset say it sent and received, and by the time that small segments had.
fn most_ids(case: &Case<'_>) -> Option<u32> {
    let first = case.first()?;
    let reset = &first.segment;
    let sent = reset.seq.bytes_since(sender_isn(case)?);
    let received = receiver_isn(case).map_or(0, |isn| reset.ack.bytes_since(isn));
    // A SEQ or ACK that makes no sense would make any ID fit.
    let sensible = |bytes: u32| {
        if bytes > u32::MAX / 2 {
            0
        } else {
            bytes / SMALL_SEGMENT
        }
    };
    let seconds = first.time.since(case.sender()?.first_seen) / SECOND;
    let small = u32::try_from(IDS_A_SECOND.saturating_mul(seconds)).unwrap_or(u32::MAX);
    Some((SPARE_IDS + sensible(sent) + sensible(received)).saturating_add(small))
}

/// The same by the segments that the local socket counted. Some were lost, and of those that only
/// acknowledge, cable modems and queues drop all but the last (ACK suppression of DOCSIS; `ack-filter` of
/// CAKE): as many as there were segments to acknowledge.
fn most_counted(socket: &SocketSequence, segments: u32) -> u32 {
    let acknowledged = socket.bytes_out.unwrap_or(0) / u64::from(SMALL_SEGMENT);
    let acks = u32::try_from(acknowledged).unwrap_or(u32::MAX);
    segments
        .saturating_add(segments / 4)
        .saturating_add(64)
        .saturating_add(acks)
}

/// Linux before 5.17 numbers what may be fragmented by a counter that many connections share, and that grows by up
/// to the ticks since its last use (`ip_idents_reserve`; 1000 a second at most): so many IDs more.
fn most_shared(case: &Case<'_>) -> Option<u32> {
    let sender = case.sender()?;
    let seconds = case.first()?.time.since(sender.first_seen) / SECOND;
    let ticks = u32::try_from(seconds.saturating_add(1).saturating_mul(1_000)).unwrap_or(u32::MAX);
    (sender.dont_fragment == (false, true)).then_some(ticks)
}

/// IDs that the sender has used besides, for what lies between RCV.NXT and a SEQ that the window allows: it was lost,
/// or waits before the socket. Nothing is told by an ID there: whoever guesses a SEQ makes that room himself.
fn most_missing(case: &Case<'_>, socket: &SocketSequence) -> u32 {
    let ahead = case.first().and_then(|first| first.offset).unwrap_or(0);
    let ahead = u32::try_from(ahead).unwrap_or(0);
    if ahead <= socket.rcv_wnd {
        ahead / SMALL_SEGMENT
    } else {
        0
    }
}

/// E-H5: the reset's ID against the counter that the sender's SYN began.
///
/// Linux numbers the packets of a connection one by one from its SYN on (`ip_select_ident_segs`;
/// with TSO by the segments). Measured: outside SYN+1..=2000 in 59 of 63 injected and 0 of 75
/// genuine flows. With the local socket's `segs_in` the range is a handful.
///
/// False positives: stacks with random IDs (OpenBSD): silent once the sender jumped more than it
/// stepped; tools that give all packets one ID: silent; NAT that renumbers (CGN); a SYN that a proxy sent: silent where such a one is known; long transfers:
/// the range grows with the bytes, and with the seconds for segments that hold next to none; acknowledgements that a
/// modem drops: it grows by what there was to acknowledge; an abort ahead of data that was lost: silent where that much
/// data was numbered, too; a sender without Don't Fragment, whose counter is not its connection's: silent as far as
/// that may have come. Never with ID 0, never from a SYN-ACK (Linux gives it 0: `ip_build_and_send_pkt`), never for bare resets
/// (naive continuity fails on 55 % of genuine client flows).
#[must_use]
pub fn counter(case: &Case<'_>) -> Option<Evidence> {
    let id = counted_id(case)?;
    let sender = case.sender()?;
    if sender.ip_id_jumps > sender.ip_id_steps || is_syn_anothers(case) || is_constant(sender, id) {
        return None;
    }
    // The packets of a live connection between its SYN and its reset are not seen: only a capture
    // file may measure from the last one.
    if case.from_capture
        && let Some(found) = from_last(case, id)
    {
        return Some(found);
    }
    let syn = sender.syn.filter(|syn| !syn.is_syn_ack)?;
    let from = syn.ip_id.filter(|from| *from != 0)?;
    let used = u32::from(id.wrapping_sub(from));
    let socket = case.first()?.socket.as_ref().and_then(|s| s.sequence());
    let counted = socket.and_then(|socket| Some((socket, socket.segs_in?)));
    if let Some((_, segments)) = counted {
        let slack = (segments / 20).max(16);
        if (segments.saturating_sub(2).max(1)..=segments.saturating_add(slack)).contains(&used) {
            return Some(ON_COUNTER.found(id, expected_id(from, segments)));
        }
    }
    let most = match counted {
        Some((socket, segments)) => most_counted(socket, segments),
        None => most_ids(case)?,
    };
    if most >= u32::from(u16::MAX) / 4 {
        // A quarter of all IDs would fit: the test has no edge left.
        return None;
    }
    let missing = counted.map_or(0, |(socket, _)| most_missing(case, socket));
    let beyond = most
        .saturating_add(missing)
        .saturating_add(most_shared(case).unwrap_or(0));
    let kind = match (1..=most).contains(&used) {
        true => IN_RANGE,
        false if (1..=beyond).contains(&used) => return None,
        false if sender_stack(case) != Some(Stack::Linux) => OFF_RANGE,
        false if counted.is_some() => OFF_EXACT,
        false => OFF_COUNTER,
    };
    Some(kind.found(
        id,
        format!("{}..{}", from.wrapping_add(1), expected_id(from, most)),
    ))
}

/// Whether all packets of `sender` bear `id`: it counts nothing (Scapy sends 1 unless told otherwise).
fn is_constant(sender: &HalfFlow, id: u16) -> bool {
    let began = sender.syn.and_then(|syn| syn.ip_id);
    let never_moved = (sender.ip_id_steps, sender.ip_id_jumps) == (0, 0);
    sender.segments > 1 && never_moved && sender.ip_id == Some(id) && began == Some(id)
}

/// [`counter`] from the last packet of a sender that was seen to count. Its other connections may
/// share the counter: 100 packets a second since then are allowed for.
fn from_last(case: &Case<'_>, id: u16) -> Option<Evidence> {
    let sender = case.sender()?;
    let step = id.wrapping_sub(sender.ip_id?);
    if (1..=NEAR).contains(&step) && sender.ip_id_steps > 0 {
        return Some(ON_COUNTER.found(id, sender.ip_id?.wrapping_add(1)));
    }
    let seconds = case.first()?.time.since(sender.last_seen) / SECOND;
    let most = u64::from(SPARE_IDS) + IDS_A_SECOND * seconds;
    let counts = sender.ip_id_steps >= 2 && sender.ip_id_steps > sender.ip_id_jumps;
    let off = u64::from(step) > most && most < u64::from(u16::MAX) / 2;
    (counts && off).then(|| OFF_COUNTER.found(id, sender.ip_id.unwrap_or(0).wrapping_add(1)))
}

fn expected_id(from: u16, used: u32) -> i64 {
    (i64::from(from) + i64::from(used)) % 65_536
}

/// E-H5 with hindsight: the sender's packets before and after the reset are numbered without a gap
/// for it. It holds for any stack that shows the two steps, fingerprinted or not.
///
/// False positives: bare resets (own counter): silent; a counter shared by all connections of a
/// busy host moves between two packets anyway: the step must be small and the reset's ID outside.
#[must_use]
pub fn skipped(case: &Case<'_>) -> Option<Evidence> {
    let id = counted_id(case)?;
    let before = case.sender()?.ip_id?;
    let after = case
        .after
        .iter()
        .find_map(|a| a.segment.ip_id.filter(|id| *id != 0))?;
    let step = after.wrapping_sub(before);
    // The reset may be counted a little later than the packets around it.
    let inside = id.wrapping_sub(before) <= step.saturating_add(NEAR);
    ((1..=NEAR).contains(&step) && !inside)
        .then(|| SKIPPED.found(id, format!("{before}, {after} around it")))
}

/// E-H6: the reset bears the ID of the receiver's own packet, or that plus one: a device turned a
/// packet around. Seen in Zeek's `rst-inject-rae` trace, in CenTrace's devices, and in firewalls
/// (noahdavids.org).
///
/// False positives: small counters meet (silent below 256); the sender's own counter passes by
/// (silent when it is near); ID 0.
#[must_use]
pub fn mirror(case: &Case<'_>) -> Option<Evidence> {
    let id = case.first()?.segment.ip_id.filter(|id| *id >= 256)?;
    if let Some(own) = case.sender().and_then(|s| s.ip_id)
        && id.wrapping_sub(own).min(own.wrapping_sub(id)) <= 512
    {
        return None;
    }
    let receiver = case.receiver()?;
    let syn = receiver.syn.and_then(|syn| syn.ip_id);
    let theirs = [receiver.ip_id, syn]
        .into_iter()
        .flatten()
        .find(|theirs| *theirs != 0 && (id == *theirs || id == theirs.wrapping_add(1)))?;
    Some(MIRRORED.found(id, format!("not the receiver's {theirs}")))
}

/// E-H7: IDs that an injector is known by, only together with the rest of its fingerprint.
///
/// Airtel (India): RST+ACK, ID 242, window 16, DF clear, in 7 of 7 flows (also
/// lhmerino/censorship-detection). GFW type III: RST+ACK, DF clear, IDs 39190 to 39219, hop limit
/// above 200 (Wu et al., S&P 2025). Henan: RST+ACK, ID 1, DF clear, with payload (same paper).
///
/// False positives: chance, 30 of 65536 times what the other fields allow.
#[must_use]
pub fn known(case: &Case<'_>) -> Option<Evidence> {
    let segment = &case.first()?.segment;
    let id = segment.ip_id?;
    if !segment.flags.ack() || segment.dont_fragment != Some(false) {
        return None;
    }
    let injector = match id {
        242 if segment.window == 16 => "airtel",
        39_190..=39_219 if segment.hop_limit > 200 => "gfw type III",
        1 if segment.payload_len == 10 => "henan",
        _ => return None,
    };
    Some(KNOWN.found(id, format!("not that of {injector}")))
}

/// E-H8: Don't Fragment of the reset against that of all other packets of the sender.
///
/// Measured: 46 % of injected, 77 % of middlebox and 2.6 % of genuine flows.
/// False positives: a SYN that a proxy sent: silent where such a one is known, and where a kernel denies the SYN;
/// tunnels that clear DF now and then: silent when the sender showed both; raw
/// socket tools beside a kernel that sets it (8 of the 9 genuine hits were bare resets): silent; Linux whose sockets
/// do not set it and whose own answers do (`is_of_no_socket`): silent.
#[must_use]
pub fn dont_fragment(case: &Case<'_>) -> Option<Evidence> {
    let reset = case.first()?;
    let seen = reset.segment.dont_fragment?;
    if is_syn_anothers(case) || is_of_no_socket(case) {
        return None;
    }
    let usual = match case.sender()?.dont_fragment {
        (true, false) => true,
        (false, true) => false,
        _ => return None,
    };
    // One machine may have two stacks side by side, a raw socket tool and its kernel: told by one
    // distance, and by the kernel's bare reset, which has the bit set.
    let nearest = case.sender()?.hop_limits.nearest(reset.segment.hop_limit);
    let second_stack = seen
        && !reset.segment.flags.ack()
        && reset.segment.window == 0
        && nearest.is_some_and(|near| hops(near) == hops(reset.segment.hop_limit));
    (seen != usual && !second_stack).then(|| DF_FLIP.found(i64::from(seen), i64::from(usual)))
}

#[cfg(test)]
mod tests {
    use super::{counter, dont_fragment, known, mirror, skipped};
    use crate::evidence::testing::{Scene, at_ms, name};
    use crate::wire::Flags;

    fn id(id: u16) -> Scene {
        Scene::established().reset(|r| r.ip_id = Some(id))
    }

    #[test]
    fn the_counter_of_a_linux_sender_is_believed() {
        assert_eq!(id(4_660).check(counter), name("ip_id_off_counter"));
        assert_eq!(id(30_234).check(counter), name("ip_id_in_range"));
    }

    #[test]
    fn an_unknown_stack_weighs_less() {
        let scene = id(4_660).sender(|s| s.syn.as_mut().unwrap().options.order = 0);
        assert_eq!(scene.check(counter), name("ip_id_off_range"));
    }

    #[test]
    fn who_gives_all_packets_one_id_counts_nothing() {
        let tool = |segments| {
            id(1).sender(|s| {
                (s.segments, s.ip_id) = (segments, Some(1));
                s.syn.as_mut().unwrap().ip_id = Some(1);
            })
        };
        assert_eq!(tool(2).check(counter), None);
        assert_eq!(tool(1).check(counter), name("ip_id_off_counter"));
        let other = tool(2).reset(|r| r.ip_id = Some(4_660));
        assert_eq!(other.check(counter), name("ip_id_off_counter"));
    }

    #[test]
    fn the_counter_wraps() {
        let scene = id(5).sender(|s| s.syn.as_mut().unwrap().ip_id = Some(65_530));
        assert_eq!(scene.check(counter), name("ip_id_in_range"));
    }

    #[test]
    fn segments_counted_by_the_socket_make_the_range_tight() {
        assert_eq!(
            id(30_234).socket(|_| ()).check(counter),
            name("ip_id_on_counter")
        );
        assert_eq!(
            id(30_290).socket(|_| ()).check(counter),
            name("ip_id_in_range")
        );
        assert_eq!(
            id(31_000).socket(|_| ()).check(counter),
            name("ip_id_off_counter_exact")
        );
    }

    #[test]
    fn an_abort_ahead_of_lost_data_was_numbered_after_it() {
        // 13 segments were counted; 200 that filled the window are missing.
        let ahead_of = |missing: u32| {
            let scene = id(30_452).socket(|s| s.rcv_wnd = 290_000);
            let expected = scene.resets[0].segment.seq;
            let seq = expected.plus(missing);
            let mut scene = scene.reset(|r| r.seq = seq);
            scene.resets[0].offset = Some(i32::try_from(missing).unwrap());
            scene.check(counter)
        };
        assert_eq!(ahead_of(290_000), None);
        assert_eq!(ahead_of(14_500), name("ip_id_off_counter_exact"));
        assert_eq!(ahead_of(290_001), name("ip_id_off_counter_exact"));
    }

    #[test]
    fn a_counter_that_connections_share_runs_on_by_itself() {
        let at = |id, may_be_fragmented: bool| {
            let scene = self::id(id).sender(|s| {
                s.dont_fragment = (!may_be_fragmented, may_be_fragmented);
            });
            scene.socket(|_| ()).check(counter)
        };
        assert_eq!(at(31_000, true), None);
        assert_eq!(at(31_000, false), name("ip_id_off_counter_exact"));
        assert_eq!(at(40_000, true), name("ip_id_off_counter_exact"));
    }

    #[test]
    fn id_zero_is_never_scored() {
        assert_eq!(id(0).check(counter), None);
        assert_eq!(id(0).check(mirror), None);
    }

    #[test]
    fn a_bare_reset_has_a_counter_of_its_own() {
        let scene = id(14_579).reset(|r| r.flags = Flags(Flags::RST));
        assert_eq!(scene.check(counter), None);
        assert_eq!(scene.after(100, |_| ()).check(skipped), None);
    }

    #[test]
    fn a_syn_ack_is_no_base() {
        let scene = id(4_660).sender(|s| {
            let syn = s.syn.as_mut().unwrap();
            syn.is_syn_ack = true;
            syn.ip_id = Some(0);
        });
        assert_eq!(scene.check(counter), None);
    }

    #[test]
    fn a_capture_measures_from_the_last_packet_of_a_sender_that_counts() {
        let counting = |id: u16| {
            self::id(id).sender(|s| {
                s.ip_id_steps = 3;
                s.ip_id = Some(38_669);
            })
        };
        assert_eq!(counting(38_670).check(counter), name("ip_id_on_counter"));
        assert_eq!(counting(65_409).check(counter), name("ip_id_off_counter"));
        // Long after, a counter that all connections share may be anywhere.
        let mut late = counting(65_409).sender(|s| s.syn = None);
        late.resets[0].time = at_ms(400_000);
        assert_eq!(late.check(counter), None);
    }

    #[test]
    fn random_ids_are_left_alone() {
        assert_eq!(id(4_660).sender(|s| s.ip_id_jumps = 1).check(counter), None);
    }

    #[test]
    fn a_long_transfer_uses_many_ids() {
        let scene = id(34_000).reset(|r| r.seq = r.seq.plus(2_000_000));
        assert_eq!(scene.check(counter), name("ip_id_in_range"));
        let longer = id(4_660).reset(|r| r.seq = r.seq.plus(500_000_000));
        assert_eq!(longer.check(counter), None);
    }

    #[test]
    fn a_long_talk_in_small_segments_uses_more_ids_than_its_bytes_tell() {
        // Twenty messages of twelve bytes a second, each acknowledged, in a capture of SYN, FIN and RST.
        let talked = |seconds: u32| {
            let mut scene = id(30_222 + 40 * 300).reset(|r| r.seq = r.seq.plus(240 * seconds));
            scene.resets[0].time = at_ms(1_000 + u64::from(seconds) * 1_000);
            scene.check(counter)
        };
        assert_eq!(talked(130), name("ip_id_in_range"));
        assert_eq!(talked(300), None, "all IDs may have been used");
        assert_eq!(talked(5), name("ip_id_off_counter"));
    }

    #[test]
    fn acknowledgements_that_a_modem_dropped_were_numbered() {
        // A download of two million bytes: 1400 acknowledgements, of which 300 came.
        let downloaded = |bytes| {
            let scene = id(30_222 + 1_410).socket(|s| {
                (s.segs_in, s.bytes_out) = (Some(310), Some(bytes));
            });
            scene.check(counter)
        };
        assert_eq!(downloaded(2_000_000), name("ip_id_in_range"));
        assert_eq!(downloaded(2_000), name("ip_id_off_counter_exact"));
        assert_eq!(downloaded(20_000_000), None);
    }

    #[test]
    fn ipv6_has_no_ids() {
        let scene = Scene::established().v6();
        for test in [counter, skipped, mirror, known, dont_fragment] {
            assert_eq!(scene.check(test), None);
        }
    }

    #[test]
    fn a_counter_that_passes_over_the_reset_tells() {
        let scene = id(42_315).after(200, |s| s.ip_id = Some(30_223));
        assert_eq!(scene.check(skipped), name("ip_id_counter_skips_reset"));
        assert_eq!(
            id(30_223)
                .after(200, |s| s.ip_id = Some(30_224))
                .check(skipped),
            None
        );
        // A busy counter that everything shares.
        assert_eq!(
            id(42_315)
                .after(200, |s| s.ip_id = Some(50_000))
                .check(skipped),
            None
        );
    }

    #[test]
    fn an_id_from_the_other_side_is_a_mirror() {
        let scene = id(5_461).receiver(|r| r.ip_id = Some(5_461));
        assert_eq!(scene.check(mirror), name("ip_id_mirrored"));
        assert_eq!(
            id(5_462).receiver(|r| r.ip_id = Some(5_461)).check(mirror),
            name("ip_id_mirrored")
        );
        assert_eq!(
            id(5_463).receiver(|r| r.ip_id = Some(5_461)).check(mirror),
            None
        );
    }

    #[test]
    fn counters_that_meet_by_chance_are_no_mirror() {
        assert_eq!(id(12).receiver(|r| r.ip_id = Some(12)).check(mirror), None);
        let near = id(30_234).receiver(|r| r.ip_id = Some(30_234));
        assert_eq!(near.check(mirror), None);
    }

    #[test]
    fn a_known_id_needs_its_companions() {
        let airtel = id(242).reset(|r| {
            r.window = 16;
            r.dont_fragment = Some(false);
        });
        assert_eq!(airtel.check(known), name("ip_id_known_injector"));
        assert_eq!(airtel.clone().reset(|r| r.window = 17).check(known), None);
        assert_eq!(
            airtel.reset(|r| r.dont_fragment = Some(true)).check(known),
            None
        );
    }

    #[test]
    fn dont_fragment_must_differ_from_all_of_the_sender() {
        let scene = Scene::established().reset(|r| r.dont_fragment = Some(false));
        assert_eq!(scene.check(dont_fragment), name("dont_fragment_flip"));
        assert_eq!(
            scene
                .sender(|s| s.dont_fragment = (true, true))
                .check(dont_fragment),
            None
        );
        assert_eq!(Scene::established().check(dont_fragment), None);
    }

    #[test]
    fn a_kernel_beside_a_raw_socket_tool_may_set_dont_fragment() {
        for (tool, kernel) in [(64, 64), (64, 128), (254, 63)] {
            let scene = Scene::established()
                .passive()
                .hop_limit(tool)
                .sender(|s| s.dont_fragment = (false, true))
                .reset(|r| r.hop_limit = kernel);
            assert_eq!(scene.check(dont_fragment), None);
        }
    }

    #[test]
    fn a_kernel_may_set_dont_fragment_where_its_sockets_do_not_however_far_it_seems() {
        let answer = Scene::established()
            .passive()
            .hop_limit(61)
            .sender(|s| s.dont_fragment = (false, true))
            .reset(|r| r.hop_limit = 56);
        assert_eq!(answer.check(dont_fragment), None);
        for other in [
            answer.clone().reset(|r| r.ip_id = Some(4_660)),
            answer.clone().reset(|r| r.window = 512),
            // A scanner's SYN.
            answer.sender(|s| s.syn.as_mut().unwrap().options.order = 2),
        ] {
            assert_eq!(other.check(dont_fragment), name("dont_fragment_flip"));
        }
    }
}
