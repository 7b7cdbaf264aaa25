//! From one process to the next without a detach, an interface at a time. The new process knocks at
//! the lock of the old one; the old one hands back all frames that it holds, and gives away its lock
//! and its XDP link; the new one puts its program into that link, which is one step for the kernel,
//! and confirms when it stands. Until the swap the old program copies headers for the old process,
//! from then on the new program does for the new one: no frame is lost and none goes unseen.
//!
//! Refuses whoever is neither root nor the same user. Trusts nothing else that it is told.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use super::lock::InterfaceLock;

/// What the new process says: its wish, later that it stands.
const ASK: u8 = b'?';
const CONFIRM: u8 = b'!';

/// How long the old process waits for the request after a knock: it looks after workers meanwhile.
const REQUEST_WAIT: Duration = Duration::from_millis(200);

/// How long the new process waits for the old one, which needs up to 100 ms to notice and 400 ms a
/// worker to hand back what it holds, all workers at once; much longer on a host out of CPU time.
const HANDOVER_WAIT: Duration = Duration::from_secs(10);

/// How long the old process waits for the new one to stand: it makes a veth pair, and memory and
/// flow tables for each queue, which takes under a second.
const CONFIRM_WAIT: Duration = Duration::from_secs(10);

/// Why an interface could not be taken over.
#[derive(Debug)]
pub struct HandoverError {
    interface: String,
    what: &'static str,
    source: io::Error,
}

impl fmt::Display for HandoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: cannot take over from the rstscope that watches it: {}: {}; stop it, then start \
             without --replace",
            self.interface, self.what, self.source
        )
    }
}

impl std::error::Error for HandoverError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// The process that watches an interface now.
#[derive(Debug)]
pub(super) struct Predecessor {
    ifindex: u32,
    interface: String,
    /// Where it waits for the confirmation, once it was asked.
    stream: Option<UnixStream>,
}

/// What it gave away.
#[derive(Debug)]
pub(super) struct Estate {
    pub(super) lock: InterfaceLock,
    /// `None` when it had none: it watched in mirror mode.
    pub(super) link: Option<OwnedFd>,
}

impl Predecessor {
    /// Finds out whether it answers and may be believed. Nothing happens to it before [`Self::ask`].
    pub(super) fn find(ifindex: u32, interface: &str) -> Result<Self, HandoverError> {
        let found = Self {
            ifindex,
            interface: interface.to_owned(),
            stream: None,
        };
        match found.knock() {
            Ok(_) => Ok(found),
            Err(source) => Err(found.error("it does not answer", source)),
        }
    }

    fn knock(&self) -> io::Result<UnixStream> {
        let stream = InterfaceLock::knock(self.ifindex)?;
        if is_trusted(&stream) {
            Ok(stream)
        } else {
            let why = "another user holds the lock";
            Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
        }
    }

    fn error(&self, what: &'static str, source: io::Error) -> HandoverError {
        HandoverError {
            interface: self.interface.clone(),
            what,
            source,
        }
    }

    /// Asks for lock and link, and waits for them. From then on the old process only copies, and it
    /// waits for [`Self::confirm`].
    pub(super) fn ask(&mut self) -> Result<Estate, HandoverError> {
        // Not the knock of `find`: who knocks must ask at once, since the other side waits then.
        let asked = self.knock().and_then(|stream| {
            let estate = receive(&stream)?;
            Ok((stream, estate))
        });
        match asked {
            Ok((stream, estate)) => {
                self.stream = Some(stream);
                Ok(estate)
            }
            Err(source) => Err(self.error("it did not hand over", in_words(source))),
        }
    }

    /// Tells the old process that the new one stands, so that it ends. That it is gone already is
    /// no error.
    pub(super) fn confirm(self) {
        if let Some(mut stream) = self.stream {
            let _ = stream.write_all(&[CONFIRM]);
        }
    }
}

/// A socket's word for its time-out says nothing to an operator.
fn in_words(source: io::Error) -> io::Error {
    if source.kind() != io::ErrorKind::WouldBlock {
        return source;
    }
    let why = format!(
        "no answer within {} s: it is stopped (kill -CONT) or hangs (after kill -9 frames pass directly)",
        HANDOVER_WAIT.as_secs()
    );
    io::Error::new(io::ErrorKind::TimedOut, why)
}

fn receive(mut stream: &UnixStream) -> io::Result<Estate> {
    stream.set_read_timeout(Some(HANDOVER_WAIT))?;
    stream.write_all(&[ASK])?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut word = [0];
    let received = rustix::net::recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut word)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut given = ancillary.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
        _ => Vec::new(),
    });
    let lock = given.next().ok_or(io::ErrorKind::InvalidData)?;
    Ok(Estate {
        lock: InterfaceLock::inherit(lock),
        link: given.next(),
    })
}

/// A process that wants to take an interface over.
#[derive(Debug)]
pub(super) struct Heir {
    stream: UnixStream,
    /// Its process id, for what is said to the operator.
    pub(super) pid: i32,
}

impl Heir {
    /// The next one who knocked at the lock and asked, if it is one whom we trust.
    pub(super) fn at(lock: &InterfaceLock) -> Option<Self> {
        let mut stream = lock.answer()?;
        if !is_trusted(&stream) {
            return None;
        }
        let pid = rustix::net::sockopt::socket_peercred(&stream).ok()?.pid;
        stream.set_nonblocking(false).ok()?;
        stream.set_read_timeout(Some(REQUEST_WAIT)).ok()?;
        let mut word = [0];
        stream.read_exact(&mut word).ok()?;
        (word == [ASK]).then_some(Self {
            stream,
            pid: pid.as_raw_nonzero().get(),
        })
    }

    /// Gives lock and link away, and waits until the heir stands; `false` when it did not come to
    /// that, and everything is ours as before.
    pub(super) fn give(mut self, lock: &InterfaceLock, link: Option<BorrowedFd<'_>>) -> bool {
        let given: Vec<BorrowedFd<'_>> = std::iter::once(lock.as_fd()).chain(link).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let mut word = [0];
        ancillary.push(SendAncillaryMessage::ScmRights(&given))
            && rustix::net::sendmsg(
                &self.stream,
                &[IoSlice::new(&[ASK])],
                &mut ancillary,
                SendFlags::NOSIGNAL,
            )
            .is_ok()
            && self.stream.set_read_timeout(Some(CONFIRM_WAIT)).is_ok()
            && self.stream.read_exact(&mut word).is_ok()
            && word == [CONFIRM]
    }
}

/// An abstract socket has no permissions: any user of the host may knock, or hold a name.
pub(super) fn is_trusted(stream: &UnixStream) -> bool {
    rustix::net::sockopt::socket_peercred(stream)
        .is_ok_and(|peer| peer.uid.is_root() || peer.uid == rustix::process::geteuid())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::thread;

    use super::*;

    /// Indexes that no interface of the machine has.
    const IFINDEX: u32 = 0x7fff_fd01;

    fn await_heir(lock: &InterfaceLock) -> Heir {
        for _ in 0..500 {
            if let Some(heir) = Heir::at(lock) {
                return heir;
            }
            thread::sleep(Duration::from_millis(2));
        }
        panic!("nobody came");
    }

    fn marked(text: &str) -> File {
        let memory = rustix::fs::memfd_create("link", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let mut file = File::from(memory);
        file.write_all(text.as_bytes()).unwrap();
        file.rewind().unwrap();
        file
    }

    #[test]
    fn lock_and_link_go_to_the_heir_and_the_name_is_never_free() {
        let lock = InterfaceLock::take(IFINDEX, "eth9").unwrap();
        let heir = thread::spawn(|| {
            let mut old = Predecessor::find(IFINDEX, "eth9").unwrap();
            let estate = old.ask().unwrap();
            old.confirm();
            estate
        });
        let link = marked("the link");
        assert!(await_heir(&lock).give(&lock, Some(link.as_fd())));
        drop(lock);
        assert!(InterfaceLock::is_held(IFINDEX));
        let estate = heir.join().unwrap();
        let mut text = String::new();
        let mut inherited = File::from(estate.link.unwrap());
        inherited.read_to_string(&mut text).unwrap();
        assert_eq!(text, "the link");
        drop(estate.lock);
        assert!(!InterfaceLock::is_held(IFINDEX));
    }

    #[test]
    fn an_heir_that_dies_before_it_stands_leaves_everything_as_it_was() {
        let lock = InterfaceLock::take(IFINDEX + 1, "eth9").unwrap();
        let heir = thread::spawn(|| {
            let mut old = Predecessor::find(IFINDEX + 1, "eth9").unwrap();
            drop(old.ask().unwrap());
        });
        let came = await_heir(&lock);
        assert_eq!(came.pid.unsigned_abs(), std::process::id());
        assert!(!came.give(&lock, None), "it was never confirmed");
        heir.join().unwrap();
        assert!(InterfaceLock::is_held(IFINDEX + 1));
    }

    #[test]
    fn the_silence_of_a_stopped_process_is_called_that() {
        let silence = super::in_words(std::io::ErrorKind::WouldBlock.into());
        assert!(
            silence.to_string().contains("stopped (kill -CONT)"),
            "{silence}"
        );
        let gone = super::in_words(std::io::ErrorKind::UnexpectedEof.into());
        assert_eq!(gone.kind(), std::io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn who_only_knocks_gets_nothing_and_nobody_there_is_said() {
        let error = Predecessor::find(IFINDEX + 2, "eth9").unwrap_err();
        assert!(
            error.to_string().starts_with("eth9: cannot take over"),
            "{error}"
        );
        let lock = InterfaceLock::take(IFINDEX + 2, "eth9").unwrap();
        assert!(Heir::at(&lock).is_none());
        Predecessor::find(IFINDEX + 2, "eth9").unwrap();
        assert!(Heir::at(&lock).is_none(), "it asked for nothing");
        assert!(Heir::at(&lock).is_none(), "and is forgotten");
    }
}
