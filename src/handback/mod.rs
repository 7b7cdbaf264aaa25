//! Gives frames back to the host: a private veth pair whose one end AF_XDP transmits on, and whose
//! other end hands every frame to the watched interface's ingress. The pair has no address, no
//! route and no neighbor, and nothing but AF_XDP's frames crosses it. It touches no other link, and
//! it never removes a link that it cannot prove to be its own.

mod live;
mod look;
mod message;

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

pub use live::{Live, LiveError};
pub use look::Statistics;

use crate::sys::netlink::{Body, Conversation, Link, Refusal, uapi};
use crate::wire::Mac;

/// How the alias of both ends begins.
const ALIAS_PREFIX: &str = "rstscope hand-back for ";

/// How the transmitting end's MAC address begins: a local one (IEEE 802, its second bit) that spells its
/// name. Nothing is ever sent to it. The kernel gives a new link its address at once, its alias only when
/// asked again: a run that dies between the two leaves a pair that has no other mark.
const TRANSMIT_MAC_PREFIX: [u8; 4] = *b"rstx";

/// Bytes by which the pair's MTU exceeds the interface's: room for the Ethernet header and two
/// tags, which the veth counts (`is_skb_forwardable` allows only one).
const MTU_MARGIN: u32 = 64;

/// The least MTU of the pair: no longer frame is ever taken (a UMEM frame holds 2 KiB), so that an interface
/// whose MTU is raised later gets its frames back all the same.
const MTU_MIN: u32 = 2048;

/// The kernel's largest MTU (`ETH_MAX_MTU`).
const MTU_MAX: u32 = 65535;

/// Why a pair could not be made, changed or removed.
#[derive(Debug)]
pub enum Error {
    /// A link of that name exists and is not ours.
    NameTaken {
        /// The name.
        name: String,
    },
    /// The interface has no Ethernet address.
    NoMac {
        /// The interface.
        interface: String,
    },
    /// The kernel refused.
    Kernel {
        /// What was asked.
        what: String,
        /// Its refusal.
        source: Refusal,
    },
}

impl Error {
    /// Whether a privilege is missing (CAP_NET_ADMIN).
    #[must_use]
    pub fn is_permission(&self) -> bool {
        matches!(self, Self::Kernel { source, .. }
            if source.is(libc::EPERM) || source.is(libc::EACCES))
    }

    fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Kernel { source, .. } if self.is_permission() && source.reason.is_none() => {
                Some("CAP_NET_ADMIN is needed")
            }
            Self::Kernel { source, .. }
                if source.is(libc::EOPNOTSUPP) || source.is(libc::ENOENT) =>
            {
                Some(
                    "the kernel needs veth, cls_bpf and act_mirred: try `modprobe -a veth cls_bpf act_mirred sch_ingress`",
                )
            }
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameTaken { name } => write!(
                f,
                "a link named {name} exists and was not made by rstscope: remove or rename it, \
                 for example `ip link del {name}`"
            ),
            Self::NoMac { interface } => {
                write!(
                    f,
                    "interface {interface} has no Ethernet address to hand frames back to"
                )
            }
            Self::Kernel { what, source } => {
                write!(f, "cannot {what}: {source}")?;
                self.remedy()
                    .map_or(Ok(()), |remedy| write!(f, ": {remedy}"))
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Kernel { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// The pair of one watched interface. Dropping it removes both ends, and with them the queueing
/// discipline and filters.
#[derive(Debug)]
pub struct Pair {
    route: Conversation,
    names: Names,
    transmit_ifindex: u32,
    inject_ifindex: u32,
    /// The interface's, by which the host sorts frames.
    inject_mac: Mac,
    /// At the last look for misuse: what was carried, and how much of that somebody else had taken.
    looked: (Statistics, u64),
    is_removed: bool,
}

/// Names of both ends, made from the interface's index: at most 14 bytes of the 15 allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The end whose TX rings AF_XDP uses.
    pub transmit: String,
    /// The end whose tc ingress gives to the interface.
    pub inject: String,
}

impl Names {
    /// The names for the interface of that index.
    #[must_use]
    pub fn of(nic_ifindex: u32) -> Self {
        Self {
            transmit: format!("rstx{nic_ifindex}"),
            inject: format!("rsti{nic_ifindex}"),
        }
    }
}

/// Whether a link is an end of a hand-back pair, known by its name and its alias; or the transmitting
/// end of one that was not yet given its alias, by its address and that it never was up.
#[must_use]
pub fn is_ours(link: &Link) -> bool {
    let number = |prefix| link.name.strip_prefix(prefix)?.parse::<u32>().ok();
    let (transmit, inject) = (number("rstx"), number("rsti"));
    match link.alias.as_deref() {
        Some(alias) => transmit.or(inject).is_some() && alias.starts_with(ALIAS_PREFIX),
        None => transmit.is_some_and(|nic| !link.is_up && link.mac == Some(transmit_mac(nic))),
    }
}

/// The address of the transmitting end for the interface of that index, of which it holds the lower half:
/// the name has all of it.
fn transmit_mac(nic_ifindex: u32) -> Mac {
    let [r, s, t, x] = TRANSMIT_MAC_PREFIX;
    let [.., high, low] = nic_ifindex.to_be_bytes();
    Mac([r, s, t, x, high, low])
}

impl Pair {
    /// Makes the pair for `nic` with that many queues an end, in the calling thread's network
    /// namespace, up and ready. `classifier` is a loaded program of type SCHED_CLS that returns -1
    /// ("match"); the kernel keeps its own reference.
    ///
    /// A pair that a dead run left behind is removed first. On any failure nothing is left.
    ///
    /// # Errors
    ///
    /// [`Error::NameTaken`], [`Error::NoMac`], or [`Error::Kernel`] with the step that failed.
    pub fn create(nic: &Link, queue_count: u32, classifier: BorrowedFd<'_>) -> Result<Self, Error> {
        let inject_mac = nic.mac.ok_or_else(|| Error::NoMac {
            interface: nic.name.clone(),
        })?;
        Self::remove_leftover(nic.ifindex)?;
        let names = Names::of(nic.ifindex);
        let mut route = open()?;
        let shape = message::PairShape {
            transmit_name: &names.transmit,
            transmit_mac: transmit_mac(nic.ifindex),
            inject_name: &names.inject,
            inject_mac,
            mtu: mtu_of(nic),
            queue_count: queue_count.max(1),
        };
        let flags = uapi::NLM_F_CREATE | uapi::NLM_F_EXCL;
        route
            .ask(uapi::RTM_NEWLINK, flags, &message::new_pair(&shape))
            .map_err(|source| match source.is(libc::EEXIST) {
                true => Error::NameTaken {
                    name: names.transmit.clone(),
                },
                false => refused(format!("create the veth pair {}", names.transmit))(source),
            })?;
        // From here on, dropping `pair` takes the links away again.
        let mut pair = Self {
            route,
            names,
            transmit_ifindex: 0,
            inject_ifindex: 0,
            inject_mac,
            looked: (Statistics::default(), 0),
            is_removed: false,
        };
        pair.transmit_ifindex = pair.index_of(&pair.names.transmit.clone())?;
        pair.inject_ifindex = pair.index_of(&pair.names.inject.clone())?;
        pair.set_up(nic, classifier)?;
        Ok(pair)
    }

    /// Removes the pair of that interface if a run that died left one. `true` if there was one.
    ///
    /// # Errors
    ///
    /// [`Error::NameTaken`] when a link has the name but not our alias; it is left alone.
    pub fn remove_leftover(nic_ifindex: u32) -> Result<bool, Error> {
        let mut route = open()?;
        let names = Names::of(nic_ifindex);
        let mut found = false;
        // Removing one end removes the other; the second turn finds a half that was renamed apart.
        for name in [&names.transmit, &names.inject] {
            let link =
                Link::named(&mut route, name).map_err(refused(format!("look for link {name}")))?;
            let Some(link) = link else { continue };
            if !is_ours(&link) {
                return Err(Error::NameTaken { name: name.clone() });
            }
            delete(&mut route, link.ifindex, name)?;
            found = true;
        }
        Ok(found)
    }

    /// Names of both ends.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Index of the end whose TX rings AF_XDP uses.
    #[must_use]
    pub fn transmit_ifindex(&self) -> u32 {
        self.transmit_ifindex
    }

    /// Index of the end that gives to the interface.
    #[must_use]
    pub fn inject_ifindex(&self) -> u32 {
        self.inject_ifindex
    }

    /// The interface has another MAC address: the injecting end takes it too. Until then the stack
    /// takes frames to the new address for somebody else's.
    ///
    /// # Errors
    ///
    /// [`Error::Kernel`] when the kernel refuses.
    pub fn follow_mac(&mut self, mac: Mac) -> Result<(), Error> {
        let what = format!("set the address of {}", self.names.inject);
        let body = message::mac(self.inject_ifindex, mac);
        self.inject_mac = mac;
        self.request(uapi::RTM_SETLINK, 0, &body, what)
    }

    /// Removes both ends. That they are gone already is no error.
    ///
    /// # Errors
    ///
    /// [`Error::Kernel`] when the kernel refuses.
    pub fn remove(mut self) -> Result<(), Error> {
        self.remove_links()
    }

    fn set_up(&mut self, nic: &Link, classifier: BorrowedFd<'_>) -> Result<(), Error> {
        let Names { transmit, inject } = self.names.clone();
        let (tx, rx) = (self.transmit_ifindex, self.inject_ifindex);
        let alias = format!("{ALIAS_PREFIX}{}", nic.name);
        for (ifindex, name) in [(tx, &transmit), (rx, &inject)] {
            self.request(
                uapi::RTM_SETLINK,
                0,
                &message::alias(ifindex, &alias),
                format!("name {name} as ours"),
            )?;
        }
        for (ifindex, name) in [(tx, &transmit), (rx, &inject)] {
            self.silence_ipv6(ifindex, name)?;
            let create = uapi::NLM_F_CREATE | uapi::NLM_F_EXCL;
            let what = format!("add clsact to {name}");
            self.request(uapi::RTM_NEWQDISC, create, &message::clsact(ifindex), what)?;
            let what = format!("add the egress filter of {name}");
            self.request(
                uapi::RTM_NEWTFILTER,
                create,
                &message::drop_egress(ifindex),
                what,
            )?;
        }
        let fd = classifier.as_raw_fd().unsigned_abs();
        let filter = message::give_to(rx, nic.ifindex, fd);
        let what = format!("redirect {inject} to {}", nic.name);
        self.request(
            uapi::RTM_NEWTFILTER,
            uapi::NLM_F_CREATE | uapi::NLM_F_EXCL,
            &filter,
            what,
        )?;
        // The injecting end first: nothing is sent before it can arrive.
        for (ifindex, name) in [(rx, &inject), (tx, &transmit)] {
            self.request(
                uapi::RTM_SETLINK,
                0,
                &message::up(ifindex),
                format!("set {name} up"),
            )?;
        }
        Ok(())
    }

    /// No address, and where the sysctl of this very link can be written, no IPv6 at all: then not
    /// even a multicast route appears.
    fn silence_ipv6(&mut self, ifindex: u32, name: &str) -> Result<(), Error> {
        let body = message::no_ipv6_address(ifindex);
        match self.route.ask(uapi::RTM_SETLINK, 0, &body) {
            Ok(_) => {}
            // The host has no IPv6: there is nothing to silence.
            Err(source) if source.is(libc::EAFNOSUPPORT) => return Ok(()),
            Err(source) => return Err(refused(format!("keep IPv6 off {name}"))(source)),
        }
        // A read-only /proc/sys (containers) leaves the multicast route, which harms nobody.
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
        Ok(())
    }

    fn index_of(&mut self, name: &str) -> Result<u32, Error> {
        let what = format!("find link {name}");
        let link = Link::named(&mut self.route, name).map_err(refused(what.clone()))?;
        let gone = || refused(what)(io::Error::from_raw_os_error(libc::ENODEV).into());
        link.map(|link| link.ifindex).ok_or_else(gone)
    }

    fn request(&mut self, kind: u16, flags: u16, body: &Body, what: String) -> Result<(), Error> {
        self.route
            .ask(kind, flags, body)
            .map(|_| ())
            .map_err(refused(what))
    }

    fn remove_links(&mut self) -> Result<(), Error> {
        if self.is_removed {
            return Ok(());
        }
        self.is_removed = true;
        if self.transmit_ifindex == 0 {
            // Made, but not even looked up: only the name is known.
            self.transmit_ifindex = self.index_of(&self.names.transmit.clone())?;
        }
        delete(&mut self.route, self.transmit_ifindex, &self.names.transmit)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // Nobody is left to tell; the next start removes what stays.
        let _ = self.remove_links();
    }
}

fn mtu_of(nic: &Link) -> u32 {
    nic.mtu.saturating_add(MTU_MARGIN).clamp(MTU_MIN, MTU_MAX)
}

fn open() -> Result<Conversation, Error> {
    Conversation::route()
        .map_err(|error| refused("open a route netlink socket".to_owned())(error.into()))
}

fn refused(what: String) -> impl FnOnce(Refusal) -> Error {
    move |source| Error::Kernel { what, source }
}

fn delete(route: &mut Conversation, ifindex: u32, name: &str) -> Result<(), Error> {
    match route.ask(uapi::RTM_DELLINK, 0, &Body::link(ifindex, 0, 0)) {
        Ok(_) => Ok(()),
        Err(source) if source.is(libc::ENODEV) => Ok(()),
        Err(source) => Err(refused(format!("remove link {name}"))(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_the_kernels_limit_for_every_index() {
        let names = Names::of(u32::MAX);
        assert!(names.transmit.len() <= 15 && names.inject.len() <= 15);
        assert_ne!(names.transmit, names.inject);
    }

    #[test]
    fn a_link_is_ours_by_name_and_alias_together() {
        let link = |name: &str, alias: Option<&str>| Link {
            name: name.to_owned(),
            alias: alias.map(str::to_owned),
            ..Link::default()
        };
        assert!(is_ours(&link("rstx4", Some("rstscope hand-back for eth0"))));
        assert!(!is_ours(&link("rstx4", None)));
        assert!(!is_ours(&link("rstx4", Some("mine"))));
        assert!(!is_ours(&link("eth0", Some("rstscope hand-back for eth0"))));
        assert!(!is_ours(&link("rsti4", None)));
        assert!(!is_ours(&link(
            "rstxyz",
            Some("rstscope hand-back for eth0")
        )));
    }

    #[test]
    fn a_pair_that_was_not_yet_given_its_alias_is_ours_by_its_address_while_it_is_down() {
        let link = |name: &str, mac: [u8; 6], is_up| Link {
            name: name.to_owned(),
            mac: Some(Mac(mac)),
            is_up,
            ..Link::default()
        };
        let own = *b"rstx\x01\x04";
        assert_eq!(own[0] & 0b11, 0b10, "local, and of one station");
        assert!(is_ours(&link("rstx260", own, false)));
        assert!(!is_ours(&link("rstx260", own, true)));
        assert!(!is_ours(&link("rstx261", own, false)));
        assert!(!is_ours(&link("rsti260", own, false)));
        assert!(!is_ours(&link("rstx260", [2, 0, 0, 0, 1, 4], false)));
    }

    #[test]
    fn a_missing_privilege_is_told_as_such() {
        let source = Refusal::from(io::Error::from_raw_os_error(libc::EPERM));
        let error = Error::Kernel {
            what: "create the veth pair rstx4".to_owned(),
            source,
        };
        assert!(error.is_permission());
        assert!(
            error.to_string().ends_with("CAP_NET_ADMIN is needed"),
            "{error}"
        );
    }
}
