//! Where a frame was seen. A verdict without its vantage point is worth little: the same reset
//! has another hop limit at each of them.

/// Which interface, as the composition numbered them at start: an index into its interface names.
/// In `read` it is the interface of a pcapng file, or 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct InterfaceId(pub u16);

/// The way a frame was going when it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Path {
    /// It came in from the wire.
    Ingress,
    /// It was leaving this host, seen by the tc egress program.
    Egress {
        /// It had come in by another interface: this host routes it, no local socket sent it.
        forwarded: bool,
    },
    /// It stands in a capture file, which does not say.
    Capture,
}

/// Where and on which way a frame was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Vantage {
    /// The interface.
    pub interface: InterfaceId,
    /// The way it was going.
    pub path: Path,
}
