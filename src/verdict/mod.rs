//! Our judgement of a reset: the words of it, and the sum that leads there.
//!
//! `judge` weighs the evidence of one [`crate::evidence::Case`]; origins that the kernel itself
//! attests (local, forwarded) are decided by `engine` before any weighing.

mod cause;
#[cfg(test)]
mod decisive;
#[cfg(test)]
mod guards;
mod judge;
mod late;
mod weights;

pub use judge::{Judgement, groups_against, judge, judge_answer};
pub use late::{Lateness, lateness};
pub use weights::{PRIOR_DB, STRANGER, WEIGHTS, Weight, weight_number};

/// Who sent the reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// This host.
    Local,
    /// The endpoint whose address it bears.
    Remote,
    /// This host passed it on.
    Forwarded,
    /// A third party, with somebody else's address.
    Injected,
    /// No flow and no socket: backscatter, scans.
    Stray,
    /// The evidence does not carry a verdict.
    Undetermined,
}

impl Verdict {
    /// Every verdict, in the order of counters.
    pub const ALL: [Self; 6] = [
        Self::Local,
        Self::Remote,
        Self::Forwarded,
        Self::Injected,
        Self::Stray,
        Self::Undetermined,
    ];

    /// The word in a record.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
            Self::Forwarded => "forwarded",
            Self::Injected => "injected",
            Self::Stray => "stray",
            Self::Undetermined => "undetermined",
        }
    }
}

/// One level below the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Local: an application closed or aborted.
    Process,
    /// Local: TCP answered without an application's doing.
    Kernel,
    /// Local: no socket sent it; netfilter or another packet filter did.
    Firewall,
    /// Remote: the peer aborted the connection.
    Abort,
    /// Remote: nobody listens there.
    Refused,
    /// Remote: its kernel answered a segment for a connection that it does not know.
    Answer,
    /// Remote: it answered traffic that a forged reset had broken.
    Consequence,
    /// Forwarded: this host's proxy passed on what had happened on its other leg.
    Proxy,
    /// Forwarded: this host routed it.
    Router,
    /// Injected: the sender sees the connection.
    OnPath,
    /// Injected: the sender guesses.
    Blind,
    /// Injected: from the same layer 2 segment, with a foreign MAC.
    Adjacent,
    /// Injected: a device's policy or idle timer.
    Middlebox,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 13] = [
        Self::Process,
        Self::Kernel,
        Self::Firewall,
        Self::Abort,
        Self::Refused,
        Self::Answer,
        Self::Consequence,
        Self::Proxy,
        Self::Router,
        Self::OnPath,
        Self::Blind,
        Self::Adjacent,
        Self::Middlebox,
    ];

    /// The verdict that it is a cause of.
    #[must_use]
    pub const fn verdict(self) -> Verdict {
        match self {
            Self::Process | Self::Kernel | Self::Firewall => Verdict::Local,
            Self::Abort | Self::Refused | Self::Answer | Self::Consequence => Verdict::Remote,
            Self::Proxy | Self::Router => Verdict::Forwarded,
            Self::OnPath | Self::Blind | Self::Adjacent | Self::Middlebox => Verdict::Injected,
        }
    }

    /// The word in a record.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Kernel => "kernel",
            Self::Firewall => "firewall",
            Self::Abort => "abort",
            Self::Refused => "refused",
            Self::Answer => "answer",
            Self::Consequence => "consequence",
            Self::Proxy => "proxy",
            Self::Router => "router",
            Self::OnPath => "on_path",
            Self::Blind => "blind",
            Self::Adjacent => "adjacent",
            Self::Middlebox => "middlebox",
        }
    }
}

/// How far the connection was when the reset came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Before the handshake was complete.
    Handshake,
    /// Open.
    Established,
    /// One side had sent its FIN.
    Closing,
    /// Both had, or a reset had already ended it.
    Closed,
    /// Not known.
    Unknown,
}

impl Stage {
    /// Every stage.
    pub const ALL: [Self; 5] = [
        Self::Handshake,
        Self::Established,
        Self::Closing,
        Self::Closed,
        Self::Unknown,
    ];

    /// The word in a record.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Established => "established",
            Self::Closing => "closing",
            Self::Closed => "closed",
            Self::Unknown => "unknown",
        }
    }
}
