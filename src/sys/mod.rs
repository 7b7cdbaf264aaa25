//! The only hand-written `unsafe` of the program: AF_XDP rings over `xsk-rs`, the mapping of the
//! gate array, and the few system calls that no safe crate offers. Nothing leaves this module but
//! safe types; it decides nothing and knows no packet.

#![allow(
    unsafe_code,
    reason = "shared memory and raw system calls have no safe form"
)]

mod bell;
mod burst;
mod credit;
mod error;
mod gate;
mod handback;
pub mod link;
mod memory;
mod nap;
pub mod netlink;
pub mod outq;
mod per_queue;
mod pool;
mod queue;
mod schedule;
mod sockopt;
mod umem;
pub mod watched;

pub use bell::Bell;
pub use burst::{BURST_BYTES, BURST_FRAMES, Burst, Bursts};
pub use error::Error;
#[cfg(test)]
pub(crate) use gate::tests::gates as test_gates;
pub use gate::{Gate, Gates};
pub use handback::{HandbackSocket, Wake};
pub use memory::{advise_huge_pages, bring_line_near, bring_line_near_at, bring_near};
pub use pool::FramePool;
pub use queue::QueueSocket;
pub use schedule::{ask_for_short_slice, slice_ns};
pub use sockopt::RxLosses;
pub use umem::{Frame, Umem, UmemLayout};

/// Frames that one ring operation moves at most. 64 descriptors of 40 bytes stay in the first
/// level cache, and one NAPI poll brings at most as many.
pub const BATCH_FRAMES: usize = 64;

/// A number of frames as the counts keep it: no UMEM has more than 2^20 of them.
fn frames(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
