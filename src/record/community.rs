//! Community ID v1 (github.com/corelight/community-id-spec), seed 0: the same for both directions
//! of a connection, so that records join those of Zeek, Suricata and others.

use crate::flow::Endpoint;
use crate::wire::ipv4::PROTOCOL_TCP;

/// Seed of the specification's default, which the other tools use as well.
const SEED: u16 = 0;

/// The Community ID of a TCP connection; `None` when its ends are of different families.
#[must_use]
pub fn community_id(source: Endpoint, destination: Endpoint) -> Option<String> {
    community_id::calculate_community_id(
        SEED,
        source.address,
        destination.address,
        Some(source.port),
        Some(destination.port),
        PROTOCOL_TCP,
        false,
    )
    .ok()
}

#[cfg(test)]
mod tests {
    use super::community_id;
    use crate::flow::Endpoint;

    fn end(address: &str, port: u16) -> Endpoint {
        Endpoint {
            address: address.parse().unwrap(),
            port,
        }
    }

    /// The first is a TCP row of the specification's baseline (`baseline_deflt.json`); the others
    /// were worked out from its pseudo code with another SHA-1.
    #[test]
    fn the_specifications_vectors_come_out_from_both_ends() {
        for (a, b, id) in [
            (
                end("128.232.110.120", 34855),
                end("66.35.250.204", 80),
                "1:LQU9qZlK+B5F3KDmev6m5PMibrg=",
            ),
            (
                end("10.0.0.1", 10),
                end("10.0.0.2", 20),
                "1:9j2Dzwrw7T9E+IZi4b4IVT66HBI=",
            ),
            (
                end("10.0.0.1", 10),
                end("10.0.0.1", 20),
                "1:1Lc+0H/HgLmR5V4rmOeuDZQS11k=",
            ),
            (
                end("1.2.3.4", 1122),
                end("5.6.7.8", 3344),
                "1:wCb3OG7yAFWelaUydu0D+125CLM=",
            ),
            (
                end("2001:db8::1", 51514),
                end("2001:db8::2", 443),
                "1:668Vh7q82TQI0r9tUbpJ/Y6jZYQ=",
            ),
        ] {
            assert_eq!(community_id(a, b).as_deref(), Some(id));
            assert_eq!(community_id(b, a).as_deref(), Some(id));
        }
    }

    #[test]
    fn mixed_families_have_none() {
        assert_eq!(community_id(end("10.0.0.1", 1), end("::1", 2)), None);
    }
}
