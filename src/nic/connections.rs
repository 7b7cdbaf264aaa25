//! The TCP connections that this network namespace has now, from `/proc/net/tcp` and `tcp6`: those
//! are older than the sensor, which never saw their SYN. No privilege is needed, and no other
//! namespace is looked into.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::FourTuple;

/// `TCP_ESTABLISHED` as the kernel prints it.
const ESTABLISHED: &str = "01";

/// The established connections, `src` being the local end; at most `limit` of them.
///
/// # Errors
///
/// Those of reading the files. A kernel without IPv6 has no `tcp6`, which is no error.
pub fn established(limit: usize) -> io::Result<Vec<FourTuple>> {
    let mut found = Vec::new();
    for path in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for line in BufReader::new(file).lines() {
            found.extend(connection(&line?));
            if found.len() >= limit {
                return Ok(found);
            }
        }
    }
    Ok(found)
}

/// One line: `sl local_address rem_address st …` (Documentation/networking/proc_net_tcp.rst).
fn connection(line: &str) -> Option<FourTuple> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (src, src_port) = endpoint(fields.next()?)?;
    let (dst, dst_port) = endpoint(fields.next()?)?;
    let is_open = fields.next()? == ESTABLISHED;
    (is_open && !dst.is_loopback()).then_some(FourTuple {
        src,
        src_port,
        dst,
        dst_port,
    })
}

/// `0100007F:0016`: the address as words in the host's byte order, the port as a number.
fn endpoint(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let mut octets = [0; 16];
    let words = octets.chunks_exact_mut(4).zip(0..address.len() / 8);
    for (octets, word) in words {
        let digits = address.get(word * 8..word * 8 + 8)?;
        octets.copy_from_slice(&u32::from_str_radix(digits, 16).ok()?.to_ne_bytes());
    }
    let address = match (address.len(), octets) {
        (8, [a, b, c, d, ..]) => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        (32, octets) => IpAddr::V6(Ipv6Addr::from(octets)).to_canonical(),
        _ => return None,
    };
    Some((address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::connection;

    #[test]
    #[cfg(target_endian = "little")]
    fn a_line_of_the_kernel_is_read() {
        let line = "   3: 0202000A:01BB 0200000A:9C40 01 00000000:00000000 00:00000000 00000000";
        let tuple = connection(line).unwrap();
        assert_eq!(
            (tuple.src.to_string(), tuple.src_port),
            ("10.0.2.2".to_owned(), 443)
        );
        assert_eq!(
            (tuple.dst.to_string(), tuple.dst_port),
            ("10.0.0.2".to_owned(), 40000)
        );
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn an_ipv4_connection_of_an_ipv6_socket_is_ipv4() {
        let line = "0: 0000000000000000FFFF00000202000A:0050 \
                    0000000000000000FFFF00000200000A:C350 01 0:0";
        assert!(connection(line).unwrap().dst.is_ipv4());
    }

    #[test]
    fn listeners_loopback_and_the_heading_are_left_out() {
        for line in [
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt",
            "   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000",
            "   1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000",
            "   2: 0202000A:01BB 0200000A:9C40 06 00000000:00000000 00:00000000 00000000",
            "x",
            "",
        ] {
            assert_eq!(connection(line), None, "{line}");
        }
    }
}
