//! What was in a capture: counted while it is read, told in one line at its end. Reads the packets
//! that it counts; judges nothing.

use std::fmt;
use std::path::Path;

use crate::amount::counted;
use crate::notice;
use crate::pcap::{Packet, link_name};
use crate::verdict::Verdict;
use crate::wire::{self, LinkLayer, Reject, Segment};

/// What was in a file, for the closing summary.
#[derive(Debug, Default)]
pub(super) struct Tally {
    packets: u64,
    segments: u64,
    resets: u64,
    /// By [`Reject::ALL`].
    rejects: [u64; Reject::ALL.len()],
    /// By [`Verdict::ALL`].
    records: [u64; Verdict::ALL.len()],
    /// Packets of link types that are not read, by number.
    links: Vec<(u16, u64)>,
    /// Resets that found no room among the open episodes.
    pub(super) unjudged: u64,
}

impl Tally {
    /// Counts a packet, and reads it over `segment`; whether it is one. What `segment` holds where it is
    /// none is of no use.
    #[inline]
    pub(super) fn packet(&mut self, packet: &Packet<'_>, segment: &mut Segment) -> bool {
        self.packets += 1;
        let Some(link) = packet.link else {
            self.link(packet.link_type, 1);
            return false;
        };
        let read = match link {
            LinkLayer::Ethernet => wire::parse_into(packet.bytes, segment),
            _ => wire::parse(link, packet.bytes).map(|read| *segment = read),
        };
        match read {
            Ok(()) => {
                self.segments += 1;
                self.resets += u64::from(segment.flags.rst());
                true
            }
            Err(reject) => {
                self.reject(reject);
                false
            }
        }
    }

    #[cold]
    fn reject(&mut self, reject: Reject) {
        let at = Reject::ALL.iter().position(|other| *other == reject);
        count(&mut self.rejects, at, 1);
    }

    pub(super) fn record(&mut self, verdict: Verdict) {
        count(
            &mut self.records,
            Verdict::ALL.iter().position(|other| *other == verdict),
            1,
        );
    }

    /// Whether there was any packet.
    pub fn has_packets(&self) -> bool {
        self.packets > 0
    }

    fn link(&mut self, link_type: u16, packets: u64) {
        match self
            .links
            .iter_mut()
            .find(|(number, _)| *number == link_type)
        {
            Some((_, count)) => *count += packets,
            None => self.links.push((link_type, packets)),
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.segments += other.segments;
        self.resets += other.resets;
        for (index, number) in other.rejects.iter().enumerate() {
            count(&mut self.rejects, Some(index), *number);
        }
        for (index, number) in other.records.iter().enumerate() {
            count(&mut self.records, Some(index), *number);
        }
        for (number, packets) in &other.links {
            self.link(*number, *packets);
        }
        self.unjudged += other.unjudged;
    }

    pub(super) fn warn(&self, path: &Path) {
        if self.unjudged > 0 {
            notice::warn(format_args!(
                "{}: {} came too fast to be judged: try a shorter --settle",
                path.display(),
                counted(self.unjudged, "reset")
            ));
        }
        for (number, packets) in &self.links {
            let name = link_name(*number)
                .map(|name| format!(" ({name})"))
                .unwrap_or_default();
            notice::warn(format_args!(
                "{}: link type {number}{name} is not read: {} passed over",
                path.display(),
                counted(*packets, "packet")
            ));
        }
    }
}

fn count(counters: &mut [u64], index: Option<usize>, number: u64) {
    if let Some(counter) = index.and_then(|index| counters.get_mut(index)) {
        *counter += number;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            packets,
            segments,
            resets,
            ..
        } = self;
        write!(
            f,
            "{}, {}, {}; {}",
            counted(*packets, "packet"),
            counted(*segments, "TCP segment"),
            counted(*resets, "reset"),
            counted(self.records.iter().sum(), "record")
        )?;
        let verdicts = Verdict::ALL.iter().map(|verdict| verdict.name());
        list(f, ": ", verdicts.zip(self.records))?;
        let other: u64 = self.links.iter().map(|(_, packets)| packets).sum();
        let rejects = Reject::ALL.iter().map(|reject| reject.name());
        let rejects = rejects
            .zip(self.rejects)
            .chain([("unknown_link_type", other)]);
        list(f, "; not TCP segments: ", rejects)
    }
}

/// `2 injected, 1 remote`: those that are not 0, behind `lead` where there is any.
fn list<'a>(
    f: &mut fmt::Formatter<'_>,
    mut lead: &'a str,
    items: impl Iterator<Item = (&'a str, u64)>,
) -> fmt::Result {
    for (name, number) in items.filter(|(_, number)| *number > 0) {
        write!(f, "{lead}{number} {name}")?;
        lead = ", ";
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Tally;
    use crate::pcap::Packet;
    use crate::time::Timestamp;
    use crate::vantage::InterfaceId;
    use crate::verdict::Verdict;
    use crate::wire::{LinkLayer, Segment};

    #[test]
    fn the_summary_names_what_there_was_and_nothing_else() {
        let mut tally = Tally::default();
        assert_eq!(
            tally.to_string(),
            "0 packets, 0 TCP segments, 0 resets; 0 records"
        );
        let packet = |link, link_type, bytes| Packet {
            time: Timestamp::default(),
            link,
            link_type,
            interface: InterfaceId(0),
            bytes,
            wire_len: 0,
        };
        let ethernet = Some(LinkLayer::Ethernet);
        for none in [
            packet(ethernet, 1, &[0; 3]),
            packet(ethernet, 1, &[0; 14]),
            packet(None, 127, &[]),
        ] {
            assert!(!tally.packet(&none, &mut Segment::BLANK.clone()));
        }
        tally.record(Verdict::Injected);
        let mut sum = Tally::default();
        sum.add(&tally);
        sum.add(&tally);
        assert_eq!(
            sum.to_string(),
            "6 packets, 0 TCP segments, 0 resets; 2 records: 2 injected; not TCP segments: \
             2 truncated, 2 not_ip, 2 unknown_link_type"
        );
    }
}
