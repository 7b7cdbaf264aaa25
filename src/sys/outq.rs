//! How much of what was written to a TCP socket its peer has not acknowledged.

use std::net::TcpStream;
use std::os::fd::AsRawFd;

use rustix::io::Errno;

/// Bytes in the socket's send queue that the peer's TCP has not acknowledged (`SIOCOUTQ`, tcp(7), which
/// shares its number with `TIOCOUTQ`).
///
/// # Errors
///
/// What the kernel says.
pub fn unacknowledged(socket: &TcpStream) -> Result<u64, Errno> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQ writes one int (net/ipv4/tcp.c, tcp_ioctl), and `bytes` is one that outlives the
    // call; the descriptor is open as long as `socket` is borrowed.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result < 0 {
        let code = std::io::Error::last_os_error().raw_os_error();
        return Err(Errno::from_raw_os_error(code.unwrap_or(libc::EIO)));
    }
    Ok(u64::try_from(bytes).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::unacknowledged;

    #[test]
    fn what_the_peer_has_no_room_for_is_not_acknowledged() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        assert_eq!(unacknowledged(&socket), Ok(0));
        socket.set_nonblocking(true).unwrap();
        let mut written = 0;
        while let Ok(count) = socket.write(&[0; 65536]) {
            written += count;
        }
        assert!(unacknowledged(&socket).unwrap() > 0);
        let mut bytes = vec![0; written];
        peer.read_exact(&mut bytes).unwrap();
        let soon = || unacknowledged(&socket) == Ok(0);
        assert!((0..200).any(|_| soon() || {
            std::thread::sleep(std::time::Duration::from_millis(10));
            false
        }));
    }
}
