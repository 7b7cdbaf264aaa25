/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * From a frame to its TCP header, every step against the frame's end. The decisions are those of
 * src/wire/parse.rs, which the tests hold it to; what is followed less far (other tags, labels)
 * goes to the host and is counted. Refuses to read past the TCP header.
 */
#ifndef RSTSCOPE_PARSE_H
#define RSTSCOPE_PARSE_H

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "shared.h"

#define TYPE_IPV4 0x0800
#define TYPE_IPV6 0x86dd
#define TYPE_VLAN 0x8100
#define TYPE_QINQ 0x88a8

#define PROTOCOL_TCP 6
#define NEXT_HOP_BY_HOP 0
#define NEXT_ROUTING 43
#define NEXT_FRAGMENT 44
#define NEXT_AUTHENTICATION 51
#define NEXT_DESTINATION 60

/* RFC 8200 4.1 recommends at most six; src/wire/ipv6.rs follows as many. */
#define EXTENSION_LIMIT 6

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10
#define TCP_CONTROL (TCP_FIN | TCP_SYN | TCP_RST)

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

struct ethernet_header {
	__u8 dst[6];
	__u8 src[6];
	__be16 type;
};

struct vlan_tag {
	__be16 tci;
	__be16 type;
};

struct ipv4_header {
	__u8 version_ihl;
	__u8 tos;
	__be16 total_len;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 protocol;
	__be16 checksum;
	__be32 src;
	__be32 dst;
};

struct ipv6_header {
	__be32 word;
	__be16 payload_len;
	__u8 next;
	__u8 hop_limit;
	__be32 src[4];
	__be32 dst[4];
};

/* What all extension headers begin with; none is shorter (RFC 8200 4, RFC 4302 2). */
struct extension_header {
	__u8 next;
	__u8 len;	 /* in units of eight bytes, minus one; a fragment header's is reserved */
	__be16 frag_off; /* a fragment header's: offset, two bits that nobody reads, M flag */
	__be32 rest;
};

/* An offset or the M flag: without both, the whole packet is here (RFC 6946 4). */
#define FRAGMENT_OFFSET_OR_MORE 0xfff9

struct tcp_header {
	__be16 src;
	__be16 dst;
	__be32 seq;
	__be32 ack;
	__u8 offset; /* of the data, in the upper four bits */
	__u8 flags;
	__be16 window;
	__be16 checksum;
	__be16 urgent;
};

/* Where the headers of a segment are. Who reads the IP header takes it anew, by `is_ipv6`. */
struct segment {
	void *network;
	struct tcp_header *tcp;
	void *end;
	__u8 is_ipv6;
};

/* The bytes of `type` at `at`; NULL where the frame ends before. */
#define take(type, at, end) ((void *)(at) + sizeof(type) > (end) ? NULL : (type *)(at))

/* The protocols that are extension headers, as bits. */
#define EXTENSIONS                                                                \
	(1ULL << NEXT_HOP_BY_HOP | 1ULL << NEXT_ROUTING | 1ULL << NEXT_FRAGMENT | \
	 1ULL << NEXT_AUTHENTICATION | 1ULL << NEXT_DESTINATION)

static __always_inline int is_extension(__u8 next)
{
	return next < 64 && EXTENSIONS >> next & 1;
}

/*
 * Extension headers up to the transport header. Answers the protocol, or -(enum steer_counter);
 * moves *at. Unrolled: a frame without extensions pays one comparison. What kind a header is goes
 * into its length as a number: with a branch for each the verifier would follow as many ways behind
 * every header, and give up.
 */
static __always_inline int skip_extensions(void **at, void *end, __u8 next)
{
	if (likely(next == PROTOCOL_TCP))
		return next;
#pragma unroll
	for (int i = 0; i < EXTENSION_LIMIT; i++) {
		struct extension_header *header = take(struct extension_header, *at, end);
		/* Of the five only 51 has bits 0 and 4, and only 44 bit 2 without bit 4. */
		__u64 is_authentication = next >> 4 & next & 1;
		__u64 is_fragment = next >> 2 & ~(next >> 4) & 1;
		__u64 len;

		if (!is_extension(next))
			return next;
		if (!header)
			return -STEER_TRUNCATED;
		/* So that the compiler makes no branches of them. */
		barrier_var(is_authentication);
		barrier_var(is_fragment);
		if (header->frag_off & bpf_htons(FRAGMENT_OFFSET_OR_MORE) & -is_fragment)
			return -STEER_FRAGMENT;
		/* Linux 6.1 bounds sums and masks of two numbers, no product and no shift. */
		len = header->len & (is_fragment - 1);
		/* RFC 4302 2.2: in units of four bytes, minus two. */
		*at += ((len + 1) * 8 & (is_authentication - 1)) +
		       ((len + 2) * 4 & -is_authentication);
		next = header->next;
	}
	return is_extension(next) ? -STEER_TOO_DEEP : next;
}

/* Ethernet and up to two tags. Answers 0 and the start of the IP header, or -(counter). */
static __always_inline int parse_link(void *data, void *end, void **network)
{
	struct ethernet_header *ethernet = take(struct ethernet_header, data, end);
	void *at = data + sizeof(struct ethernet_header);
	__be16 type;

	if (!ethernet)
		return -STEER_TRUNCATED;
	type = ethernet->type;
#pragma unroll
	for (int i = 0; i < 2; i++) {
		struct vlan_tag *tag;

		if (likely(type != bpf_htons(TYPE_VLAN) && type != bpf_htons(TYPE_QINQ)))
			break;
		tag = take(struct vlan_tag, at, end);
		if (!tag)
			return -STEER_TRUNCATED;
		type = tag->type;
		at += sizeof(*tag);
	}
	*network = at;
	if (likely(type == bpf_htons(TYPE_IPV4) || type == bpf_htons(TYPE_IPV6)))
		return 0;
	if (type == bpf_htons(TYPE_VLAN) || type == bpf_htons(TYPE_QINQ))
		return -STEER_TOO_DEEP;
	return -STEER_NOT_IP;
}

/*
 * Finds the TCP header. Answers its control bits, or -(counter). What only a control frame need
 * satisfy is left to check_lengths.
 */
static __always_inline int parse_segment(void *data, void *end, struct segment *segment)
{
	void *network, *transport;
	int answer = parse_link(data, end, &network);

	if (answer < 0)
		return answer;
	if (network + 1 > end)
		return -STEER_TRUNCATED;
	/* The version field rules, not the EtherType, as in user space. */
	switch (*(__u8 *)network >> 4) {
	case 4: {
		struct ipv4_header *ip = take(struct ipv4_header, network, end);
		__u32 len;

		if (!ip)
			return -STEER_TRUNCATED;
		len = (ip->version_ihl & 0x0f) * 4;
		if (len < sizeof(*ip))
			return -STEER_MALFORMED;
		if (bpf_ntohs(ip->total_len) < len && ip->total_len)
			return -STEER_MALFORMED;
		/* RFC 791: more fragments, or an offset. */
		if (ip->fragment & bpf_htons(0x3fff))
			return -STEER_FRAGMENT;
		if (ip->protocol != PROTOCOL_TCP)
			return -STEER_NOT_TCP;
		transport = network + len;
		segment->is_ipv6 = 0;
		break;
	}
	case 6: {
		struct ipv6_header *ip = take(struct ipv6_header, network, end);
		__u32 packet_len;

		if (!ip)
			return -STEER_TRUNCATED;
		transport = network + sizeof(*ip);
		answer = skip_extensions(&transport, end, ip->next);
		if (answer < 0)
			return answer;
		if (answer != PROTOCOL_TCP)
			return -STEER_NOT_TCP;
		packet_len = ip->payload_len ? bpf_ntohs(ip->payload_len) + sizeof(*ip)
					     : (__u32)(end - network);
		if (packet_len < (__u32)(transport - network))
			return -STEER_MALFORMED;
		segment->is_ipv6 = 1;
		break;
	}
	default:
		return -STEER_NOT_IP;
	}
	segment->network = network;
	segment->end = end;
	segment->tcp = take(struct tcp_header, transport, end);
	if (!segment->tcp)
		return -STEER_TRUNCATED;
	return segment->tcp->flags;
}

/*
 * The plain case, nearly all traffic, in one bounds check: no tag, no option, no extension header,
 * not a fragment, no control flag. What it does not recognize is left to parse_segment.
 */
static __always_inline int is_plain(void *data, void *end)
{
	struct ethernet_header *ethernet = data;
	struct tcp_header *tcp;

	if (data + sizeof(*ethernet) + sizeof(struct ipv4_header) + sizeof(*tcp) > end)
		return 0;
	if (likely(ethernet->type == bpf_htons(TYPE_IPV4))) {
		struct ipv4_header *ip = (void *)(ethernet + 1);

		tcp = (void *)(ip + 1);
		return ip->version_ihl == 0x45 && ip->protocol == PROTOCOL_TCP &&
		       !(ip->fragment & bpf_htons(0x3fff)) && !(tcp->flags & TCP_CONTROL);
	}
	if (ethernet->type == bpf_htons(TYPE_IPV6)) {
		struct ipv6_header *ip = (void *)(ethernet + 1);

		tcp = (void *)(ip + 1);
		return (void *)(tcp + 1) <= end &&
		       (ip->word & bpf_htonl(0xf0000000)) == bpf_htonl(0x60000000) &&
		       ip->next == PROTOCOL_TCP && !(tcp->flags & TCP_CONTROL);
	}
	return 0;
}

/* Whether the TCP header with its options lies inside the packet and the frame: 0 or -(counter). */
static __always_inline int check_lengths(const struct segment *segment)
{
	void *tcp = segment->tcp, *network = segment->network;
	__u32 len = (segment->tcp->offset >> 4) * 4, packet_len;

	if (segment->is_ipv6) {
		struct ipv6_header *ip = take(struct ipv6_header, network, segment->end);

		if (!ip)
			return -STEER_TRUNCATED;
		packet_len = bpf_ntohs(ip->payload_len);
		if (packet_len)
			packet_len += sizeof(*ip);
	} else {
		struct ipv4_header *ip = take(struct ipv4_header, network, segment->end);

		if (!ip)
			return -STEER_TRUNCATED;
		packet_len = bpf_ntohs(ip->total_len);
	}
	/* 0: a segment yet to be cut (TSO), or a jumbogram; the frame's end counts. */
	if (!packet_len)
		packet_len = segment->end - network;
	if (len < sizeof(struct tcp_header) || (__u32)(tcp - network) + len > packet_len)
		return -STEER_MALFORMED;
	if (tcp + len > segment->end)
		return -STEER_TRUNCATED;
	return 0;
}

/*
 * Whether the checksum is the pseudo-header's alone (RFC 9293 3.1), as its sender leaves it to an
 * interface that is to finish it, and as GRO leaves what it merged: CHECKSUM_PARTIAL. Only the
 * host's own buffer says so; an AF_XDP socket gets the bytes, and the host drops them when they
 * come back. A finished checksum is the same by chance once in 65,536.
 */
static __always_inline int is_checksum_partial(const struct segment *segment)
{
	void *network = segment->network;
	__u16 len = -(__u16)((void *)segment->tcp - network);
	__u64 sum = bpf_htons(PROTOCOL_TCP);

	if (segment->is_ipv6) {
		struct ipv6_header *ip = take(struct ipv6_header, network, segment->end);

		if (!ip)
			return 0;
#pragma unroll
		for (int i = 0; i < 4; i++)
			sum += (__u64)ip->src[i] + ip->dst[i];
		len += bpf_ntohs(ip->payload_len) + sizeof(*ip);
	} else {
		struct ipv4_header *ip = take(struct ipv4_header, network, segment->end);

		if (!ip)
			return 0;
		sum += (__u64)ip->src + ip->dst;
		len += bpf_ntohs(ip->total_len);
	}
	sum += bpf_htons(len);
	/* Ten words of 32 bits: 36 bits, then 33, 18, 17, 16. */
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum == segment->tcp->checksum;
}

#endif
