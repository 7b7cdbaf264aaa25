//! Ring buffer records as values, field by field. Refuses a record whose length or kind it does
//! not know, and never trusts a length that stands in one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::reasons::Reasons;
use super::{CopiedFrame, Event, FrameOrigin};
use crate::bpf::{egress, sockets};
use crate::host::{
    Closed, Ending, KernelEvent, KernelEventKind, Process, SocketCounts, SocketView, TcpState,
};
use crate::host_bytes::{socket_view, u16_at, u32_at, u64_at};
use crate::time::Timestamp;
use crate::wire::{FourTuple, SeqNum};

/// Where `struct frame_event` has its bytes; pinned below.
const FRAME_DATA: usize = 112;
const FRAME_EVENT_LEN: usize = 304;
const SOCKET_EVENT_LEN: usize = 176;

const _: () = assert!(size_of::<egress::types::frame_event>() == FRAME_EVENT_LEN);
const _: () = assert!(std::mem::offset_of!(egress::types::frame_event, data) == FRAME_DATA);
const _: () = assert!(size_of::<sockets::types::socket_event>() == SOCKET_EVENT_LEN);
const _: () = assert!(std::mem::offset_of!(sockets::types::socket_event, comm) == 88);
const _: () = assert!(std::mem::offset_of!(sockets::types::socket_event, bytes_received) == 120);
const _: () = assert!(std::mem::offset_of!(sockets::types::socket_event, thread_comm) == 152);
const _: () = assert!(std::mem::offset_of!(sockets::types::socket_event, closed_ns) == 168);
const _: () = assert!(size_of::<crate::bpf::steer::types::frame_meta>() == 88);
const _: () = assert!(size_of::<crate::bpf::steer::types::frame_meta_short>() == 32);
const _: () = assert!(size_of::<crate::bpf::steer::types::socket_view>() == 72);

const EVENT_FRAME: u32 = 1;
const EVENT_RESET_SENT: u32 = 2;
const EVENT_RESET_ACCEPTED: u32 = 3;
const EVENT_ESTABLISHED: u32 = 4;
const EVENT_OWNER: u32 = 5;
const EVENT_CLOSED: u32 = 6;

/// Of `enum exit_kind`.
const EXIT_OUT_OF_MEMORY: u8 = 2;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Reads one record; `None` when it is none that this program knows.
pub fn event<'a>(record: &'a [u8], reasons: &Reasons) -> Option<Event<'a>> {
    match u32_at(record, 0)? {
        EVENT_FRAME => frame(record).map(Event::Frame),
        _ => kernel(record, reasons).map(Event::Kernel),
    }
}

fn frame(record: &[u8]) -> Option<CopiedFrame<'_>> {
    let record: &[u8; FRAME_EVENT_LEN] = record.first_chunk()?;
    let origin = match record[16] {
        1 => FrameOrigin::Egress { forwarded: false },
        2 => FrameOrigin::Egress { forwarded: true },
        3 => FrameOrigin::Bypassed,
        4 => FrameOrigin::AfterReset,
        5 => FrameOrigin::Mirrored,
        6 => FrameOrigin::Older,
        _ => return None,
    };
    let copied = usize::try_from(u32_at(record, 24)?).ok()?;
    Some(CopiedFrame {
        time: Timestamp::from_nanos(u64_at(record, 8)?),
        ifindex: u32_at(record, 4)?,
        origin,
        socket: match u64_at(record, 32)? {
            0 => socket_view(record.get(40..FRAME_DATA)?),
            cookie => Some(SocketView::Sender { cookie }),
        },
        frame: record.get(FRAME_DATA..FRAME_DATA + copied)?,
        frame_len: u32_at(record, 20)?,
    })
}

fn kernel(record: &[u8], reasons: &Reasons) -> Option<KernelEvent> {
    let record: &[u8; SOCKET_EVENT_LEN] = record.first_chunk()?;
    let [family, state, active, has_answered] = [record[4], record[5], record[6], record[7]];
    let state = TcpState::from_kernel(state);
    let process = process(record);
    let answered = has_answered != 0;
    let kind = match u32_at(record, 0)? {
        EVENT_RESET_SENT => KernelEventKind::ResetSent {
            active: active != 0,
            reason: reasons.reason(u32_at(record, 68)?),
            state,
            process,
            closed: closed(record),
            answered_seq: u32_at(record, 76).filter(|_| answered).map(SeqNum),
            answered_len: u32_at(record, 80).filter(|_| answered),
            counts: counts(record).filter(|_| active != 0),
        },
        EVENT_RESET_ACCEPTED => KernelEventKind::ResetAccepted { state },
        EVENT_ESTABLISHED => KernelEventKind::Established {
            process,
            originator: active != 0,
        },
        EVENT_OWNER => KernelEventKind::OwnerKnown { process: process? },
        EVENT_CLOSED => KernelEventKind::Closed { process: process? },
        _ => return None,
    };
    Some(KernelEvent {
        time: Timestamp::from_nanos(u64_at(record, 8)?),
        tuple: FourTuple {
            src: address(family, record.get(32..48)?)?,
            src_port: u16_at(record, 64)?,
            dst: address(family, record.get(48..64)?)?,
            dst_port: u16_at(record, 66)?,
        },
        cookie: u64_at(record, 16).filter(|cookie| *cookie != 0),
        kind,
    })
}

fn process(record: &[u8]) -> Option<Process> {
    let pid = u32_at(record, 72).filter(|pid| *pid != 0)?;
    let comm = *record.get(88..)?.first_chunk()?;
    // Of a process that ends, whichever thread is the last closes what all had open.
    let is_ending = *record.get(148)? != 0;
    let thread_comm = *record.get(152..)?.first_chunk()?;
    Some(Process {
        pid,
        thread: u32_at(record, 84)?,
        sleeps: u64_at(record, 104)?,
        major_faults: u64_at(record, 112)?,
        comm,
        thread_comm: if is_ending { comm } else { thread_comm },
    })
}

fn closed(record: &[u8]) -> Option<Closed> {
    let closed_ns = u64_at(record, 168).filter(|closed| *closed != 0)?;
    let time_ns = u64_at(record, 8)?;
    Some(Closed {
        ago_ns: time_ns.saturating_sub(closed_ns),
        ending: ending(*record.get(148)?, u32_at(record, 144)?),
    })
}

fn counts(record: &[u8]) -> Option<SocketCounts> {
    Some(SocketCounts {
        bytes_received: u64_at(record, 120)?,
        bytes_acked: u64_at(record, 128)?,
        idle_ns: u64_at(record, 136).filter(|idle| *idle != 0),
        is_unclaimed: record.get(149)? != &0,
        ending: ending(*record.get(148)?, u32_at(record, 144)?),
    })
}

/// How the owner ended, if it did (`enum exit_kind`).
const fn ending(kind: u8, exit_code: u32) -> Option<Ending> {
    match kind {
        0 => None,
        EXIT_OUT_OF_MEMORY => Some(Ending::OutOfMemory),
        _ => Some(Ending::from_wait_status(exit_code)),
    }
}

/// An IPv6 socket may carry IPv4: what goes over the wire counts.
fn address(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    let octets: [u8; 16] = bytes.try_into().ok()?;
    match family {
        AF_INET => Some(IpAddr::V4(Ipv4Addr::new(
            octets[0], octets[1], octets[2], octets[3],
        ))),
        AF_INET6 => Some(Ipv6Addr::from(octets).to_canonical()),
        _ => None,
    }
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that panics has failed, as it should"
)]
mod tests {
    use super::{FRAME_DATA, FRAME_EVENT_LEN, SOCKET_EVENT_LEN, event};
    use crate::events::reasons::Reasons;
    use crate::events::{Event, FrameOrigin};
    use crate::host::{Ending, KernelEventKind, SocketCounts, SocketView};

    fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
        bytes[at..at + value.len()].copy_from_slice(value);
    }

    #[test]
    fn a_frame_record_is_read_to_its_stated_length_and_no_further() {
        let mut record = [0; FRAME_EVENT_LEN];
        put(&mut record, 0, &1_u32.to_ne_bytes());
        put(&mut record, 4, &7_u32.to_ne_bytes());
        put(&mut record, 8, &99_u64.to_ne_bytes());
        record[16] = 2;
        put(&mut record, 20, &1500_u32.to_ne_bytes());
        put(&mut record, 24, &3_u32.to_ne_bytes());
        record[40] = 1;
        put(&mut record, FRAME_DATA, &[1, 2, 3, 4]);
        let Some(Event::Frame(frame)) = event(&record, &Reasons::default()) else {
            panic!()
        };
        assert_eq!((frame.ifindex, frame.time.as_nanos()), (7, 99));
        assert_eq!(frame.origin, FrameOrigin::Egress { forwarded: true });
        assert_eq!((frame.frame, frame.frame_len), (&[1_u8, 2, 3][..], 1500));
        assert_eq!(frame.socket, Some(SocketView::Absent));
        record[32] = 7;
        let Some(Event::Frame(frame)) = event(&record, &Reasons::default()) else {
            panic!()
        };
        assert_eq!(frame.socket, Some(SocketView::Sender { cookie: 7 }));
        put(&mut record, 24, &193_u32.to_ne_bytes());
        assert_eq!(
            event(&record, &Reasons::default()),
            None,
            "more than the record holds"
        );
        assert_eq!(
            event(&record[..FRAME_EVENT_LEN - 1], &Reasons::default()),
            None
        );
    }

    #[test]
    fn of_a_process_that_ends_no_thread_is_named() {
        let mut record = [0; SOCKET_EVENT_LEN];
        put(&mut record, 148, &[1]);
        put(&mut record, 72, &7_u32.to_ne_bytes());
        put(&mut record, 88, b"envoy");
        put(&mut record, 152, b"wrk:worker_0");
        let named = |record: &[u8]| {
            let process = super::process(record).expect("a process");
            (process.name(), process.thread_name())
        };
        let program = "envoy".to_owned();
        assert_eq!(named(&record), (program.clone(), None), "it was ending");
        let mut goes_on = record;
        put(&mut goes_on, 148, &[0]);
        let worker = "wrk:worker_0".to_owned();
        assert_eq!(named(&goes_on), (program, Some(worker)));
    }

    #[test]
    fn a_socket_record_of_a_mapped_address_is_ipv4() {
        let mut record = [0; SOCKET_EVENT_LEN];
        put(&mut record, 0, &4_u32.to_ne_bytes());
        put(&mut record, 4, &[10, 1, 1, 0]);
        put(&mut record, 42, &[0xff, 0xff, 10, 0, 0, 1]);
        put(&mut record, 58, &[0xff, 0xff, 10, 0, 0, 2]);
        put(&mut record, 64, &80_u16.to_ne_bytes());
        put(&mut record, 66, &4000_u16.to_ne_bytes());
        let Some(Event::Kernel(kernel)) = event(&record, &Reasons::default()) else {
            panic!()
        };
        assert_eq!(
            kernel.tuple.src,
            "10.0.0.1".parse::<std::net::IpAddr>().unwrap()
        );
        assert_eq!((kernel.tuple.src_port, kernel.tuple.dst_port), (80, 4000));
        let expected = KernelEventKind::Established {
            process: None,
            originator: true,
        };
        assert_eq!((kernel.kind, kernel.cookie), (expected, None));
        put(&mut record, 0, &2_u32.to_ne_bytes());
        put(&mut record, 120, &30_u64.to_ne_bytes());
        put(&mut record, 128, &20_u64.to_ne_bytes());
        put(&mut record, 136, &10_u64.to_ne_bytes());
        put(&mut record, 144, &[0x8b, 0, 0, 0, 1, 1]);
        let counted = |record: &[u8]| match event(record, &Reasons::default()) {
            Some(Event::Kernel(kernel)) => match kernel.kind {
                KernelEventKind::ResetSent { counts, .. } => counts,
                _ => None,
            },
            _ => None,
        };
        let counts = SocketCounts {
            bytes_received: 30,
            bytes_acked: 20,
            idle_ns: Some(10),
            is_unclaimed: true,
            ending: Some(Ending::Signal(11)),
        };
        assert_eq!(counted(&record), Some(counts));
        put(&mut record, 148, &[2]);
        let ending = counted(&record).and_then(|counts| counts.ending);
        assert_eq!(ending, Some(Ending::OutOfMemory));
        put(&mut record, 6, &[0]);
        assert_eq!(counted(&record), None, "what is answered is no abort");
        put(&mut record, 4, &[3]);
        assert_eq!(event(&record, &Reasons::default()), None, "no such family");
        put(&mut record, 0, &9_u32.to_ne_bytes());
        assert_eq!(event(&record, &Reasons::default()), None, "no such kind");
    }
}
