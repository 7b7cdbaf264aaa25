//! One netlink conversation: a request goes out, its answers come back. Attributes are written and
//! read by number and length, so that attributes newer than this program are skipped, never an
//! error.

mod address;
pub(crate) mod filter;
mod link;
pub(crate) mod uapi;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_packet_core::{Emitable, NetlinkBuffer, NetlinkHeader, NlasIterator};
use netlink_sys::{Socket, SocketAddr, protocols};

pub(crate) use address::addresses;
pub use link::{Link, LinkPackets, XdpMode, XdpProgram};

/// Bytes of the receive buffer: the kernel's dumps use at most 32 KiB a datagram
/// (`NLMSG_GOODSIZE`, `netlink_dump`).
const RECEIVE_BYTES: usize = 64 * 1024;

/// Bytes of `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;

/// The body of a message: its fixed header, then attributes.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Body(Vec<u8>);

impl Body {
    /// A body that begins with these bytes of a fixed header.
    pub(crate) fn new(header: &[u8]) -> Self {
        Self(header.to_vec())
    }

    /// `struct ifinfomsg`: family unspecified, type 0, then index, flags and the mask of flags that
    /// count.
    pub(crate) fn link(ifindex: u32, flags: u32, change: u32) -> Self {
        let mut header = [0_u8; 16];
        header[4..8].copy_from_slice(&ifindex.to_ne_bytes());
        header[8..12].copy_from_slice(&flags.to_ne_bytes());
        header[12..].copy_from_slice(&change.to_ne_bytes());
        Self::new(&header)
    }

    /// One attribute. Longer than 65531 bytes does not exist here: names, numbers, small nests.
    pub(crate) fn attr(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        debug_assert_eq!(
            usize::from(length),
            value.len() + 4,
            "an attribute has 16 bits of length"
        );
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// A 32 bit number in the host's order.
    pub(crate) fn u32(self, kind: u16, value: u32) -> Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// A string with the NUL that the kernel's `NLA_STRING` and `NLA_NUL_STRING` both take.
    pub(crate) fn string(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    /// Attributes inside an attribute. The nested flag is left out: the kernel's older families
    /// neither need nor always accept it.
    pub(crate) fn nest(self, kind: u16, inner: Self) -> Self {
        self.attr(kind, &inner.0)
    }

    /// The bytes.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The attributes in `bytes`, by kind; a broken one ends them.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes)
        .map_while(Result::ok)
        .filter_map(|nla| {
            let (kind, length) = (nla.kind(), usize::from(nla.length()));
            nla.into_inner().get(4..length).map(|value| (kind, value))
        })
}

/// The first attribute of that kind.
pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|(k, _)| *k == kind)
        .map(|(_, value)| value)
}

/// A 32 bit number at the front of `bytes`.
pub(crate) fn read_u32(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|b| u32::from_ne_bytes(*b))
}

/// A 32 or 64 bit number that is all of `bytes`: `nla_put_uint` sends whichever is enough.
pub(crate) fn read_uint(bytes: &[u8]) -> Option<u64> {
    match bytes.len() {
        4 => read_u32(bytes).map(u64::from),
        _ => bytes.first_chunk().map(|b| u64::from_ne_bytes(*b)),
    }
}

/// Text up to the first NUL.
pub(crate) fn read_text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

/// Why a request came to nothing.
#[derive(Debug)]
pub struct Refusal {
    /// The kernel's error number, or that of the socket.
    pub error: io::Error,
    /// The kernel's own sentence, where it gave one (extended acknowledgment).
    pub reason: Option<String>,
}

impl Refusal {
    /// Whether the kernel answered with that `E…` number.
    #[must_use]
    pub fn is(&self, errno: i32) -> bool {
        self.error.raw_os_error() == Some(errno)
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self {
            error,
            reason: None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)?;
        match &self.reason {
            Some(reason) => write!(f, " (kernel: {reason})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Refusal {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// One message from the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: u16,
    sequence: u32,
    pub(crate) body: Vec<u8>,
}

#[cfg(test)]
impl Message {
    /// A message as if the kernel had sent it.
    pub(crate) fn for_tests(kind: u16, body: Vec<u8>) -> Self {
        Self {
            kind,
            sequence: 0,
            body,
        }
    }
}

/// A netlink socket of the network namespace it was opened in.
pub(crate) struct Conversation {
    socket: Socket,
    sequence: u32,
}

impl fmt::Debug for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conversation")
            .field("fd", &self.socket.as_raw_fd())
            .finish()
    }
}

impl AsFd for Conversation {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Conversation {
    /// Links, queueing disciplines, filters.
    pub(crate) fn route() -> io::Result<Self> {
        Self::open(protocols::NETLINK_ROUTE)
    }

    /// Families with a name, such as `ethtool` and `netdev`.
    pub(crate) fn generic() -> io::Result<Self> {
        Self::open(protocols::NETLINK_GENERIC)
    }

    /// A socket that hears of every change of a link and never blocks.
    pub(crate) fn link_news() -> io::Result<Self> {
        let mut socket = Socket::new(protocols::NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.add_membership(uapi::RTNLGRP_LINK)?;
        socket.set_non_blocking(true)?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Both only make errors more telling; kernels before 4.12 have neither.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Sends one request and returns what came back before its end or acknowledgment.
    pub(crate) fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        body: &Body,
    ) -> Result<Vec<Message>, Refusal> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = HEADER_BYTES + body.0.len();
        let mut header = NetlinkHeader::default();
        header.length = u32::try_from(length).unwrap_or(u32::MAX);
        header.message_type = kind;
        header.flags = flags | uapi::NLM_F_REQUEST | uapi::NLM_F_ACK;
        header.sequence_number = self.sequence;
        let mut request = vec![0; HEADER_BYTES];
        header.emit(&mut request);
        request.extend_from_slice(&body.0);
        self.socket.send(&request, 0)?;

        let mut answers = Vec::new();
        loop {
            for message in self.receive()? {
                if message.sequence != self.sequence {
                    continue;
                }
                match message.kind {
                    uapi::NLMSG_NOOP => {}
                    uapi::NLMSG_ERROR | uapi::NLMSG_DONE => {
                        return outcome(&message).map(|()| answers);
                    }
                    _ => answers.push(message),
                }
            }
        }
    }

    /// The messages of one datagram.
    pub(crate) fn receive(&mut self) -> io::Result<Vec<Message>> {
        let mut buffer = Vec::with_capacity(RECEIVE_BYTES);
        let (_, from) = self.socket.recv_from(&mut buffer, 0)?;
        // Any local process may write to a netlink socket; only port 0 is the kernel.
        Ok(if from.port_number() == 0 {
            split(&buffer)
        } else {
            Vec::new()
        })
    }
}

/// What a `NLMSG_ERROR` or `NLMSG_DONE` says: number 0 is success.
fn outcome(message: &Message) -> Result<(), Refusal> {
    let number = read_u32(&message.body).map_or(0, u32::cast_signed);
    if number == 0 {
        return Ok(());
    }
    // The acknowledgment is capped: after the number stands the request's header alone, and for
    // NLMSG_DONE nothing.
    let skip = if message.kind == uapi::NLMSG_ERROR {
        4 + HEADER_BYTES
    } else {
        4
    };
    let reason = message
        .body
        .get(skip..)
        .and_then(|rest| find(rest, uapi::NLMSGERR_ATTR_MSG))
        .map(read_text)
        .filter(|text| !text.is_empty());
    Err(Refusal {
        error: io::Error::from_raw_os_error(number.saturating_neg()),
        reason,
    })
}

fn split(mut datagram: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Ok(buffer) = NetlinkBuffer::new_checked(datagram) {
        let length = buffer.length() as usize;
        let Some(body) = datagram.get(HEADER_BYTES..length) else {
            break;
        };
        messages.push(Message {
            kind: buffer.message_type(),
            sequence: buffer.sequence_number(),
            body: body.to_vec(),
        });
        datagram = datagram
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_to_four_bytes_and_their_length_is_not() {
        let body = Body::default().string(3, "rstx7").u32(4, 1500);
        assert_eq!(
            body.bytes(),
            [
                &10_u16.to_ne_bytes()[..],
                &3_u16.to_ne_bytes(),
                b"rstx7\0\0\0",
                &8_u16.to_ne_bytes(),
                &4_u16.to_ne_bytes(),
                &1500_u32.to_ne_bytes(),
            ]
            .concat()
        );
    }

    #[test]
    fn a_nest_reads_back() {
        let body = Body::default().nest(18, Body::default().string(1, "veth").u32(2, 9));
        let nest = find(body.bytes(), 18).unwrap();
        assert_eq!(find(nest, 1).map(read_text).as_deref(), Some("veth"));
        assert_eq!(find(nest, 2).and_then(read_u32), Some(9));
        assert_eq!(find(nest, 3), None);
    }

    #[test]
    fn a_link_header_has_index_flags_and_mask_where_the_kernel_looks() {
        let body = Body::link(7, uapi::IFF_UP, uapi::IFF_UP | uapi::IFF_NOARP);
        assert_eq!(body.bytes().len(), 16);
        assert_eq!(read_u32(&body.bytes()[4..]), Some(7));
        assert_eq!(read_u32(&body.bytes()[8..]), Some(1));
        assert_eq!(read_u32(&body.bytes()[12..]), Some(0x81));
    }

    #[test]
    fn broken_attributes_end_the_list_without_a_panic() {
        for bytes in [
            &[3_u8, 0, 1, 0][..],
            &[200, 0, 1, 0, 1],
            &[1],
            &[],
            &[0, 0, 0, 0],
        ] {
            assert_eq!(attributes(bytes).count(), 0, "{bytes:?}");
        }
        let mut good_then_short = Body::default().u32(1, 2).bytes().to_vec();
        good_then_short.extend([9, 0, 1]);
        assert_eq!(attributes(&good_then_short).count(), 1);
    }

    #[test]
    fn an_error_carries_the_kernels_sentence() {
        let mut body = (-22_i32).to_ne_bytes().to_vec();
        body.extend_from_slice(&[0; HEADER_BYTES]);
        body.extend_from_slice(
            Body::default()
                .string(uapi::NLMSGERR_ATTR_MSG, "no")
                .bytes(),
        );
        let message = Message {
            kind: uapi::NLMSG_ERROR,
            sequence: 1,
            body,
        };
        let refusal = outcome(&message).unwrap_err();
        assert!(refusal.is(22));
        assert_eq!(refusal.reason.as_deref(), Some("no"));
    }

    #[test]
    fn error_number_zero_is_an_acknowledgment() {
        let message = Message {
            kind: uapi::NLMSG_ERROR,
            sequence: 1,
            body: vec![0; 20],
        };
        assert!(outcome(&message).is_ok());
    }

    #[test]
    fn a_datagram_splits_into_its_messages_and_a_torn_tail_is_left() {
        let one = [
            20_u32.to_ne_bytes(),
            [16, 0, 0, 0],
            [5, 0, 0, 0],
            [0; 4],
            [1, 2, 3, 4],
        ]
        .concat();
        let mut two = [one.clone(), one].concat();
        assert_eq!(split(&two).len(), 2);
        two.pop();
        assert_eq!(split(&two).len(), 1);
    }
}
