//! One end of a connection by a process of this host, or by a reset that came in: what two of them
//! have to have in common to be the two legs of one proxied connection. Refuses pairs that cannot
//! be; which of the possible ones belong together, `Legs` decides.

use crate::flow::{FlowKey, Side};
use crate::host::Process;
use crate::time::{SECOND, Timestamp};

/// How long after one leg's reset the other leg's end may follow. A proxy that was not scheduled
/// may be late; which turn it was in says more than the time.
const JOIN_NS: u64 = SECOND;

/// A connection of this host's: its four-tuple and which of its ends is here. A proxy that calls a backend by its client's
/// address and port, which had called the backend's, has two connections of one four-tuple.
pub(in crate::engine) type Own = (FlowKey, Side);

/// A call of a process that ended a connection.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Call {
    pub(in crate::engine) process: Process,
    pub(in crate::engine) time: Timestamp,
}

/// A reset that ended a local socket.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Leg {
    /// Whose socket it was and when that was closed; `None` in a capture.
    pub(in crate::engine) closed: Option<Call>,
    pub(in crate::engine) time: Timestamp,
    pub(in crate::engine) key: FlowKey,
    /// The side that is said to have sent the reset.
    pub(in crate::engine) sender: Side,
    /// When its connection began, if that was seen.
    pub(in crate::engine) began: Option<Timestamp>,
    /// This host sent the connection's SYN; `None` when that cannot be told.
    pub(in crate::engine) is_outbound: Option<bool>,
}

impl Leg {
    pub(super) const fn own(&self) -> Own {
        (self.key, self.sender.other())
    }

    /// When its socket was closed, or was reset where nobody tells.
    pub(super) fn ended(&self) -> Timestamp {
        self.closed.map_or(self.time, |closed| closed.time)
    }
}

/// Which end of a connection this host is. A proxy's two legs differ in it: it answered the one and
/// opened the other.
pub(in crate::engine) fn is_outbound(
    facts_of_local: Option<bool>,
    key: &FlowKey,
    local: Side,
) -> Option<bool> {
    facts_of_local.or_else(|| {
        let tuple = key.tuple_from(local);
        match (
            tuple.src_port >= EPHEMERAL_PORTS,
            tuple.dst_port >= EPHEMERAL_PORTS,
        ) {
            (true, false) => Some(true),
            (false, true) => Some(false),
            _ => None,
        }
    })
}

/// Linux takes the ports of its own connections from here on (`net.ipv4.ip_local_port_range`);
/// IANA's dynamic range begins later, services listen below.
const EPHEMERAL_PORTS: u16 = 32_768;

/// A connection that a process of this host ended, by a reset or in order, and that may be the other
/// leg of one that was reset.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Passed {
    pub(in crate::engine) key: FlowKey,
    /// This host's side.
    pub(in crate::engine) local: Side,
    pub(in crate::engine) time: Timestamp,
    /// Who ended it; `None` in a capture.
    pub(in crate::engine) sent: Option<Call>,
    /// When its connection began, if that was seen.
    pub(in crate::engine) began: Option<Timestamp>,
    /// This host opened its connection.
    pub(in crate::engine) is_outbound: Option<bool>,
}

impl Passed {
    pub(super) const fn own(&self) -> Own {
        (self.key, self.local)
    }

    /// Whether it may be the other leg of `leg`, whose reset came first.
    pub(super) fn may_follow(&self, leg: &Leg) -> bool {
        // Two connections of one kind, or of a kind not known, are two clients of a server.
        let roles_differ =
            matches!((self.is_outbound, leg.is_outbound), (Some(a), Some(b)) if a != b);
        leg.own() != self.own()
            && leg.time <= self.time
            && self.time.since(leg.time) <= JOIN_NS
            && self.began.is_none_or(|began| began < leg.time)
            && roles_differ
    }

    /// The connection that this host opened is the older of the two: it was not made for the other
    /// one, but a pool may have lent it.
    pub(super) fn is_lent(&self, leg: &Leg) -> bool {
        let (opened, answered) = match self.is_outbound {
            Some(true) => (self.began, leg.began),
            _ => (leg.began, self.began),
        };
        matches!((opened, answered), (Some(opened), Some(answered)) if opened < answered)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{PROXY, at, key, leg, sent};
    use super::{Passed, is_outbound};
    use crate::flow::Side;

    #[test]
    fn ports_tell_who_opened_a_connection_that_is_older_than_the_sensor() {
        let key = key(50_000);
        assert_eq!(is_outbound(None, &key, Side::Low), Some(true));
        assert_eq!(is_outbound(None, &key, Side::High), Some(false));
        assert_eq!(is_outbound(Some(false), &key, Side::Low), Some(false));
    }

    #[test]
    fn an_end_that_came_first_or_much_later_does_not_follow_a_reset() {
        let leg = leg(1, 100, 170, PROXY);
        assert!(!sent(9, 90, PROXY).may_follow(&leg));
        assert!(sent(9, 110, PROXY).may_follow(&leg));
        assert!(!sent(9, 2_000_000, PROXY).may_follow(&leg));
    }

    #[test]
    fn a_backends_connection_older_than_the_clients_is_lent() {
        let leg = leg(1, 20, 70, PROXY);
        let began = |began| Passed {
            began,
            ..sent(9, 100, PROXY)
        };
        assert!(began(Some(at(5))).is_lent(&leg));
        assert!(!began(Some(at(15))).is_lent(&leg));
        assert!(!began(None).is_lent(&leg));
    }
}
