//! Which places in the file system a sensor of this configuration still needs after its start.

use std::path::{Path, PathBuf};

use crate::config::RunConfig;
use crate::privilege::{Enforced, Error, Jail, Places};
use crate::sink::{Kind, Target};

/// The sensor's own folders as the file system hierarchy has them; a new configuration may name files
/// in them that the one at the start did not.
const OWN_FOLDERS: [&str; 3] = ["/var/log/rstscope", "/var/lib/rstscope", "/run/rstscope"];

/// The jail for this configuration; an open one where that is wanted.
pub(super) fn jail(config: &RunConfig) -> Result<Jail, Error> {
    if config.unconfined {
        return Ok(Jail::open());
    }
    Jail::prepare(&places(config))
}

fn places(config: &RunConfig) -> Places {
    let mut places = Places {
        folders: OWN_FOLDERS.iter().map(PathBuf::from).collect(),
        files: Vec::new(),
    };
    for target in &config.outputs {
        if let Kind::File(file) = &target.kind {
            add(&mut places, &file.path);
        }
    }
    // A configuration file may name outputs with a spool later.
    let may_come = config.typed.config.is_some();
    if may_come || config.outputs.iter().any(has_spool) {
        // It must be there to be named; that it cannot be made, its output says itself.
        let _ = std::fs::create_dir_all(&config.spool);
        places.folders.push(config.spool.clone());
    }
    places
}

/// A file is made anew when it was moved away, so that its folder is needed; a device or a pipe never
/// is, and its folder holds others.
fn add(places: &mut Places, path: &Path) {
    if is_device(path) {
        places.files.push(path.to_owned());
    } else {
        places.folders.extend(path.parent().map(Path::to_owned));
    }
}

/// Something is there already, and it is no file that can be made anew.
fn is_device(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| !found.is_file())
}

fn has_spool(target: &Target) -> bool {
    target.is_durable() && !matches!(&target.kind, Kind::File(file) if is_device(&file.path))
}

/// What is to be said of an enforcement that is not whole.
pub(super) fn complaint(enforced: Enforced, config: &RunConfig) -> Option<&'static str> {
    match enforced {
        Enforced::Nothing if config.unconfined => {
            Some("--unconfined: this process keeps all privileges that it was started with")
        }
        Enforced::Nothing => Some(
            "this kernel has no Landlock: files are not confined, only system calls and capabilities",
        ),
        Enforced::Partly | Enforced::Whole => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::add;
    use crate::privilege::Places;

    #[test]
    fn of_a_file_its_folder_is_needed_and_of_a_device_only_itself() {
        let mut places = Places::default();
        add(&mut places, Path::new("/dev/full"));
        add(&mut places, Path::new("/var/log/none/records"));
        assert_eq!(places.files, [Path::new("/dev/full")]);
        assert_eq!(places.folders, [Path::new("/var/log/none")]);
    }
}
