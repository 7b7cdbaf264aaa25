//! What this host's own kernel says about a connection: the state of the local socket at the
//! instant a reset arrived, and the events of the tcp tracepoints. Values only; `events` and
//! `worker` decode them from bytes that the BPF programs wrote.

mod ending;
mod reason;

pub use ending::Ending;
pub use reason::{KnownReason, ResetReason};

use crate::time::Timestamp;
use crate::wire::{FourTuple, SeqNum};

/// TCP state of a local socket, numbered as the kernel's `enum` in `include/net/tcp_states.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TcpState {
    /// Data flows.
    Established = 1,
    /// We sent a SYN.
    SynSent = 2,
    /// A SYN came; in the kernel a full socket is here only for an instant.
    SynRecv = 3,
    /// We sent a FIN.
    FinWait1 = 4,
    /// Our FIN was acknowledged.
    FinWait2 = 5,
    /// Both closed; late segments are waited for.
    TimeWait = 6,
    /// No connection.
    Close = 7,
    /// The peer's FIN came.
    CloseWait = 8,
    /// The peer's FIN came, then we sent ours.
    LastAck = 9,
    /// A port that waits for connections.
    Listen = 10,
    /// Both FINs crossed.
    Closing = 11,
    /// A request socket: SYN answered, handshake not complete.
    NewSynRecv = 12,
}

impl TcpState {
    /// The state from the kernel's number; `None` for a number that this program does not know.
    #[must_use]
    pub const fn from_kernel(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Established,
            2 => Self::SynSent,
            3 => Self::SynRecv,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            7 => Self::Close,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listen,
            11 => Self::Closing,
            12 => Self::NewSynRecv,
            _ => return None,
        })
    }

    /// The kernel's name for it, lower case, as `rstscope.kernel.socket_state` shows it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::SynSent => "syn_sent",
            Self::SynRecv => "syn_recv",
            Self::FinWait1 => "fin_wait1",
            Self::FinWait2 => "fin_wait2",
            Self::TimeWait => "time_wait",
            Self::Close => "close",
            Self::CloseWait => "close_wait",
            Self::LastAck => "last_ack",
            Self::Listen => "listen",
            Self::Closing => "closing",
            Self::NewSynRecv => "new_syn_recv",
        }
    }

    /// Whether a reset could end this socket: a full socket that holds a connection.
    #[must_use]
    pub const fn is_connection(self) -> bool {
        !matches!(
            self,
            Self::Listen | Self::TimeWait | Self::Close | Self::NewSynRecv
        )
    }
}

/// Sequence state of a full local socket (RFC 9293 §3.3.1), from this host's point of view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketSequence {
    /// RCV.NXT: the next sequence number that it expects. A reset is accepted when it carries
    /// exactly this one (RFC 5961 §3.2; `tcp_validate_incoming`).
    pub rcv_nxt: SeqNum,
    /// RCV.WND: bytes that it accepts from RCV.NXT on.
    pub rcv_wnd: u32,
    /// `write_seq`: the end of what it was given to send, and of what can be answered. SND.NXT is no bound: the kernel
    /// moves it when a segment has left (`tcp_write_xmit`, `tcp_connect`), and a near peer's answer may be here before.
    pub write_seq: SeqNum,
    /// SND.UNA: the oldest one not yet acknowledged.
    pub snd_una: SeqNum,
    /// TS.Recent (RFC 7323 §4.3), when timestamps were negotiated.
    pub ts_recent: Option<u32>,
    /// Segments received over its life (RFC 4898 tcpEStatsPerfSegsIn), as far as known: with the
    /// SYN's IP ID it bounds the IP ID of a genuine reset.
    pub segs_in: Option<u32>,
    /// Bytes received, the peer's FIN among them (`tcp_rcv_nxt_update`).
    pub bytes_in: Option<u64>,
    /// Bytes that the peer acknowledged, this host's SYN and FIN among them (`tcp_snd_una_update`).
    pub bytes_out: Option<u64>,
    /// Smoothed round-trip time in microseconds.
    pub srtt_us: Option<u32>,
    /// Nanoseconds since the last segment from the peer, at the time of the lookup.
    pub idle_ns: Option<u64>,
    /// Nanoseconds since data was last sent to the peer, at the time of the lookup.
    pub sent_ago_ns: Option<u64>,
    /// Nanoseconds since it sent or received anything at all, an acknowledgement or a window update too, or was read
    /// (`tcp_mstamp`), at the time of the lookup.
    pub touched_ago_ns: Option<u64>,
    /// SO_KEEPALIVE is set: the kernel may send probes of its own accord.
    pub has_keepalive: bool,
    /// Segments of either side came out of order (RFC 4737), or behind one that was lost.
    pub has_reordered: bool,
    /// Mean deviation of the round-trip time (RFC 6298: RTTVAR), in 64ths of `srtt_us`; 0 where it is not known.
    pub rtt_deviation: u8,
}

impl SocketSequence {
    /// A socket of which nothing is known yet, for who knows some of it.
    pub const BLANK: Self = Self {
        rcv_nxt: SeqNum(0),
        rcv_wnd: 0,
        write_seq: SeqNum(0),
        snd_una: SeqNum(0),
        ts_recent: None,
        segs_in: None,
        bytes_in: None,
        bytes_out: None,
        srtt_us: None,
        idle_ns: None,
        sent_ago_ns: None,
        touched_ago_ns: None,
        has_keepalive: false,
        has_reordered: false,
        rtt_deviation: 0,
    };

    /// Whether its window allows for `seq`, as `tcp_sequence` has it: the right edge too, where a sender stands that
    /// filled the window.
    #[must_use]
    pub const fn allows(&self, seq: SeqNum) -> bool {
        seq.is_within(self.rcv_nxt, self.rcv_wnd.saturating_add(1))
    }
}

/// The local socket that a frame would meet, looked up by `steer` at the frame's arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketView {
    /// The lookup ran and found none.
    Absent,
    /// A port that listens; the segment belongs to none of its connections.
    Listener,
    /// A connection that both sides closed.
    TimeWait,
    /// A handshake under way (request socket).
    Request,
    /// A full socket.
    Full {
        /// Its state.
        state: TcpState,
        /// Its sequence numbers.
        sequence: SocketSequence,
    },
    /// Of a segment that leaves: some socket of this host sent it, maybe that of another network
    /// namespace, or the one that the kernel answers with.
    Sender {
        /// Its number (`bpf_get_socket_cookie`).
        cookie: u64,
    },
}

impl SocketView {
    /// The sequence state, where there is a full socket.
    #[must_use]
    pub const fn sequence(&self) -> Option<&SocketSequence> {
        match self {
            Self::Full { sequence, .. } => Some(sequence),
            _ => None,
        }
    }

    /// The number of the socket that sent it.
    #[must_use]
    pub const fn sender(&self) -> Option<u64> {
        match self {
            Self::Sender { cookie } => Some(*cookie),
            _ => None,
        }
    }

    /// The TCP state it stands for, where there is any socket.
    #[must_use]
    pub const fn state(&self) -> Option<TcpState> {
        match self {
            Self::Absent | Self::Sender { .. } => None,
            Self::Listener => Some(TcpState::Listen),
            Self::TimeWait => Some(TcpState::TimeWait),
            Self::Request => Some(TcpState::NewSynRecv),
            Self::Full { state, .. } => Some(*state),
        }
    }
}

/// A local process that owns a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Process {
    /// Process id (the kernel's tgid).
    pub pid: u32,
    /// The thread of it that made the call (the kernel's pid): a proxy's event loop is one.
    pub thread: u32,
    /// How often that thread had given up its CPU to wait (`task_struct.nvcsw`).
    pub sleeps: u64,
    /// Its major page faults (`task_struct.maj_flt`): each waited for a page that was not in memory.
    pub major_faults: u64,
    /// Command name of its first thread as the kernel has it, padded with NUL (`TASK_COMM_LEN`).
    pub comm: [u8; 16],
    /// Command name of the thread that made the call.
    pub thread_comm: [u8; 16],
}

impl Process {
    /// Whether two calls were made in one turn of a thread's loop: it did not wait in between, unless for
    /// a page of its own (a major fault). A program's first reset takes it through code that is still on disk; each such
    /// page is one wait (now and then none, where it is there before the thread has given up its CPU).
    #[must_use]
    pub const fn is_in_turn_of(&self, other: &Self) -> bool {
        let waits = self.sleeps.abs_diff(other.sleeps);
        self.pid == other.pid
            && self.thread == other.thread
            && waits <= self.major_faults.abs_diff(other.major_faults)
    }

    /// The name of its first thread, which is the program's unless that chose another.
    #[must_use]
    pub fn name(&self) -> String {
        as_text(&self.comm)
    }

    /// The name of the thread that made the call, where that has one of its own (Envoy's `wrk:worker_0`).
    #[must_use]
    pub fn thread_name(&self) -> Option<String> {
        let is_own = self.thread_comm != self.comm;
        is_own
            .then(|| as_text(&self.thread_comm))
            .filter(|name| !name.is_empty())
    }
}

/// A command name as text; bytes that are not UTF-8 are replaced, control characters too, because a
/// process chooses its own name and the name goes into logs.
fn as_text(comm: &[u8; 16]) -> String {
    let end = comm
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(comm.len());
    String::from_utf8_lossy(&comm[..end])
        .chars()
        .map(|c| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

/// One event of the kernel's tcp tracepoints, from this host's own network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelEvent {
    /// When the tracepoint fired.
    pub time: Timestamp,
    /// The connection, local end first: `src` is this host's address.
    pub tuple: FourTuple,
    /// The kernel's socket cookie, where there was a full socket.
    pub cookie: Option<u64>,
    /// What happened.
    pub kind: KernelEventKind,
}

/// What this host's kernel tells of resets, so that its silence means something. Of a capture, nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KernelTells {
    /// The resets that its sockets send, and those that they accept.
    pub resets: bool,
    /// The resets with which it answers segments of no connection as well, and why it sent each: since Linux
    /// 6.10. Before, the event was for full sockets only (`tcp_v4_send_reset`).
    pub answers: bool,
    /// The process whose call it was. Not where interrupts cannot be told from calls (`is_process` in
    /// bpf/packet.h): under PREEMPT_RT, and on other machines than x86-64.
    pub owners: bool,
}

/// What a socket had carried when it was aborted, and what the kernel says of that moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketCounts {
    /// Bytes received, the peer's FIN among them (`tcp_rcv_nxt_update`).
    pub bytes_received: u64,
    /// Bytes that the peer acknowledged, this host's SYN and FIN among them (`tcp_snd_una_update`).
    pub bytes_acked: u64,
    /// Nanoseconds since the last segment from the peer.
    pub idle_ns: Option<u64>,
    /// No process had a file of it: not yet, or not any more.
    pub is_unclaimed: bool,
    /// The process that did it was ending.
    pub ending: Option<Ending>,
}

/// That a process had closed a connection in order (FIN), before the kernel reset what still came for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    /// How long before.
    pub ago_ns: u64,
    /// The process was ending then, and the kernel closed what it had left.
    pub ending: Option<Ending>,
}

/// What the kernel said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelEventKind {
    /// `tcp_send_reset`: TCP itself sends a reset from `tuple.src` to `tuple.dst`.
    ResetSent {
        /// A socket's own abort (`tcp_send_active_reset`) rather than the answer to a segment.
        active: bool,
        /// Why.
        reason: Option<ResetReason>,
        /// State of the socket, where there was one.
        state: Option<TcpState>,
        /// The process that made the call, only when the event fired in its context.
        process: Option<Process>,
        /// No process sent it: `process` is the one that had closed the connection before.
        closed: Option<Closed>,
        /// SEG.SEQ of the segment that is answered (passive resets only): data beyond an earlier
        /// reset's SEQ shows that the peer never sent that reset.
        answered_seq: Option<SeqNum>,
        /// Payload bytes of the segment that is answered.
        answered_len: Option<u32>,
        /// What the socket had carried (active resets only).
        counts: Option<SocketCounts>,
    },
    /// `tcp_receive_reset`: the kernel accepted a reset and ended this socket.
    ResetAccepted {
        /// State that the reset ended.
        state: Option<TcpState>,
    },
    /// `inet_sock_set_state`: the handshake completed.
    Established {
        /// The process that called connect(), only when known.
        process: Option<Process>,
        /// This host sent the first SYN.
        originator: bool,
    },
    /// `inet_sock_set_state` in a process's context: it closed a connection in order (FIN). Told
    /// only soon after some socket of this host was reset, or beside a reset of the same thread, and only so many.
    Closed {
        /// The process that closed it.
        process: Process,
    },
    /// `tcp_destroy_sock` in a process's context, of a socket that a reset had ended: whose it was.
    OwnerKnown {
        /// The process that closed it.
        process: Process,
    },
}
