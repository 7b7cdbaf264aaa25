//! One sensor an interface. The lock is an abstract socket name: it belongs to the network
//! namespace, as the interface does, and the kernel frees it with the process, however that ends.
//! It guards against a second rstscope only, not against other XDP programs. Who wants to take the
//! interface over knocks at the same socket (`handover`).

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

/// Held as long as this process watches the interface.
#[derive(Debug)]
pub struct InterfaceLock {
    socket: UnixListener,
}

/// Why the lock was not taken.
#[derive(Debug)]
pub enum LockError {
    /// Another process holds it.
    Held {
        /// The interface.
        interface: String,
    },
    /// The socket could not be made.
    Socket {
        /// The interface.
        interface: String,
        /// Why.
        source: io::Error,
    },
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { interface } => write!(
                f,
                "another rstscope watches {interface}: stop it first, take over from it \
                 (--replace), or choose another interface"
            ),
            Self::Socket { interface, source } => {
                write!(f, "cannot take the lock of {interface}: {source}")
            }
        }
    }
}

impl std::error::Error for LockError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Held { .. } => None,
            Self::Socket { source, .. } => Some(source),
        }
    }
}

impl InterfaceLock {
    /// Takes the lock of the interface with that index, in the calling thread's network namespace.
    /// `name` is for the error's text.
    ///
    /// # Errors
    ///
    /// [`LockError::Held`] when another process, or this one, has it.
    pub fn take(ifindex: u32, name: &str) -> Result<Self, LockError> {
        let failed = |source: io::Error| {
            let interface = name.to_owned();
            match source.kind() {
                io::ErrorKind::AddrInUse => LockError::Held { interface },
                _ => LockError::Socket { interface, source },
            }
        };
        let socket = address(ifindex)
            .and_then(|a| UnixListener::bind_addr(&a))
            .map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        Ok(Self { socket })
    }

    /// The lock that another process gave away: it is held by whoever has the socket.
    #[must_use]
    pub fn inherit(socket: OwnedFd) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// Knocks at the lock of the interface with that index.
    ///
    /// # Errors
    ///
    /// `ECONNREFUSED` when nobody holds it.
    pub(super) fn knock(ifindex: u32) -> io::Result<UnixStream> {
        address(ifindex).and_then(|address| UnixStream::connect_addr(&address))
    }

    /// Who knocked since the last time; `None` when nobody did.
    pub(super) fn answer(&self) -> Option<UnixStream> {
        self.socket.accept().ok().map(|(stream, _)| stream)
    }

    /// Whether somebody holds the lock now. Takes it for an instant to find out.
    #[must_use]
    pub fn is_held(ifindex: u32) -> bool {
        matches!(Self::take(ifindex, ""), Err(LockError::Held { .. }))
    }
}

impl AsFd for InterfaceLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn address(ifindex: u32) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("rstscope/{ifindex}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An index that no interface of the machine has.
    const IFINDEX: u32 = 0x7fff_fe01;

    #[test]
    fn a_second_sensor_on_the_same_interface_is_told_so() {
        let lock = InterfaceLock::take(IFINDEX, "eth9").unwrap();
        assert!(InterfaceLock::is_held(IFINDEX));
        let error = InterfaceLock::take(IFINDEX, "eth9").unwrap_err();
        assert!(matches!(error, LockError::Held { .. }));
        assert!(
            error.to_string().contains(
                "another rstscope watches eth9: stop it first, take over from it (--replace)"
            ),
            "{error}"
        );
        assert!(
            InterfaceLock::take(IFINDEX + 1, "eth10").is_ok(),
            "each interface has its own"
        );
        let heir = InterfaceLock::inherit(lock.as_fd().try_clone_to_owned().unwrap());
        drop(lock);
        assert!(InterfaceLock::is_held(IFINDEX), "the heir holds it");
        drop(heir);
        assert!(!InterfaceLock::is_held(IFINDEX));
    }
}
