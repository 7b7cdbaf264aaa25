//! Landlock (landlock(7)): which files a thread, and all threads that it makes, may reach. Reading is
//! allowed everywhere but in `/dev`, where raw devices are; writing in the named places alone.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetStatus,
};
use rustix::fs::{Access as Reach, AtFlags, CWD, accessat};

use super::{Error, Places};

/// The newest set of rights that was tried with this program (Linux 6.10: `ioctl` on devices). An older
/// kernel enforces those that it knows.
const RIGHTS: ABI = ABI::V5;

/// Devices that hold nothing, which libraries open at any time.
const HARMLESS: [&str; 3] = ["/dev/null", "/dev/urandom", "/dev/random"];

/// The folder of raw devices: memory, disks, network taps.
const DEVICES: &str = "dev";

/// How far the kernel goes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enforced {
    /// All rules hold.
    Whole,
    /// An older Landlock: some rights are not known to it.
    Partly,
    /// This kernel has no Landlock, or confinement was not asked for.
    Nothing,
}

/// Rules that are ready to be enforced.
#[derive(Debug)]
pub(super) struct Rules(RulesetCreated);

impl Rules {
    /// Rules for these places.
    ///
    /// # Errors
    ///
    /// [`Error::Files`].
    pub(super) fn new(places: &Places) -> Result<Self, Error> {
        let failed = |error: landlock::RulesetError| Error::Files(error.to_string());
        let handled = AccessFs::from_all(RIGHTS);
        let mut rules = Ruleset::default()
            .handle_access(handled)
            .and_then(Ruleset::create)
            .map_err(failed)?;
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let never =
            AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev;
        let write_file = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate;
        let readable = readable().into_iter().map(|path| (path, read));
        let folders = places
            .folders
            .iter()
            .map(|path| (path.clone(), handled & !never));
        let harmless = HARMLESS.iter().map(PathBuf::from);
        let files = places.files.iter().cloned().chain(harmless);
        let files = files.map(|path| (path, write_file));
        for (path, rights) in readable.chain(folders).chain(files) {
            // What is not there cannot be reached later either.
            if let Ok(place) = PathFd::new(&path) {
                let rights = fitting(&path, rights);
                rules = rules
                    .add_rule(PathBeneath::new(place, rights))
                    .map_err(failed)?;
            }
        }
        Ok(Self(rules))
    }

    /// The same once more, for another thread.
    ///
    /// # Errors
    ///
    /// [`Error::Thread`] when no descriptor is left.
    pub(super) fn again(&self) -> Result<Self, Error> {
        self.0.try_clone().map(Self).map_err(Error::Thread)
    }

    /// Confines the calling thread for good.
    ///
    /// # Errors
    ///
    /// [`Error::Files`].
    pub(super) fn enforce(self) -> Result<Enforced, Error> {
        let status = self
            .0
            .restrict_self()
            .map_err(|error| Error::Files(error.to_string()))?;
        Ok(match status.ruleset {
            RulesetStatus::FullyEnforced => Enforced::Whole,
            RulesetStatus::PartiallyEnforced => Enforced::Partly,
            RulesetStatus::NotEnforced => Enforced::Nothing,
        })
    }
}

/// The rights of a folder mean nothing for a file, and the kernel refuses them there.
fn fitting(path: &Path, rights: BitFlags<AccessFs>) -> BitFlags<AccessFs> {
    if path.is_dir() {
        rights
    } else {
        rights & AccessFs::from_file(RIGHTS)
    }
}

/// Everything below the root but devices: rules can only allow.
fn readable() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir("/") else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name() != DEVICES)
        .map(|entry| entry.path())
        .collect()
}

/// Whether the calling thread may make files in all of these folders and write all of these files, as
/// far as owners and modes say.
pub(super) fn all_writable(places: &Places) -> bool {
    let may = |path: &PathBuf, reach| {
        !path.exists() || accessat(CWD.as_fd(), path, reach, AtFlags::EACCESS).is_ok()
    };
    places
        .folders
        .iter()
        .all(|path| may(path, Reach::WRITE_OK | Reach::EXEC_OK))
        && places.files.iter().all(|path| may(path, Reach::WRITE_OK))
}
