// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * tc ingress, mirror mode: copies the heads that `steer` would redirect, with the same view of the
 * local socket, and consumes nothing. For hosts whose XDP slot is taken. It sees what the NIC and
 * GRO hand up: several segments may stand in one packet.
 */
#include "room.h"
#include "skb.h"
#include "socket.h"
#include "watch.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/*
 * Answers what parse_whole does where that is negative: -STEER_TRUNCATED also where the headers do
 * not lie in the first piece of the packet. Not inlined, so that each way to it is verified by
 * itself.
 */
static __noinline int report(struct __sk_buff *skb)
{
	struct segment segment;
	struct socket_view view = {};
	__u64 now;
	__u32 lost;
	int flags = parse_whole(skb, &segment);

	if (flags < 0)
		return flags;
	if (likely(!(flags & TCP_CONTROL))) {
		struct flow_key key;
		int origin;

		if (likely(!watching_until_ns))
			return TC_ACT_UNSPEC;
		key_of(&segment, &key);
		origin = watched_as(&key);
		if (!origin)
			return TC_ACT_UNSPEC;
		return copy_skb(skb, NULL, bpf_ktime_get_ns(), origin, HOST_MIRROR_LOST);
	}
	now = bpf_ktime_get_ns();
	if (flags & TCP_RST)
		watch_flow(&segment, now);
	if (flags & (TCP_RST | TCP_FIN))
		view_socket(skb, &segment, &view, now);
	lost = flags & TCP_RST ? HOST_MIRROR_RESET_LOST : HOST_MIRROR_LOST;
	if (!has_room(room_for(flags, &segment, &view))) {
		count_host(lost);
		return TC_ACT_UNSPEC;
	}
	return copy_skb(skb, &view, now, FRAME_MIRRORED, lost);
}

SEC("tc")
int report_ingress(struct __sk_buff *skb)
{
	int answer = report(skb);

	if (answer == -STEER_TRUNCATED && skb->len > skb->data_end - skb->data &&
	    !bpf_skb_pull_data(skb, skb->len < COPY_BYTES ? skb->len : COPY_BYTES))
		answer = report(skb);
	count_unread(answer);
	return TC_ACT_UNSPEC;
}
