/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The gate of a queue: a frame may be redirected only while the worker lives and has credit left,
 * since what the AF_XDP socket cannot take is lost without a word. One CPU at a time serves a
 * queue, so `produced` needs no atomic add.
 */
#ifndef RSTSCOPE_GATE_H
#define RSTSCOPE_GATE_H

#include "parse.h"

/* How late a worker may be before its queue is bypassed. */
const volatile __u64 heartbeat_max_ns = 10000000;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, QUEUES_MAX);
	__type(key, __u32); /* queue */
	__type(value, struct gate);
} gates SEC(".maps");

/* 0: open. Else the counter (enum steer_counter) that says why it is closed. */
static __always_inline __u32 closed_because(struct gate *gate, __u64 now)
{
	__u64 limit = *(volatile __u64 *)&gate->limit;
	__u64 consumed = *(volatile __u64 *)&gate->consumed;
	__u64 heartbeat = *(volatile __u64 *)&gate->heartbeat_ns;
	__u64 under_way = gate->produced - consumed;
	__u32 why = 0;

	if (!limit)
		why = STEER_BYPASS_CLOSED;
	else if (under_way >= limit)
		why = STEER_BYPASS_CREDIT;
	else if ((__s64)(now - heartbeat) > (__s64)heartbeat_max_ns)
		why = STEER_BYPASS_HEARTBEAT;

	if (*(volatile __u64 *)&gate->draining) {
		if (!why && under_way)
			return STEER_BYPASS_DRAINING;
		if (!why)
			gate->draining = 0;
	} else if (why) {
		/* From here on nothing may overtake: bypass until all that is under way is back. */
		gate->draining = 1;
	}
	return why;
}

#endif
