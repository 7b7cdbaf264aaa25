// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * XDP, run by the worker itself (BPF_PROG_RUN with BPF_F_TEST_XDP_LIVE_FRAMES): each run becomes
 * the next frame of the worker's burst, and XDP_PASS gives it to the interface's ingress. Attached
 * only to the sending end of the hand-back veth, where nothing arrives: a program that is attached
 * somewhere stands in the kernel's XDP dispatcher already, and a call need not wait for RCU.
 */
#include "host.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* The interface that frames are given to. A frame that came in by another one is no run of ours. */
const volatile __u32 target_ifindex = 0;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* the loader sets the number of queues */
	__type(key, __u32);	/* queue */
	__type(value, struct burst);
} bursts SEC(".maps");

SEC("xdp")
int give_back(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 *order = data, queue, len;
	struct burst_slot *slot;
	struct burst *burst;

	if (ctx->ingress_ifindex != target_ifindex)
		return XDP_PASS;
	/* What the worker passes as the frame is only the number of its queue. */
	if ((void *)(order + 1) > end)
		return XDP_DROP;
	queue = *order;
	burst = bpf_map_lookup_elem(&bursts, &queue);
	if (!burst)
		return XDP_DROP; /* the loader's probe */
	slot = &burst->slots[burst->taken & (BURST_FRAMES - 1)];
	burst->taken++;
	len = slot->len;
	if (len < 14 || len > BURST_BYTES)
		return XDP_DROP;
	if (bpf_xdp_adjust_tail(ctx, (int)len - (int)(end - data)) ||
	    bpf_xdp_store_bytes(ctx, 0, slot->bytes, len))
		return XDP_DROP;
	burst->given++;
	count_host(HOST_HANDED_BACK);
	return XDP_PASS;
}
