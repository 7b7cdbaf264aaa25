/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What the tc programs share: the headers of a packet made readable, and its head copied. The
 * packet's bytes are never changed.
 */
#ifndef RSTSCOPE_SKB_H
#define RSTSCOPE_SKB_H

#include "copy.h"
#include "host.h"

/* linux/pkt_cls.h; the same number as TCX_NEXT. */
#define TC_ACT_UNSPEC (-1)

_Static_assert(HOST_UNREAD_TOO_DEEP - HOST_UNREAD_FRAGMENT == STEER_TOO_DEEP - STEER_FRAGMENT,
	       "one for each reason");

/* Counts a packet of which parse_whole answered `flags`, where that is why it was not read. */
static __always_inline void count_unread(int flags)
{
	if (unlikely(flags <= -STEER_FRAGMENT && flags >= -STEER_TOO_DEEP))
		count_host(HOST_UNREAD_FRAGMENT - STEER_FRAGMENT - flags);
}

/* As parse_segment, and of a control frame the header is whole. */
static __always_inline int parse_whole(struct __sk_buff *skb, struct segment *segment)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	int bad, flags = parse_segment(data, end, segment);

	if (likely(flags < 0 || !(flags & TCP_CONTROL)))
		return flags;
	bad = check_lengths(segment);
	return bad ? bad : flags;
}

/*
 * The same. Headers that do not lie in the first piece (received into pages) are moved there
 * first, only when they are missed.
 */
static __always_inline int parse_skb(struct __sk_buff *skb, struct segment *segment)
{
	int flags = parse_whole(skb, segment);

	if (likely(flags != -STEER_TRUNCATED || skb->len <= skb->data_end - skb->data))
		return flags;
	if (bpf_skb_pull_data(skb, skb->len < COPY_BYTES ? skb->len : COPY_BYTES))
		return flags;
	return parse_whole(skb, segment);
}

/*
 * Copies what the packet has from `from` on, up to so many bytes; answers how many. Linux 6.1
 * learns nothing of a length from `len != 0`, and nothing of a difference from a comparison of what
 * was subtracted from: so the place of the last byte is compared, and the compiler (clang 19) is
 * kept from turning that into either.
 */
static __always_inline __u32 copy_rest(struct __sk_buff *skb, __u32 from, void *to, __u32 room)
{
	__u32 len = skb->len, last = (len < from + room ? len : from + room) - from - 1;

	barrier_var(last);
	if (last < room && !bpf_skb_load_bytes(skb, from, to, last + 1))
		return last + 1;
	return 0;
}

/*
 * The frame as the wire has it: a tag that the kernel keeps beside the packet (hardware
 * acceleration) is put back into the copy. Without room for it, `lost` is counted.
 */
static __noinline int copy_skb(struct __sk_buff *skb, const struct socket_view *view, __u64 now,
			       __u32 origin, __u32 lost)
{
	struct frame_event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	__u32 tag_len = skb->vlan_present ? 4 : 0;
	int leaves = origin == FRAME_EGRESS || origin == FRAME_EGRESS_FORWARDED;

	if (!event) {
		count_host(lost);
		return TC_ACT_UNSPEC;
	}
	describe(event, origin, now, skb->ifindex, skb->len + tag_len, view);
	/*
	 * A socket's own segment belongs to it, and an answer of TCP to the socket that the kernel
	 * answers with; a packet filter's reset belongs to none (nf_send_reset).
	 */
	if (origin == FRAME_EGRESS)
		event->cookie = bpf_get_socket_cookie(skb);
	event->copied = 0;
	if (!tag_len) {
		event->copied = copy_rest(skb, 0, event->data, COPY_BYTES);
	} else if (!bpf_skb_load_bytes(skb, 0, event->data, 12)) {
		__u32 rest = copy_rest(skb, 12, event->data + 16, COPY_BYTES - 16);

		*(__be16 *)(event->data + 12) = skb->vlan_proto;
		*(__be16 *)(event->data + 14) = bpf_htons(skb->vlan_tci);
		event->copied = rest ? rest + 16 : 0;
	}
	submit(event);
	count_host(leaves ? HOST_EGRESS_COPIED : HOST_MIRRORED);
	return TC_ACT_UNSPEC;
}

#endif
