// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * tc egress: copies the head of every SYN, SYN-ACK, FIN and RST that leaves, and says whether it
 * had come in elsewhere (this host routes it). Never changes or drops a packet.
 */
#include "room.h"
#include "skb.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("tc")
int report_egress(struct __sk_buff *skb)
{
	struct segment segment;
	int flags = parse_skb(skb, &segment);
	__u32 lost;

	if (likely(flags < 0 || !(flags & TCP_CONTROL))) {
		count_unread(flags);
		return TC_ACT_UNSPEC;
	}
	lost = flags & TCP_RST ? HOST_EGRESS_RESET_LOST : HOST_EGRESS_LOST;
	if (!(flags & TCP_RST) && !has_room(ROOM_FOR_OTHERS)) {
		count_host(lost);
		return TC_ACT_UNSPEC;
	}
	return copy_skb(skb, NULL, bpf_ktime_get_ns(),
			skb->ingress_ifindex ? FRAME_EGRESS_FORWARDED : FRAME_EGRESS, lost);
}
