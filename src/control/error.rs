//! Why `run` or `doctor` ended badly, in one sentence that names the object, and the exit code.

use std::fmt;
use std::io;

use super::diagnose::Refusal;
use super::handover::HandoverError;
use super::lock::LockError;
use crate::amount::counted;
use crate::{events, handback, nic, privilege, sink, sys, xdp};

/// What kept the sensor from starting, or ended it.
#[derive(Debug)]
pub enum Error {
    /// This host or interface cannot, or may not.
    Refused(Refusal),
    /// Another sensor has the interface.
    Lock(LockError),
    /// The sensor that has it did not hand it over.
    Handover(HandoverError),
    /// The interface could not be looked at.
    Nic(nic::Error),
    /// An output could not be opened.
    Sink(sink::Error),
    /// A BPF program of the events did not load or attach.
    Events(events::Error),
    /// `steer` did not load or attach.
    Xdp(xdp::Error),
    /// The hand-back veth could not be made.
    Handback(handback::Error),
    /// An AF_XDP socket or its memory could not be had.
    Sys(sys::Error),
    /// The system refused something that it hardly ever refuses.
    System(&'static str, io::Error),
    /// The process could not be confined.
    Privilege(privilege::Error),
    /// The process may not have as many open files as it needs.
    Files {
        /// How many it may have.
        limit: u64,
        /// How many it needs.
        needed: u64,
        /// Queues of all interfaces that it is to watch.
        queues: u64,
    },
    /// The address of the metrics could not be bound.
    Metrics(std::net::SocketAddr, io::Error),
    /// Every interface went away.
    InterfacesGone(String),
    /// Records did not reach an output.
    RecordsLost(u64),
}

impl Error {
    /// 1 failed, 3 no permission, 4 this kernel, driver or interface cannot.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(refusal) => refusal.exit_code(),
            Self::Handback(error) if error.is_permission() => 3,
            Self::Sink(error) if error.is_permission() => 3,
            Self::Lock(_) | Self::Nic(_) | Self::Events(_) | Self::Xdp(_) | Self::Handback(_) => 4,
            Self::Sys(error) => match error.errno() {
                Some(libc::EPERM | libc::EACCES) => 3,
                _ => 4,
            },
            Self::Handover(_)
            | Self::Sink(_)
            | Self::System(..)
            | Self::Privilege(_)
            | Self::Files { .. }
            | Self::Metrics(..)
            | Self::InterfacesGone(_)
            | Self::RecordsLost(_) => 1,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Lock(error) => error.fmt(f),
            Self::Handover(error) => error.fmt(f),
            Self::Nic(error) => error.fmt(f),
            Self::Sink(error) => error.fmt(f),
            Self::Events(error) => error.fmt(f),
            Self::Xdp(error) => error.fmt(f),
            Self::Handback(error) => error.fmt(f),
            Self::Sys(error) => error.fmt(f),
            Self::Privilege(error) => error.fmt(f),
            Self::Metrics(address, error) => write!(
                f,
                "--metrics {address}: cannot listen there: {error}; name another address or port"
            ),
            Self::Files {
                limit,
                needed,
                queues,
            } => write!(
                f,
                "{limit} open files are allowed and {needed} are needed, for {} among others; raise the limit \
                 (LimitNOFILE=, ulimit -n)",
                counted(*queues, "queue")
            ),
            Self::System(what, error) => write!(f, "cannot {what}: {error}"),
            Self::InterfacesGone(names) => {
                write!(f, "{names}: gone while watched; nothing is left to watch")
            }
            Self::RecordsLost(count) => {
                write!(
                    f,
                    "{} did not reach an output; see the warnings above",
                    counted(*count, "record")
                )
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::System(_, error) | Self::Metrics(_, error) => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::Error;
    use crate::sink;

    #[test]
    fn an_output_that_this_user_may_not_open_is_a_lack_of_permission() {
        let code = |kind: io::ErrorKind| {
            let (path, source) = ("/root/x".into(), kind.into());
            Error::Sink(sink::Error::Open { path, source }).exit_code()
        };
        assert_eq!(code(io::ErrorKind::PermissionDenied), 3);
        assert_eq!(code(io::ErrorKind::NotFound), 1);
    }
}
