//! How loudly a record should speak, in the scales of the formats. The verdict is weighed elsewhere:
//! this only says how urgent it is that a person sees it.

use crate::record::{CoverageRecord, ResetRecord};
use crate::verdict::Verdict;

/// From this confidence on an accusation is called sure: of ten such records nine are right.
const SURE: f32 = 0.9;
/// From this confidence on it is at least likelier than not by a margin: three of four are right.
const LIKELY: f32 = 0.75;

/// Urgency, in steps that all formats can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// For the record: somebody closed a connection.
    Informational,
    /// Worth a look when there are many: not judged, or a gap in watching.
    Low,
    /// A forged reset that did nothing, or is not sure.
    Medium,
    /// A forged reset that is sure and may have ended a connection.
    High,
}

impl Severity {
    pub(super) fn of(record: &ResetRecord) -> Self {
        match record.verdict {
            Verdict::Injected => {
                let harmless = record.kernel.accepted == Some(false);
                if record.confidence >= SURE && !harmless {
                    Self::High
                } else {
                    Self::Medium
                }
            }
            Verdict::Undetermined => Self::Low,
            _ => Self::Informational,
        }
    }

    pub(super) const fn of_coverage(record: &CoverageRecord) -> Self {
        if record.complete {
            Self::Informational
        } else {
            Self::Low
        }
    }

    /// OCSF's `severity_id` and its caption.
    pub(super) const fn ocsf(self) -> (u8, &'static str) {
        match self {
            Self::Informational => (1, "Informational"),
            Self::Low => (2, "Low"),
            Self::Medium => (3, "Medium"),
            Self::High => (4, "High"),
        }
    }

    /// CEF and LEEF: up to 10 for the worst. LEEF begins at 1.
    pub(super) const fn of_ten(self) -> u8 {
        match self {
            Self::Informational => 1,
            Self::Low => 3,
            Self::Medium => 5,
            Self::High => 8,
        }
    }

    /// EVE: 1 is the highest priority, as in Snort's classifications.
    pub(super) const fn eve(self) -> u8 {
        match self {
            Self::High => 1,
            Self::Medium => 2,
            Self::Low | Self::Informational => 3,
        }
    }
}

/// OCSF's `confidence_id` and its caption.
pub(super) fn confidence(confidence: f32) -> (u8, &'static str) {
    if confidence >= SURE {
        (3, "High")
    } else if confidence >= LIKELY {
        (2, "Medium")
    } else {
        (1, "Low")
    }
}

#[cfg(test)]
mod tests {
    use super::{Severity, confidence};
    use crate::record::ResetRecord;
    use crate::record::sample::injected;
    use crate::verdict::Verdict;

    #[test]
    fn only_a_sure_forgery_that_was_not_refused_is_high() {
        let sure = injected();
        assert_eq!(Severity::of(&sure), Severity::High);
        let mut refused = injected();
        refused.kernel.accepted = Some(false);
        assert_eq!(Severity::of(&refused), Severity::Medium);
        let unsure = ResetRecord {
            confidence: 0.89,
            ..injected()
        };
        assert_eq!(Severity::of(&unsure), Severity::Medium);
    }

    #[test]
    fn nobody_is_alarmed_by_an_ordinary_reset() {
        for verdict in Verdict::ALL {
            let record = ResetRecord {
                verdict,
                ..injected()
            };
            let alarms = Severity::of(&record) >= Severity::Medium;
            assert_eq!(alarms, verdict == Verdict::Injected, "{verdict:?}");
        }
        assert_eq!(confidence(0.9).0, 3);
        assert_eq!(confidence(0.8).0, 2);
        assert_eq!(confidence(0.5).0, 1);
    }
}
