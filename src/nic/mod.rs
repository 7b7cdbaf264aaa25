//! What an interface is, as far as the kernel tells over netlink and sysfs: its place among the
//! links, its queues, its offloads, and who holds its XDP slot. It reads; it changes nothing, and
//! every answer is that of the calling thread's network namespace.

mod connections;
mod generic;
mod next_hops;
mod translated;
mod watch;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

pub use connections::established;
pub use generic::{Channels, Features, XdpFeatures};
pub use next_hops::NextHops;
pub use translated::translated;
pub use watch::{Change, ChangeKind, Watch};

use crate::sys::netlink::{Conversation, Link, Refusal};
use crate::wire::Mac;
use generic::Generic;

/// Why an interface could not be looked at.
#[derive(Debug)]
pub enum Error {
    /// No link has that name.
    NotFound {
        /// The name asked for.
        name: String,
        /// The names that are there.
        known: Vec<String>,
    },
    /// The kernel did not answer.
    Netlink {
        /// What was asked.
        what: String,
        /// Its refusal.
        source: Refusal,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { name, known } => {
                write!(f, "no interface {name}; there are: {}", known.join(", "))
            }
            Self::Netlink { what, source } => write!(f, "cannot {what}: {source}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotFound { .. } => None,
            Self::Netlink { source, .. } => Some(source),
        }
    }
}

/// Another link that this one is tied to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbor {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its kind (`vlan`, `bond`, …); `None` for hardware.
    pub kind: Option<String>,
}

impl Neighbor {
    fn is_of_kind(&self, kinds: &[&str]) -> bool {
        self.kind
            .as_deref()
            .is_some_and(|kind| kinds.contains(&kind))
    }
}

/// One interface and all that bears on watching it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interface {
    /// What rtnetlink says.
    pub link: Link,
    /// Name of the kernel driver (`ixgbe`, `virtio_net`, …); `None` for virtual links.
    pub driver: Option<String>,
    /// Receive queues in use; at least 1. RX queue indices are below it.
    pub rx_queue_count: u32,
    /// Channels in use, where the driver tells.
    pub channels: Option<Channels>,
    /// Offloads.
    pub features: Features,
    /// XDP support, where the kernel tells (6.3 and later).
    pub xdp_features: Option<XdpFeatures>,
    /// The bond, bridge, team or VRF that it belongs to.
    pub master: Option<Neighbor>,
    /// The link that it sits on.
    pub lower: Option<Neighbor>,
    /// Links that sit on it (VLANs, macvlans, …) in this network namespace.
    pub uppers: Vec<Neighbor>,
    /// Links whose master it is: slaves of a bond, ports of a bridge.
    pub ports: Vec<Neighbor>,
    /// Links right above it that have an XDP program: the kernel lets no other in below (`dev_xdp_attach`).
    pub uppers_with_xdp: Vec<Neighbor>,
    /// Links above it, however far, that sort frames by their tags: a VLAN link on it or on its bond, a
    /// bridge that filters.
    pub tag_readers: Vec<Neighbor>,
}

impl Interface {
    /// The interface of that name in this network namespace.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] names the interfaces that exist; [`Error::Netlink`] when the kernel
    /// refuses. No privilege is needed.
    pub fn find(name: &str) -> Result<Self, Error> {
        let links = links()?;
        match links.iter().find(|link| link.name == name) {
            Some(link) => Ok(Self::assemble(link.clone(), &links)),
            None => Err(Error::NotFound {
                name: name.to_owned(),
                known: links.into_iter().map(|link| link.name).collect(),
            }),
        }
    }

    /// The interface of that index, whatever it is called by now; `None` when there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Netlink`] when the kernel refuses.
    pub fn indexed(ifindex: u32) -> Result<Option<Self>, Error> {
        let links = links()?;
        let link = links.iter().find(|link| link.ifindex == ifindex);
        Ok(link.map(|link| Self::assemble(link.clone(), &links)))
    }

    /// The links that look as if frames of the wire came in there: up, Ethernet, with a hardware
    /// parent. Where there is none (a container), every Ethernet link that is up and sits on no
    /// other.
    ///
    /// # Errors
    ///
    /// [`Error::Netlink`] when the kernel refuses.
    pub fn candidates() -> Result<Vec<Link>, Error> {
        let usable = |link: &Link| link.is_up && link.is_ethernet && !link.is_loopback;
        let links: Vec<Link> = links()?.into_iter().filter(usable).collect();
        let is_hardware = |link: &Link| link.kind.is_none() && link.parent.is_some();
        let has_hardware = links.iter().any(is_hardware);
        let is_root = |link: &Link| link.lower.is_none() || link.kind.as_deref() == Some("veth");
        Ok(links
            .into_iter()
            .filter(|link| {
                if has_hardware {
                    is_hardware(link)
                } else {
                    is_root(link)
                }
            })
            .collect())
    }

    /// Interface index.
    #[must_use]
    pub fn ifindex(&self) -> u32 {
        self.link.ifindex
    }

    /// Interface name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.link.name
    }

    /// Its MAC address.
    #[must_use]
    pub fn mac(&self) -> Option<Mac> {
        self.link.mac
    }

    /// What drives it: the driver, or the kind of a virtual link.
    #[must_use]
    pub fn driver_or_kind(&self) -> Option<&str> {
        self.driver.as_deref().or(self.link.kind.as_deref())
    }

    /// Whether it is a virtual link of that kind.
    #[must_use]
    pub fn is_kind(&self, kind: &str) -> bool {
        self.link.kind.as_deref() == Some(kind)
    }

    /// Links above sort frames by their tags, and it takes the tag out of frames before XDP sees them:
    /// handed back, they would come to the wrong link.
    #[must_use]
    pub fn loses_tags(&self) -> bool {
        self.features.rx_vlan == Some(true) && !self.tag_readers.is_empty()
    }

    /// Links above that pass frames on with their tags, to guests that may read them.
    #[must_use]
    pub fn tag_bearers(&self) -> Vec<&Neighbor> {
        let bridge = self.master.iter().filter(|m| m.is_of_kind(&["bridge"]));
        self.macvlan_uppers().into_iter().chain(bridge).collect()
    }

    /// macvlan, macvtap and ipvlan links on it, which share its frames.
    #[must_use]
    pub fn macvlan_uppers(&self) -> Vec<&Neighbor> {
        let kinds = ["macvlan", "macvtap", "ipvlan", "ipvtap"];
        self.uppers
            .iter()
            .filter(|upper| upper.is_of_kind(&kinds))
            .collect()
    }

    fn assemble(link: Link, links: &[Link]) -> Self {
        let neighbor = |link: &Link| Neighbor {
            ifindex: link.ifindex,
            name: link.name.clone(),
            kind: link.kind.clone(),
        };
        let with_index = |index: Option<u32>| {
            links
                .iter()
                .find(|other| Some(other.ifindex) == index)
                .map(neighbor)
        };
        let all = |test: &dyn Fn(&&Link) -> bool| links.iter().filter(test).map(neighbor).collect();
        let mut generic = Generic::open().ok();
        let mut interface = Self {
            driver: driver(&link),
            channels: generic.as_mut().and_then(|g| g.channels(link.ifindex)),
            features: generic
                .as_mut()
                .map(|g| g.features(link.ifindex))
                .unwrap_or_default(),
            xdp_features: generic.as_mut().and_then(|g| g.xdp_features(link.ifindex)),
            master: with_index(link.master),
            lower: with_index(link.lower).filter(|_| link.kind.as_deref() != Some("veth")),
            uppers: all(&|other| sits_on(other, &link)),
            ports: all(&|other| other.master == Some(link.ifindex)),
            uppers_with_xdp: all(&|other| other.xdp.is_some() && is_on(other, &link)),
            tag_readers: above(&link, links)
                .into_iter()
                .filter(|link| link.reads_tags())
                .map(neighbor)
                .collect(),
            rx_queue_count: 1,
            link,
        };
        interface.rx_queue_count = rx_queue_count(&interface.link, interface.channels);
        interface
    }
}

/// Whether `upper` names `lower` as the link below it. A veth whose peer is here does so too, and sits on nothing.
fn sits_on(upper: &Link, lower: &Link) -> bool {
    upper.lower == Some(lower.ifindex) && upper.kind.as_deref() != Some("veth")
}

/// Whether `upper` gets frames of `lower`, be it as its master or by sitting on it.
fn is_on(upper: &Link, lower: &Link) -> bool {
    lower.master == Some(upper.ifindex) || sits_on(upper, lower)
}

/// The links that get frames of `link`, and those that get theirs in turn.
fn above<'a>(link: &Link, links: &'a [Link]) -> Vec<&'a Link> {
    let mut found: Vec<&Link> = Vec::new();
    let mut at = 0;
    let mut lower = Some(link);
    while let Some(next) = lower {
        for upper in links.iter().filter(|upper| is_on(upper, next)) {
            if upper.ifindex != link.ifindex && found.iter().all(|l| l.ifindex != upper.ifindex) {
                found.push(upper);
            }
        }
        lower = found.get(at).copied();
        at += 1;
    }
    found
}

/// Every link of this network namespace.
fn links() -> Result<Vec<Link>, Error> {
    let failed = |source| Error::Netlink {
        what: "list the interfaces".to_owned(),
        source,
    };
    let mut route = Conversation::route().map_err(|error| failed(error.into()))?;
    Link::all(&mut route).map_err(failed)
}

/// The driver of the link's parent device. The parent is found through its bus, not through
/// `/sys/class/net`, because the latter shows the namespace that sysfs was mounted in.
fn driver(link: &Link) -> Option<String> {
    let by_bus = link
        .parent
        .as_ref()
        .map(|(bus, device)| format!("/sys/bus/{bus}/devices/{device}/driver"));
    let by_class = sysfs(link).map(|path| path.join("device/driver"));
    let target = by_bus
        .and_then(|path| fs::read_link(path).ok())
        .or_else(|| by_class.and_then(|path| fs::read_link(path).ok()))?;
    target
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
}

/// The link's folder in sysfs, if sysfs shows this very link: same name, index and address.
fn sysfs(link: &Link) -> Option<PathBuf> {
    let folder = Path::new("/sys/class/net").join(&link.name);
    let read = |file: &str| fs::read_to_string(folder.join(file)).ok();
    let same_index = read("ifindex")?.trim().parse() == Ok(link.ifindex);
    let address = link
        .mac
        .map(|mac| mac.to_string().replace('-', ":").to_lowercase());
    let same_address = address.is_none_or(|mac| read("address").is_some_and(|a| a.trim() == mac));
    (same_index && same_address).then_some(folder)
}

/// Receive queues in use. Only sysfs has `real_num_rx_queues` on every kernel; where it shows
/// another namespace, the channels come next, then the number that was allocated.
pub(crate) fn rx_queue_count(link: &Link, channels: Option<Channels>) -> u32 {
    let in_sysfs = sysfs(link)
        .and_then(|folder| fs::read_dir(folder.join("queues")).ok())
        .map(|entries| {
            entries
                .flatten()
                .filter(|e| e.file_name().to_string_lossy().starts_with("rx-"))
                .count()
        })
        .and_then(|count| u32::try_from(count).ok())
        .filter(|count| *count > 0);
    in_sysfs
        .or_else(|| {
            channels
                .map(Channels::rx_queue_count)
                .filter(|count| *count > 0)
        })
        .or(link.rx_queues_allocated)
        .unwrap_or(1)
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(ifindex: u32, name: &str, kind: Option<&str>) -> Link {
        Link {
            ifindex,
            name: name.to_owned(),
            kind: kind.map(str::to_owned),
            ..Link::default()
        }
    }

    #[test]
    fn uppers_ports_and_masters_are_told_apart() {
        let parent = link(9001, "t-eth", None);
        let vlan = Link {
            lower: Some(9001),
            ..link(9002, "t-eth.5", Some("vlan"))
        };
        let macvlan = Link {
            lower: Some(9001),
            ..link(9003, "t-mac", Some("macvlan"))
        };
        let veth = Link {
            lower: Some(9001),
            ..link(9004, "t-veth", Some("veth"))
        };
        let bond = link(9005, "t-bond", Some("bond"));
        let parent = Link {
            master: Some(9005),
            ..parent
        };
        let links = [parent.clone(), vlan, macvlan, veth, bond.clone()];
        let interface = Interface::assemble(parent, &links);
        assert_eq!(
            interface.master.as_ref().map(|m| m.name.as_str()),
            Some("t-bond")
        );
        assert_eq!(interface.uppers.len(), 2);
        assert_eq!(interface.tag_readers[0].name, "t-eth.5");
        assert_eq!(interface.macvlan_uppers()[0].name, "t-mac");
        assert_eq!(Interface::assemble(bond, &links).ports[0].name, "t-eth");
    }

    #[test]
    fn vlans_of_a_bond_and_of_a_bridge_on_it_need_the_tags_of_its_slaves() {
        let slave = Link {
            master: Some(9012),
            ..link(9011, "t-eth", None)
        };
        let bond = Link {
            master: Some(9013),
            ..link(9012, "t-bond", Some("bond"))
        };
        let bridge = Link {
            filters_vlans: true,
            ..link(9013, "t-br", Some("bridge"))
        };
        let on = |ifindex, name, lower| Link {
            lower: Some(lower),
            ..link(ifindex, name, Some("vlan"))
        };
        let links = [
            slave.clone(),
            bond,
            bridge,
            on(9014, "t-bond.5", 9012),
            on(9015, "t-br.6", 9013),
            on(9016, "t-other.7", 9017),
        ];
        let mut interface = Interface::assemble(slave, &links);
        let names: Vec<&str> = interface
            .tag_readers
            .iter()
            .map(|l| l.name.as_str())
            .collect();
        assert_eq!(names, ["t-br", "t-bond.5", "t-br.6"]);
        interface.features.rx_vlan = Some(true);
        assert!(interface.loses_tags());
        interface.features.rx_vlan = Some(false);
        assert!(!interface.loses_tags());
    }

    #[test]
    fn loopback_is_found_without_privilege() {
        let interface = Interface::find("lo").unwrap();
        assert!(interface.link.is_loopback);
        assert!(!interface.link.is_ethernet);
        assert!(interface.rx_queue_count >= 1);
    }

    #[test]
    fn an_absent_interface_names_those_that_are_there() {
        let error = Interface::find("nosuchif0").unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("no interface nosuchif0; there are: "),
            "{text}"
        );
        assert!(text.contains("lo"), "{text}");
    }
}
