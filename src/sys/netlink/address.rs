//! The addresses of this network namespace's interfaces. Local routes without an address on an interface
//! (`ip route add local …`) are not among them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Body, Conversation, Message, Refusal, find, uapi};

/// Bytes of `struct ifaddrmsg`.
const HEADER_BYTES: usize = 8;

/// Every address, in the kernel's order.
pub(crate) fn addresses(route: &mut Conversation) -> Result<Vec<IpAddr>, Refusal> {
    let all = Body::new(&[0; HEADER_BYTES]);
    let answers = route.ask(uapi::RTM_GETADDR, uapi::NLM_F_DUMP, &all)?;
    Ok(answers.iter().filter_map(decode).collect())
}

/// `IFA_LOCAL` is this end's address; IPv6 has it only on a point-to-point link, else `IFA_ADDRESS`.
fn decode(message: &Message) -> Option<IpAddr> {
    let rest = message.body.get(HEADER_BYTES..)?;
    let bytes = find(rest, uapi::IFA_LOCAL).or_else(|| find(rest, uapi::IFA_ADDRESS))?;
    match bytes.len() {
        4 => Some(Ipv4Addr::from(*bytes.first_chunk::<4>()?).into()),
        16 => Some(Ipv6Addr::from(*bytes.first_chunk::<16>()?).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::decode;
    use crate::sys::netlink::{Body, Message, uapi};

    #[test]
    fn the_local_end_counts() {
        let body = Body::new(&[2, 24, 0, 0, 1, 0, 0, 0])
            .attr(uapi::IFA_ADDRESS, &[10, 0, 0, 1])
            .attr(uapi::IFA_LOCAL, &[10, 0, 0, 2]);
        let message = Message::for_tests(20, body.bytes().to_vec());
        assert_eq!(decode(&message), Some("10.0.0.2".parse().unwrap()));
        let body = Body::new(&[10, 64, 0, 0, 1, 0, 0, 0]).attr(uapi::IFA_ADDRESS, &[0xfd; 16]);
        let message = Message::for_tests(20, body.bytes().to_vec());
        let expected = "fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd";
        assert_eq!(decode(&message), Some(expected.parse().unwrap()));
        assert_eq!(decode(&Message::for_tests(20, vec![0; 3])), None);
    }
}
