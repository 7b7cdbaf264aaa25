//! Which records an output wants: `?verdict=injected,forwarded`, `?coverage=no`. Pure.

use super::url_error::UrlError;
use crate::record::Record;
use crate::verdict::Verdict;

/// What an output wants. The default is everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Filter {
    /// By [`Verdict::ALL`].
    verdicts: [bool; Verdict::ALL.len()],
    coverage: bool,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            verdicts: [true; Verdict::ALL.len()],
            coverage: true,
        }
    }
}

impl Filter {
    /// From the words of a URL. Coverage comes with any verdicts unless it is refused: without it
    /// nobody could tell silence from blindness.
    ///
    /// # Errors
    ///
    /// A word that is no verdict.
    pub fn new(verdicts: Option<&str>, coverage: bool) -> Result<Self, UrlError> {
        let mut filter = Self {
            coverage,
            ..Self::default()
        };
        let Some(words) = verdicts else {
            return Ok(filter);
        };
        filter.verdicts = [false; Verdict::ALL.len()];
        for word in words.split(',') {
            let at = Verdict::ALL
                .iter()
                .position(|verdict| verdict.name() == word);
            match at.and_then(|at| filter.verdicts.get_mut(at)) {
                Some(wanted) => *wanted = true,
                None => {
                    let names = Verdict::ALL.map(Verdict::name).join(", ");
                    let why = format!("{word:?} is no verdict; they are {names}");
                    return Err(UrlError::Option("verdict".to_owned(), why));
                }
            }
        }
        Ok(filter)
    }

    /// This record is wanted.
    #[must_use]
    pub fn wants(&self, record: &Record) -> bool {
        match record {
            Record::Coverage(_) => self.coverage,
            Record::Reset(reset) => Verdict::ALL
                .iter()
                .zip(self.verdicts)
                .any(|(verdict, wanted)| wanted && *verdict == reset.verdict),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Filter;
    use crate::record::Record;
    use crate::record::sample::{coverage, injected};
    use crate::verdict::Verdict;

    #[test]
    fn a_filter_lets_pass_what_it_names_and_coverage_unless_refused() {
        let gap = Record::Coverage(Box::new(coverage()));
        let reset = |verdict| {
            let mut record = injected();
            record.verdict = verdict;
            Record::Reset(Box::new(record))
        };
        let some = Filter::new(Some("injected,forwarded"), true).unwrap();
        for verdict in Verdict::ALL {
            let named = matches!(verdict, Verdict::Injected | Verdict::Forwarded);
            assert_eq!(some.wants(&reset(verdict)), named, "{verdict:?}");
            assert!(Filter::default().wants(&reset(verdict)));
        }
        assert!(some.wants(&gap));
        assert!(!Filter::new(None, false).unwrap().wants(&gap));
        for odd in ["", "forged", "injected,", "Injected"] {
            assert!(Filter::new(Some(odd), true).is_err(), "{odd:?}");
        }
    }
}
