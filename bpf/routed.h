/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Connections that this host routes, while it chooses among next hops by ports.
 */
#ifndef RSTSCOPE_ROUTED_H
#define RSTSCOPE_ROUTED_H

#include "socket.h"

/*
 * The host chooses so: net.ipv4.fib_multipath_hash_policy, or that of IPv6, is 1. In a map of its
 * own, so that it can be written while the program runs.
 */
volatile __u32 routes_by_hash SEC(".data.routes") = 0;

/*
 * Whether a frame may be routed on by its hash. With that policy the kernel takes the hash that the
 * NIC left beside a frame (fib_multipath_hash, rt6_multipath_hash), and computes another where
 * there is none; one that was handed back has none, and would leave its connection's path. Not only
 * what bpf_fib_lookup would forward: an address may be replaced behind us (DNAT). `kind` is that of
 * its socket, where one was asked for already. Not inlined, for its stack.
 */
static __noinline int is_routed_by_hash(struct xdp_md *ctx, const struct segment *segment,
					__u32 kind, __u64 now)
{
	struct socket_view view = {};

	if (!routes_by_hash)
		return 0;
	if (kind == SOCKET_UNASKED) {
		view_socket(ctx, segment, &view, now);
		kind = view.kind;
	}
	return kind == SOCKET_ABSENT;
}

#endif
