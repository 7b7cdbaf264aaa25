//! Checks of one interface: its place among the links, its driver, its XDP slot, its offloads.
//! Judges facts that `nic` and the lock gathered.

use crate::control::lock::InterfaceLock;
use crate::handback;
use crate::nic::{self, Interface, Neighbor};
use crate::sys::netlink::XdpMode;

use super::host::may_lock_memory;
use super::{Check, Fault, Mode};

#[cfg(test)]
mod tests;

/// Bytes of the longest frame that is taken: a UMEM frame of 2048 less the headroom that the
/// kernel keeps for XDP (256). A longer one passes by the sensor.
pub const FRAME_BYTES_MAX: u32 = 2048 - 256;

/// Bytes of memory that one queue's UMEM locks: 4096 frames of 2048 bytes.
pub const UMEM_BYTES_PER_QUEUE: u64 = 4096 * 2048;

/// Ethernet header and two tags: what a frame has beyond the MTU.
const LINK_HEADER_BYTES: u32 = 14 + 4 + 4;

/// Drivers with native XDP and XDP_REDIRECT, for kernels before 6.3 that do not tell.
const NATIVE_DRIVERS: [&str; 26] = [
    "atlantic",
    "bnxt_en",
    "cxgb4",
    "ena",
    "fsl_dpaa2_eth",
    "fsl_enetc",
    "gve",
    "hv_netvsc",
    "i40e",
    "iavf",
    "ice",
    "igb",
    "igc",
    "ixgbe",
    "ixgbevf",
    "mana",
    "mlx4_en",
    "mlx5_core",
    "mvneta",
    "mvpp2",
    "nfp",
    "qede",
    "sfc",
    "stmmac",
    "tsnep",
    "virtio_net",
];

/// What was found out about an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceFacts {
    /// The interface.
    pub interface: Interface,
    /// A rstscope watches it now; `None` where that was not asked.
    pub is_watched: Option<bool>,
    /// A link has the name that the hand-back pair needs: its name, and whether it is a pair that
    /// a dead run left.
    pub pair_name_taken: Option<(String, bool)>,
    /// This process may lock the memory that the interface's queues need.
    pub may_lock_memory: bool,
    /// This host chooses next hops by a frame's hash.
    pub routes_by_hash: bool,
}

impl InterfaceFacts {
    /// Asks the kernel about the interface of that name.
    ///
    /// # Errors
    ///
    /// Those of [`Interface::find`].
    pub fn gather(name: &str) -> Result<Self, nic::Error> {
        let interface = Interface::find(name)?;
        let names = handback::Names::of(interface.ifindex());
        let taken = [&names.transmit, &names.inject]
            .into_iter()
            .find_map(|name| Interface::find(name).ok())
            .map(|other| (other.name().to_owned(), handback::is_ours(&other.link)));
        let bytes = UMEM_BYTES_PER_QUEUE.saturating_mul(interface.rx_queue_count.into());
        Ok(Self {
            interface,
            is_watched: None,
            pair_name_taken: taken,
            may_lock_memory: may_lock_memory(bytes),
            routes_by_hash: nic::NextHops::open().are_by_hash(),
        })
    }

    /// Also asks whether a rstscope watches it.
    #[must_use]
    pub fn with_lock_state(self) -> Self {
        let is_watched = InterfaceLock::is_held(self.interface.ifindex());
        Self {
            is_watched: Some(is_watched),
            ..self
        }
    }

    /// Judges the facts. A link that cannot be watched at all gets that one check.
    #[must_use]
    pub fn checks(&self, mode: Mode) -> Vec<Check> {
        if let Some(check) = self.place(mode).filter(Check::is_bad) {
            return vec![check];
        }
        let mut checks = vec![self.interface_itself()];
        checks.extend(self.watched());
        checks.extend(self.place(mode));
        checks.push(self.state());
        checks.push(self.xdp_slot(mode));
        checks.extend(self.vlan(mode));
        if mode == Mode::Inline {
            checks.extend(self.xdp_above());
            checks.push(self.native_xdp());
            checks.push(self.mtu());
            checks.extend(self.merging());
            checks.extend(self.checksums());
            checks.extend(self.next_hops());
            checks.extend(self.pair());
            checks.extend(self.memory());
        }
        checks
    }

    fn name(&self) -> &str {
        self.interface.name()
    }

    fn is_beside_a_sensor(&self) -> bool {
        self.is_watched == Some(true)
    }

    fn interface_itself(&self) -> Check {
        let name = self.name();
        let by = self.interface.driver_or_kind().unwrap_or("unknown driver");
        let queues = self.interface.rx_queue_count;
        let noun = if queues == 1 { "queue" } else { "queues" };
        let check = format!(
            "{name}: {by}, {queues} RX {noun}, MTU {}",
            self.interface.link.mtu
        );
        Check::good("interface", check)
    }

    fn watched(&self) -> Option<Check> {
        let name = self.name();
        self.is_beside_a_sensor().then(|| {
            Check::warn("lock", format!("a rstscope watches {name} now"))
                .remedy("a second one starts with --replace only, and takes over")
        })
    }

    /// Where it stands among the links, when that matters.
    fn place(&self, mode: Mode) -> Option<Check> {
        const NAME: &str = "link";
        let (name, interface) = (self.name(), &self.interface);
        let bad = |sentence: String| Check::bad(NAME, Fault::Host, sentence);
        if interface.link.is_loopback {
            let sentence = format!("{name} is the loopback, where no reset comes from outside");
            return Some(bad(sentence).remedy("choose the interface that faces the network"));
        }
        if !interface.link.is_ethernet || interface.mac().is_none() {
            let sentence = format!("{name} is not Ethernet: its frames have no MAC addresses");
            return Some(bad(sentence).remedy("choose the Ethernet interface that carries it"));
        }
        if mode == Mode::Mirror {
            return None;
        }
        match interface.link.kind.as_deref() {
            Some("bond" | "team") => Some(
                bad(format!(
                    "{name} is a bond: frames arrive at its slaves' queues"
                ))
                .remedy(choose(&interface.ports, "give it slaves first")),
            ),
            Some("bridge") => Some(
                bad(format!("{name} is a bridge: frames arrive at its ports"))
                    .remedy(choose(&interface.ports, "give it ports first")),
            ),
            Some(kind @ ("vlan" | "macvlan" | "macvtap" | "ipvlan" | "ipvtap" | "macsec")) => {
                let lower: Vec<Neighbor> = interface.lower.iter().cloned().collect();
                Some(
                    bad(format!(
                        "{name} is a {kind} link: it has no queues of its own"
                    ))
                    .remedy(choose(&lower, "use --mode mirror")),
                )
            }
            _ => interface.master.as_ref().map(|master| {
                let kind = master.kind.as_deref().unwrap_or("link");
                let what = format!("{name} belongs to {} ({kind})", master.name);
                Check::good(
                    NAME,
                    format!("{what}; frames go back to {name}, and on from there"),
                )
            }),
        }
    }

    fn state(&self) -> Check {
        const NAME: &str = "state";
        let (name, link) = (self.name(), &self.interface.link);
        if !link.is_up {
            return Check::bad(NAME, Fault::Host, format!("{name} is down"))
                .remedy(format!("ip link set dev {name} up"));
        }
        if !link.has_carrier {
            return Check::warn(NAME, format!("{name} is up and has no carrier"))
                .remedy("nothing is seen until the cable or the peer is there");
        }
        Check::good(NAME, format!("{name} is up"))
    }

    fn xdp_slot(&self, mode: Mode) -> Check {
        const NAME: &str = "xdp slot";
        let name = self.name();
        let Some(program) = self.interface.link.xdp else {
            return Check::good(NAME, format!("no XDP program is attached to {name}"));
        };
        let id = program
            .program_id
            .map_or_else(String::new, |id| format!(" (id {id})"));
        let way = program.mode.name();
        let sentence = format!("{name} has a {way} XDP program{id} already");
        if self.is_beside_a_sensor() {
            return Check::good(NAME, format!("{sentence}: that of the rstscope that runs"));
        }
        if mode == Mode::Mirror {
            return Check::warn(NAME, sentence)
                .remedy("mirror mode sees only what that program passes");
        }
        let off = match program.mode {
            XdpMode::Generic => "xdpgeneric off",
            XdpMode::Offload => "xdpoffload off",
            XdpMode::Native | XdpMode::Multiple => "xdp off",
        };
        Check::bad(NAME, Fault::Host, sentence).remedy(format!(
            "detach it with `ip link set dev {name} {off}` (or stop the program that holds it), \
             or use --mode mirror"
        ))
    }

    /// The kernel attaches nothing below a link that has a program already.
    fn xdp_above(&self) -> Option<Check> {
        let upper = &self.interface.uppers_with_xdp.first()?.name;
        let sentence = format!(
            "{upper}, which is on {name}, has an XDP program: the kernel lets no other in below it",
            name = self.name()
        );
        Some(
            Check::bad("xdp above", Fault::Host, sentence)
                .remedy(format!("take it off {upper}, or use --mode mirror")),
        )
    }

    fn native_xdp(&self) -> Check {
        const NAME: &str = "native xdp";
        let (name, interface) = (self.name(), &self.interface);
        let by = interface.driver_or_kind().unwrap_or("its driver");
        let lacking = || {
            Check::bad(
                NAME,
                Fault::Host,
                format!("{name}: {by} offers no native XDP now"),
            )
            .remedy("use --mode mirror")
        };
        match interface.xdp_features {
            Some(features) if features.is_native && features.can_redirect => {
                Check::good(NAME, format!("{name}: {by} has native XDP with redirect"))
            }
            // virtio_net says so while the hypervisor merges or leaves checksums to the guest.
            Some(_) if interface.driver.as_deref() == Some("virtio_net") => lacking().remedy(
                "turn guest offloads off in the hypervisor (guest_tso4, guest_csum and kin), or use \
                 --mode mirror",
            ),
            // veth says so while its peer could send to more queues than it has (veth_xdp_set).
            Some(_) if by == "veth" => lacking().remedy(format!(
                "give it as many RX queues as its peer has TX queues (ethtool -L {name} rx N), or \
                 use --mode mirror"
            )),
            Some(_) => lacking(),
            None if by == "veth" || NATIVE_DRIVERS.contains(&by) => {
                Check::good(NAME, format!("{name}: {by} is known to have native XDP"))
            }
            None => Check::warn(NAME, format!("{name}: whether {by} has native XDP is not known"))
                .remedy("attaching will show; if it fails, use --mode mirror"),
        }
    }

    fn mtu(&self) -> Check {
        const NAME: &str = "mtu";
        let (name, mtu) = (self.name(), self.interface.link.mtu);
        if mtu.saturating_add(LINK_HEADER_BYTES) <= FRAME_BYTES_MAX {
            return Check::good(NAME, format!("frames of {name} fit whole (MTU {mtu})"));
        }
        let sentence = format!(
            "{name} has MTU {mtu}: SYNs, FINs and resets in frames longer than {FRAME_BYTES_MAX} \
             bytes pass in the kernel, and only their headers are looked at"
        );
        Check::warn(NAME, sentence).remedy(
            "resets carry no payload and fit; if the driver refuses to attach (no multi-buffer XDP, \
             or Linux before 5.18), lower the MTU or use --mode mirror",
        )
    }

    /// Whether frames come back with the tags that links above need.
    fn vlan(&self, mode: Mode) -> Option<Check> {
        const NAME: &str = "vlan";
        let (name, interface) = (self.name(), &self.interface);
        let list = |links: &mut dyn Iterator<Item = &Neighbor>| {
            links
                .map(|link| link.name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        let rx_vlan = interface.features.rx_vlan;
        if interface.tag_readers.is_empty() {
            let bearers = list(&mut interface.tag_bearers().into_iter());
            let may_lose = mode == Mode::Inline && rx_vlan == Some(true) && !bearers.is_empty();
            let sentence = format!(
                "{name} takes VLAN tags out of frames (rx-vlan-offload): guests behind {bearers} that \
                 use tags would get SYNs, FINs and resets without them"
            );
            return may_lose.then(|| Check::warn(NAME, sentence).remedy(self.keep_tags()));
        }
        let readers = list(&mut interface.tag_readers.iter());
        Some(match (mode, rx_vlan) {
            (Mode::Inline, Some(true)) => Check::bad(
                NAME,
                Fault::Host,
                format!(
                    "{name} takes VLAN tags out of frames (rx-vlan-offload), so frames handed \
                     back would be lost to {readers}"
                ),
            )
            .remedy(self.keep_tags()),
            (Mode::Inline, Some(false)) if interface.is_kind("veth") => Check::warn(
                NAME,
                format!("{readers} need the tags that the peer of {name} may leave beside frames"),
            )
            .remedy("ethtool -K PEER txvlan off, at the other end"),
            (Mode::Mirror, _) | (_, Some(false)) => Check::good(
                NAME,
                format!("tags of {readers} are seen in the frames of {name}"),
            ),
            (Mode::Inline, None) => Check::warn(
                NAME,
                format!(
                    "whether {name} takes VLAN tags out of frames is not known; {readers} needs them"
                ),
            )
            .remedy(self.keep_tags()),
        })
    }

    /// How tags stay in the frames. A veth puts none in that its peer left beside them, whatever it says.
    fn keep_tags(&self) -> String {
        let name = self.name();
        let off = format!("ethtool -K {name} rxvlan off");
        if self.interface.is_kind("veth") {
            format!("ethtool -K PEER txvlan off at the other end, then {off}")
        } else {
            off
        }
    }

    /// Offloads that make one frame of several.
    fn merging(&self) -> Option<Check> {
        let (name, features) = (self.name(), self.interface.features);
        let (what, switch) = match (features.lro, features.gro_hw) {
            (Some(true), _) => ("large-receive-offload", "lro"),
            (_, Some(true)) => ("rx-gro-hw", "rx-gro-hw"),
            _ => return None,
        };
        Some(
            Check::warn(
                "merging",
                format!("{name} merges frames in hardware ({what})"),
            )
            .remedy(format!(
                "if the driver refuses to attach: ethtool -K {name} {switch} off"
            )),
        )
    }

    fn checksums(&self) -> Option<Check> {
        let name = self.name();
        if self.interface.is_kind("veth") {
            let sentence = format!(
                "{name} is a veth: frames whose checksum its peer left to the interface pass it \
                 directly, and are judged by copies of their headers"
            );
            return Some(Check::good("checksums", sentence));
        }
        (self.interface.driver.as_deref() == Some("virtio_net")).then(|| {
            let sentence = format!(
                "{name}: virtio_net asks for full checksums while an XDP program is attached"
            );
            Check::good("checksums", sentence)
        })
    }

    fn next_hops(&self) -> Option<Check> {
        let sentence = format!(
            "next hops are chosen by ports here (fib_multipath_hash_policy 1): connections that this host \
             routes pass {} directly, and are judged by copies of their headers",
            self.name()
        );
        self.routes_by_hash
            .then(|| Check::good("next hops", sentence))
    }

    fn pair(&self) -> Option<Check> {
        const NAME: &str = "hand-back";
        let (taken, is_leftover) = self.pair_name_taken.as_ref()?;
        let name = self.name();
        if !is_leftover {
            let sentence = format!("a link named {taken} exists and was not made by rstscope");
            return Some(Check::bad(NAME, Fault::Host, sentence).remedy(format!(
                "remove or rename it, for example `ip link del {taken}`"
            )));
        }
        Some(if self.is_beside_a_sensor() {
            Check::good(NAME, format!("{taken} gives frames back to {name}"))
        } else {
            Check::warn(NAME, format!("{taken} was left by a rstscope that died")).remedy(format!(
                "the next run on {name} removes it, or `ip link del {taken}`"
            ))
        })
    }

    fn memory(&self) -> Option<Check> {
        const MIB: u64 = 1024 * 1024;
        let queues: u64 = self.interface.rx_queue_count.into();
        let mib = UMEM_BYTES_PER_QUEUE.saturating_mul(queues) / MIB;
        let sentence = format!(
            "frames for the queues of {} need {mib} MiB locked",
            self.name()
        );
        (!self.may_lock_memory).then(|| {
            Check::warn("memlock", format!("{sentence}, which is above the limit"))
                .remedy("ulimit -l unlimited, or LimitMEMLOCK=infinity in the service")
        })
    }
}

/// The options that name these links instead.
fn choose(links: &[Neighbor], without: &str) -> String {
    let options: Vec<String> = links
        .iter()
        .map(|link| format!("--iface {}", link.name))
        .collect();
    if options.is_empty() {
        without.to_owned()
    } else {
        format!("use {}", options.join(" "))
    }
}
