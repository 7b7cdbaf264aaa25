//! Why the kernel sent a reset, by the names that it has for it, and what they mean to a person.

/// Why the kernel sent a reset: `enum sk_rst_reason` (`include/net/rstreason.h`), by name, since
/// the numbers differ between kernel versions. The composition maps numbers to these at start,
/// through BTF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResetReason {
    /// A name that this program knows.
    Known(KnownReason),
    /// A name that it does not know; the kernel's number.
    Other(u16),
}

/// The reasons whose meaning this program can tell a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KnownReason {
    /// `NOT_SPECIFIED`.
    NotSpecified,
    /// `NO_SOCKET`: no listener, or the connection is gone.
    NoSocket,
    /// `TCP_INVALID_ACK_SEQUENCE`.
    InvalidAckSequence,
    /// `TCP_RFC7323_PAWS`.
    Paws,
    /// `TCP_TOO_OLD_ACK`.
    TooOldAck,
    /// `TCP_ACK_UNSENT_DATA`.
    AckUnsentData,
    /// `TCP_FLAGS`: a stray segment met a listening port.
    Flags,
    /// `TCP_OLD_ACK`.
    OldAck,
    /// `TCP_ABORT_ON_DATA`: data came after the application had closed.
    AbortOnData,
    /// `TCP_TIMEWAIT_SOCKET`: a segment met TIME-WAIT.
    TimeWaitSocket,
    /// `INVALID_SYN`.
    InvalidSyn,
    /// `TCP_ABORT_ON_CLOSE`: closed with unread data in the receive buffer (RFC 2525 §2.17).
    AbortOnClose,
    /// `TCP_ABORT_ON_LINGER`.
    AbortOnLinger,
    /// `TCP_ABORT_ON_MEMORY`.
    AbortOnMemory,
    /// `TCP_STATE`: the application aborted (SO_LINGER 0, a closed listener, `ss -K`).
    State,
    /// `TCP_KEEPALIVE_TIMEOUT`.
    KeepaliveTimeout,
    /// `TCP_DISCONNECT_WITH_DATA`.
    DisconnectWithData,
    /// Any of `MPTCP_RST_*`.
    Mptcp,
    /// `ERROR`.
    Error,
}

/// Kernel name (without `SK_RST_REASON_`), value, and what it means to a person.
const REASONS: &[(&str, KnownReason, &str)] = &[
    (
        "NOT_SPECIFIED",
        KnownReason::NotSpecified,
        "the kernel gave no reason",
    ),
    (
        "NO_SOCKET",
        KnownReason::NoSocket,
        "no socket took the segment",
    ),
    (
        "TCP_INVALID_ACK_SEQUENCE",
        KnownReason::InvalidAckSequence,
        "the segment acknowledged a wrong sequence number",
    ),
    (
        "TCP_RFC7323_PAWS",
        KnownReason::Paws,
        "the segment's timestamp was too old",
    ),
    (
        "TCP_TOO_OLD_ACK",
        KnownReason::TooOldAck,
        "the acknowledgement was too old",
    ),
    (
        "TCP_ACK_UNSENT_DATA",
        KnownReason::AckUnsentData,
        "the segment acknowledged unsent data",
    ),
    (
        "TCP_FLAGS",
        KnownReason::Flags,
        "a segment for no known connection met a listening port",
    ),
    (
        "TCP_OLD_ACK",
        KnownReason::OldAck,
        "the acknowledgement was old",
    ),
    (
        "TCP_ABORT_ON_DATA",
        KnownReason::AbortOnData,
        "data came after the application had closed",
    ),
    (
        "TCP_TIMEWAIT_SOCKET",
        KnownReason::TimeWaitSocket,
        "a segment met a TIME-WAIT socket",
    ),
    (
        "INVALID_SYN",
        KnownReason::InvalidSyn,
        "a SYN came inside a connection",
    ),
    (
        "TCP_ABORT_ON_CLOSE",
        KnownReason::AbortOnClose,
        "closed with unread data in the receive buffer",
    ),
    (
        "TCP_ABORT_ON_LINGER",
        KnownReason::AbortOnLinger,
        "closed with SO_LINGER set to abort",
    ),
    (
        "TCP_ABORT_ON_MEMORY",
        KnownReason::AbortOnMemory,
        "out of TCP memory",
    ),
    (
        "TCP_STATE",
        KnownReason::State,
        "the application aborted the connection",
    ),
    (
        "TCP_KEEPALIVE_TIMEOUT",
        KnownReason::KeepaliveTimeout,
        "the peer answered no keepalive",
    ),
    (
        "TCP_DISCONNECT_WITH_DATA",
        KnownReason::DisconnectWithData,
        "disconnected with data not yet sent",
    ),
    (
        "MPTCP_RST_EUNSPEC",
        KnownReason::Mptcp,
        "MPTCP: unspecified",
    ),
    (
        "MPTCP_RST_EMPTCP",
        KnownReason::Mptcp,
        "MPTCP: protocol error",
    ),
    (
        "MPTCP_RST_ERESOURCE",
        KnownReason::Mptcp,
        "MPTCP: out of resources",
    ),
    (
        "MPTCP_RST_EPROHIBIT",
        KnownReason::Mptcp,
        "MPTCP: prohibited by policy",
    ),
    (
        "MPTCP_RST_EWQ2BIG",
        KnownReason::Mptcp,
        "MPTCP: too much outstanding data",
    ),
    (
        "MPTCP_RST_EBADPERF",
        KnownReason::Mptcp,
        "MPTCP: bad performance",
    ),
    (
        "MPTCP_RST_EMIDDLEBOX",
        KnownReason::Mptcp,
        "MPTCP: middlebox interference",
    ),
    ("ERROR", KnownReason::Error, "internal error"),
];

impl ResetReason {
    /// The reason of that kernel name; the prefix `SK_RST_REASON_` may be there or not.
    #[must_use]
    pub fn from_kernel_name(name: &str, number: u16) -> Self {
        let short = name.strip_prefix("SK_RST_REASON_").unwrap_or(name);
        REASONS
            .iter()
            .find(|(known, ..)| *known == short)
            .map_or(Self::Other(number), |(_, reason, _)| Self::Known(*reason))
    }

    /// The kernel's name without its prefix; `None` where only a number is known.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        self.row().map(|(name, ..)| *name)
    }

    /// What it means, for a person: the end of a sentence. `answers_syn`: the segment that was answered asked for a
    /// connection.
    #[must_use]
    pub fn meaning(self, answers_syn: bool) -> Option<&'static str> {
        match self {
            Self::Known(KnownReason::NoSocket) if answers_syn => Some("nothing listens there"),
            // `tcp_check_req` gives this reason where it has no room for the connection, too (`listen_overflow`).
            Self::Known(KnownReason::InvalidSyn) if !answers_syn => {
                Some("the listener had no room for the connection")
            }
            _ => self.row().map(|(.., meaning)| *meaning),
        }
    }

    fn row(self) -> Option<&'static (&'static str, KnownReason, &'static str)> {
        match self {
            Self::Known(known) => REASONS.iter().find(|(_, reason, _)| *reason == known),
            Self::Other(_) => None,
        }
    }
}
