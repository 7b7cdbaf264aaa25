/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Copies a frame's head into the ring buffer `events`, which all programs share. Never waits: a
 * full buffer is an answer that the caller counts.
 */
#ifndef RSTSCOPE_COPY_H
#define RSTSCOPE_COPY_H

#include "events.h"
#include "parse.h"

/* User space gets the layout of the records from BTF. */
const struct frame_event *btf_frame_event __attribute__((unused));

/* Up to COPY_BYTES of the frame; eight at a time, then the rest. Answers how many. */
static __always_inline __u32 copy_head(__u8 *to, void *data, void *end)
{
	__u32 copied = 0;

#pragma unroll
	for (int i = 0; i < COPY_BYTES / 8; i++) {
		if (data + 8 * i + 8 > end)
			break;
		__builtin_memcpy(to + 8 * i, data + 8 * i, 8);
		copied = 8 * i + 8;
	}
	if (copied < COPY_BYTES) {
		/* The verifier forgets what `copied` says of `data`; each byte is checked anew. */
		__u8 *from = data + (copied & 0xff);

#pragma unroll
		for (int i = 0; i < 7; i++) {
			if ((void *)(from + i + 1) > end || copied >= COPY_BYTES)
				break;
			to[copied & 0xff] = from[i];
			copied++;
		}
	}
	return copied;
}

/* What the record says beside the bytes. */
static __always_inline void describe(struct frame_event *event, __u8 origin, __u64 now,
				     __u32 ifindex, __u32 frame_len, const struct socket_view *view)
{
	event->kind = EVENT_FRAME;
	event->ifindex = ifindex;
	event->time_ns = now;
	event->origin = origin;
	__builtin_memset(event->pad, 0, sizeof(event->pad));
	event->frame_len = frame_len;
	event->pad2 = 0;
	event->cookie = 0;
	if (view)
		__builtin_memcpy(&event->socket, view, sizeof(*view));
	else
		__builtin_memset(&event->socket, 0, sizeof(event->socket));
}

#endif
