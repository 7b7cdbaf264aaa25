//! Watches links for changes that a sensor must answer. It compares each notice with the last
//! known state, so that one change is told once; it does not decide what to do about it.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use crate::sys::netlink::{Conversation, Link, XdpProgram, addresses, uapi};
use crate::wire::Mac;

use super::generic::Generic;
use super::{Error, Neighbor, NextHops, rx_queue_count};

/// What became different.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeKind {
    /// It went up administratively.
    Up,
    /// It went down administratively.
    Down,
    /// The carrier came (`true`) or went.
    Carrier(bool),
    /// It was deleted, or moved to another network namespace. Nothing more comes for it.
    Deleted,
    /// It has this name now.
    Renamed(String),
    /// It has this MAC address now.
    Mac(Option<Mac>),
    /// It has this MTU now, in bytes.
    Mtu(u32),
    /// Its XDP slot holds this now. A program attached by `bpf_link` makes no notice:
    /// [`Watch::refresh`] finds it.
    Xdp(Option<XdpProgram>),
    /// It has this master now (interface index).
    Master(Option<u32>),
    /// It has this many receive queues now; found by [`Watch::refresh`] only.
    RxQueues(u32),
    /// This link was put on it (a VLAN, a macvlan). One that was there before the watch began may be
    /// told too, once; so may one that sorts frames by their tags, wherever it was put.
    Upper(Neighbor),
}

/// One change of one watched link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which link.
    pub ifindex: u32,
    /// What became different.
    pub kind: ChangeKind,
}

#[derive(Debug)]
struct Watched {
    link: Link,
    rx_queue_count: u32,
    /// Links on it that were told of.
    uppers: HashSet<u32>,
}

impl Watched {
    /// A link that is on this one, or may be further above it.
    fn new_upper(&mut self, link: &Link) -> Option<Change> {
        // The ends of a veth pair name each other.
        let is_peer = self.link.lower == Some(link.ifindex);
        let is_on_it = link.lower == Some(self.link.ifindex);
        let is_upper = link.ifindex != self.link.ifindex && (is_on_it || link.reads_tags());
        if is_peer || !is_upper || !self.uppers.insert(link.ifindex) {
            return None;
        }
        Some(Change {
            ifindex: self.link.ifindex,
            kind: ChangeKind::Upper(Neighbor {
                ifindex: link.ifindex,
                name: link.name.clone(),
                kind: link.kind.clone(),
            }),
        })
    }
}

/// A non-blocking listener to changes of some links. Its file descriptor becomes readable when
/// there is news.
#[derive(Debug)]
pub struct Watch {
    news: Conversation,
    route: Conversation,
    watched: Vec<Watched>,
    next_hops: NextHops,
    /// At the last look.
    routed_by_hash: bool,
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.news.as_fd()
    }
}

impl Watch {
    /// Whether this host chooses next hops by a frame's hash ([`NextHops::are_by_hash`]), where that is not as it was
    /// at the last look. To be asked for: it makes no notice.
    pub fn next_hops(&mut self) -> Option<bool> {
        let now = self.next_hops.are_by_hash();
        (std::mem::replace(&mut self.routed_by_hash, now) != now).then_some(now)
    }

    /// Watches these links, from their state now on.
    ///
    /// # Errors
    ///
    /// [`Error::Netlink`] when the kernel refuses, or one of the links does not exist.
    pub fn new(ifindexes: &[u32]) -> Result<Self, Error> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |error: io::Error| Error::Netlink {
                what,
                source: error.into(),
            }
        };
        // The group first, the state after: a change in between is then seen at least once.
        let news = Conversation::link_news().map_err(failed("watch links"))?;
        let mut route = Conversation::route().map_err(failed("watch links"))?;
        let mut watched = Vec::with_capacity(ifindexes.len());
        for &ifindex in ifindexes {
            let what = format!("watch interface {ifindex}");
            let link = Link::indexed(&mut route, ifindex)
                .map_err(|source| Error::Netlink {
                    what: what.clone(),
                    source,
                })?
                .ok_or_else(|| failed(&what)(io::Error::from_raw_os_error(libc::ENODEV)))?;
            let rx_queue_count = queues(&link);
            watched.push(Watched {
                link,
                rx_queue_count,
                uppers: HashSet::new(),
            });
        }
        let next_hops = NextHops::open();
        Ok(Self {
            routed_by_hash: next_hops.are_by_hash(),
            next_hops,
            news,
            route,
            watched,
        })
    }

    /// What changed since the last call, oldest first. Never blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Netlink`] when the socket fails. Notices that the kernel had to drop are no error:
    /// the state is asked for instead.
    pub fn changes(&mut self) -> Result<Vec<Change>, Error> {
        let mut changes = Vec::new();
        loop {
            let messages = match self.news.receive() {
                Ok(messages) => messages,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(changes),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    changes.extend(self.refresh()?);
                    continue;
                }
                Err(error) => {
                    let what = "read link notices".to_owned();
                    return Err(Error::Netlink {
                        what,
                        source: error.into(),
                    });
                }
            };
            for message in messages {
                let Some(link) = Link::decode(&message) else {
                    continue;
                };
                match message.kind {
                    uapi::RTM_NEWLINK => {
                        let watched = self.watched.iter_mut();
                        changes.extend(watched.filter_map(|watched| watched.new_upper(&link)));
                        self.update(link, &mut changes);
                    }
                    uapi::RTM_DELLINK => {
                        self.forget_upper(link.ifindex);
                        self.forget(link.ifindex, &mut changes);
                    }
                    _ => {}
                }
            }
        }
    }

    /// The addresses that this network namespace has now.
    ///
    /// # Errors
    ///
    /// [`Error::Netlink`] when the kernel refuses.
    pub fn addresses(&mut self) -> Result<HashSet<IpAddr>, Error> {
        let found = addresses(&mut self.route).map_err(|source| Error::Netlink {
            what: "list addresses".to_owned(),
            source,
        })?;
        Ok(found.into_iter().collect())
    }

    /// Asks for the state of every watched link and tells what differs. Worth a call a second: an
    /// XDP program attached by `bpf_link` and `ethtool -L` make no notice.
    ///
    /// # Errors
    ///
    /// [`Error::Netlink`] when the kernel refuses.
    pub fn refresh(&mut self) -> Result<Vec<Change>, Error> {
        let mut changes = Vec::new();
        let indexes: Vec<u32> = self.watched.iter().map(|w| w.link.ifindex).collect();
        for ifindex in indexes {
            let link =
                Link::indexed(&mut self.route, ifindex).map_err(|source| Error::Netlink {
                    what: format!("look at interface {ifindex}"),
                    source,
                })?;
            let Some(link) = link else {
                self.forget(ifindex, &mut changes);
                continue;
            };
            let count = queues(&link);
            self.update(link, &mut changes);
            let known = self.watched.iter_mut().find(|w| w.link.ifindex == ifindex);
            if let Some(known) = known.filter(|w| w.rx_queue_count != count) {
                known.rx_queue_count = count;
                changes.push(Change {
                    ifindex,
                    kind: ChangeKind::RxQueues(count),
                });
            }
        }
        Ok(changes)
    }

    fn update(&mut self, new: Link, changes: &mut Vec<Change>) {
        let Some(known) = self
            .watched
            .iter_mut()
            .find(|w| w.link.ifindex == new.ifindex)
        else {
            return;
        };
        let ifindex = new.ifindex;
        let kinds = differences(&known.link, &new);
        changes.extend(kinds.into_iter().map(|kind| Change { ifindex, kind }));
        known.link = new;
    }

    /// Its number may be another link's tomorrow.
    fn forget_upper(&mut self, ifindex: u32) {
        for watched in &mut self.watched {
            watched.uppers.remove(&ifindex);
        }
    }

    fn forget(&mut self, ifindex: u32, changes: &mut Vec<Change>) {
        let before = self.watched.len();
        self.watched.retain(|w| w.link.ifindex != ifindex);
        if self.watched.len() < before {
            changes.push(Change {
                ifindex,
                kind: ChangeKind::Deleted,
            });
        }
    }
}

fn queues(link: &Link) -> u32 {
    let channels = Generic::open()
        .ok()
        .and_then(|mut generic| generic.channels(link.ifindex));
    rx_queue_count(link, channels)
}

fn differences(old: &Link, new: &Link) -> Vec<ChangeKind> {
    let mut kinds = Vec::new();
    if old.is_up != new.is_up {
        kinds.push(if new.is_up {
            ChangeKind::Up
        } else {
            ChangeKind::Down
        });
    }
    if old.has_carrier != new.has_carrier {
        kinds.push(ChangeKind::Carrier(new.has_carrier));
    }
    if old.name != new.name {
        kinds.push(ChangeKind::Renamed(new.name.clone()));
    }
    if old.mac != new.mac {
        kinds.push(ChangeKind::Mac(new.mac));
    }
    if old.mtu != new.mtu {
        kinds.push(ChangeKind::Mtu(new.mtu));
    }
    if old.xdp != new.xdp {
        kinds.push(ChangeKind::Xdp(new.xdp));
    }
    if old.master != new.master {
        kinds.push(ChangeKind::Master(new.master));
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_difference_is_told_once() {
        let old = Link {
            ifindex: 3,
            is_up: true,
            mtu: 1500,
            ..Link::default()
        };
        let new = Link {
            is_up: false,
            mtu: 9000,
            mac: Some(Mac([2; 6])),
            ..old.clone()
        };
        assert_eq!(
            differences(&old, &new),
            [
                ChangeKind::Down,
                ChangeKind::Mac(Some(Mac([2; 6]))),
                ChangeKind::Mtu(9000)
            ]
        );
        assert_eq!(differences(&new, &new), []);
    }

    #[test]
    fn a_link_that_is_put_on_a_watched_one_is_told_once() {
        let mut watched = Watched {
            link: Link {
                ifindex: 3,
                ..Link::default()
            },
            rx_queue_count: 1,
            uppers: HashSet::new(),
        };
        let upper = Link {
            ifindex: 9,
            name: "mv0".to_owned(),
            kind: Some("macvlan".to_owned()),
            lower: Some(3),
            ..Link::default()
        };
        let change = watched.new_upper(&upper).unwrap();
        assert_eq!(change.ifindex, 3);
        let ChangeKind::Upper(told) = change.kind else {
            panic!("{change:?}");
        };
        assert_eq!((told.ifindex, told.name.as_str()), (9, "mv0"));
        assert_eq!(watched.new_upper(&upper), None);
        watched.uppers.clear();
        watched.link.lower = Some(9);
        assert_eq!(watched.new_upper(&upper), None, "its peer");
        watched.link.lower = None;
        for lower in [None, Some(4), Some(9)] {
            let other = Link {
                lower,
                ..upper.clone()
            };
            assert_eq!(watched.new_upper(&other), None, "{lower:?}");
            let vlan = Link {
                kind: Some("vlan".to_owned()),
                ..other
            };
            assert!(watched.new_upper(&vlan).is_some(), "of its bond, perhaps");
            watched.uppers.clear();
        }
    }

    #[test]
    fn counters_that_move_are_no_change() {
        let old = Link::default();
        let mut new = old.clone();
        new.packets.received = 7;
        assert_eq!(differences(&old, &new), []);
    }

    #[test]
    fn a_link_that_is_not_there_cannot_be_watched() {
        assert!(Watch::new(&[u32::from(u16::MAX) * 1000]).is_err());
    }
}
