//! Syslog by datagrams, to a host (RFC 5426) or to a local socket. There is no answer: what the system
//! took counts as received. A local socket at least says when nobody listens.

use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Form;
use crate::sink::entry::Entry;
use crate::sink::transport::{Delivered, Failure, Fate, Transport};

/// How long a local receiver may take nothing.
const SILENCE: Duration = Duration::from_secs(10);

/// What one send came to.
fn fate(result: io::Result<()>) -> Result<Fate, io::Error> {
    match result {
        Ok(()) => Ok(Fate::Taken),
        Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
            Ok(Fate::Refused("longer than a datagram may be".to_owned()))
        }
        Err(error) => Err(error),
    }
}

/// Sends one after the other until one fails.
fn each(
    batch: &[Arc<Entry>],
    name: &str,
    mut send: impl FnMut(&Entry) -> Result<Fate, io::Error>,
) -> Delivered {
    let mut delivered = Delivered::all(0, Fate::Taken);
    for entry in batch {
        match send(entry) {
            Ok(fate) => delivered.fates.push(fate),
            Err(error) => {
                delivered.failure = Some(Failure::new(format!("{name}: {error}")));
                break;
            }
        }
    }
    delivered.fates.resize(batch.len(), Fate::Again);
    delivered
}

/// UDP to a host.
#[derive(Debug)]
pub(super) struct Datagrams {
    host: String,
    port: u16,
    form: Form,
    socket: Option<UdpSocket>,
}

impl Datagrams {
    pub(super) fn new(host: &str, port: u16, form: Form) -> Self {
        Self {
            host: host.to_owned(),
            port,
            form,
            socket: None,
        }
    }

    fn connected(&mut self) -> io::Result<&UdpSocket> {
        if self.socket.is_none() {
            let address = (self.host.as_str(), self.port)
                .to_socket_addrs()?
                .next()
                .ok_or(io::ErrorKind::NotFound)?;
            let any: SocketAddr = match address {
                SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
                SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
            };
            let socket = UdpSocket::bind(any)?;
            socket.connect(address)?;
            self.socket = Some(socket);
        }
        self.socket
            .as_ref()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Transport for Datagrams {
    fn deliver(&mut self, batch: &[Arc<Entry>]) -> Delivered {
        let name = format!("{}:{}", self.host, self.port);
        let delivered = each(batch, &name, |entry| {
            let message = self.form.message(entry);
            let socket = self.connected()?;
            fate(socket.send(&message).map(drop))
        });
        if delivered.failure.is_some() {
            self.socket = None;
        }
        delivered
    }
}

/// A local socket: datagrams where the receiver speaks these (`/dev/log`), else a stream of lines.
#[derive(Debug)]
pub(super) struct Local {
    path: PathBuf,
    form: Form,
    socket: Option<LocalSocket>,
}

#[derive(Debug)]
enum LocalSocket {
    Datagram(UnixDatagram),
    Stream(UnixStream),
}

impl Local {
    pub(super) const fn new(path: PathBuf, form: Form) -> Self {
        Self {
            path,
            form,
            socket: None,
        }
    }

    fn connected(&mut self) -> io::Result<&mut LocalSocket> {
        if let Some(LocalSocket::Stream(stream)) = &self.socket {
            // A peer that is gone is noticed before the write that it would swallow.
            let mut news = [rustix::event::PollFd::new(
                stream,
                rustix::event::PollFlags::RDHUP,
            )];
            let gone = rustix::event::poll(&mut news, Some(&rustix::time::Timespec::default()));
            if gone.is_ok_and(|count| count > 0) {
                self.socket = None;
            }
        }
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => self.connect()?,
        };
        Ok(self.socket.insert(socket))
    }

    fn connect(&self) -> io::Result<LocalSocket> {
        let datagram = UnixDatagram::unbound()?;
        match datagram.connect(&self.path) {
            Ok(()) => {
                datagram.set_write_timeout(Some(SILENCE))?;
                Ok(LocalSocket::Datagram(datagram))
            }
            Err(error) if error.raw_os_error() == Some(libc::EPROTOTYPE) => {
                let stream = UnixStream::connect(&self.path)?;
                stream.set_write_timeout(Some(SILENCE))?;
                Ok(LocalSocket::Stream(stream))
            }
            Err(error) => Err(error),
        }
    }
}

impl Transport for Local {
    fn deliver(&mut self, batch: &[Arc<Entry>]) -> Delivered {
        let name = self.path.display().to_string();
        let delivered = each(batch, &name, |entry| {
            let mut message = self.form.message(entry);
            match self.connected()? {
                LocalSocket::Datagram(socket) => fate(socket.send(&message).map(drop)),
                LocalSocket::Stream(stream) => {
                    message.push(b'\n');
                    fate(stream.write_all(&message))
                }
            }
        });
        if delivered.failure.is_some() {
            self.socket = None;
        }
        delivered
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::UdpSocket;
    use std::os::unix::net::{UnixDatagram, UnixListener};
    use std::sync::Arc;

    use super::{Datagrams, Local};
    use crate::sink::entry::Entry;
    use crate::sink::scratch::folder;
    use crate::sink::syslog::Form;
    use crate::sink::transport::{Fate, Transport};

    fn entry(bytes: usize) -> Arc<Entry> {
        Arc::new(Entry {
            id: "1".to_owned(),
            severity: 4,
            label: "injected".to_owned(),
            body: vec![b'x'; bytes],
            ..Entry::BLANK
        })
    }

    #[test]
    fn a_datagram_is_one_message_and_one_that_is_too_long_is_refused() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = receiver.local_addr().unwrap().port();
        let mut way = Datagrams::new("127.0.0.1", port, Form::of_this_host(20));
        let delivered = way.deliver(&[entry(5), entry(70_000), entry(6)]);
        assert!(matches!(
            delivered.fates.as_slice(),
            [Fate::Taken, Fate::Refused(_), Fate::Taken]
        ));
        let mut bytes = [0; 2048];
        for length in [5, 6] {
            let count = receiver.recv(&mut bytes).unwrap();
            let text = std::str::from_utf8(&bytes[..count]).unwrap();
            assert!(text.starts_with("<164>1 ") && text.ends_with(&"x".repeat(length)));
        }
    }

    #[test]
    fn a_local_socket_takes_datagrams_or_lines_and_says_when_nobody_listens() {
        let folder = folder("local");
        let mut way = Local::new(folder.join("d"), Form::of_this_host(20));
        assert_eq!(way.deliver(&[entry(1)]).fates, [Fate::Again]);
        let receiver = UnixDatagram::bind(folder.join("d")).unwrap();
        assert_eq!(way.deliver(&[entry(1)]).fates, [Fate::Taken]);
        let mut bytes = [0; 2048];
        assert!(receiver.recv(&mut bytes).unwrap() > 20);
        let listener = UnixListener::bind(folder.join("s")).unwrap();
        let mut way = Local::new(folder.join("s"), Form::of_this_host(20));
        let delivered = way.deliver(&[entry(3), entry(4)]);
        assert_eq!(delivered.fates, [Fate::Taken, Fate::Taken]);
        drop(way);
        let mut text = String::new();
        listener
            .accept()
            .unwrap()
            .0
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.ends_with("xxxx\n"));
    }
}
