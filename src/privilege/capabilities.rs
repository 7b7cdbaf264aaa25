//! capabilities(7) of the calling thread; threads made later inherit them. Only ever takes away.

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, set_capabilities,
    set_no_new_privs,
};

use super::Error;

/// From this version on the kernel asks for `CAP_BPF` only where maps and programs are made, not where
/// a map that is open is read (commit c8644cd0efe7 "bpf: refine kernel.unprivileged_bpf_disabled
/// behaviour"): before it, a sensor without that capability could not read its own counters.
const MAPS_READ_WITHOUT: (u32, u32) = (5, 19);

/// What a thread keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept(CapabilitySet);

impl Kept {
    /// For what speaks with the network, writes records, or handles frames over rings that are open.
    pub(super) const NOTHING: Self = Self(CapabilitySet::empty());
    /// For the threads that write where folders are other people's: root without it may not. Landlock
    /// still names the folders.
    pub(super) const FOREIGN_FOLDERS: Self = Self(CapabilitySet::DAC_OVERRIDE);
    /// For the main thread: to follow an interface's new MAC, and to remove the hand-back pair.
    pub(super) const MAIN: Self = Self(CapabilitySet::NET_ADMIN);

    /// Both.
    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0.union(other.0))
    }
}

/// Drops everything else from all sets of the calling thread. Nobody below it gets more, whatever is
/// executed.
///
/// # Errors
///
/// [`Error::Capabilities`], which does not happen to who only drops.
pub(super) fn drop_all_but(kept: Kept) -> Result<(), Error> {
    let failed = |errno: rustix::io::Errno| Error::Capabilities(errno.into());
    set_no_new_privs(true).map_err(failed)?;
    // An old kernel has no ambient set; then there is none to clear.
    let _ = clear_ambient_capability_set();
    let held = capabilities(None).map_err(failed)?;
    let mut keep = kept.0;
    if reading_maps_is_privileged() {
        keep |= CapabilitySet::BPF;
    }
    let keep = keep & held.permitted;
    let sets = CapabilitySets {
        effective: keep,
        permitted: keep,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).map_err(failed)
}

fn reading_maps_is_privileged() -> bool {
    let name = rustix::system::uname();
    version(&name.release().to_string_lossy()).is_some_and(|version| version < MAPS_READ_WITHOUT)
}

/// `6.1.0-13-amd64` is (6, 1).
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::{Kept, MAPS_READ_WITHOUT, drop_all_but, version};

    #[test]
    fn versions_are_numbers_and_not_text() {
        assert_eq!(version("6.1.0-13-amd64"), Some((6, 1)));
        assert!(version("5.4.0-150-generic").unwrap() < MAPS_READ_WITHOUT);
        assert!(version("5.20").unwrap() > MAPS_READ_WITHOUT);
        assert!(version("10.0").unwrap() > MAPS_READ_WITHOUT);
        assert_eq!(version("odd"), None);
    }

    #[test]
    fn what_was_dropped_does_not_come_back() {
        let inside = std::thread::spawn(|| {
            drop_all_but(Kept::NOTHING).unwrap();
            drop_all_but(Kept::MAIN).unwrap();
            rustix::thread::capabilities(None).unwrap()
        });
        let left = inside.join().unwrap();
        assert!(left.effective.is_empty() && left.permitted.is_empty());
        assert!(left.inheritable.is_empty());
    }
}
