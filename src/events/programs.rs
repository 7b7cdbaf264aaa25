//! The programs that look at this host itself, loaded and attached: the tcp tracepoints, tc egress, tc
//! ingress (mirror mode) and the hand-back counter. Reads nothing of what they say.

use std::mem::{MaybeUninit, offset_of};
use std::os::fd::{AsFd, OwnedFd};

use libbpf_rs::ProgramMut;
use libbpf_rs::btf::Btf;
use libbpf_rs::skel::{OpenSkel, SkelBuilder};

use super::reasons::{self, Reasons};
use super::tc::{self, Attachment};
use super::{Error, Events};
use crate::bpf::egress::EgressSkelBuilder;
use crate::bpf::handback::HandbackSkelBuilder;
use crate::bpf::mirror::{MirrorSkelBuilder, types};
use crate::bpf::sockets::SocketsSkelBuilder;
use crate::host::KernelTells;
use crate::notice;
use crate::sys::watched;
use crate::time::Timestamp;
use crate::wire::FourTuple;

/// Size of a task's kernel stack (`THREAD_SIZE`), where softirqs have a stack of their own; see
/// `is_process` in bpf/packet.h. Elsewhere 0: no owner is told rather than a wrong one.
const TASK_STACK_BYTES: u32 = if cfg!(target_arch = "x86_64") {
    16 << 10
} else {
    0
};

/// What looks at what comes in, in mirror mode (bpf/mirror.bpf.c).
const MIRROR_PROGRAM: &str = "report_ingress";

/// Whether softirqs run in threads of their own, as the kernel says of itself (`UTS_VERSION`).
fn is_preempt_rt() -> bool {
    let names = rustix::system::uname();
    names.version().to_string_lossy().contains("PREEMPT_RT")
}

impl Events {
    /// Reports what leaves by that interface.
    ///
    /// # Errors
    ///
    /// [`Error::Load`], [`Error::Attach`].
    pub fn attach_egress(&mut self, interface: &str, ifindex: u32) -> Result<(), Error> {
        if self.egress.is_none() {
            let mut place = MaybeUninit::uninit();
            let load = |source| Error::Load("report_egress", source);
            let mut open = EgressSkelBuilder::default()
                .open(&mut place)
                .map_err(load)?;
            open.maps.events.reuse_fd(self.map.as_fd()).map_err(load)?;
            open.maps
                .host_counters
                .reuse_fd(self.counters.as_fd())
                .map_err(load)?;
            let skel = open.load().map_err(load)?;
            let program = skel.progs.report_egress.as_fd().try_clone_to_owned();
            self.egress = Some(program.map_err(|source| load(source.into()))?);
        }
        if let Some(program) = &self.egress {
            let attachment = self.attachment(program, interface, ifindex, true)?;
            self.attachments.push((ifindex, attachment));
        }
        Ok(())
    }

    /// Mirror mode: reports what comes in by that interface, and consumes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Load`], [`Error::Attach`].
    pub fn attach_mirror(
        &mut self,
        interface: &str,
        ifindex: u32,
        older: &[FourTuple],
        until: Timestamp,
    ) -> Result<(), Error> {
        if self.mirror.is_none() {
            let mut place = MaybeUninit::uninit();
            let load = |source| Error::Load("report_ingress", source);
            let mut open = MirrorSkelBuilder::default()
                .open(&mut place)
                .map_err(load)?;
            if let Some(rodata) = open.maps.rodata_data.as_mut() {
                rodata.watch_ns = self.config.watch_ns;
                rodata.watch_budget = self.config.watch_budget;
                rodata.tick_ns = crate::host_bytes::tick_ns();
            }
            open.maps.events.reuse_fd(self.map.as_fd()).map_err(load)?;
            open.maps
                .host_counters
                .reuse_fd(self.counters.as_fd())
                .map_err(load)?;
            let skel = open.load().map_err(load)?;
            watched::watch_older(
                &skel.maps.watched,
                &skel.maps.bss,
                offset_of!(types::bss, watching_until_ns),
                older,
                until,
            )
            .map_err(load)?;
            let program = skel.progs.report_ingress.as_fd().try_clone_to_owned();
            self.mirror = Some(program.map_err(|source| load(source.into()))?);
        }
        if let Some(program) = &self.mirror {
            let attachment = self.attachment(program, interface, ifindex, false)?;
            self.attachments.push((ifindex, attachment));
        }
        Ok(())
    }

    /// Takes off what a killed sensor's mirror left at the way in of that interface, where it was no link (before
    /// Linux 6.6): it copies for nobody. For who alone may watch the interface, and mirrors nothing there.
    pub fn take_off_left_mirror(&self, interface: &str, ifindex: u32) {
        match tc::take_off_left_ingress(ifindex, MIRROR_PROGRAM) {
            Ok(false) => {}
            Ok(true) => notice::say(format_args!(
                "rstscope: {interface}: took off the filter that a killed sensor had left at the way in"
            )),
            Err(refusal) => notice::warn(format_args!(
                "{interface}: cannot tell whether a killed sensor left a filter at the way in: {refusal}"
            )),
        }
    }

    /// Loads the classifier for the hand-back veth's peer, which counts what it sees into
    /// [`HostCounters::handed_back`](super::HostCounters::handed_back) and matches all. Who attaches it
    /// decides on the action.
    ///
    /// # Errors
    ///
    /// [`Error::Load`].
    pub fn load_handback(&self) -> Result<OwnedFd, Error> {
        let mut place = MaybeUninit::uninit();
        let load = |source| Error::Load("count_handback", source);
        let mut open = HandbackSkelBuilder::default()
            .open(&mut place)
            .map_err(load)?;
        open.maps
            .host_counters
            .reuse_fd(self.counters.as_fd())
            .map_err(load)?;
        let skel = open.load().map_err(load)?;
        let program = skel.progs.count_handback.as_fd().try_clone_to_owned();
        program.map_err(|source| load(source.into()))
    }

    pub(super) fn open_tracepoints(&mut self) {
        let Ok(btf) = Btf::from_vmlinux() else {
            self.missing.push(
                "this kernel has no BTF (/sys/kernel/btf/vmlinux): which process sent a reset, \
                 and whether one was accepted, cannot be told"
                    .to_owned(),
            );
            return;
        };
        self.reasons = Reasons::of_kernel(&btf);
        let arguments = reasons::tracepoint_arguments(&btf, "tcp_send_reset");
        match arguments {
            Some(3..) => {}
            Some(_) => self.missing.push(
                "this kernel does not say why it sends a reset (Linux 6.10 and later do)"
                    .to_owned(),
            ),
            None => self
                .missing
                .push("this kernel does not report resets that it sends".to_owned()),
        }
        match self.load_tracepoints(arguments) {
            Ok(resets) => {
                self.tells = KernelTells {
                    resets,
                    answers: resets && matches!(arguments, Some(3..)),
                    owners: resets && TASK_STACK_BYTES > 0 && !is_preempt_rt(),
                };
            }
            Err(source) => self.missing.push(format!(
                "the kernel's own reports of resets and connections cannot be had: {source:#}"
            )),
        }
    }

    /// Answers whether what tells of resets is attached.
    fn load_tracepoints(&mut self, send_reset_arguments: Option<usize>) -> libbpf_rs::Result<bool> {
        let mut place = MaybeUninit::uninit();
        let mut open = SocketsSkelBuilder::default().open(&mut place)?;
        if let Some(rodata) = open.maps.rodata_data.as_mut() {
            rodata.netns_inum = self.config.netns_inum;
            rodata.task_stack_bytes = TASK_STACK_BYTES;
            rodata.tick_ns = crate::host_bytes::tick_ns();
        }
        open.maps.events.reuse_fd(self.map.as_fd())?;
        open.maps.host_counters.reuse_fd(self.counters.as_fd())?;
        let (has_reason, has_tracepoint) = (
            matches!(send_reset_arguments, Some(3..)),
            send_reset_arguments.is_some(),
        );
        open.progs.on_reset_sent.set_autoload(has_reason);
        open.progs
            .on_reset_sent_no_reason
            .set_autoload(has_tracepoint && !has_reason);
        open.progs.on_reset_of_process.set_autoload(has_tracepoint);
        let skel = open.load()?;
        // Conclusions rest on the absence of what these tell, and of nothing else.
        for program in [
            &skel.progs.on_reset_sent,
            &skel.progs.on_reset_sent_no_reason,
            &skel.progs.on_reset_accepted,
        ] {
            if program.autoload() {
                self.tracers.extend(program.as_fd().try_clone_to_owned());
            }
        }
        let mut attach = |program: &ProgramMut<'_>, says: &str| match program.attach_trace() {
            Ok(link) => {
                self.links.push(link);
                true
            }
            Err(source) => {
                self.missing.push(format!("{says} cannot be had: {source}"));
                false
            }
        };
        // Programs of one tracepoint run in the order in which they were attached.
        if has_tracepoint {
            attach(
                &skel.progs.on_reset_of_process,
                "what was closed beside a process's reset",
            );
        }
        let report = "the kernel's report of resets that it sends";
        let tells_sent = match (has_reason, has_tracepoint) {
            (true, _) => attach(&skel.progs.on_reset_sent, report),
            (false, true) => attach(&skel.progs.on_reset_sent_no_reason, report),
            (false, false) => false,
        };
        let tells_accepted = attach(
            &skel.progs.on_reset_accepted,
            "the kernel's report of resets that it accepts",
        );
        attach(
            &skel.progs.on_state_change,
            "the kernel's report of new connections",
        );
        attach(
            &skel.progs.on_closing,
            "the kernel's report of connections that a process closes",
        );
        attach(&skel.progs.on_destroyed, "the owners of reset connections");
        Ok(tells_sent && tells_accepted)
    }

    fn attachment(
        &self,
        program: &OwnedFd,
        interface: &str,
        ifindex: u32,
        is_egress: bool,
    ) -> Result<Attachment, Error> {
        let make = match self.config.by_filter {
            true => Attachment::filter,
            false => Attachment::make,
        };
        make(program.as_fd(), ifindex, is_egress)
            .map_err(|source| Error::Attach(interface.to_owned(), source))
    }
}
