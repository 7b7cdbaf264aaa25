//! One sensor an interface. The lock is an abstract socket name: it belongs to the network
//! namespace, as the interface does, and the kernel frees it with the process, however that ends.
//! It guards against a second rstscope only, not against other XDP programs.

use std::fmt;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Held as long as this process watches the interface.
#[derive(Debug)]
pub struct InterfaceLock {
    _socket: UnixDatagram,
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
                "another rstscope watches {interface}: stop it first, or choose another interface"
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
        let address = SocketAddr::from_abstract_name(format!("rstscope/{ifindex}"));
        let socket = address
            .and_then(|a| UnixDatagram::bind_addr(&a))
            .map_err(failed)?;
        Ok(Self { _socket: socket })
    }

    /// Whether somebody holds the lock now. Takes it for an instant to find out.
    #[must_use]
    pub fn is_held(ifindex: u32) -> bool {
        matches!(Self::take(ifindex, ""), Err(LockError::Held { .. }))
    }
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
            error.to_string().contains("another rstscope watches eth9"),
            "{error}"
        );
        assert!(
            InterfaceLock::take(IFINDEX + 1, "eth10").is_ok(),
            "each interface has its own"
        );
        drop(lock);
        assert!(!InterfaceLock::is_held(IFINDEX));
    }
}
