//! What this process may do after it has started: hardly anything. Capabilities are dropped, Landlock
//! confines the file system, seccomp the system calls, and no program that it might run gains a
//! privilege. It decides nothing about which files a sensor needs: [`Places`] says so.
//!
//! Capabilities and Landlock belong to a thread, and threads inherit them: [`Jail::within`] makes a
//! thread from inside, and the main thread goes in by [`Jail::enter`] when everything stands.

mod calls;
mod capabilities;
mod error;
mod files;

use std::path::PathBuf;

pub use error::Error;
pub use files::Enforced;

use files::Rules;

/// What a sensor must still reach in the file system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// Folders in which it makes, writes, renames and removes files. Those that are not there are
    /// left out.
    pub folders: Vec<PathBuf>,
    /// Single files, devices and pipes that it writes to.
    pub files: Vec<PathBuf>,
}

/// The confinement of one process, made before its threads are.
#[derive(Debug)]
pub struct Jail {
    /// `None` when confinement was not asked for, or once the process is inside.
    rules: Option<Rules>,
    /// Capabilities that threads made by [`Jail::within_to_write`] keep: none, but where root writes into other
    /// people's folders.
    writers_keep: capabilities::Kept,
    is_asked_for: bool,
}

impl Jail {
    /// Prepares the confinement; nobody is confined yet.
    ///
    /// # Errors
    ///
    /// [`Error`] when the kernel knows Landlock and does not take the rules.
    pub fn prepare(places: &Places) -> Result<Self, Error> {
        let rules = Rules::new(places)?;
        let mut jail = Self {
            rules: Some(rules),
            writers_keep: capabilities::Kept::NOTHING,
            is_asked_for: true,
        };
        if !jail.within(|| files::all_writable(places))? {
            jail.writers_keep = capabilities::Kept::FOREIGN_FOLDERS;
        }
        Ok(jail)
    }

    /// No confinement at all.
    #[must_use]
    pub const fn open() -> Self {
        Self {
            rules: None,
            writers_keep: capabilities::Kept::NOTHING,
            is_asked_for: false,
        }
    }

    /// Runs `make` in a thread without capabilities and behind the file rules; so are the threads that
    /// it makes. What it makes may be moved out.
    ///
    /// # Errors
    ///
    /// [`Error`] when the thread cannot be made, or the kernel refuses to confine it.
    pub fn within<T: Send>(&self, make: impl FnOnce() -> T + Send) -> Result<T, Error> {
        self.keeping(capabilities::Kept::NOTHING, || {}, make)
    }

    /// The same for what writes in the named places: where these are other people's, root keeps the
    /// capability to write there.
    ///
    /// # Errors
    ///
    /// As [`Jail::within`].
    pub fn within_to_write<T: Send>(&self, make: impl FnOnce() -> T + Send) -> Result<T, Error> {
        self.keeping(self.writers_keep, || {}, make)
    }

    /// As [`Jail::within`], and `first` is done by the thread while it still may do everything: what
    /// belongs to a thread and is inherited, such as its niceness.
    ///
    /// # Errors
    ///
    /// As [`Jail::within`].
    pub fn within_after<T: Send>(
        &self,
        first: impl FnOnce() + Send,
        make: impl FnOnce() -> T + Send,
    ) -> Result<T, Error> {
        self.keeping(capabilities::Kept::NOTHING, first, make)
    }

    fn keeping<T: Send>(
        &self,
        keep: capabilities::Kept,
        first: impl FnOnce() + Send,
        make: impl FnOnce() -> T + Send,
    ) -> Result<T, Error> {
        if !self.is_asked_for {
            return Ok(make());
        }
        let rules = self.rules.as_ref().map(Rules::again).transpose()?;
        std::thread::scope(|scope| {
            let inside = std::thread::Builder::new()
                .name("rst-jail".to_owned())
                .spawn_scoped(scope, move || {
                    first();
                    if let Some(rules) = rules {
                        rules.enforce()?;
                    }
                    capabilities::drop_all_but(keep)?;
                    Ok(make())
                })
                .map_err(Error::Thread)?;
            // A panic inside aborts release builds; in a debug build it goes on here.
            inside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Confines the calling thread, and all threads of the process by system calls. It keeps
    /// `CAP_NET_ADMIN`, without which it could not clear the host's network at its end.
    ///
    /// # Errors
    ///
    /// [`Error`] when the kernel refuses any part but Landlock, which it may not know.
    pub fn enter(&mut self) -> Result<Enforced, Error> {
        if !self.is_asked_for {
            return Ok(Enforced::Nothing);
        }
        let enforced = match self.rules.take() {
            Some(rules) => rules.enforce()?,
            None => Enforced::Whole,
        };
        // Threads that are made later get no more than this one has.
        capabilities::drop_all_but(capabilities::Kept::MAIN.and(self.writers_keep))?;
        calls::confine_process()?;
        Ok(enforced)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::{Jail, Places};

    /// A folder of its own for one test, gone when that ends.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let made =
                std::env::temp_dir().join(format!("rstscope-jail-{}-{name}", std::process::id()));
            fs::create_dir_all(&made).unwrap();
            Self(made)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    impl std::ops::Deref for Folder {
        type Target = Path;

        fn deref(&self) -> &Path {
            &self.0
        }
    }

    #[test]
    fn within_only_the_named_folders_are_written_and_no_device_is_read() {
        let (own, other) = (Folder::new("own"), Folder::new("other"));
        let jail = Jail::prepare(&Places {
            folders: vec![own.to_owned(), "/nowhere/at/all".into()],
            files: vec!["/dev/full".into()],
        })
        .unwrap();
        jail.within(|| {
            fs::write(own.join("a"), "x").unwrap();
            fs::rename(own.join("a"), own.join("b")).unwrap();
            fs::create_dir(own.join("c")).unwrap();
            let refused = fs::write(other.join("a"), "x").unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
            assert!(fs::remove_dir(&*other).is_err());
            assert!(
                fs::read_to_string("/etc/hostname").is_ok(),
                "reading goes on"
            );
            assert!(fs::read("/proc/self/status").is_ok());
            // A device that is certainly there and needs no right of its own; disks are beside it.
            assert!(fs::File::open("/dev/zero").is_err());
            assert!(fs::OpenOptions::new().write(true).open("/dev/full").is_ok());
            // What a thread inside makes is inside.
            let path = other.join("a");
            let deeper = std::thread::spawn(move || fs::write(path, "x").is_err());
            assert!(deeper.join().unwrap());
        })
        .unwrap();
        assert!(
            fs::write(other.join("a"), "x").is_ok(),
            "the caller is free"
        );
    }

    #[test]
    fn within_no_capability_is_left_and_without_a_jail_all_are() {
        let effective = || {
            let status = fs::read_to_string("/proc/thread-self/status").unwrap();
            let line = status.lines().find(|line| line.starts_with("CapEff:"));
            line.unwrap().split_whitespace().nth(1).unwrap().to_owned()
        };
        let before = effective();
        let jail = Jail::prepare(&Places {
            folders: vec![std::env::temp_dir()],
            files: Vec::new(),
        })
        .unwrap();
        assert_eq!(jail.within(effective).unwrap(), "0000000000000000");
        assert_eq!(effective(), before);
        assert_eq!(Jail::open().within(effective).unwrap(), before);
    }
}
