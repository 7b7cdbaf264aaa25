/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Who may use how much of the ring buffer `events`: a flood of SYNs, of resets that nobody waits
 * for, or of guesses must not push out the one reset that ends a connection. src/worker/waiting.rs
 * has the same order for the queue of sightings.
 */
#ifndef RSTSCOPE_ROOM_H
#define RSTSCOPE_ROOM_H

#include "copy.h"
#include "kernel.h"

/* Shares of the buffer, in eighths. SYN and FIN: a lost one costs a baseline, not a verdict. */
#define ROOM_FOR_OTHERS 4
/* Resets that meet no local connection: they are folded when there are many. */
#define ROOM_FOR_STRAYS 6
/* Resets outside the window of the connection that they meet, which the kernel ignores. */
#define ROOM_FOR_GUESSES 7
/* What the kernel acts on, and its own words about it. */
#define ROOM_FOR_ALL 8

/* Whether the buffer is not yet full to that many eighths. */
static __always_inline int has_room(__u32 eighths)
{
	return eighths == ROOM_FOR_ALL ||
	       bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) * 8 <
		       bpf_ringbuf_query(&events, BPF_RB_RING_SIZE) * eighths;
}

/* The share of a frame with these flags that comes in, and of what it found at the local end. */
static __always_inline __u32 room_for(__u8 flags, const struct segment *segment,
				      const struct socket_view *view)
{
	__u32 offset;

	if (!(flags & TCP_RST))
		return ROOM_FOR_OTHERS;
	if (view->kind <= SOCKET_LISTENER)
		return ROOM_FOR_STRAYS;
	/* In SYN-SENT the acknowledgment counts; after a FIN also the number before RCV.NXT. */
	offset = bpf_ntohl(segment->tcp->seq) - view->rcv_nxt;
	if (view->kind == SOCKET_FULL && view->state != TCP_SYN_SENT && offset > view->rcv_wnd &&
	    offset != (__u32)-1)
		return ROOM_FOR_GUESSES;
	return ROOM_FOR_ALL;
}

#endif
