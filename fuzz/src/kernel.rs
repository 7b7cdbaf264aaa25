//! What the BPF programs write: ring buffer records and the metadata before a frame. Whatever the
//! bytes are, nothing panics, and no frame is longer than its record.

use rstscope::events::{Event, Reasons, decode};
use rstscope::host_bytes::{frame_meta, socket_view};
use rstscope::wire::{LinkLayer, parse};

/// Decodes the bytes as each thing that a BPF program may have written.
pub fn run(bytes: &[u8]) {
    let reasons = Reasons::default();
    match decode(bytes, &reasons) {
        Some(Event::Frame(copied)) => {
            let end = copied.frame.as_ptr_range().end;
            assert!(bytes.as_ptr_range().end >= end, "beyond the record");
            match copied.socket.and_then(|socket| socket.sender()) {
                Some(cookie) => assert_eq!(bytes.get(32..40), Some(&cookie.to_ne_bytes()[..])),
                None => assert_eq!(copied.socket, bytes.get(40..).and_then(socket_view)),
            }
            let _ = parse(LinkLayer::Ethernet, copied.frame);
        }
        Some(Event::Kernel(event)) => {
            assert_eq!(event.tuple, event.tuple.reversed().reversed());
            assert_ne!(event.cookie, Some(0), "0 is no cookie");
        }
        None => {}
    }
    let _ = socket_view(bytes);
    let _ = frame_meta(bytes);
}
