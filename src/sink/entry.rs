//! One record on its way to a receiver: its text in the output's form, and the little that transports
//! must know without reading that text. It is what a spool keeps, so its bytes have a version.

use crate::record::{Emission, Format, Record, community_id};
use crate::verdict::Verdict;

/// Version of [`Entry::encode`]; a spool of another version is not understood.
const VERSION: u8 = 1;
/// Bytes before the three texts: version, severity, time, lengths of id, key and label.
const FIXED: usize = 1 + 1 + 8 + 2 + 2 + 1;

/// `warning`, `notice` and `informational` of RFC 5424 section 6.2.1: a forged reset asks for somebody,
/// what the sensor missed should be seen, the rest is the ordinary course of things.
const SEVERITY: [u8; 3] = [4, 5, 6];

/// The label of coverage records.
const COVERAGE: &str = "coverage";

/// One record, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// `event.id`: the same however often it is sent.
    pub id: String,
    /// Community ID of the flow, or the interface's number for coverage: what belongs together.
    pub key: String,
    /// Time of the record, nanoseconds since 1970, UTC.
    pub time_ns: i64,
    /// Severity of RFC 5424.
    pub severity: u8,
    /// The verdict's word, or `coverage`.
    pub label: String,
    /// The record in the output's form, one line without its end.
    pub body: Vec<u8>,
}

impl Entry {
    /// One of no record, for tests that look at a part of it.
    #[cfg(test)]
    pub(super) const BLANK: Self = Self {
        id: String::new(),
        key: String::new(),
        time_ns: 0,
        severity: 6,
        label: String::new(),
        body: Vec::new(),
    };

    /// A record in an output's form; `None` where the form has no place for it.
    #[must_use]
    pub fn new(record: &Record, emission: &Emission, format: Format) -> Option<Self> {
        let text = format.render(record, emission)?;
        Some(Self::with_text(record, emission, text))
    }

    /// The same with the text at hand.
    pub(super) fn with_text(record: &Record, emission: &Emission, text: String) -> Self {
        let body = one_line(text).into_bytes();
        let [warning, notice, informational] = SEVERITY;
        match record {
            Record::Reset(reset) => Self {
                id: emission.event_id(reset.sequence),
                key: community_id(reset.source, reset.destination).unwrap_or_default(),
                time_ns: emission.wall_ns(reset.start),
                severity: match reset.verdict {
                    Verdict::Injected => warning,
                    _ => informational,
                },
                label: reset.verdict.name().to_owned(),
                body,
            },
            Record::Coverage(coverage) => Self {
                id: emission.event_id(coverage.sequence),
                key: format!("coverage-{}", coverage.interface.0),
                time_ns: emission.wall_ns(coverage.end),
                severity: if coverage.complete {
                    informational
                } else {
                    notice
                },
                label: COVERAGE.to_owned(),
                body,
            },
        }
    }

    /// Whether it is a coverage record.
    #[must_use]
    pub fn is_coverage(&self) -> bool {
        self.label == COVERAGE
    }

    /// Community ID of the flow; `None` of a coverage record, whose key is another.
    #[must_use]
    pub fn community_id(&self) -> Option<&str> {
        (!self.is_coverage() && !self.key.is_empty()).then_some(self.key.as_str())
    }

    /// How many bytes it has in a spool.
    #[must_use]
    pub const fn size(&self) -> usize {
        FIXED + self.id.len() + self.key.len() + self.label.len() + self.body.len()
    }

    /// Puts its bytes in a spool behind those that are there.
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.push(VERSION);
        bytes.push(self.severity);
        bytes.extend_from_slice(&self.time_ns.to_le_bytes());
        bytes.extend_from_slice(&length::<u16>(&self.id).to_le_bytes());
        bytes.extend_from_slice(&length::<u16>(&self.key).to_le_bytes());
        bytes.extend_from_slice(&length::<u8>(&self.label).to_le_bytes());
        for text in [&self.id, &self.key, &self.label] {
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes.extend_from_slice(&self.body);
    }

    /// From the bytes of a spool; `None` when they are none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&version, rest) = bytes.split_first()?;
        let (&severity, rest) = rest.split_first()?;
        let (time, rest) = rest.split_first_chunk()?;
        let (id, rest) = rest.split_first_chunk()?;
        let (key, rest) = rest.split_first_chunk()?;
        let (&label, rest) = rest.split_first()?;
        if version != VERSION {
            return None;
        }
        let (id, rest) = text(rest, usize::from(u16::from_le_bytes(*id)))?;
        let (key, rest) = text(rest, usize::from(u16::from_le_bytes(*key)))?;
        let (label, body) = text(rest, usize::from(label))?;
        Some(Self {
            id,
            key,
            time_ns: i64::from_le_bytes(*time),
            severity,
            label,
            body: body.to_vec(),
        })
    }
}

/// Control characters would end lines and forge others, in whatever form: none leaves, whoever wrote the
/// form.
fn one_line(text: String) -> String {
    // One pass over bytes that the compiler does sixteen at a time: C1 controls begin with 0xC2.
    let suspect = text
        .bytes()
        .fold(false, |odd, b| odd | (b < b' ') | (b == 0x7f) | (b == 0xc2));
    if !suspect {
        return text;
    }
    if text.contains(char::is_control) {
        text.replace(char::is_control, "\u{fffd}")
    } else {
        text
    }
}

/// Our ids, keys and labels are of a few dozen bytes; one that did not fit would make the entry
/// unreadable, which its reader counts.
fn length<T: TryFrom<usize> + Default>(text: &str) -> T {
    let length = T::try_from(text.len());
    debug_assert!(length.is_ok(), "{} bytes", text.len());
    length.unwrap_or_default()
}

fn text(bytes: &[u8], length: usize) -> Option<(String, &[u8])> {
    let (text, rest) = bytes.split_at_checked(length)?;
    Some((String::from_utf8(text.to_vec()).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::Entry;
    use crate::record::sample::{coverage, emission, injected};
    use crate::record::{Format, Record};

    #[test]
    fn an_entry_survives_its_bytes_and_no_cut_of_them_is_one() {
        let record = Record::Reset(Box::new(injected()));
        let entry = Entry::new(&record, &emission(), Format::Native).unwrap();
        let mut bytes = Vec::new();
        entry.encode(&mut bytes);
        assert_eq!(bytes.len(), entry.size());
        assert_eq!(Entry::decode(&bytes).as_ref(), Some(&entry));
        let head = bytes.len() - entry.body.len();
        for cut in 0..head {
            assert_eq!(Entry::decode(&bytes[..cut]), None, "{cut}");
        }
        let mut other = bytes;
        other[0] += 1;
        assert_eq!(Entry::decode(&other), None);
    }

    #[test]
    fn no_control_character_leaves() {
        let text = "a\nb\r\u{0}\u{1b}[2J\u{85}\u{7f}\tz".to_owned();
        let line = super::one_line(text);
        assert!(!line.contains(char::is_control), "{line:?}");
        assert!(line.starts_with("a\u{fffd}b") && line.ends_with('z'));
    }

    #[test]
    fn a_forged_reset_is_a_warning_and_a_gap_in_watching_a_notice() {
        let reset = Entry::new(
            &Record::Reset(Box::new(injected())),
            &emission(),
            Format::Native,
        )
        .unwrap();
        assert_eq!((reset.severity, reset.label.as_str()), (4, "injected"));
        assert_eq!(reset.id, "host-boot-42");
        assert!(reset.key.starts_with("1:"), "{}", reset.key);
        assert_eq!(reset.community_id(), Some(reset.key.as_str()));
        let mut whole = coverage();
        whole.complete = true;
        for (record, severity) in [(coverage(), 5), (whole, 6)] {
            let record = Record::Coverage(Box::new(record));
            let entry = Entry::new(&record, &emission(), Format::Native).unwrap();
            assert_eq!(
                (entry.severity, entry.label.as_str()),
                (severity, "coverage")
            );
            assert_eq!(entry.community_id(), None, "an interface is no flow");
        }
    }
}
