//! The forms in which a record may leave: ours, and those of other tools that receivers know already.
//! Each is a pure function from a record to one line of text without its end, free of control
//! characters whatever bytes a name from outside holds. What becomes of the line is not decided here.
//!
//! Every format has a place for every record, coverage included; docs/formats.md tells which.

mod cef;
mod eve;
mod leef;
mod line;
mod ocsf;
mod severity;
mod zeek;

use super::emission::Emission;
use super::json::to_json;
use super::{Record, ResetRecord};
use crate::flow::Endpoint;

pub use cef::cef;
pub use eve::eve;
pub use leef::leef;
pub use ocsf::ocsf;
pub use zeek::zeek;

/// A form of records, by the name that `?format=` of an output takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// docs/record.md: the names of ECS.
    Native,
    /// Open Cybersecurity Schema Framework 1.8.0.
    Ocsf,
    /// Suricata's EVE.
    Eve,
    /// Zeek's logs as JSON.
    Zeek,
    /// ArcSight's Common Event Format.
    Cef,
    /// QRadar's Log Event Extended Format 2.0.
    Leef,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 6] = [
        Self::Native,
        Self::Ocsf,
        Self::Eve,
        Self::Zeek,
        Self::Cef,
        Self::Leef,
    ];

    /// The format of that name; `None` for no name of one.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Ocsf => "ocsf",
            Self::Eve => "eve",
            Self::Zeek => "zeek",
            Self::Cef => "cef",
            Self::Leef => "leef",
        }
    }

    /// It is one JSON object, so that receivers of JSON can take it.
    #[must_use]
    pub const fn is_json(self) -> bool {
        match self {
            Self::Native | Self::Ocsf | Self::Eve | Self::Zeek => true,
            Self::Cef | Self::Leef => false,
        }
    }

    /// The record as one line; `None` where the format has no place for it, which today is never.
    #[must_use]
    pub fn render(self, record: &Record, emission: &Emission) -> Option<String> {
        Some(match self {
            Self::Native => to_json(record, emission),
            Self::Ocsf => ocsf(record, emission),
            Self::Eve => eve(record, emission),
            Self::Zeek => zeek(record, emission),
            Self::Cef => cef(record, emission),
            Self::Leef => leef(record, emission),
        })
    }
}

/// Originator and responder, where they are known; else the purported sender and the other end.
fn ends(record: &ResetRecord) -> (Endpoint, Endpoint) {
    match (record.client, record.server) {
        (Some(client), Some(server)) => (client, server),
        _ => (record.source, record.destination),
    }
}

/// The purported sender opened the connection; `None` when nobody knows who did.
fn source_opened(record: &ResetRecord) -> Option<bool> {
    record.client.map(|client| client == record.source)
}

/// `injected (on path)`, for a person.
fn judgement(record: &ResetRecord) -> String {
    let cause = record.cause.map(|cause| cause.name().replace('_', " "));
    match cause {
        Some(cause) => format!("{} ({cause})", record.verdict.name()),
        None => record.verdict.name().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::Format;
    use crate::record::Record;
    use crate::record::sample::{coverage, emission, injected};

    #[test]
    fn names_are_read_back_and_others_are_not() {
        for format in Format::ALL {
            assert_eq!(Format::parse(format.name()), Some(format));
        }
        assert_eq!(Format::parse("Native"), None);
        assert_eq!(Format::parse(""), None);
    }

    #[test]
    fn every_format_takes_every_kind_of_record_in_one_line() {
        let records = [
            Record::Reset(Box::new(injected())),
            Record::Coverage(Box::new(coverage())),
        ];
        for format in Format::ALL {
            for record in &records {
                let line = format.render(record, &emission()).unwrap();
                assert!(!line.is_empty() && line.chars().all(|c| !c.is_control()));
            }
        }
    }
}
