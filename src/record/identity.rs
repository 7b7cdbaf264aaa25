//! What makes an `event.id`: a prefix for the run that saw the reset, and the record's sequence
//! number. The same on every retry, another for every record.

/// FNV-1a, 64 bits (draft-eastlake-fnv): stable across builds and machines, which the hasher of
/// the standard library does not promise.
struct Fnv(u64);

impl Fnv {
    const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// A field and its length, so that fields cannot run into each other.
    fn field(&mut self, bytes: &[u8]) {
        self.write(bytes);
        self.write(&(bytes.len() as u64).to_le_bytes());
    }
}

/// FNV-1a over the fields and their lengths.
pub(super) fn hash(fields: &[&[u8]]) -> u64 {
    let mut fnv = Fnv::new();
    for field in fields {
        fnv.field(field);
    }
    fnv.0
}

/// The prefix for `run`: host (machine id or host name), boot id, and CLOCK_MONOTONIC at the start
/// of the sensor in nanoseconds, because a second sensor of the same boot counts from 1 again. The
/// ids are hashed: machine ids are not for publication (machine-id(5)).
#[must_use]
pub fn live_prefix(host: &str, boot: &str, start_ns: u64) -> String {
    let host = hash(&[host.as_bytes()]);
    let boot = hash(&[boot.as_bytes()]);
    format!("{host:016x}-{:08x}-{start_ns:x}", boot >> 32)
}

/// The prefix for a capture: its file name, size and first bytes.
#[must_use]
pub fn capture_prefix(name: &[u8], size: Option<u64>, head: &[u8]) -> String {
    let size = size.map(u64::to_le_bytes);
    let hash = hash(&[name, size.as_ref().map_or(&[], |bytes| bytes), head]);
    format!("capture-{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::{Fnv, capture_prefix, live_prefix};

    #[test]
    fn the_hash_is_fnv_1a() {
        let mut fnv = Fnv::new();
        fnv.write(b"foobar");
        assert_eq!(fnv.0, 0x8594_4171_f739_67e8);
    }

    #[test]
    fn prefixes_are_stable_and_differ_where_their_origin_does() {
        assert_eq!(
            capture_prefix(b"a", Some(1), b"x"),
            capture_prefix(b"a", Some(1), b"x")
        );
        let all = [
            capture_prefix(b"a", Some(1), b"x"),
            capture_prefix(b"b", Some(1), b"x"),
            capture_prefix(b"a", Some(2), b"x"),
            capture_prefix(b"a", Some(1), b"y"),
            capture_prefix(b"a", None, b"x"),
            live_prefix("host", "boot", 1),
            live_prefix("host", "boot", 2),
            live_prefix("host", "toob", 1),
            live_prefix("tsoh", "boot", 1),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[..index].contains(one), "{one}");
        }
    }
}
