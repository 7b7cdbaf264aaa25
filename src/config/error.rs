//! Why a command line or a configuration file cannot be meant, in a sentence that names the option and what
//! it takes.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::own_device::DeviceError;
use crate::sink::UrlError;
use crate::wire::NetworkError;

/// Why what was typed cannot be meant.
#[derive(Debug)]
pub enum Error {
    /// `run` without an interface.
    NoInterface,
    /// No interface can have this name.
    Interface(String),
    /// The same twice.
    Twice(&'static str, String),
    /// Not an output.
    Output(String, UrlError),
    /// Not a folder for spools.
    Spool(PathBuf),
    /// Not a device.
    Device(String, DeviceError),
    /// Not a pair of endpoints.
    Flow(String),
    /// Not a network.
    Local(String, NetworkError),
    /// A number outside its bounds.
    Range(&'static str, u64, &'static str),
    /// Standard input twice.
    StandardInputTwice,
    /// The configuration file cannot be read.
    Read(PathBuf, io::Error),
    /// It says something that is not understood.
    Syntax(PathBuf, String),
}

impl Error {
    /// 2 usage, 3 no permission.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Read(_, error) if error.kind() == io::ErrorKind::PermissionDenied => 3,
            _ => 2,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoInterface => f.write_str(
                "no interface to watch: name one with --iface IF, or iface = [\"IF\"] in the \
                 configuration file (`rstscope doctor` lists them)",
            ),
            Self::Interface(name) => write!(
                f,
                "--iface {name:?}: not an interface name: 1 to 15 bytes, no slash and no space"
            ),
            Self::Twice(option, value) => write!(f, "{option} {value}: named twice"),
            Self::Output(url, why) => write!(f, "--output {url:?}: {why}"),
            Self::Spool(path) => write!(f, "--spool {}: must be an absolute path", path.display()),
            Self::Local(text, error) => write!(f, "--local {text:?}: {error}"),
            Self::Device(text, error) => write!(f, "--own-device {text:?}: {error}"),
            Self::Flow(text) => write!(
                f,
                "--flow {text:?}: not two endpoints such as 192.0.2.1:443-198.51.100.2:51514 or \
                 [::1]:80-[::2]:81"
            ),
            Self::Range(option, value, bounds) => write!(f, "{option} {value}: must be {bounds}"),
            Self::StandardInputTwice => f.write_str("`-` (standard input) can be read only once"),
            Self::Read(path, error) => {
                write!(
                    f,
                    "configuration file {}: cannot read: {error}",
                    path.display()
                )
            }
            Self::Syntax(path, what) => {
                write!(f, "configuration file {}: {what}", path.display())
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Local(_, error) => Some(error),
            Self::Read(_, error) => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::Error;

    #[test]
    fn a_file_that_this_user_may_not_open_is_no_mistake_of_typing() {
        let read = |kind: io::ErrorKind| Error::Read("x".into(), kind.into()).exit_code();
        assert_eq!(read(io::ErrorKind::PermissionDenied), 3);
        assert_eq!(read(io::ErrorKind::NotFound), 2);
        assert_eq!(Error::NoInterface.exit_code(), 2);
    }
}
