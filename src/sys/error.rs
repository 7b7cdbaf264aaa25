//! What can go wrong while the rings are set up, with the object and the remedy in the message.

use std::error::Error as StdError;
use std::fmt;
use std::io;

/// A set-up step that failed.
#[derive(Debug)]
pub enum Error {
    /// The frame memory could not be made.
    Umem {
        /// Its size.
        bytes: usize,
        /// Why.
        source: io::Error,
    },
    /// Sizes that the kernel would refuse.
    Layout {
        /// What is wrong with them.
        reason: String,
    },
    /// An AF_XDP socket could not be bound.
    Bind {
        /// The interface.
        interface: String,
        /// Its queue.
        queue: u32,
        /// Why.
        source: io::Error,
    },
    /// The gate array could not be mapped.
    Gate {
        /// Queues it was to hold.
        queues: u32,
        /// Why.
        source: io::Error,
    },
    /// A worker's thread could not be started.
    Thread {
        /// Its name.
        name: String,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// The kernel's error number, where there is one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Umem { source, .. }
            | Self::Bind { source, .. }
            | Self::Gate { source, .. }
            | Self::Thread { source, .. } => source.raw_os_error(),
            Self::Layout { .. } => None,
        }
    }
}

/// What an operator can do about `errno` of a bind, after the cause.
fn bind_remedy(errno: Option<i32>) -> &'static str {
    match errno {
        Some(libc::EBUSY) => "; another AF_XDP program holds this queue: stop it first",
        Some(libc::EPERM | libc::EACCES) => "; run as root or with CAP_NET_ADMIN and CAP_NET_RAW",
        Some(libc::ENODEV | libc::ENXIO) => "; there is no such interface",
        Some(libc::EINVAL) => "; the interface has no such queue",
        Some(libc::ENETDOWN) => "; set the interface up first",
        Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT) => {
            "; this kernel has no AF_XDP (CONFIG_XDP_SOCKETS)"
        }
        _ => "",
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Umem { bytes, source } => {
                write!(f, "cannot make {bytes} bytes of frame memory: {source}")?;
                match source.raw_os_error() {
                    Some(libc::ENOMEM | libc::ENOBUFS) => {
                        f.write_str("; use fewer frames, or raise the memlock limit")
                    }
                    Some(libc::EPERM | libc::EACCES) => {
                        f.write_str("; run as root or with CAP_NET_ADMIN and CAP_NET_RAW")
                    }
                    _ => Ok(()),
                }
            }
            Self::Layout { reason } => write!(f, "frame memory of that shape is refused: {reason}"),
            Self::Bind {
                interface,
                queue,
                source,
            } => write!(
                f,
                "cannot bind AF_XDP to queue {queue} of {interface}: {source}{}",
                bind_remedy(source.raw_os_error())
            ),
            Self::Gate { queues, source } => {
                write!(f, "cannot map the gates of {queues} queues: {source}")
            }
            Self::Thread { name, source } => write!(f, "cannot start thread {name}: {source}"),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        // The cause is part of the message already; naming it again would print it twice.
        None
    }
}

#[cfg(test)]
mod tests {
    use super::Error;
    use std::io;

    #[test]
    fn a_busy_queue_is_named_with_its_remedy() {
        let error = Error::Bind {
            interface: "eth7".to_owned(),
            queue: 3,
            source: io::Error::from_raw_os_error(libc::EBUSY),
        };
        let text = error.to_string();
        assert!(text.contains("queue 3 of eth7"), "{text}");
        assert!(text.contains("stop it first"), "{text}");
        assert_eq!(error.errno(), Some(libc::EBUSY));
    }
}
