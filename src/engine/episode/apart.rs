//! Two connections of one four-tuple. A proxy that is called by the backend's address (TPROXY), and calls that by its
//! client's, port included, holds a socket at either end. What is in an episode is of the connection whose end here it
//! came to, or left from. Nothing is divided unless both ends have shown themselves as this host's, by a socket or by
//! the kernel's word: what speaks in the name of a peer otherwise, as a packet filter or a forger, is of the same
//! connection.

use super::{Accepted, Episode};
use crate::evidence::ResetSeen;
use crate::flow::{FlowKey, Side};
use crate::host::{Process, SocketView, TcpState};
use crate::vantage::Path;

impl Episode {
    /// Takes in that a socket took a reset. Of several at one end it is the first that ended anything.
    pub(in crate::engine) fn note_accepted(&mut self, accepted: Accepted) {
        let first = *self.accepted.get_or_insert(accepted);
        if first.local != accepted.local {
            self.beyond.get_or_insert((accepted, None));
        }
    }

    /// Takes in whose socket at the end `local` a reset had ended; answers that reset, where the kernel told of it.
    pub(in crate::engine) fn note_owner(
        &mut self,
        local: Side,
        process: Process,
    ) -> Option<Accepted> {
        let first = self.accepted;
        if let Some((accepted, owner)) = &mut self.beyond
            && accepted.local == local
        {
            *owner = Some(process);
            return Some(*accepted);
        }
        if first.is_none_or(|accepted| accepted.local == local) {
            self.owner = Some(process);
        }
        first.filter(|accepted| accepted.local == local)
    }

    /// Whether a socket at that end is known to have taken a reset.
    pub(in crate::engine) fn was_accepted_at(&self, local: Side) -> bool {
        self.accepted_at(local).is_some()
    }

    fn accepted_at(&self, local: Side) -> Option<(Accepted, Option<Process>)> {
        let first = self.accepted.map(|accepted| (accepted, self.owner));
        let mut either = first.into_iter().chain(self.beyond);
        either.find(|(accepted, _)| accepted.local == local)
    }

    /// The episodes of two connections that have one four-tuple, the one of the first reset before the other, once it
    /// is settled; `None`: there is one. One of them may be of no reset.
    pub(in crate::engine) fn apart(&self) -> Option<[Box<Self>; 2]> {
        self.apart_from(here(*self.sides.first()?, self.resets.first()?))
    }

    /// What is of the connection whose end here is `local`, and what is of the other one, once it is settled; `None`:
    /// there is one.
    pub(in crate::engine) fn apart_from(&self, local: Side) -> Option<[Box<Self>; 2]> {
        if !self.shows(local) || !self.shows(local.other()) {
            return None;
        }
        let (mut one, other) = (self.of_local(local), self.of_local(local.other()));
        // Whose those were that are not kept is not known; a copy that was routed was not counted.
        let of_other = other.resets.iter().filter(|reset| !is_copy(reset));
        one.reset_count = self.reset_count.saturating_sub(of_other.count() as u64);
        Some([one, other])
    }

    /// Whether that end has shown itself as this host's.
    pub(in crate::engine) fn shows(&self, local: Side) -> bool {
        let mut sent = self.sides.iter().zip(&self.resets);
        sent.any(|(side, reset)| met_a_connection(reset) && here(*side, reset) == local)
            || self.sent.iter().any(|sent| sent.local == local)
            || self.was_accepted_at(local)
    }

    /// What is of the connection whose end here is that one.
    fn of_local(&self, local: Side) -> Box<Self> {
        let mut part = Self::new(self.key, self.opened, self.due);
        for (side, reset) in self.sides.iter().zip(&self.resets) {
            if here(*side, reset) == local && !is_copy(reset) {
                part.add_reset(*side, *reset, self.known(*side, local));
            }
        }
        // What comes for a socket that is gone, a proxy that routes as well sends on to whom it is for.
        for copy in &self.routed {
            let sender = FlowKey::of(copy.segment.tuple).1;
            if here(sender, copy) == local {
                part.add_reset(sender, *copy, None);
            }
        }
        let after = self.after.iter().filter(|later| later.local == local);
        part.after.extend(after);
        part.sent
            .extend(self.sent.iter().filter(|sent| sent.local == local));
        if let Some((accepted, owner)) = self.accepted_at(local) {
            (part.accepted, part.owner) = (Some(accepted), owner);
        }
        part.lossy = self.lossy;
        part.settle();
        let first = part.first().map(|reset| reset.time);
        part.reopened = self.reopened.filter(|reopened| first < Some(*reopened));
        Box::new(part)
    }
}

/// The end that this host is of the connection that a reset is of, where it is of one of this host's.
pub(in crate::engine) fn here(sender: Side, reset: &ResetSeen) -> Side {
    end_of(sender, reset.vantage.path)
}

/// The same of anything that `sender` sent, and that was seen on that way. What is routed had come in.
pub(super) fn end_of(sender: Side, path: Path) -> Side {
    match path {
        Path::Egress { forwarded: false } => sender,
        Path::Egress { forwarded: true } | Path::Ingress | Path::Capture => sender.other(),
    }
}

/// Whether it is the copy of a reset that this host routed on.
fn is_copy(reset: &ResetSeen) -> bool {
    reset.vantage.path == (Path::Egress { forwarded: true })
}

/// Whether a reset met a connection of this host's, or was sent by a socket of it.
fn met_a_connection(reset: &ResetSeen) -> bool {
    let socket = reset.socket.as_ref();
    let state = socket.and_then(SocketView::state);
    state.is_some_and(|state| state != TcpState::Listen)
        || socket.and_then(SocketView::sender).is_some()
}
