//! Who looked, and when by the clock on the wall: what a record needs beside itself when it leaves the
//! program, in whatever form. Reads no clock.

use std::fmt;
use std::sync::Arc;

use crate::time::Timestamp;
use crate::vantage::InterfaceId;

/// Who looked: the same for all records of a run, or of a capture.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observer {
    /// The sensor's host; `None` for a capture, whose host is not known.
    pub hostname: Option<String>,
    /// Interface names by [`InterfaceId`].
    pub interfaces: Vec<Option<String>>,
    /// First part of `event.id`: [`super::live_prefix`] or [`super::capture_prefix`].
    pub id_prefix: String,
}

impl Observer {
    /// The interface has this name from now on.
    pub fn rename(&mut self, id: InterfaceId, name: String) {
        if let Some(known) = self.interfaces.get_mut(usize::from(id.0)) {
            *known = Some(name);
        }
    }

    pub(super) fn interface(&self, id: InterfaceId) -> Option<&str> {
        self.interfaces.get(usize::from(id.0))?.as_deref()
    }
}

/// The circumstances under which a record leaves the program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Emission {
    /// Who looked.
    pub observer: Arc<Observer>,
    /// Nanoseconds from the engine's clock to the time of day (since 1970, UTC); 0 for a capture,
    /// whose clock is that already.
    pub wall_offset_ns: i64,
}

impl Emission {
    /// The time of day of an engine time; the nearest that can be written when it is out of range.
    pub(super) const fn wall(&self, time: Timestamp) -> Wall {
        Wall {
            time,
            offset_ns: self.wall_offset_ns,
        }
    }

    /// The same in milliseconds since 1970.
    pub(super) fn millis(&self, time: Timestamp) -> i64 {
        self.wall(time).exact().as_millisecond()
    }

    /// The same as nanoseconds since 1970, UTC.
    #[must_use]
    pub fn wall_ns(&self, time: Timestamp) -> i64 {
        i64::try_from(self.wall(time).exact().as_nanosecond()).unwrap_or_default()
    }

    /// `event.id` of the record with this number.
    #[must_use]
    pub fn event_id(&self, sequence: u64) -> String {
        format!("{}-{sequence}", self.observer.id_prefix)
    }
}

/// A time of day; prints as RFC 3339 in UTC with nine digits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wall {
    time: Timestamp,
    offset_ns: i64,
}

impl Wall {
    /// In the calendar; the nearest that can be written when it is out of range.
    pub(super) fn exact(self) -> jiff::Timestamp {
        let nanos = i128::from(self.time.as_nanos()) + i128::from(self.offset_ns);
        jiff::Timestamp::from_nanosecond(nanos).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }

    /// Nanoseconds since 1970, UTC, of a time that is not before.
    pub(super) const fn nanos(self) -> Option<u64> {
        self.time.as_nanos().checked_add_signed(self.offset_ns)
    }
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.9}", self.exact())
    }
}
