/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * TCP Fast Open: the one SYN-ACK that data may follow at once. Asks the local socket, and so knows
 * nothing of connections that this host routes.
 */
#ifndef RSTSCOPE_FAST_OPEN_H
#define RSTSCOPE_FAST_OPEN_H

#include "socket.h"

/*
 * Whether a SYN-ACK took the data of our SYN (TCP Fast Open, RFC 7413): then its sender need not
 * wait with its own. Data that came here before a SYN-ACK on a detour would be dropped (RFC
 * 9293 3.10.7.3). Not inlined, for its stack.
 */
static __noinline int is_fast_open(struct xdp_md *ctx, const struct segment *segment, __u64 now)
{
	struct socket_view view = {};
	struct tcp_header *tcp;

	view_socket(ctx, segment, &view, now);
	tcp = take(struct tcp_header, segment->tcp, segment->end);
	/* In SYN-SENT, SND.UNA is the number of our SYN. */
	return tcp && view.kind == SOCKET_FULL && view.state == TCP_SYN_SENT &&
	       bpf_ntohl(tcp->ack) != view.snd_una + 1;
}

#endif
