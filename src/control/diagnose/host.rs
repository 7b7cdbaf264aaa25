//! Checks of the host: kernel, type information, privileges, limits. Facts are gathered first and
//! judged after, so that the judging can be tested without the host.

use std::fs;

use rustix::process::{Resource, getrlimit};
use rustix::thread::capabilities;

use super::{Check, Fault, Mode};

/// Release from which on all that inline mode needs is there: AF_XDP with `need_wakeup`, BPF links
/// for XDP, `bpf_skc_lookup_tcp` from XDP, `IFLA_PARENT_DEV_NAME`.
const KERNEL_WANTED: (u32, u32) = (5, 15);

/// Release from which on the egress program attaches by a link (tcx) that dies with the process.
const KERNEL_TCX: (u32, u32) = (6, 6);

/// Capabilities by bit (`include/uapi/linux/capability.h`), and what each is for.
const CAP_NET_ADMIN: Capability = Capability(12, "CAP_NET_ADMIN", "attach programs, make links");
const CAP_NET_RAW: Capability = Capability(13, "CAP_NET_RAW", "open AF_XDP sockets");
const CAP_IPC_LOCK: Capability = Capability(14, "CAP_IPC_LOCK", "lock memory without a limit");
const CAP_SYS_ADMIN: Capability = Capability(21, "CAP_SYS_ADMIN", "stands in for the next two");
const CAP_PERFMON: Capability = Capability(38, "CAP_PERFMON", "attach to kernel tracepoints");
const CAP_BPF: Capability = Capability(39, "CAP_BPF", "load BPF programs");

#[derive(Debug, Clone, Copy)]
struct Capability(u8, &'static str, &'static str);

impl Capability {
    const fn is_in(self, set: u64) -> bool {
        set >> self.0 & 1 == 1
    }
}

/// Tracepoints that the sensor listens to, and what is unknown without each.
const TRACEPOINTS: [(&str, &str); 3] = [
    (
        "tcp_send_reset",
        "which process sent a local reset, and why",
    ),
    ("tcp_receive_reset", "whether the kernel accepted a reset"),
    ("inet_sock_set_state", "when a handshake completed"),
];

/// Name in BTF of the reasons of resets.
const RESET_REASONS: &str = "sk_rst_reason";

/// What was found out about the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// `uname -r`.
    pub release: String,
    /// Effective capabilities, as bits; `None` when the kernel does not tell.
    pub capabilities: Option<u64>,
    /// The process lives in the host's first user namespace.
    pub is_initial_user_namespace: bool,
    /// A seccomp filter is on.
    pub has_seccomp_filter: bool,
    /// Kernel lockdown's state in force; `None` without lockdown.
    pub lockdown: Option<String>,
    /// /sys/kernel/btf/vmlinux can be read.
    pub has_btf: bool,
    /// Tracepoints of `TRACEPOINTS` that BTF lacks.
    pub missing_tracepoints: Vec<&'static str>,
    /// BTF has the reasons of resets (`enum sk_rst_reason`, Linux 6.10 and later).
    pub has_reset_reasons: bool,
    /// Seconds and nanoseconds by which CLOCK_MONOTONIC of this process's time namespace goes before the
    /// kernel's, as /proc/self/timens_offsets has them; `None` for a kernel without time namespaces.
    pub monotonic_offset: Option<(i64, i64)>,
    /// `net.core.netdev_max_backlog`, in frames; `None` in a network namespace that lacks it.
    pub backlog_frames: Option<u64>,
}

impl HostFacts {
    /// Asks the host. Whatever does not answer is left as not there.
    #[must_use]
    pub fn gather() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| -> Option<&str> {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .map(str::trim)
        };
        let uid_map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let identity: Vec<&str> = uid_map.split_whitespace().collect();
        let lockdown = fs::read_to_string("/sys/kernel/security/lockdown").ok();
        let btf = fs::read("/sys/kernel/btf/vmlinux").unwrap_or_default();
        let known = names_in_btf(&btf);
        let has_btf = !btf.is_empty();
        Self {
            release: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            capabilities: effective(),
            is_initial_user_namespace: identity.is_empty() || identity == ["0", "0", "4294967295"],
            has_seccomp_filter: field("Seccomp:") == Some("2"),
            lockdown: lockdown.as_deref().and_then(chosen).map(str::to_owned),
            has_btf,
            missing_tracepoints: TRACEPOINTS
                .iter()
                .map(|(name, _)| *name)
                .filter(|name| !known.contains(name))
                .collect(),
            has_reset_reasons: known.contains(&RESET_REASONS),
            monotonic_offset: fs::read_to_string("/proc/self/timens_offsets")
                .ok()
                .and_then(|text| offset_of(&text, "monotonic")),
            backlog_frames: fs::read_to_string("/proc/sys/net/core/netdev_max_backlog")
                .ok()
                .and_then(|text| text.trim().parse().ok()),
        }
    }

    /// Judges the facts.
    #[must_use]
    pub fn checks(&self, mode: Mode) -> Vec<Check> {
        let mut checks = vec![self.kernel(), self.capability(mode)];
        checks.extend(self.confinement());
        checks.extend(self.clock());
        checks.push(self.btf());
        if self.has_btf {
            checks.push(self.tracepoints());
        }
        if mode == Mode::Inline {
            checks.extend(self.backlog());
        }
        checks
    }

    fn has(&self, capability: Capability) -> bool {
        self.capabilities.is_some_and(|set| capability.is_in(set))
    }

    fn kernel(&self) -> Check {
        let release = &self.release;
        match version(release) {
            Some(version) if version < KERNEL_WANTED => {
                Check::warn("kernel", format!("Linux {release} is older than 5.15"))
                    .remedy("parts may not load; use 5.15 or newer")
            }
            Some(version) if version < KERNEL_TCX => Check::good(
                "kernel",
                format!("Linux {release}; egress is watched by clsact, since tcx came with 6.6"),
            ),
            _ => Check::good("kernel", format!("Linux {release}")),
        }
    }

    fn capability(&self, mode: Mode) -> Check {
        const NAME: &str = "capabilities";
        let needed: &[Capability] = match mode {
            Mode::Inline => &[CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF, CAP_PERFMON],
            Mode::Mirror => &[CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON],
        };
        let stands_in =
            |capability: &Capability| matches!(capability.0, 38 | 39) && self.has(CAP_SYS_ADMIN);
        let missing: Vec<String> = needed
            .iter()
            .filter(|capability| !self.has(**capability) && !stands_in(capability))
            .map(|Capability(_, name, purpose)| format!("{name} ({purpose})"))
            .collect();
        if !missing.is_empty() {
            let sentence = format!("this process lacks {}", missing.join(", "));
            return Check::bad(NAME, Fault::Permission, sentence).remedy(
                "run it as root, or give the service AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW \
                 CAP_BPF CAP_PERFMON",
            );
        }
        if !self.is_initial_user_namespace {
            let sentence = "this process has its capabilities in a user namespace, where the \
                            kernel loads no tracing programs";
            return Check::bad(NAME, Fault::Permission, sentence)
                .remedy("run it on the host, or in a container without user namespace");
        }
        let names: Vec<&str> = needed.iter().map(|Capability(_, name, _)| *name).collect();
        Check::good(NAME, format!("this process has {}", names.join(", ")))
    }

    /// What may refuse in spite of capabilities.
    fn confinement(&self) -> Vec<Check> {
        let mut checks = Vec::new();
        if self.lockdown.as_deref() == Some("confidentiality") {
            checks.push(
                Check::warn(
                    "lockdown",
                    "kernel lockdown is in confidentiality mode: BPF helpers that read kernel \
                     memory are refused, so the tracepoint programs may not load",
                )
                .remedy("boot with lockdown=integrity to have the process behind a local reset"),
            );
        } else if let Some(state) = &self.lockdown {
            checks.push(Check::good("lockdown", format!("kernel lockdown: {state}")));
        }
        if self.has_seccomp_filter {
            checks.push(
                Check::warn("seccomp", "a seccomp filter is on, which may forbid bpf()")
                    .remedy("if loading fails, allow the system call bpf in the container profile"),
            );
        }
        checks
    }

    /// BPF programs read the kernel's own clock. Heartbeats of another one would look fresh for ever, or
    /// late for ever; and no event would belong to its frame.
    fn clock(&self) -> Option<Check> {
        let (seconds, nanos) = self.monotonic_offset?;
        (seconds != 0 || nanos != 0).then(|| {
            let sentence = format!(
                "this process is in a time namespace whose CLOCK_MONOTONIC is {seconds} s and {nanos} ns off \
                 the kernel's, by which BPF programs go"
            );
            Check::bad("clock", Fault::Host, sentence).remedy("start it in the host's time namespace")
        })
    }

    fn btf(&self) -> Check {
        const PATH: &str = "/sys/kernel/btf/vmlinux";
        if self.has_btf {
            return Check::good("btf", format!("{PATH} is there"));
        }
        Check::bad(
            "btf",
            Fault::Host,
            format!("{PATH} is absent or cannot be read"),
        )
        .remedy("use a kernel built with CONFIG_DEBUG_INFO_BTF=y, and mount /sys")
    }

    fn tracepoints(&self) -> Check {
        const NAME: &str = "tracepoints";
        if !self.missing_tracepoints.is_empty() {
            let unknown: Vec<String> = TRACEPOINTS
                .iter()
                .filter(|(name, _)| self.missing_tracepoints.contains(name))
                .map(|(name, unknown)| format!("{name} ({unknown})"))
                .collect();
            return Check::warn(NAME, format!("this kernel lacks {}", unknown.join(", ")))
                .remedy("records will not tell that");
        }
        if !self.has_reset_reasons {
            return Check::warn(
                NAME,
                "this kernel gives no reason with a reset that it sends",
            )
            .remedy("6.10 or newer does");
        }
        Check::good(
            NAME,
            "the tcp tracepoints are there, with the reason of a reset",
        )
    }

    fn backlog(&self) -> Option<Check> {
        const LEAST: u64 = 1000;
        let frames = self.backlog_frames?;
        let sentence = format!("net.core.netdev_max_backlog is {frames}");
        Some(if frames < LEAST {
            Check::warn(
                "backlog",
                format!("{sentence}: frames on their way back may be dropped"),
            )
            .remedy("sysctl -w net.core.netdev_max_backlog=1000")
        } else {
            Check::good("backlog", sentence)
        })
    }
}

/// Whether this process may lock that many bytes in memory (UMEM is charged to its limit,
/// `xdp_umem_account_pages`).
pub(super) fn may_lock_memory(bytes: u64) -> bool {
    is_enough(effective(), getrlimit(Resource::Memlock).current, bytes)
}

/// `limit` is `None` where there is none.
fn is_enough(capabilities: Option<u64>, limit: Option<u64>, bytes: u64) -> bool {
    capabilities.is_some_and(|set| CAP_IPC_LOCK.is_in(set)) || limit.is_none_or(|l| l >= bytes)
}

/// The effective capabilities of this thread, asked of the kernel: there may be no /proc.
fn effective() -> Option<u64> {
    let sets = capabilities(None).ok()?;
    Some(sets.effective.bits())
}

/// Seconds and nanoseconds of a clock in a `timens_offsets` (time_namespaces(7)).
fn offset_of(text: &str, clock: &str) -> Option<(i64, i64)> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let is_it = words.next() == Some(clock);
        let numbers = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        is_it.then_some(numbers)
    })
}

/// `major.minor` of a release; `None` when it does not begin like one.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The bracketed word of `none [integrity] confidentiality`.
fn chosen(text: &str) -> Option<&str> {
    text.split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'))
        .map(|(word, _)| word)
}

/// Which of the names we look for BTF has. Its string section holds each name once, between NULs;
/// a raw tracepoint has a typedef `btf_trace_<name>`.
fn names_in_btf(btf: &[u8]) -> Vec<&'static str> {
    btf.split(|byte| *byte == 0)
        .filter_map(|name| match name.strip_prefix(b"btf_trace_") {
            Some(event) => TRACEPOINTS
                .iter()
                .map(|(known, _)| *known)
                .find(|known| known.as_bytes() == event),
            None => (name == RESET_REASONS.as_bytes()).then_some(RESET_REASONS),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    const ALL: u64 = 1 << 12 | 1 << 13 | 1 << 38 | 1 << 39;

    fn facts() -> HostFacts {
        HostFacts {
            release: "6.18.0".to_owned(),
            capabilities: Some(ALL),
            is_initial_user_namespace: true,
            has_seccomp_filter: false,
            lockdown: None,
            has_btf: true,
            missing_tracepoints: Vec::new(),
            has_reset_reasons: true,
            monotonic_offset: Some((0, 0)),
            backlog_frames: Some(1000),
        }
    }

    fn find(facts: &HostFacts, mode: Mode, name: &str) -> Check {
        facts
            .checks(mode)
            .into_iter()
            .find(|check| check.name == name)
            .unwrap()
    }

    #[test]
    fn a_fit_host_has_nothing_to_mend() {
        let checks = facts().checks(Mode::Inline);
        assert!(
            checks.iter().all(|check| check.outcome == Outcome::Good),
            "{checks:#?}"
        );
        assert_eq!(checks.len(), 5);
    }

    #[test]
    fn each_missing_capability_is_named() {
        let poor = HostFacts {
            capabilities: Some(1 << 12),
            ..facts()
        };
        let check = find(&poor, Mode::Inline, "capabilities");
        assert_eq!(check.outcome, Outcome::Bad(Fault::Permission));
        for name in ["CAP_NET_RAW", "CAP_BPF", "CAP_PERFMON"] {
            assert!(check.sentence.contains(name), "{check}");
        }
        assert!(!check.sentence.contains("CAP_NET_ADMIN"), "{check}");
        assert!(
            !find(&poor, Mode::Mirror, "capabilities")
                .sentence
                .contains("CAP_NET_RAW")
        );
    }

    #[test]
    fn cap_sys_admin_stands_in_for_the_newer_two() {
        let old = HostFacts {
            capabilities: Some(1 << 12 | 1 << 13 | 1 << 21),
            ..facts()
        };
        assert_eq!(
            find(&old, Mode::Inline, "capabilities").outcome,
            Outcome::Good
        );
    }

    #[test]
    fn root_of_a_user_namespace_is_not_root() {
        let nested = HostFacts {
            is_initial_user_namespace: false,
            ..facts()
        };
        let check = find(&nested, Mode::Inline, "capabilities");
        assert_eq!(check.outcome, Outcome::Bad(Fault::Permission));
    }

    #[test]
    fn without_btf_nothing_loads() {
        let bare = HostFacts {
            has_btf: false,
            ..facts()
        };
        assert!(find(&bare, Mode::Mirror, "btf").is_bad());
        assert!(
            !bare
                .checks(Mode::Mirror)
                .iter()
                .any(|check| check.name == "tracepoints")
        );
    }

    #[test]
    fn a_missing_tracepoint_costs_knowledge_not_the_start() {
        let old = HostFacts {
            missing_tracepoints: vec!["tcp_send_reset"],
            ..facts()
        };
        let check = find(&old, Mode::Inline, "tracepoints");
        assert_eq!(check.outcome, Outcome::Warn);
        assert!(
            check.sentence.contains("which process sent a local reset"),
            "{check}"
        );
    }

    #[test]
    fn a_clock_that_is_not_the_kernels_is_refused() {
        let text = "monotonic       86400         5\nboottime            0         0\n";
        assert_eq!(offset_of(text, "monotonic"), Some((86_400, 5)));
        assert_eq!(offset_of(text, "boottime"), Some((0, 0)));
        assert_eq!(offset_of("", "monotonic"), None);
        for (offset, is_bad) in [(Some((-1, 0)), true), (Some((0, 1)), true), (None, false)] {
            let facts = HostFacts {
                monotonic_offset: offset,
                ..facts()
            };
            for mode in [Mode::Inline, Mode::Mirror] {
                let bad = facts.checks(mode).into_iter().filter(Check::is_bad);
                assert_eq!(
                    bad.map(|check| check.name).eq(["clock"]),
                    is_bad,
                    "{offset:?}"
                );
            }
        }
    }

    #[test]
    fn an_old_kernel_is_told_its_number() {
        let old = HostFacts {
            release: "5.10.0-28-amd64".to_owned(),
            ..facts()
        };
        assert_eq!(find(&old, Mode::Inline, "kernel").outcome, Outcome::Warn);
        let middle = HostFacts {
            release: "6.1.0".to_owned(),
            ..facts()
        };
        assert!(
            find(&middle, Mode::Inline, "kernel")
                .sentence
                .contains("clsact")
        );
        let odd = HostFacts {
            release: "custom".to_owned(),
            ..facts()
        };
        assert_eq!(find(&odd, Mode::Inline, "kernel").outcome, Outcome::Good);
    }

    #[test]
    fn confidentiality_mode_is_warned_of_and_integrity_is_not() {
        let state = |text: &str| HostFacts {
            lockdown: chosen(text).map(str::to_owned),
            ..facts()
        };
        let check = find(
            &state("none integrity [confidentiality]\n"),
            Mode::Inline,
            "lockdown",
        );
        assert_eq!(check.outcome, Outcome::Warn);
        let check = find(
            &state("none [integrity] confidentiality\n"),
            Mode::Inline,
            "lockdown",
        );
        assert_eq!(check.outcome, Outcome::Good);
    }

    #[test]
    fn names_are_found_whole_in_btf() {
        let btf = b"x\0btf_trace_tcp_send_reset\0btf_trace_tcp_send_reset_two\0sk_rst_reason\0";
        assert_eq!(names_in_btf(btf), ["tcp_send_reset", "sk_rst_reason"]);
    }

    #[test]
    fn capabilities_are_those_that_proc_tells() {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let told = u64::from_str_radix(hex.unwrap().trim(), 16).unwrap();
        assert_eq!(effective(), Some(told));
    }

    #[test]
    fn locked_memory_is_free_with_cap_ipc_lock() {
        assert!(is_enough(Some(1 << 14), Some(1 << 16), 1 << 40));
        assert!(!is_enough(Some(0), Some(1 << 16), 1 << 17));
        assert!(is_enough(Some(0), Some(1 << 16), 1 << 16));
        assert!(is_enough(None, None, 1 << 40));
    }
}
