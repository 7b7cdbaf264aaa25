//! Syslog over a connection. Plain syslog has no answer: what a receiver's kernel has acknowledged may
//! still be lost with the receiver. So a record counts as received only when it was acknowledged a while
//! ago and the connection is whole since, or when the receiver answered our end of the stream with its
//! own; whatever is younger when a connection breaks is sent again (and may arrive twice).

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::{Form, HEAD_BYTES};
use crate::sink::entry::Entry;
use crate::sink::transport::{Delivered, Failure, Fate, Transport};
use crate::sink::{Error, clock};
use crate::sys::outq::unacknowledged;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a receiver may take nothing at all before it is called again: rsyslog and syslog-ng stop
/// reading for seconds when their own outputs are slow.
const SILENCE: Duration = Duration::from_secs(30);

/// Whom to call.
#[derive(Debug)]
pub(super) struct Peer {
    host: String,
    port: u16,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Peer {
    pub(super) fn plain(host: &str, port: u16) -> Self {
        Self {
            host: host.to_owned(),
            port,
            tls: None,
        }
    }

    pub(super) fn tls(
        output: &str,
        host: &str,
        port: u16,
        config: Arc<ClientConfig>,
    ) -> Result<Self, Error> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| Error::Setup {
            output: output.to_owned(),
            why: format!("{host:?} is no name that a certificate can have"),
        })?;
        Ok(Self {
            tls: Some((config, name)),
            ..Self::plain(host, port)
        })
    }

    fn connect(&self) -> io::Result<Channel> {
        let mut last = io::ErrorKind::NotFound.into();
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT) {
                Ok(socket) => return self.dress(socket),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn dress(&self, socket: TcpStream) -> io::Result<Channel> {
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(SILENCE))?;
        socket.set_read_timeout(Some(CONNECT))?;
        rustix::net::sockopt::set_socket_keepalive(&socket, true)?;
        let limit = u32::try_from(SILENCE.as_millis()).unwrap_or(u32::MAX);
        rustix::net::sockopt::set_tcp_user_timeout(&socket, limit)?;
        let counted = Counted { socket, written: 0 };
        let Some((config, name)) = &self.tls else {
            return Ok(Channel::Plain(counted));
        };
        let connection = ClientConnection::new(Arc::clone(config), name.clone())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let mut stream = StreamOwned::new(connection, counted);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Channel::Tls(Box::new(stream)))
    }
}

/// A socket that knows how many bytes were written to it.
#[derive(Debug)]
struct Counted {
    socket: TcpStream,
    written: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.socket.write(bytes)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Counted {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.socket.read(bytes)
    }
}

enum Channel {
    Plain(Counted),
    Tls(Box<StreamOwned<ClientConnection, Counted>>),
}

impl Channel {
    fn counted(&self) -> &Counted {
        match self {
            Self::Plain(counted) => counted,
            Self::Tls(stream) => &stream.sock,
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(counted) => counted.write_all(bytes),
            Self::Tls(stream) => {
                stream.write_all(bytes)?;
                stream.flush()
            }
        }
    }

    /// Bytes that were written and acknowledged.
    fn acknowledged(&self) -> io::Result<u64> {
        let counted = self.counted();
        Ok(counted.written - unacknowledged(&counted.socket)?.min(counted.written))
    }

    /// Takes what the peer says, which is nothing but TLS's own messages; an error when it hung up.
    /// Unread bytes would make our own closing a reset, which may destroy what the peer has not read.
    fn listen(&mut self) -> io::Result<()> {
        self.counted().socket.set_nonblocking(true)?;
        let heard = self.hear();
        self.counted().socket.set_nonblocking(false)?;
        match heard {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
            Ok(()) => Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the receiver closed the connection",
            )),
        }
    }

    /// Until the end of the peer's stream.
    fn hear(&mut self) -> io::Result<()> {
        let mut bytes = [0; 4096];
        loop {
            let count = match self {
                Self::Plain(counted) => counted.read(&mut bytes)?,
                Self::Tls(stream) => match stream.read(&mut bytes) {
                    // Without a closing message, which many receivers leave out.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
                    other => other?,
                },
            };
            if count == 0 {
                return Ok(());
            }
        }
    }

    /// Ends our stream and waits for the end of the peer's: it has read everything then.
    fn close(&mut self, deadline: Instant) -> io::Result<()> {
        if let Self::Tls(stream) = self {
            stream.conn.send_close_notify();
            while stream.conn.wants_write() {
                stream.conn.write_tls(&mut stream.sock)?;
            }
        }
        let socket = &self.counted().socket;
        socket.shutdown(Shutdown::Write)?;
        let left = deadline.saturating_duration_since(clock::now());
        socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        self.hear()
    }
}

/// Records that were written together.
#[derive(Debug)]
struct Mark {
    records: usize,
    /// Bytes of the connection up to their end.
    end: u64,
    acknowledged: Option<Instant>,
}

/// A connection to a syslog receiver, made and made again as needed.
pub(super) struct Stream {
    peer: Peer,
    form: Form,
    hold: Duration,
    channel: Option<Channel>,
    marks: VecDeque<Mark>,
    broken: Option<Failure>,
}

impl Stream {
    pub(super) const fn new(peer: Peer, form: Form, hold: Duration) -> Self {
        Self {
            peer,
            form,
            hold,
            channel: None,
            marks: VecDeque::new(),
            broken: None,
        }
    }

    fn send(&mut self, batch: &[Arc<Entry>]) -> io::Result<()> {
        let channel = match &mut self.channel {
            Some(channel) => channel,
            None => self.channel.insert(self.peer.connect()?),
        };
        channel.listen()?;
        let bodies: usize = batch.iter().map(|entry| entry.body.len()).sum();
        let mut bytes = Vec::with_capacity(bodies + batch.len() * HEAD_BYTES);
        for entry in batch {
            self.form.frame(entry, &mut bytes);
        }
        channel.write(&bytes)?;
        self.marks.push_back(Mark {
            records: batch.len(),
            end: channel.counted().written,
            acknowledged: None,
        });
        Ok(())
    }

    fn look(&mut self) -> io::Result<usize> {
        let Some(channel) = &mut self.channel else {
            return Ok(0);
        };
        channel.listen()?;
        let acknowledged = channel.acknowledged()?;
        let now = clock::now();
        // They are acknowledged in order; of a flood there are thousands.
        let known = self
            .marks
            .partition_point(|mark| mark.acknowledged.is_some());
        for mark in self.marks.iter_mut().skip(known) {
            if mark.end > acknowledged {
                break;
            }
            mark.acknowledged = Some(now);
        }
        let mut records = 0;
        while let Some(mark) = self.marks.front() {
            let old = |since: Instant| now.saturating_duration_since(since) >= self.hold;
            if !mark.acknowledged.is_some_and(old) {
                break;
            }
            records += mark.records;
            self.marks.pop_front();
        }
        Ok(records)
    }

    fn failure(&self, error: &io::Error) -> Failure {
        let remedy = match error.kind() {
            io::ErrorKind::ConnectionRefused => ": nobody listens there",
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ": it takes nothing",
            io::ErrorKind::InvalidData => ": see ?ca=, ?cert= and ?key=, and the host's name",
            _ => "",
        };
        Failure::new(format!(
            "{}:{}: {error}{remedy}",
            self.peer.host, self.peer.port
        ))
    }
}

impl Transport for Stream {
    fn deliver(&mut self, batch: &[Arc<Entry>]) -> Delivered {
        match self.send(batch) {
            Ok(()) => Delivered::all(batch.len(), Fate::Sent),
            Err(error) => {
                let failure = self.failure(&error);
                self.channel = None;
                if !self.marks.is_empty() {
                    self.broken = Some(failure.clone());
                }
                Delivered::failed(batch.len(), failure)
            }
        }
    }

    fn confirmed(&mut self) -> Result<usize, Failure> {
        let failure = match self.broken.take() {
            Some(failure) => failure,
            None => match self.look() {
                Ok(records) => return Ok(records),
                Err(error) => self.failure(&error),
            },
        };
        self.channel = None;
        self.marks.clear();
        Err(failure)
    }

    fn finish(&mut self, deadline: Instant) -> usize {
        let whole = self
            .channel
            .take()
            .is_some_and(|mut channel| channel.close(deadline).is_ok());
        let marks = std::mem::take(&mut self.marks);
        if whole {
            marks.iter().map(|mark| mark.records).sum()
        } else {
            0
        }
    }

    fn batch_records(&self) -> usize {
        512
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::time::Duration;

    use super::{Peer, Stream};
    use crate::sink::clock;
    use crate::sink::entry::Entry;
    use crate::sink::syslog::Form;
    use crate::sink::transport::{Fate, Transport};

    fn entries(count: usize) -> Vec<Arc<Entry>> {
        (0..count)
            .map(|number| {
                Arc::new(Entry {
                    id: number.to_string(),
                    label: "remote".to_owned(),
                    body: format!("{{\"n\":{number}}}").into_bytes(),
                    ..Entry::BLANK
                })
            })
            .collect()
    }

    fn stream(listener: &TcpListener, hold: Duration) -> Stream {
        let port = listener.local_addr().unwrap().port();
        Stream::new(Peer::plain("127.0.0.1", port), Form::of_this_host(20), hold)
    }

    #[test]
    fn records_are_received_when_the_connection_stayed_whole_for_a_while() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = stream(&listener, Duration::from_millis(80));
        assert_eq!(stream.deliver(&entries(2)).fates, [Fate::Sent, Fate::Sent]);
        let (_peer, _) = listener.accept().unwrap();
        assert_eq!(stream.confirmed(), Ok(0));
        std::thread::sleep(Duration::from_millis(160));
        assert_eq!(stream.confirmed(), Ok(2));
    }

    #[test]
    fn a_receiver_that_hangs_up_gets_everything_young_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = stream(&listener, Duration::from_secs(60));
        stream.deliver(&entries(3));
        drop(listener.accept().unwrap());
        std::thread::sleep(Duration::from_millis(50));
        let failure = stream.confirmed().unwrap_err();
        assert!(failure.what.contains("127.0.0.1"), "{failure:?}");
        assert_eq!(stream.deliver(&entries(3)).fates.len(), 3);
        assert!(stream.confirmed().is_ok());
    }

    #[test]
    fn the_receivers_end_of_stream_confirms_everything_at_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = stream(&listener, Duration::from_secs(60));
        stream.deliver(&entries(3));
        let (mut peer, _) = listener.accept().unwrap();
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            peer.read_to_string(&mut text).unwrap();
            text
        });
        assert_eq!(stream.finish(clock::now() + Duration::from_secs(10)), 3);
        let text = reader.join().unwrap();
        assert_eq!(text.matches("rstscope").count(), 3);
        let (length, rest) = text.split_once(' ').unwrap();
        assert!(rest[length.parse::<usize>().unwrap()..].starts_with(length));
    }

    #[test]
    fn nobody_there_is_a_failure_with_the_address_and_nothing_is_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = stream(&listener, Duration::ZERO);
        drop(listener);
        let delivered = stream.deliver(&entries(1));
        assert_eq!(delivered.fates, [Fate::Again]);
        let failure = delivered.failure.unwrap();
        assert!(failure.what.contains("nobody listens"), "{failure:?}");
        assert_eq!(stream.finish(clock::now()), 0);
    }
}
