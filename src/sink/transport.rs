//! What a kind of receiver must be able to do: take a batch of records and say of each what became of
//! it. When to try again, and what to remember, is not decided here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::entry::Entry;

/// What became of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The receiver has it.
    Taken,
    /// It is under way; [`Transport::confirmed`] will tell.
    Sent,
    /// The receiver will never take it, for this reason.
    Refused(String),
    /// To be sent again.
    Again,
}

/// Why something has to be sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// One clause for the operator, with the remedy where there is one.
    pub what: String,
    /// The receiver asked for so much time.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure without a wish of the receiver.
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            retry_after: None,
        }
    }
}

/// What became of a batch: as many fates as there were records.
#[derive(Debug, PartialEq, Eq)]
pub struct Delivered {
    /// In the order of the records.
    pub fates: Vec<Fate>,
    /// Why some are [`Fate::Again`].
    pub failure: Option<Failure>,
}

impl Delivered {
    /// All records had the same fate.
    #[must_use]
    pub fn all(count: usize, fate: Fate) -> Self {
        Self {
            fates: vec![fate; count],
            failure: None,
        }
    }

    /// Nothing was delivered.
    #[must_use]
    pub fn failed(count: usize, failure: Failure) -> Self {
        Self {
            fates: vec![Fate::Again; count],
            failure: Some(failure),
        }
    }
}

/// A way to one receiver.
pub trait Transport: Send {
    /// Delivers records, in order. May wait for the receiver, within limits of its own.
    fn deliver(&mut self, batch: &[Arc<Entry>]) -> Delivered;

    /// How many of the records that are [`Fate::Sent`], oldest first, the receiver has.
    ///
    /// # Errors
    ///
    /// When the way broke: all records that are not confirmed must be sent again.
    fn confirmed(&mut self) -> Result<usize, Failure> {
        Ok(0)
    }

    /// The last words: waits until `deadline` for what is [`Fate::Sent`], and says how many of these,
    /// oldest first, the receiver has.
    fn finish(&mut self, _deadline: Instant) -> usize {
        0
    }

    /// The records of one batch, at the most.
    fn batch_records(&self) -> usize {
        1000
    }

    /// The bytes of one batch, about: what common receivers take without a word (Elasticsearch advises 5
    /// to 15 MB, Splunk's HEC takes 1 MB by default).
    fn batch_bytes(&self) -> usize {
        768 << 10
    }

    /// How long to wait for a batch to fill. Nobody misses a hundredth of a second, and to wake for every
    /// record of a flood costs more than to deliver it.
    fn linger(&self) -> Duration {
        Duration::from_millis(10)
    }
}
