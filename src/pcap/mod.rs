//! Reads capture files, pcap and pcapng, packet by packet, as a stream: memory does not grow with
//! the file, and no packet is copied. All packets before a damaged place are given out; then the
//! error names the file and the byte. It does not parse packets and does not decompress.

mod input;
mod legacy;
mod link;
mod ng;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub use link::{link_layer, link_name};

use crate::time::Timestamp;
use crate::vantage::InterfaceId;
use crate::wire::LinkLayer;
use input::Input;
use legacy::Legacy;
use ng::Blocks;

/// Longest packet that is believed, in bytes: four times tcpdump's largest snapshot length. A
/// header that claims more is damaged.
const PACKET_LIMIT: u32 = 1 << 20;

/// One packet as the capture holds it.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    /// When it was captured, since 1970; what the file says, even where that jumps back or is 0.
    pub time: Timestamp,
    /// How its bytes begin; `None` for a link type that is not read.
    pub link: Option<LinkLayer>,
    /// The LINKTYPE number.
    pub link_type: u16,
    /// Index of the interface in its section; 0 in pcap.
    pub interface: InterfaceId,
    /// The captured bytes.
    pub bytes: &'a [u8],
    /// Its length on the wire in bytes.
    pub wire_len: u32,
}

/// Why a capture, or the rest of it, cannot be read.
#[derive(Debug)]
pub enum Error {
    /// It cannot be opened.
    Open {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Reading failed.
    Read {
        /// The file.
        path: PathBuf,
        /// Bytes read before.
        offset: u64,
        /// The reason.
        source: io::Error,
    },
    /// It has no bytes.
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// It begins as no capture does.
    NotACapture {
        /// The file.
        path: PathBuf,
        /// What it seems to be, and what would help.
        hint: Option<&'static str>,
    },
    /// It ends within a packet or header.
    Truncated {
        /// The file.
        path: PathBuf,
        /// Where the thing that is cut begins.
        offset: u64,
        /// Bytes that it should have.
        wanted: u64,
        /// Bytes that it has.
        found: u64,
    },
    /// What stands there cannot be.
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { path, source } => write!(f, "{}: cannot open: {source}", path.display()),
            Self::Read {
                path,
                offset,
                source,
            } => {
                write!(
                    f,
                    "{}: cannot read on at byte {offset}: {source}",
                    path.display()
                )
            }
            Self::Empty { path } => write!(f, "{}: is empty, not a capture", path.display()),
            Self::NotACapture { path, hint } => {
                write!(f, "{}: is neither pcap nor pcapng", path.display())?;
                hint.map_or(Ok(()), |hint| write!(f, ": {hint}"))
            }
            Self::Truncated {
                path,
                offset,
                wanted,
                found,
            } => write!(
                f,
                "{}: cut short at byte {offset}: {wanted} bytes should follow, {found} do",
                path.display()
            ),
            Self::Damaged { path, offset, what } => {
                write!(f, "{}: damaged at byte {offset}: {what}", path.display())
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Open { source, .. } | Self::Read { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// An error before it knows its file.
enum Trouble {
    Io(io::Error),
    Truncated {
        wanted: u64,
        found: u64,
    },
    /// The same, with what was found consumed already.
    SkippedShort {
        wanted: u64,
        found: u64,
    },
    Damaged(&'static str),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Trouble {
    fn at(self, path: &Path, offset: u64) -> Error {
        let path = path.to_owned();
        match self {
            Self::Io(source) => Error::Read {
                path,
                offset,
                source,
            },
            Self::Truncated { wanted, found } => Error::Truncated {
                path,
                offset,
                wanted,
                found,
            },
            Self::SkippedShort { wanted, found } => {
                let offset = offset.saturating_sub(found);
                Error::Truncated {
                    path,
                    offset,
                    wanted,
                    found,
                }
            }
            Self::Damaged(what) => Error::Damaged { path, offset, what },
        }
    }
}

/// Byte order of a file or section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Big,
    Little,
}

impl Order {
    const fn u16(self, bytes: [u8; 2]) -> u16 {
        match self {
            Self::Big => u16::from_be_bytes(bytes),
            Self::Little => u16::from_le_bytes(bytes),
        }
    }

    const fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Big => u32::from_be_bytes(bytes),
            Self::Little => u32::from_le_bytes(bytes),
        }
    }

    const fn u64(self, bytes: [u8; 8]) -> u64 {
        match self {
            Self::Big => u64::from_be_bytes(bytes),
            Self::Little => u64::from_le_bytes(bytes),
        }
    }
}

/// A packet that was just consumed: its bytes begin `back` bytes behind the current place.
struct Found {
    time_ns: u64,
    link_type: u16,
    interface: u16,
    back: usize,
    len: usize,
    wire_len: u32,
}

enum Format {
    Legacy(Legacy),
    Blocks(Blocks),
}

/// An open capture.
pub struct Reader {
    path: PathBuf,
    input: Input,
    format: Format,
    size: Option<u64>,
    finished: bool,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("path", &self.path)
            .field("offset", &self.input.offset())
            .finish_non_exhaustive()
    }
}

/// Bytes at the start of a capture that [`Reader::head`] gives out, of a file and of a stream: few
/// of a stream, since its writer may be slow.
const HEAD_BYTES: usize = 1 << 16;
const STREAM_HEAD_BYTES: usize = 1 << 9;

impl Reader {
    /// Opens a capture; `-` is standard input.
    ///
    /// # Errors
    ///
    /// [`Error`] when it cannot be opened or does not begin as a capture does.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if path.as_os_str() == "-" {
            return Self::new(Path::new("standard input"), Box::new(io::stdin()), None);
        }
        let open = |source| Error::Open {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(open)?;
        // A pipe says that it has no bytes; it is a stream.
        let known = file.metadata().map_err(open)?;
        if known.is_dir() {
            let remedy = "it is a directory: name the captures in it";
            return Err(open(io::Error::new(io::ErrorKind::IsADirectory, remedy)));
        }
        let size = known.is_file().then_some(known.len());
        Self::new(path, Box::new(file), size)
    }

    /// Reads a capture from `source`, a file of `size` bytes or a stream. `path` is its name in
    /// errors.
    ///
    /// # Errors
    ///
    /// [`Error`] when it does not begin as a capture does.
    pub fn new(
        path: &Path,
        source: Box<dyn Read + Send>,
        size: Option<u64>,
    ) -> Result<Self, Error> {
        let mut input = Input::new(source);
        let begun = (|| {
            input.ready(size.map_or(STREAM_HEAD_BYTES, |_| HEAD_BYTES))?;
            if let Some(legacy) = Legacy::begin(&mut input)? {
                return Ok(Some(Format::Legacy(legacy)));
            }
            Ok(Blocks::begin(&mut input)?.map(Format::Blocks))
        })();
        match begun.map_err(|trouble: Trouble| trouble.at(path, input.offset()))? {
            Some(format) => Ok(Self {
                path: path.to_owned(),
                input,
                format,
                size,
                finished: false,
            }),
            None if input.bytes().is_empty() => Err(Error::Empty {
                path: path.to_owned(),
            }),
            None => Err(Error::NotACapture {
                path: path.to_owned(),
                hint: other_format(input.bytes()),
            }),
        }
    }

    /// Bytes of the whole file, where it is one.
    #[must_use]
    pub const fn size(&self) -> Option<u64> {
        self.size
    }

    /// The next bytes, up to 64 KiB of a file and 512 of a stream: right after [`Reader::open`]
    /// they tell one capture from another.
    #[must_use]
    pub fn head(&self) -> &[u8] {
        let limit = self.size.map_or(STREAM_HEAD_BYTES, |_| HEAD_BYTES);
        let bytes = self.input.bytes();
        bytes.get(..limit).unwrap_or(bytes)
    }

    /// Bytes that can be had without waiting for the source.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.input.held()
    }

    /// Name of an interface, where the capture tells it.
    #[must_use]
    pub fn interface_name(&self, interface: InterfaceId) -> Option<&str> {
        match &self.format {
            Format::Legacy(_) => None,
            Format::Blocks(blocks) => blocks.name(interface.0),
        }
    }

    /// The next packet; `None` at the end, and after an error.
    ///
    /// # Errors
    ///
    /// [`Error`] once, at the first place that cannot be read.
    #[inline]
    pub fn next_packet(&mut self) -> Result<Option<Packet<'_>>, Error> {
        if self.finished {
            return Ok(None);
        }
        let found = match &mut self.format {
            Format::Legacy(legacy) => legacy.next(&mut self.input),
            Format::Blocks(blocks) => blocks.next(&mut self.input),
        };
        match found {
            Ok(Some(found)) => Ok(Some(Packet {
                time: Timestamp::from_nanos(found.time_ns),
                link: link_layer(found.link_type),
                link_type: found.link_type,
                interface: InterfaceId(found.interface),
                bytes: self.input.behind(found.back, found.len),
                wire_len: found.wire_len,
            })),
            Ok(None) => {
                self.finished = true;
                Ok(None)
            }
            Err(trouble) => {
                self.finished = true;
                Err(trouble.at(&self.path, self.input.offset()))
            }
        }
    }
}

/// How captures of Solaris' snoop, Network Monitor 1 and 2, NetXRay and Sniffer begin.
const OTHER_FORMATS: [&[u8]; 5] = [b"snoop\0", b"RTSS", b"GMBU", b"XCP\0", b"TRSNIFF"];

/// What to do with a file that is compressed, in another program's format, or not there at all.
fn other_format(bytes: &[u8]) -> Option<&'static str> {
    Some(match bytes {
        // Records are compressed too, by logrotate: those are for `explain`.
        [0x1f, 0x8b, ..] => "gzip: try `gzip -dc FILE | rstscope read -`, or `… explain -`",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            "zstd: try `zstd -dc FILE | rstscope read -`, or `… explain -`"
        }
        [0xfd, b'7', b'z', b'X', b'Z', ..] => {
            "xz: try `xz -dc FILE | rstscope read -`, or `… explain -`"
        }
        [b'B', b'Z', b'h', ..] => "bzip2: try `bzip2 -dc FILE | rstscope read -`, or `… explain -`",
        [0x04, 0x22, 0x4d, 0x18, ..] => {
            "lz4: try `lz4 -dc FILE | rstscope read -`, or `… explain -`"
        }
        _ if OTHER_FORMATS.iter().any(|magic| bytes.starts_with(magic)) => {
            "another capture format: try `tshark -r FILE -F pcap -w - | rstscope read -`"
        }
        _ if bytes.starts_with(b"version https://git-lfs") => {
            "a Git LFS pointer: the capture itself comes with `git lfs pull`"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::path::Path;

    use super::{Error, Reader};

    /// Times, link types and lengths of all packets, and the error that ended it.
    fn read(bytes: &[u8]) -> (Vec<(u64, u16, usize)>, Option<Error>) {
        let source = Box::new(Cursor::new(bytes.to_vec()));
        let mut reader = match Reader::new(Path::new("test"), source, None) {
            Ok(reader) => reader,
            Err(error) => return (Vec::new(), Some(error)),
        };
        let mut packets = Vec::new();
        loop {
            match reader.next_packet() {
                Ok(Some(p)) => packets.push((p.time.as_nanos(), p.link_type, p.bytes.len())),
                Ok(None) => return (packets, None),
                Err(error) => return (packets, Some(error)),
            }
        }
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// A section header and an Ethernet interface.
    fn section(snap_len: u32) -> Vec<u8> {
        let header = [0x0a0d_0d0a, 28, 0x1a2b_3c4d, 1, u32::MAX, u32::MAX, 28];
        [words(&header), words(&[1, 20, 1, snap_len, 20])].concat()
    }

    #[test]
    fn a_simple_packet_has_the_time_before_it_and_the_interfaces_snap_length() {
        let enhanced = [6, 36, 0, 0, 9, 4, 4, 0xaaaa_aaaa, 36];
        let simple = [3, 20, 100, 0xbbbb_bbbb, 20];
        let bytes = [section(4), words(&enhanced), words(&simple)].concat();
        assert_eq!(read(&bytes).0, [(9000, 1, 4), (9000, 1, 4)]);
        let unlimited = [section(0), words(&simple)].concat();
        assert_eq!(
            read(&unlimited).0,
            [(0, 1, 4)],
            "no more than the block holds"
        );
    }

    #[test]
    fn the_obsolete_packet_block_is_still_read() {
        // A drop count of 7 stands above interface 0.
        let packet = [2, 36, 0x0007_0000, 0, 9, 4, 60, 0xaaaa_aaaa, 36];
        assert_eq!(
            read(&[section(0), words(&packet)].concat()).0,
            [(9000, 1, 4)]
        );
    }

    #[test]
    fn what_is_no_capture_of_ours_is_told_with_what_helps() {
        let hint = |bytes: &[u8]| match read(bytes).1 {
            Some(Error::NotACapture { hint, .. }) => hint.unwrap_or_default(),
            other => panic!("{other:?}"),
        };
        for magic in super::OTHER_FORMATS {
            assert!(hint(&[magic, &[0; 32]].concat()).contains("tshark -r FILE"));
        }
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n";
        assert!(hint(pointer).contains("git lfs pull"));
        assert_eq!(hint(b"id,source\n"), "");
    }

    #[test]
    fn a_new_section_forgets_the_interfaces_before_it() {
        let packet = words(&[6, 36, 0, 0, 1, 4, 4, 0, 36]);
        let header = words(&[0x0a0d_0d0a, 28, 0x1a2b_3c4d, 1, u32::MAX, u32::MAX, 28]);
        let bytes = [section(0), packet.clone(), header, packet].concat();
        let (packets, error) = read(&bytes);
        assert_eq!(packets.len(), 1);
        assert!(
            matches!(error, Some(Error::Damaged { offset: 112, .. })),
            "{error:?}"
        );
    }

    #[test]
    fn blocks_that_contradict_themselves_are_damage_at_their_first_byte() {
        let at = section(0).len() as u64;
        for block in [
            &[6, 36, 0, 0, 1, 4, 4, 0, 40][..],
            &[6, 36, 0, 0, 1, 5, 5, 0, 36],
            &[6, 36, 1, 0, 1, 4, 4, 0, 36],
            &[6, 8, 8, 0],
            &[6, 35, 0, 0, 1, 4, 4, 0, 35],
            &[6, 0x7fff_fffc, 0, 0, 1, 4, 4, 0, 36],
            &[6, 16, 0, 16],
        ] {
            let (packets, error) = read(&[section(0), words(block)].concat());
            assert!(packets.is_empty());
            match error {
                Some(Error::Damaged { offset, .. }) => assert_eq!(offset, at, "{block:x?}"),
                other => panic!("{block:x?}: {other:?}"),
            }
        }
    }

    #[test]
    fn packet_headers_of_kuznetzovs_variant_are_stepped_over() {
        let header = words(&[0xa1b2_cd34, 0x0004_0002, 0, 0, 65535, 1]);
        let packet = words(&[1, 2, 4, 60, 0, 0, 0xaaaa_aaaa]);
        let (packets, error) = read(&[header, packet.clone(), packet].concat());
        assert_eq!(packets, [(1_000_002_000, 1, 4), (1_000_002_000, 1, 4)]);
        assert!(error.is_none());
    }

    #[test]
    fn an_impossible_length_is_damage_and_not_an_allocation() {
        let header = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65535, 1]);
        let (packets, error) = read(&[header, words(&[1, 2, u32::MAX, 60])].concat());
        assert!(packets.is_empty());
        assert!(
            matches!(error, Some(Error::Damaged { offset: 24, .. })),
            "{error:?}"
        );
    }
}
