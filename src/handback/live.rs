//! The second way back, for bursts: the worker runs an XDP program over its frames, whose XDP_PASS
//! gives them to the interface's ingress without crossing the veth (bpf/live.bpf.c). It is offered
//! only where the kernel proves to have it; without it all frames go by the veth.

use std::fmt;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use libbpf_rs::libbpf_sys;
use libbpf_rs::skel::{OpenSkel, SkelBuilder};

use crate::bpf::live::{LiveSkelBuilder, types};
use crate::sys::{self, Burst, Bursts, link};

const _: () = assert!(size_of::<types::burst>() == 64 + 256 * sys::BURST_FRAMES);

/// CPUs that receive what arrives at an interface made from now on, as a mask (Linux 6.3); it holds for the
/// hand-back veth too.
const SPREAD: &str = "net.core.rps_default_mask";

/// Why frames cannot go back live.
#[derive(Debug)]
pub enum LiveError {
    /// The kernel did not take the program (Linux 5.18 is needed).
    Load(libbpf_rs::Error),
    /// It could not be attached to the hand-back veth, without which each call would take 30 ms.
    Attach(io::Error),
    /// Its memory could not be mapped.
    Map(sys::Error),
    /// It was loaded, but the kernel would not run it.
    Run(io::Error),
    /// The host spreads what arrives at new interfaces over CPUs: frames that went by the veth before could
    /// still be on their way on another CPU (`worker/live.rs` has the proof).
    Spread,
}

impl fmt::Display for LiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("frames cannot go back in bursts: ")?;
        match self {
            Self::Load(source) => write!(f, "the kernel refused the program: {source}"),
            Self::Attach(source) => write!(f, "attaching to the hand-back veth failed: {source}"),
            Self::Map(source) => write!(f, "{source}"),
            Self::Run(source) => write!(f, "the kernel would not run the program: {source}"),
            Self::Spread => write!(
                f,
                "{SPREAD} is set, and the order of frames would not be sure"
            ),
        }?;
        f.write_str("; each goes by the veth, which costs more under load")?;
        match self {
            Self::Spread => Ok(()),
            _ => f.write_str(" (needs Linux 5.18)"),
        }
    }
}

impl std::error::Error for LiveError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The cause is part of the message already.
        None
    }
}

/// The program, loaded and attached where nothing arrives. Dropping it detaches it; workers that
/// hold a [`Burst`] can run it still.
#[derive(Debug)]
pub struct Live {
    bursts: Bursts,
    _link: OwnedFd,
}

impl Live {
    /// Loads it for the interface `nic_ifindex` and proves that it runs. `transmit_ifindex` is the
    /// sending end of the hand-back pair, `counters` the map `host_counters`.
    ///
    /// # Errors
    ///
    /// [`LiveError`]; the veth serves all frames then.
    pub fn open(
        nic_ifindex: u32,
        transmit_ifindex: u32,
        queues: u32,
        counters: BorrowedFd<'_>,
    ) -> Result<Self, LiveError> {
        let mask = fs::read_to_string(format!("/proc/sys/{}", SPREAD.replace('.', "/")));
        if mask.is_ok_and(|mask| names_a_cpu(&mask)) {
            return Err(LiveError::Spread);
        }
        let mut place = MaybeUninit::uninit();
        let mut open = LiveSkelBuilder::default()
            .open(&mut place)
            .map_err(LiveError::Load)?;
        if let Some(rodata) = open.maps.rodata_data.as_mut() {
            rodata.target_ifindex = nic_ifindex;
        }
        open.maps
            .bursts
            .set_max_entries(queues)
            .map_err(LiveError::Load)?;
        open.maps
            .host_counters
            .reuse_fd(counters)
            .map_err(LiveError::Load)?;
        // The veth's MTU is the interface's: beyond a page only such programs may be attached.
        open.progs
            .give_back
            .set_flags(libbpf_sys::BPF_F_XDP_HAS_FRAGS);
        let skel = open.load().map_err(LiveError::Load)?;
        let program = skel.progs.give_back.as_fd().try_clone_to_owned();
        let program = program.map_err(|source| LiveError::Load(source.into()))?;
        let link = link::attach_xdp_native(program.as_fd(), transmit_ifindex)
            .map_err(LiveError::Attach)?;
        let bursts = Bursts::map(skel.maps.bursts.as_fd(), queues, program, nic_ifindex)
            .map_err(LiveError::Map)?;
        bursts.probe().map_err(LiveError::Run)?;
        Ok(Self {
            bursts,
            _link: link,
        })
    }

    /// The burst of `queue`, for its one worker.
    #[must_use]
    pub fn take(&self, queue: u32) -> Option<Burst> {
        self.bursts.take(queue)
    }
}

/// Whether a mask of CPUs (hexadecimal, with commas) has any in it.
fn names_a_cpu(mask: &str) -> bool {
    mask.bytes()
        .any(|digit| digit.is_ascii_hexdigit() && digit != b'0')
}

#[cfg(test)]
mod tests {
    use super::{LiveError, names_a_cpu};

    #[test]
    fn an_empty_mask_spreads_nothing() {
        assert!(!names_a_cpu("0\n") && !names_a_cpu("00000000,00000000\n") && !names_a_cpu(""));
        assert!(names_a_cpu("3\n") && names_a_cpu("00000001,00000000\n") && names_a_cpu("f0"));
    }

    #[test]
    fn what_stands_in_the_way_is_named() {
        let said = LiveError::Spread.to_string();
        assert!(
            said.contains("net.core.rps_default_mask") && !said.contains("5.18"),
            "{said}"
        );
    }
}
