//! The capture reader: pcap and pcapng. Whatever the file holds, it ends, with every packet inside
//! the file; a file and a stream of the same bytes give the same packets.

use std::io::Cursor;
use std::path::Path;

use rstscope::pcap::Reader;
use rstscope::wire::parse;

/// What a reader gave: time, link type, bytes and length on the wire of each packet, and whether
/// an error ended it.
type Found = (Vec<(u64, u16, Vec<u8>, u32)>, bool);

/// Reads the bytes as a file and as a stream.
pub fn run(bytes: &[u8]) {
    let file = read(bytes, Some(bytes.len() as u64));
    let stream = read(bytes, None);
    assert_eq!(file, stream, "a file is read otherwise than a stream");
    let total: usize = file.0.iter().map(|(_, _, packet, _)| packet.len()).sum();
    assert!(total <= bytes.len(), "{total} bytes out of {}", bytes.len());
}

fn read(bytes: &[u8], size: Option<u64>) -> Found {
    let mut found = Vec::new();
    let source = Box::new(Cursor::new(bytes.to_vec()));
    let mut reader = match Reader::new(Path::new("fuzzed"), source, size) {
        Ok(reader) => reader,
        Err(error) => {
            assert!(error.to_string().contains("fuzzed"), "{error}");
            return (found, true);
        }
    };
    loop {
        match reader.next_packet() {
            Ok(Some(packet)) => {
                if let Some(link) = packet.link {
                    let _ = parse(link, packet.bytes);
                }
                let time = packet.time.as_nanos();
                found.push((
                    time,
                    packet.link_type,
                    packet.bytes.to_vec(),
                    packet.wire_len,
                ));
            }
            Ok(None) => return (found, false),
            Err(error) => {
                assert!(error.to_string().contains("fuzzed"), "{error}");
                assert!(matches!(reader.next_packet(), Ok(None)), "it errs once");
                return (found, true);
            }
        }
    }
}
