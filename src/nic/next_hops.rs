//! By what this host chooses among the next hops of a route.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// One a family.
const POLICIES: [&str; 2] = [
    "/proc/sys/net/ipv4/fib_multipath_hash_policy",
    "/proc/sys/net/ipv6/fib_multipath_hash_policy",
];

/// By addresses and ports: the hash that the NIC left beside a frame is taken where there is one
/// (`fib_multipath_hash`, `rt6_multipath_hash`). No other policy looks at it.
const BY_PORTS: u8 = b'1';

/// The policies, open: they can be read again by a process that may open nothing any more.
#[derive(Debug)]
pub struct NextHops {
    policies: Vec<File>,
}

impl NextHops {
    /// Opens them. A kernel without such routes has none.
    #[must_use]
    pub fn open() -> Self {
        let policies = POLICIES.iter().filter_map(|path| File::open(path).ok());
        Self {
            policies: policies.collect(),
        }
    }

    /// Whether either family's next hops are chosen by a frame's hash, as things stand.
    #[must_use]
    pub fn are_by_hash(&self) -> bool {
        self.policies.iter().any(|policy| {
            let mut value = [0];
            policy.read_at(&mut value, 0).is_ok() && value == [BY_PORTS]
        })
    }
}
