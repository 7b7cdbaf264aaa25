//! The TCP connections whose addresses this host translates for others now (masquerade, DNAT), from
//! `/proc/net/nf_conntrack`: their resets are for addresses of this host, and no socket of it has them.
//! Only root may read it; a kernel may be without.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;

use crate::wire::FourTuple;

/// Lines that are looked at: of a host that tracks more, the first. Each takes a microsecond.
const LINES_MAX: usize = 1 << 18;

/// At most `limit` four-tuples of established connections, `src` being this host's side, each as frames of one
/// way bear it: a connection has two. None where the kernel does not tell.
#[must_use]
pub fn translated(limit: usize) -> Vec<FourTuple> {
    let Ok(file) = File::open("/proc/net/nf_conntrack") else {
        return Vec::new();
    };
    let lines = BufReader::new(file).lines().map_while(Result::ok);
    let pairs = lines
        .take(LINES_MAX)
        .filter_map(|line| connection(&line))
        .flatten();
    pairs.take(limit).collect()
}

/// One line: `ipv4 2 tcp 6 431999 ESTABLISHED src= dst= sport= dport= src= dst= sport= dport= …`, first as the
/// connection was asked for, then as it is answered.
fn connection(line: &str) -> Option<[FourTuple; 2]> {
    let mut fields = line.split_ascii_whitespace();
    let is_open = fields.nth(2) == Some("tcp") && fields.nth(2) == Some("ESTABLISHED");
    let asked = tuple(&mut fields).filter(|_| is_open)?;
    let answered = tuple(&mut fields)?;
    // Each comes in, and is for this host's side.
    let is_translated = asked.reversed() != answered;
    is_translated.then(|| [asked.reversed(), answered.reversed()])
}

/// The next four of these fields; others may stand between (counters, `[UNREPLIED]`).
fn tuple<'a>(fields: &mut impl Iterator<Item = &'a str>) -> Option<FourTuple> {
    let mut value = |name: &str| fields.find_map(|field| field.strip_prefix(name));
    let src: IpAddr = value("src=")?.parse().ok()?;
    let dst: IpAddr = value("dst=")?.parse().ok()?;
    Some(FourTuple {
        src,
        dst,
        src_port: value("sport=")?.parse().ok()?,
        dst_port: value("dport=")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::connection;

    fn told(line: &str) -> Option<Vec<String>> {
        let tuples = connection(line)?;
        let text = |t: &crate::wire::FourTuple| {
            format!("{} {} {} {}", t.src, t.src_port, t.dst, t.dst_port)
        };
        Some(tuples.iter().map(text).collect())
    }

    #[test]
    fn both_ways_of_a_connection_that_is_translated_are_read() {
        let line = "ipv4     2 tcp      6 431998 ESTABLISHED src=10.74.1.2 dst=10.74.2.2 sport=60498 \
                    dport=8080 packets=3 bytes=164 src=172.31.0.2 dst=10.74.1.2 sport=80 dport=60498 \
                    [ASSURED] mark=0 zone=0 use=2";
        let both = [
            "10.74.2.2 8080 10.74.1.2 60498",
            "10.74.1.2 60498 172.31.0.2 80",
        ];
        assert_eq!(told(line).unwrap(), both);
        let v6 = "ipv6     10 tcp      6 300 ESTABLISHED src=fd00::2 dst=fd01::9 sport=5 dport=443 \
                  src=fd01::9 dst=fd02::1 sport=443 dport=5 [ASSURED] use=1";
        let both = ["fd01::9 443 fd00::2 5", "fd02::1 5 fd01::9 443"];
        assert_eq!(told(v6).unwrap(), both);
    }

    #[test]
    fn others_are_left_out() {
        for line in [
            "ipv4 2 tcp 6 9 ESTABLISHED src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 src=10.0.0.2 \
             dst=10.0.0.1 sport=2 dport=1 [ASSURED] use=1",
            "ipv4 2 tcp 6 9 SYN_SENT src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 [UNREPLIED] \
             src=10.0.0.2 dst=10.0.0.9 sport=2 dport=1 use=1",
            "ipv4 2 udp 17 9 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 src=10.0.0.2 dst=10.0.0.9 \
             sport=2 dport=1 use=1",
            "ipv4 2 tcp 6 9 ESTABLISHED src=10.0.0.1 dst=10.0.0.2 sport=1",
            "",
        ] {
            assert_eq!(told(line), None, "{line}");
        }
    }
}
