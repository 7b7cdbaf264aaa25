//! How a process and its socket stood when it reset a connection, as the kernel attests it: items of 0 dB, which name
//! what happened and decide nothing. Their names stand here once, for the engine that writes them and for messages,
//! lines and stories that tell them.

use super::Evidence;

/// The process was ending: its signal or exit code.
pub const PROCESS_ENDED: &str = "process_ended";
/// No process had ever accepted the connection.
pub const NEVER_ACCEPTED: &str = "never_accepted";
/// A process had closed the connection in order: how long before.
pub const ALREADY_CLOSED: &str = "already_closed";

/// What of it the evidence holds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Circumstances<'a> {
    /// The process that did it was ending: its signal or exit code.
    pub ending: Option<&'a str>,
    /// No process had ever accepted the connection.
    pub is_unaccepted: bool,
    /// The process that is named had closed it in order: how long before.
    pub closed: Option<&'a str>,
}

impl<'a> Circumstances<'a> {
    /// As they stand among `evidence`.
    #[must_use]
    pub fn of(evidence: &'a [Evidence]) -> Self {
        let named = |name| evidence.iter().find(|item| item.name == name);
        Self {
            ending: named(PROCESS_ENDED).and_then(Evidence::words),
            is_unaccepted: named(NEVER_ACCEPTED).is_some(),
            closed: named(ALREADY_CLOSED).and_then(Evidence::words),
        }
    }
}
