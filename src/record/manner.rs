//! How a connection stood when it was reset, as far as that tells one everyday story from another: a health check from
//! a time-out, a client that had gone from a server that was restarted. Words only: it changes no verdict. The engine
//! asks for a record's sentence, `explain` for its story, by the same words of the record.

use super::SILENCE_NS;
use crate::evidence::Circumstances;
use crate::host::Ending;

/// What is known of a reset and its connection, in the words of the record.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Stood<'a> {
    pub(crate) verdict: &'a str,
    pub(crate) cause: Option<&'a str>,
    /// Why the kernel sent it.
    pub(crate) reason: Option<&'a str>,
    /// The local socket.
    pub(crate) socket_state: Option<&'a str>,
    /// The process that did it, and its socket.
    pub(crate) circumstances: Circumstances<'a>,
    /// The purported sender's FIN was seen.
    pub(crate) has_closed: bool,
    /// The purported sender opened the connection.
    pub(crate) is_opener: Option<bool>,
    /// Payload that came from the purported sender, and that went to it.
    pub(crate) bytes_in: Option<u64>,
    pub(crate) bytes_out: Option<u64>,
    pub(crate) idle_ns: Option<u64>,
}

/// The everyday story.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Nothing more is known.
    Plain,
    /// A process opened it and aborted it at once, without a byte either way: a health check, if anything.
    Probe,
    /// A process accepted it and aborted it at once, without a byte either way.
    TurnedAway,
    /// A process aborted a connection of its own that was in use a moment ago.
    InUse,
    /// A process accepted it, heard from its client, and aborted it at once without a byte of an answer.
    Rejected,
    /// A process aborted a connection that it had accepted and answered on, a moment after its client was heard.
    Interrupted,
    /// Its process was killed, crashed, or exited.
    Ended,
    /// Its process ended and left it open, and something came for it afterwards.
    Left,
    /// A process had closed it in order, and something came for it afterwards.
    ClosedHere,
    /// It waited in an accept queue until its listener was closed.
    Unaccepted,
    /// A server aborted it without having sent a byte.
    Unanswered,
    /// A server's TCP reset it without having acknowledged a byte, nor closed it.
    NotTaken,
    /// Somebody on this host killed the socket of a process.
    Killed,
    /// The peer had closed it in order, and answers what came afterwards.
    Closed {
        /// The peer opened it.
        is_opener: Option<bool>,
    },
}

/// The kernel's reason of an abort.
const ABORT: &str = "TCP_STATE";
/// And of a close with data that nobody had read.
const UNREAD: &str = "TCP_ABORT_ON_CLOSE";

impl Manner {
    /// How it stood.
    pub(crate) fn of(stood: &Stood<'_>) -> Self {
        match (stood.verdict, stood.cause) {
            ("local", Some("process")) => Self::of_abort(stood),
            ("local", Some("kernel")) if stood.circumstances.closed.is_some() => {
                match stood.circumstances.ending {
                    Some(_) => Self::Left,
                    None => Self::ClosedHere,
                }
            }
            ("remote", Some("answer")) => Self::of_answer(stood),
            ("remote", Some("abort")) if stood.is_of_mute_server() => Self::Unanswered,
            _ => Self::Plain,
        }
    }

    fn of_abort(stood: &Stood<'_>) -> Self {
        // Who closes his own socket has it closed before the reset leaves (`tcp_disconnect`); who destroys
        // another's resets it first (`tcp_abort`).
        let is_open = stood.socket_state.is_some_and(|state| state != "close");
        if stood.reason == Some(ABORT) && is_open {
            return Self::Killed;
        }
        let Circumstances {
            ending,
            is_unaccepted,
            closed: _,
        } = stood.circumstances;
        // Who leaves by himself may have meant it; who is killed did not.
        match ending.map(|how| how.starts_with(Ending::EXIT)) {
            Some(false) => return Self::Ended,
            _ if is_unaccepted => return Self::Unaccepted,
            Some(true) => return Self::Ended,
            None => {}
        }
        // Unread data and silence are stories of their own.
        let is_silent = stood.idle_ns.is_some_and(|idle| idle >= SILENCE_NS);
        if is_silent || stood.reason == Some(UNREAD) {
            return Self::Plain;
        }
        let is_unused = (stood.bytes_in, stood.bytes_out) == (Some(0), Some(0));
        match (stood.is_opener, is_unused) {
            (Some(true), true) => Self::Probe,
            (Some(false), true) => Self::TurnedAway,
            (Some(true), false) => Self::InUse,
            (Some(false), false) => Self::of_served(stood),
            _ => Self::Plain,
        }
    }

    /// One that a process had accepted, and that was in use. Only where the socket told: when, and how much.
    fn of_served(stood: &Stood<'_>) -> Self {
        match (stood.idle_ns, stood.bytes_in) {
            (Some(_), Some(0)) => Self::Rejected,
            (Some(_), Some(_)) => Self::Interrupted,
            _ => Self::Plain,
        }
    }

    fn of_answer(stood: &Stood<'_>) -> Self {
        let took_fin = matches!(
            stood.socket_state,
            Some("close_wait" | "last_ack" | "closing")
        );
        if !took_fin && !stood.has_closed {
            return match stood.is_of_mute_server() && stood.bytes_out == Some(0) {
                true => Self::NotTaken,
                false => Self::Plain,
            };
        }
        Self::Closed {
            is_opener: stood.is_opener,
        }
    }
}

impl Stood<'_> {
    /// The purported sender serves, and has sent nothing.
    fn is_of_mute_server(&self) -> bool {
        self.is_opener == Some(false) && self.bytes_in == Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::{Circumstances, Manner, Stood};

    const ABORTED: Stood<'_> = Stood {
        verdict: "local",
        cause: Some("process"),
        reason: Some("TCP_STATE"),
        socket_state: Some("close"),
        circumstances: Circumstances {
            ending: None,
            is_unaccepted: false,
            closed: None,
        },
        has_closed: false,
        is_opener: Some(true),
        bytes_in: Some(0),
        bytes_out: Some(0),
        idle_ns: Some(1_000),
    };

    #[test]
    fn only_who_opened_it_and_never_used_it_probed() {
        assert_eq!(Manner::of(&ABORTED), Manner::Probe);
        let others = [
            (Some(false), Some(0), Some(1_000), Manner::TurnedAway),
            (None, Some(0), Some(1_000), Manner::Plain),
            (Some(true), None, Some(1_000), Manner::InUse),
            (Some(true), Some(7), Some(1_000), Manner::InUse),
            (Some(true), Some(0), Some(1_000_000_000), Manner::Plain),
        ];
        for (is_opener, bytes_out, idle_ns, manner) in others {
            let stood = Stood {
                is_opener,
                bytes_out,
                idle_ns,
                ..ABORTED
            };
            assert_eq!(Manner::of(&stood), manner, "{stood:?}");
        }
    }

    #[test]
    fn a_request_that_was_rejected_is_told_from_a_time_out() {
        let of = |bytes_in, idle_ns| {
            Manner::of(&Stood {
                is_opener: Some(false),
                bytes_in,
                bytes_out: Some(70),
                idle_ns,
                ..ABORTED
            })
        };
        let (at_once, late) = (Some(400_000), Some(2_000_000_000));
        assert_eq!(of(Some(0), at_once), Manner::Rejected);
        assert_eq!(of(Some(170), at_once), Manner::Interrupted);
        for (bytes_in, idle_ns) in [(Some(0), late), (Some(0), None), (None, at_once)] {
            assert_eq!(of(bytes_in, idle_ns), Manner::Plain);
        }
    }

    #[test]
    fn a_socket_that_was_open_when_its_reset_left_was_killed() {
        let of = |socket_state, reason| {
            Manner::of(&Stood {
                socket_state,
                reason,
                ..ABORTED
            })
        };
        assert_eq!(of(Some("established"), ABORTED.reason), Manner::Killed);
        // Older kernels tell no reason, and nothing can be told by the state alone.
        assert_eq!(of(Some("established"), None), Manner::Probe);
        assert_eq!(of(None, ABORTED.reason), Manner::Probe);
    }

    #[test]
    fn a_process_that_was_killed_explains_more_than_what_its_connections_were_at() {
        let of = |ending, is_unaccepted, reason| {
            Manner::of(&Stood {
                circumstances: Circumstances {
                    ending,
                    is_unaccepted,
                    closed: None,
                },
                reason,
                is_opener: Some(false),
                ..ABORTED
            })
        };
        let (abort, unread) = (ABORTED.reason, Some("TCP_ABORT_ON_CLOSE"));
        assert_eq!(of(Some("SIGKILL"), false, unread), Manner::Ended);
        assert_eq!(of(Some("SIGSEGV"), true, abort), Manner::Ended);
        assert_eq!(of(Some("exit code 0"), true, abort), Manner::Unaccepted);
        assert_eq!(of(Some("exit code 1"), false, unread), Manner::Ended);
        assert_eq!(of(None, true, abort), Manner::Unaccepted);
        assert_eq!(of(None, false, abort), Manner::TurnedAway);
    }

    #[test]
    fn a_server_that_never_said_a_byte_is_told_from_one_that_stopped() {
        let of = |cause, is_opener, bytes_in, bytes_out| {
            Manner::of(&Stood {
                verdict: "remote",
                cause: Some(cause),
                socket_state: Some("established"),
                is_opener,
                bytes_in,
                bytes_out,
                ..ABORTED
            })
        };
        let (served, none, some) = (Some(false), Some(0), Some(7));
        assert_eq!(of("abort", served, none, some), Manner::Unanswered);
        assert_eq!(of("abort", served, none, none), Manner::Unanswered);
        assert_eq!(of("answer", served, none, none), Manner::NotTaken);
        assert_eq!(of("answer", served, none, some), Manner::Plain);
        for cause in ["abort", "answer"] {
            assert_eq!(of(cause, served, some, none), Manner::Plain);
            assert_eq!(of(cause, served, None, none), Manner::Plain);
            assert_eq!(of(cause, Some(true), none, none), Manner::Plain);
            assert_eq!(of(cause, None, none, none), Manner::Plain);
        }
    }

    #[test]
    fn an_answer_after_the_peers_own_fin_is_told_from_one_out_of_nowhere() {
        let of = |socket_state, has_closed| {
            Manner::of(&Stood {
                verdict: "remote",
                cause: Some("answer"),
                socket_state,
                has_closed,
                ..ABORTED
            })
        };
        let closed = Manner::Closed {
            is_opener: Some(true),
        };
        assert_eq!(of(Some("close_wait"), false), closed);
        assert_eq!(of(None, true), closed);
        // This host closed first: that says nothing of the peer.
        assert_eq!(of(Some("fin_wait2"), false), Manner::Plain);
        assert_eq!(of(Some("established"), false), Manner::Plain);
    }
}
