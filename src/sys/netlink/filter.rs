//! Filters of a clsact qdisc: the requests that name one, and what an answer says of it. What a filter
//! does is its owner's to write.

use super::{Body, find, read_text, read_u32, uapi};

/// `ETH_P_ALL` in network order, as `tcm_info` holds it.
const ALL_PROTOCOLS: u32 = 0x0003_u16.to_be() as u32;

/// Bytes of `struct tcmsg`.
const HEADER_BYTES: usize = 20;

/// `struct tcmsg`: family unspecified.
pub(crate) fn traffic(ifindex: u32, handle: u32, parent: u32, info: u32) -> Body {
    let mut header = [0_u8; HEADER_BYTES];
    header[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    header[8..12].copy_from_slice(&handle.to_ne_bytes());
    header[12..16].copy_from_slice(&parent.to_ne_bytes());
    header[16..].copy_from_slice(&info.to_ne_bytes());
    Body::new(&header)
}

/// A BPF filter of all protocols, by its place; handle 0 is any.
pub(crate) fn bpf_filter(ifindex: u32, handle: u32, parent: u32, priority: u32) -> Body {
    traffic(ifindex, handle, parent, priority << 16 | ALL_PROTOCOLS).string(uapi::TCA_KIND, "bpf")
}

/// Whose program a BPF filter runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BpfFilter {
    /// `PROGRAM:[ID]` where libbpf made it; empty where its maker gave it none.
    pub(crate) name: String,
    /// The kernel's number of the program; `None` of one in classic BPF.
    pub(crate) program: Option<u32>,
}

/// What an RTM_NEWTFILTER answer says of a BPF filter.
pub(crate) fn bpf_filter_in(body: &[u8]) -> Option<BpfFilter> {
    let options = find(body.get(HEADER_BYTES..)?, uapi::TCA_OPTIONS)?;
    Some(BpfFilter {
        name: find(options, uapi::TCA_BPF_NAME).map_or_else(String::new, read_text),
        program: find(options, uapi::TCA_BPF_ID).and_then(read_u32),
    })
}

#[cfg(test)]
mod tests {
    use super::{Body, BpfFilter, bpf_filter, bpf_filter_in, uapi};

    #[test]
    fn a_filter_is_asked_for_by_its_place() {
        let body = bpf_filter(7, 1, uapi::TC_H_MIN_INGRESS, 49_000);
        let words: Vec<u32> = body.bytes()[..20]
            .chunks_exact(4)
            .map(|word| u32::from_ne_bytes(word.try_into().unwrap()))
            .collect();
        let info = 49_000 << 16 | u32::from(3_u16.to_be());
        assert_eq!(words, [0, 7, 1, 0xFFFF_FFF2, info]);
    }

    #[test]
    fn an_answer_says_whose_program_it_is() {
        let bare = bpf_filter(7, 1, uapi::TC_H_MIN_INGRESS, 49_000);
        let of = |options: Body| {
            let answer = bare.clone().nest(uapi::TCA_OPTIONS, options);
            bpf_filter_in(answer.bytes())
        };
        let named = Body::default().string(uapi::TCA_BPF_NAME, "report_ingress:[42]");
        let filter = |name: &str, program| {
            let name = name.to_owned();
            Some(BpfFilter { name, program })
        };
        let expected = filter("report_ingress:[42]", Some(42));
        assert_eq!(of(named.u32(uapi::TCA_BPF_ID, 42)), expected);
        assert_eq!(of(Body::default()), filter("", None));
        assert_eq!(bpf_filter_in(bare.bytes()), None);
        assert_eq!(bpf_filter_in(&[0; 7]), None);
    }
}
