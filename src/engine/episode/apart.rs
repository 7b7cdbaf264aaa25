//! Two connections of one four-tuple. A proxy that is called by the backend's address (TPROXY), and calls that by its
//! client's, port included, holds a socket at either end. What is in an episode is of the connection whose end here it
//! came to, or left from. Nothing is divided unless both ends have shown themselves as this host's: what speaks in the
//! name of a peer otherwise, as a packet filter or a forger, is of the same connection.

use super::Episode;
use crate::evidence::ResetSeen;
use crate::flow::Side;
use crate::host::{SocketView, TcpState};
use crate::vantage::Path;

impl Episode {
    /// The episodes of two connections that have one four-tuple, once it is settled; `None`: there is one. A proxy that is
    /// called by the backend's address (TPROXY), and calls that by its client's, port included, holds a socket at either
    /// end. A reset that comes in meets that of the end that it is for, one that leaves is from that of its own.
    pub(in crate::engine) fn apart(&self) -> Option<[Box<Self>; 2]> {
        let sent = || self.sides.iter().zip(&self.resets);
        let holds = |local| {
            sent().any(|(side, reset)| met_a_connection(reset) && here(*side, reset) == local)
        };
        if !self.routed.is_empty() || !holds(Side::Low) || !holds(Side::High) {
            return None;
        }
        let (side, first) = sent().next()?;
        let local = here(*side, first);
        let (mut one, other) = (self.of_local(local), self.of_local(local.other()));
        // Whose those were that are not kept is not known.
        one.reset_count = self.reset_count.saturating_sub(other.reset_count);
        Some([one, other])
    }

    /// What is of the connection whose end here is that one.
    fn of_local(&self, local: Side) -> Box<Self> {
        let mut part = Self::new(self.key, self.opened, self.due);
        for (side, reset) in self.sides.iter().zip(&self.resets) {
            if here(*side, reset) == local {
                part.add_reset(*side, *reset, self.facts[side.index()].as_ref());
            }
        }
        let after = self.after.iter().filter(|(side, _)| side.other() == local);
        part.after.extend(after);
        part.sent
            .extend(self.sent.iter().filter(|sent| sent.local == local));
        part.accepted = self.accepted.filter(|accepted| accepted.local == local);
        part.owner = self.owner;
        // Of two that were accepted, one is kept.
        part.lossy = self.lossy || part.accepted.is_none() && self.accepted.is_some();
        part.settle();
        let first = part.first().map(|reset| reset.time);
        part.reopened = self.reopened.filter(|reopened| first < Some(*reopened));
        Box::new(part)
    }
}

/// The end that this host is of the connection that a reset is of, where it is of one of this host's.
fn here(sender: Side, reset: &ResetSeen) -> Side {
    match reset.vantage.path {
        Path::Egress { .. } => sender,
        Path::Ingress | Path::Capture => sender.other(),
    }
}

/// Whether a reset met a connection of this host's, or was sent by a socket of it.
fn met_a_connection(reset: &ResetSeen) -> bool {
    let socket = reset.socket.as_ref();
    let state = socket.and_then(SocketView::state);
    state.is_some_and(|state| state != TcpState::Listen)
        || socket.and_then(SocketView::sender).is_some()
}
