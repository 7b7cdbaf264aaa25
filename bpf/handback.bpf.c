// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * tc classifier on the ingress of the hand-back veth's peer: matches every frame, so that the
 * mirred action behind it gives the frame to the interface, and counts it. Not direct-action.
 */
#include "host.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* cls_bpf: -1 takes the filter's own class and runs its actions; 0 would be no match. */
#define MATCH (-1)

SEC("tc")
int count_handback(struct __sk_buff *skb)
{
	count_host(HOST_HANDED_BACK);
	return MATCH;
}
